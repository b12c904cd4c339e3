//! `levada subscriptions`: what an operator asks of Pub/Sub subscriptions.

mod redrive;
mod replay;
mod resend;
mod weigh;

use std::path::Path;

use levada_core::ResourceName;
use serde_json::{Value, json};

use super::text;
use super::work::subscription_name;
use crate::args::{
    Global, MessagesArgs, SubscriptionName, SubscriptionsArgs, SubscriptionsCommand, UnblockArgs,
};
use crate::client::{Connection, encode};
use crate::output::{Failure, Output};

/// Subscriptions of one request; a server may have thousands.
const PAGE: u32 = 500;

pub async fn subscriptions(output: &Output, global: &Global, args: SubscriptionsArgs) -> Result<(), Failure> {
    let folder = &global.project;
    match args.command {
        SubscriptionsCommand::List => list(output, &Connection::open(global)?).await,
        SubscriptionsCommand::Show { subscription } => {
            let path = address(&subscription, folder)?;
            let shown = Connection::open(global)?.get(&path).await?;
            show(output, &shown);
            Ok(())
        }
        SubscriptionsCommand::Blocked { subscription, limit } => {
            let path = format!("{}/blocked-keys?limit={limit}", address(&subscription, folder)?);
            let answer = Connection::open(global)?.get(&path).await?;
            blocked(output, &answer);
            Ok(())
        }
        SubscriptionsCommand::Messages(args) => {
            let path = messages_path(&address(&args.subscription, folder)?, &args);
            messages(output, &Connection::open(global)?.get(&path).await?);
            Ok(())
        }
        SubscriptionsCommand::Skip(args) => unblock(output, global, &args, "skip").await,
        SubscriptionsCommand::Park(args) => unblock(output, global, &args, "park").await,
        SubscriptionsCommand::Weigh { subscription, weights } => {
            let path = address(&subscription, folder)?;
            weigh::weigh(output, &Connection::open(global)?, &path, &weights).await
        }
        SubscriptionsCommand::Rate { subscription, rate } => {
            let path = address(&subscription, folder)?;
            replay::rate(output, &Connection::open(global)?, &path, rate.0).await
        }
        SubscriptionsCommand::Replay(args) => {
            let path = address(&args.subscription, folder)?;
            replay::replay(output, &Connection::open(global)?, &path, &args).await
        }
        SubscriptionsCommand::Redrive(args) => {
            let path = format!("{}/redrive", address(&args.subscription, folder)?);
            redrive::redrive(output, &Connection::open(global)?, &path, &args).await
        }
        SubscriptionsCommand::Resend(args) => {
            let path = address(&args.subscription, folder)?;
            resend::resend(output, &Connection::open(global)?, &path, &args).await
        }
    }
}

/// The address of a subscription in the API.
fn address(subscription: &SubscriptionName, folder: &Path) -> Result<String, Failure> {
    let SubscriptionName { name, pubsub_project } = subscription;
    let name: ResourceName = match name.parse() {
        Ok(name) => name,
        Err(_) => subscription_name(name, pubsub_project.as_deref(), folder)?,
    };
    Ok(format!("/v1/subscriptions/{}/{}", encode(name.project.as_str()), encode(name.id.as_str())))
}

/// Every subscription that the key sees.
async fn every(server: &Connection) -> Result<Vec<Value>, Failure> {
    let mut all: Vec<Value> = Vec::new();
    let mut after = String::new();
    loop {
        let answer = server.get(&format!("/v1/subscriptions?limit={PAGE}{after}")).await?;
        all.extend(answer["subscriptions"].as_array().cloned().unwrap_or_default());
        match answer["after"].as_str() {
            Some(name) => after = format!("&after={}", encode(name)),
            None => return Ok(all),
        }
    }
}

async fn list(output: &Output, server: &Connection) -> Result<(), Failure> {
    let all = every(server).await?;
    if output.json {
        output.value(&Value::Array(all));
        return Ok(());
    }
    if all.is_empty() {
        output.say("there are no subscriptions");
        return Ok(());
    }
    let header = [
        "NAME",
        "STATE",
        "TOPIC",
        "TENANT",
        "BACKLOG",
        "OLDEST",
        "LEASED",
        "DELIVERED",
        "ACKED",
        "DEAD",
        "BLOCKED",
    ];
    let rows = all.iter().map(|subscription| {
        let stats = &subscription["stats"];
        let mut row = vec![text(subscription, "name"), text(subscription, "state")];
        row.extend([topic(subscription), text(subscription, "tenant_id")]);
        row.extend([backlog(stats), age(&stats["oldest_unacked_age_s"])]);
        let counts = ["leased", "delivered", "acknowledged", "dead_lettered", "blocked_keys"];
        row.extend(counts.iter().map(|c| text(stats, c)));
        row
    });
    output.table(&header, rows.collect(), &[4, 5, 6, 7, 8, 9, 10]);
    Ok(())
}

fn topic(subscription: &Value) -> String {
    if subscription["detached"] == true {
        return "(detached)".to_owned();
    }
    subscription["topic"].as_str().unwrap_or("(deleted)").to_owned()
}

/// A figure that is not exact is marked.
fn backlog(stats: &Value) -> String {
    let mark = if stats["backlog_is_exact"] == false { "~" } else { "" };
    format!("{mark}{}", text(stats, "backlog_messages"))
}

/// Seconds as a person reads them, in two units at most; a dash for none.
fn age(seconds: &Value) -> String {
    let Some(seconds) = seconds.as_f64() else { return "-".to_owned() };
    let (whole, unit, rest, small) = match seconds as u64 {
        s if s < 60 => (s, "s", 0, ""),
        s if s < 3_600 => (s / 60, "min", s % 60, "s"),
        s if s < 86_400 => (s / 3_600, "h", s / 60 % 60, "min"),
        s => (s / 86_400, "d", s / 3_600 % 24, "h"),
    };
    if rest == 0 { format!("{whole} {unit}") } else { format!("{whole} {unit} {rest} {small}") }
}

fn show(output: &Output, shown: &Value) {
    if output.json {
        output.value(shown);
        return;
    }
    let stats = &shown["stats"];
    let mut facts: Vec<(&str, String)> = vec![
        ("name", text(shown, "name")),
        ("state", state(shown)),
        ("topic", topic(shown)),
        ("tenant", text(shown, "tenant_id")),
        ("delivery", delivery(shown)),
        ("filter", text(shown, "filter")),
        ("ack deadline", age(&shown["ack_deadline_s"])),
        ("retention", age(&shown["retention_s"])),
        ("expires after", shown.get("expires_after_s").map_or_else(|| "never".to_owned(), age)),
        ("dead letter", dead_letter(&shown["dead_letter"])),
        ("weights", weigh::text(&shown["weights"])),
        ("rate", replay::bound(shown)),
        ("replay of", text(&shown["replay"], "source")),
        ("backlog", backlog(stats)),
        ("oldest unacked", age(&stats["oldest_unacked_age_s"])),
    ];
    for (label, field) in [
        ("leased", "leased"),
        ("delivered", "delivered"),
        ("redelivered", "redelivered"),
        ("acknowledged", "acknowledged"),
        ("expired", "expired"),
        ("dead-lettered", "dead_lettered"),
        ("blocked keys", "blocked_keys"),
    ] {
        facts.push((label, text(stats, field)));
    }
    for (label, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        output.line(&format!("{label:<16}{value}"));
    }
    let tenants = stats["tenants"].as_array().map(Vec::as_slice).unwrap_or_default();
    if tenants.is_empty() {
        return;
    }
    output.line("");
    let row = |tenant: &Value| {
        let share = tenant["share"].as_f64().unwrap_or(0.0) * 100.0;
        let mut row: Vec<String> = ["tenant_id", "weight", "backlog_messages", "delivered"]
            .iter()
            .map(|c| text(tenant, c))
            .collect();
        row.push(format!("{share:.1} %"));
        row
    };
    let header = ["TENANT", "WEIGHT", "BACKLOG", "DELIVERED", "SHARE"];
    output.table(&header, tenants.iter().map(row).collect(), &[1, 2, 3, 4]);
}

fn state(shown: &Value) -> String {
    match shown["note"].as_str() {
        Some(note) => format!("{}: {note}", text(shown, "state")),
        None => text(shown, "state"),
    }
}

fn delivery(shown: &Value) -> String {
    let mut words = vec![match shown["push_endpoint"].as_str() {
        Some(endpoint) => format!("push to {endpoint}"),
        None => text(shown, "delivery"),
    }];
    for (field, word) in [("ordered", "ordered"), ("exactly_once", "exactly once")] {
        if shown[field] == true {
            words.push(word.to_owned());
        }
    }
    words.join(", ")
}

fn dead_letter(policy: &Value) -> String {
    match policy["topic"].as_str() {
        Some(topic) => format!("{topic} after {} deliveries", policy["max_delivery_attempts"]),
        None => String::new(),
    }
}

fn blocked(output: &Output, answer: &Value) {
    let keys = answer["blocked_keys"].as_array().cloned().unwrap_or_default();
    if output.json {
        output.value(&Value::Array(keys));
        return;
    }
    if keys.is_empty() {
        output.say("no ordering key is blocked");
        return;
    }
    let row = |key: &Value| {
        let mut row: Vec<String> = ["tenant_id", "key", "message_id", "delivery_attempt", "waiting"]
            .iter()
            .map(|c| text(key, c))
            .collect();
        row.push(age(&key["blocked_s"]));
        row
    };
    let header = ["TENANT", "KEY", "MESSAGE", "ATTEMPT", "WAITING", "BLOCKED FOR"];
    output.table(&header, keys.iter().map(row).collect(), &[2, 3, 4, 5]);
}

fn messages_path(subscription: &str, args: &MessagesArgs) -> String {
    let mut path = format!("{subscription}/messages?limit={}", args.limit);
    if !args.filter.is_empty() {
        path.push_str(&format!("&filter={}", encode(&args.filter)));
    }
    if let Some(before) = args.before {
        path.push_str(&format!("&before={before}"));
    }
    path
}

/// As JSON one message a line, so that programs can read it as it comes.
fn messages(output: &Output, answer: &Value) {
    let messages = answer["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    if output.json {
        messages.iter().for_each(|message| output.value(message));
        return;
    }
    if messages.is_empty() {
        output.say("no message matches");
        return;
    }
    let row = |message: &Value| {
        let mut row: Vec<String> = ["message_id", "published_at", "tenant_id", "ordering_key"]
            .iter()
            .map(|c| text(message, c))
            .collect();
        row.extend([text(message, "attributes"), body(message)]);
        row
    };
    output.table(
        &["MESSAGE", "PUBLISHED", "TENANT", "KEY", "ATTRIBUTES", "BODY"],
        messages.iter().map(row).collect(),
        &[0],
    );
    if let Some(before) = answer["before"].as_u64() {
        output.say(&format!("older ones: --before {before}"));
    }
}

/// The beginning of a body; `--json` has all of it.
fn body(message: &Value) -> String {
    const SHOWN_CHARS: usize = 120;
    let field = if message.get("payload").is_some() { "payload" } else { "payload_base64" };
    let whole = message.get(field).map(Value::to_string).unwrap_or_default();
    let mut shown: String = whole.chars().take(SHOWN_CHARS).collect();
    if shown.len() < whole.len() {
        shown.push('…');
    }
    shown
}

/// Frees a key of the subscription at `path`.
async fn free(server: &Connection, path: &str, how: &str, tenant: &str, key: &str) -> Result<Value, Failure> {
    server.post(&format!("{path}/blocked-keys:{how}"), &json!({ "tenant": tenant, "key": key })).await
}

async fn unblock(output: &Output, global: &Global, args: &UnblockArgs, how: &str) -> Result<(), Failure> {
    let path = address(&args.subscription, &global.project)?;
    let done = free(&Connection::open(global)?, &path, how, &args.tenant, &args.ordering_key).await?;
    if output.json {
        output.value(&done);
    } else {
        output.say(&format!("the message that blocked `{}` is {}", args.ordering_key, text(&done, "done")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_subscription_is_named_in_three_ways() {
        let named = |name: &str, project: Option<&str>| {
            let pubsub_project = project.map(str::to_owned);
            address(&SubscriptionName { name: name.to_owned(), pubsub_project }, Path::new("/nowhere"))
        };
        let expected = "/v1/subscriptions/shop/billing%2B1";
        for (name, project) in [
            ("shop/billing+1", None),
            ("projects/shop/subscriptions/billing+1", None),
            ("billing+1", Some("shop")),
        ] {
            assert_eq!(named(name, project).expect("a name"), expected, "{name}");
        }
        assert!(named("billing", None).is_err(), "no project is known");
        assert!(named("projects/shop/topics/billing", None).is_err());
    }

    #[test]
    fn a_look_at_messages_is_asked_for_as_it_was_typed() {
        let subscription = SubscriptionName { name: "p/sub".to_owned(), pubsub_project: None };
        let args = |filter: &str, before| MessagesArgs {
            subscription: subscription.clone(),
            filter: filter.to_owned(),
            before,
            limit: 20,
        };
        assert_eq!(messages_path("/s", &args("", None)), "/s/messages?limit=20");
        let narrowed = messages_path("/s", &args("a = \"b\"", Some(7)));
        assert_eq!(narrowed, "/s/messages?limit=20&filter=a%20%3D%20%22b%22&before=7");
        assert_eq!(body(&json!({"payload": {"n": 1}})), "{\"n\":1}");
        assert_eq!(body(&json!({"payload_base64": "x".repeat(200)})).chars().count(), 121);
    }

    #[test]
    fn the_ordering_key_is_not_the_api_key() {
        use clap::Parser;
        let line = "levada --key secret subscriptions skip p/sub --ordering-key k --tenant a";
        let cli = crate::Cli::try_parse_from(line.split(' ')).expect("parses");
        assert_eq!(cli.global.key.as_deref(), Some("secret"));
        let crate::Command::Subscriptions(SubscriptionsArgs { command: SubscriptionsCommand::Skip(args) }) =
            cli.command
        else {
            panic!("another command");
        };
        assert_eq!((&*args.ordering_key, &*args.tenant), ("k", "a"));
    }

    #[test]
    fn ages_are_read_at_a_glance() {
        let seconds = [0.4, 59.9, 61.0, 3_700.0, 90_000.0, 604_800.0];
        let texts = seconds.map(|s| age(&json!(s)));
        assert_eq!(texts, ["0 s", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h", "7 d"]);
        assert_eq!(age(&Value::Null), "-");
    }

    /// A server of three subscriptions, two a page, that keeps what it is asked.
    async fn server() -> (Connection, Arc<Mutex<Vec<String>>>) {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = asked.clone();
        let answer = move |request: axum::extract::Request| async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 16).await.expect("a body");
            kept.lock().expect("a lock").push(format!(
                "{} {} {}",
                parts.method,
                parts.uri,
                String::from_utf8_lossy(&body)
            ));
            let of = |id: u32| json!({"name": format!("p/sub-{id}"), "stats": {"backlog_messages": id}});
            let value = match (parts.uri.path(), parts.uri.query().unwrap_or("")) {
                ("/v1/subscriptions", "limit=500") => {
                    json!({"subscriptions": [of(1), of(2)], "after": "p/sub-2"})
                }
                ("/v1/subscriptions", _) => json!({"subscriptions": [of(3)]}),
                (path, _) if path.contains("blocked-keys:") => json!({"key": "k", "done": "skipped"}),
                _ => of(9),
            };
            axum::Json(value)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        (Connection::to(url, None).expect("a client"), asked)
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_end_and_a_key_is_sent_as_it_is() {
        let (connection, asked) = server().await;
        let all = every(&connection).await.expect("a list");
        assert_eq!(
            all.iter().map(|s| text(s, "name")).collect::<Vec<_>>(),
            ["p/sub-1", "p/sub-2", "p/sub-3"]
        );
        let name = SubscriptionName { name: "p/sub-1".to_owned(), pubsub_project: None };
        let path = address(&name, Path::new(".")).expect("an address");
        free(&connection, &path, "skip", "acme", "a \"key\"/ü").await.expect("freed");
        let asked = asked.lock().expect("a lock");
        assert_eq!(asked[1], "GET /v1/subscriptions?limit=500&after=p%2Fsub-2 ");
        let (to, body) = asked[2].rsplit_once("skip ").expect("a body");
        assert_eq!(to, "POST /v1/subscriptions/p/sub-1/blocked-keys:");
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body, json!({"tenant": "acme", "key": "a \"key\"/ü"}));
    }
}
