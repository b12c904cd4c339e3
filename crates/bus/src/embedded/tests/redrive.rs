//! Dead letters go back to where they came from, once, and to nowhere else.

use super::admin::{admin, principal};
use super::*;
use crate::admin::{Edit, Redrive, Redriven};
use crate::filter::Filter;
use crate::port::{DeadLetterPolicy, Unblock};

const SOURCE: [(&str, &str); 2] = [
    ("CloudPubSubDeadLetterSourceSubscription", "ordered"),
    ("CloudPubSubDeadLetterSourceSubscriptionProject", "acme"),
];

fn all() -> Redrive {
    Redrive { filter: Filter::parse("").expect("everything"), limit: 1_000, rate_per_s: None }
}

/// Three messages of one key that were parked, and the subscription of their dead-letter topic.
async fn parked() -> (Port, Arc<dyn SubscriptionPort>, Arc<dyn SubscriptionPort>) {
    let port = fresh();
    let orders = port.topic("acme/orders").await;
    let dead = port.topic("acme/dead").await;
    let policy = DeadLetterPolicy { topic: dead.clone(), max_delivery_attempts: 5 };
    let set = |s: &mut SubscriptionSpec| {
        s.ordered = true;
        s.dead_letter = Some(policy);
    };
    let ordered = port.subscribe("acme/ordered", &orders, set).await;
    let letters = port.subscribe("acme/letters", &dead, |_| {}).await;
    let keyed = |n: u32| Message {
        ordering_key: Some("k".into()),
        attributes: [("n", n.to_string().as_str())].into_iter().collect(),
        ..message("acme", &n.to_string())
    };
    port.try_publish(&orders, (1..=3).map(keyed).collect()).await.expect("published");
    assert_eq!(ordered.pull(singly()).await.expect("pulls").len(), 1);
    ordered.unblock(&tenant("acme"), "k", Unblock::Park).await.expect("parked");
    (port, ordered, letters)
}

async fn redrive(port: &Port, tenants: &[&str], request: &Redrive) -> Redriven {
    let done = admin(port).redrive(&principal(tenants), &name("acme/letters"), request).await;
    done.expect("redriven")
}

#[tokio::test]
async fn what_was_parked_is_delivered_again_in_order_and_as_it_was() {
    let (port, ordered, letters) = parked().await;
    let done = redrive(&port, &["acme"], &all()).await;
    assert_eq!(done, Redriven { published: 3, ..Redriven::default() });
    let stats = letters.stats();
    assert_eq!((stats.backlog_messages, stats.leased), (0, 0), "they left the dead letter");
    for expected in ["1", "2", "3"] {
        let again = ordered.pull(singly()).await.expect("pulls");
        assert_eq!(bodies(&again), [expected]);
        assert_eq!(again[0].delivery_attempt, 1);
        assert_eq!(again[0].message.ordering_key.as_deref(), Some("k"));
        let attributes: Vec<_> = again[0].message.attributes.iter().collect();
        assert_eq!(attributes, [("n", expected)], "nothing of the dead letter is left");
        acknowledge(&ordered, &again).await;
    }
    assert_eq!(redrive(&port, &["acme"], &all()).await, Redriven::default(), "once");
}

#[tokio::test]
async fn a_filter_and_a_limit_leave_the_others_where_they_are() {
    let (port, _ordered, letters) = parked().await;
    let filter = Filter::parse("NOT attributes.n = \"1\"").expect("a filter");
    let done = redrive(&port, &[], &Redrive { filter, limit: 1, ..all() }).await;
    assert_eq!((done.published, done.skipped, done.more), (1, 1, true));
    let left = letters.pull(limits(9)).await.expect("pulls");
    assert_eq!(bodies(&left), ["1", "3"], "what was held back is there at once");
    assert_eq!(left.iter().map(|r| r.delivery_attempt).collect::<Vec<_>>(), [2, 1]);
}

#[tokio::test]
async fn a_rate_is_kept_to() {
    let (port, _ordered, _letters) = parked().await;
    let start = tokio::time::Instant::now();
    let done = redrive(&port, &["acme"], &Redrive { rate_per_s: Some(20.0), ..all() }).await;
    assert_eq!(done.published, 3);
    assert!(start.elapsed() >= Duration::from_millis(140), "three messages at twenty a second");
}

#[tokio::test]
async fn a_forged_source_leads_nowhere() {
    let (port, _ordered, letters) = parked().await;
    letters.acknowledge(ids(&letters.pull(limits(9)).await.expect("pulls"))).await.expect("emptied");
    let dead = name("acme/dead");
    let with = |owner: &str, attributes: &[(&str, &str)]| Message {
        attributes: attributes.iter().copied().collect(),
        ..message(owner, "forged")
    };
    let absent = [SOURCE[0], ("CloudPubSubDeadLetterSourceSubscriptionProject", "nowhere")];
    let itself = [("CloudPubSubDeadLetterSourceSubscription", "letters"), SOURCE[1]];
    let messages = vec![
        with("acme", &[]),
        with("acme", &SOURCE[..1]),
        with("acme", &absent),
        with("acme", &itself),
        with("globex", &SOURCE),
    ];
    port.try_publish(&dead, messages).await.expect("published");
    let done = redrive(&port, &[], &all()).await;
    assert_eq!((done.published, done.refused["redrive-source-unknown"].count), (0, 5));
    let done = redrive(&port, &["acme"], &all()).await;
    assert_eq!(
        (done.refused["redrive-source-unknown"].count, done.refused["tenant-forbidden"].count),
        (4, 1)
    );
    assert_eq!(letters.stats().backlog_messages, 5, "nothing is lost");
    let stranger = admin(&port).redrive(&principal(&["globex"]), &name("acme/letters"), &all()).await;
    assert_eq!(stranger.expect_err("hidden").code, "subscription-unknown");
}

/// The newest of three letters, once all can be read.
async fn newest(port: &Port, subscription: &str) -> u64 {
    let everything = Filter::parse("").expect("a filter");
    loop {
        let found = admin(port).browse(&principal(&[]), &name(subscription), None, 3, &everything);
        let found = found.expect("seen").messages;
        if found.len() == 3 {
            return found[0].message_id;
        }
        tokio::task::yield_now().await;
    }
}

fn edit(body: &str, attributes: &[(&str, Option<&str>)]) -> Edit {
    Edit {
        body: Some(body.to_owned().into()),
        attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned))).collect(),
        even_if_taken: false,
    }
}

#[tokio::test]
async fn one_letter_is_edited_and_the_others_stay_as_they_are() {
    let (port, ordered, letters) = parked().await;
    let (last, of) = (newest(&port, "acme/letters").await, name("acme/letters"));
    let acme = principal(&["acme"]);
    let mended = edit("mended", &[("n", None), ("by", Some("hand"))]);
    let sent = admin(&port).resend(&acme, &of, last, &mended).await.expect("sent");
    assert_eq!((sent.topic, sent.acknowledged), (name("acme/orders"), true));
    let again = ordered.pull(singly()).await.expect("pulls");
    assert_eq!((bodies(&again), again[0].message_id), (vec!["mended"], sent.message_id));
    assert_eq!(again[0].message.attributes.iter().collect::<Vec<_>>(), [("by", "hand")]);
    assert_eq!(again[0].message.ordering_key.as_deref(), Some("k"));
    assert_eq!(bodies(&letters.pull(limits(9)).await.expect("pulls")), ["1", "2"], "given back at once");

    // Acknowledged, and on lease: not a second time by mistake.
    for id in [last, last - 1] {
        let refused = admin(&port).resend(&acme, &of, id, &Edit::default()).await.expect_err("refused");
        assert_eq!(refused.code, "message-not-waiting");
    }
    assert!(ordered.pull(singly()).await.expect("pulls").is_empty(), "nothing was sent");
    let sure = Edit { even_if_taken: true, ..Edit::default() };
    assert!(!admin(&port).resend(&acme, &of, last - 1, &sure).await.expect("sent").acknowledged);
    acknowledge(&ordered, &again).await;
    assert_eq!(bodies(&ordered.pull(singly()).await.expect("pulls")), ["2"]);
}

#[tokio::test]
async fn what_cannot_be_sent_stays_a_dead_letter() {
    let (port, _ordered, letters) = parked().await;
    let (last, of) = (newest(&port, "acme/letters").await, name("acme/letters"));
    let code = async |tenants: &[&str], id: u64, edit: &Edit| {
        let refused = admin(&port).resend(&principal(tenants), &of, id, edit).await;
        refused.expect_err("refused").code
    };
    assert_eq!(code(&["globex"], last, &Edit::default()).await, "subscription-unknown");
    assert_eq!(code(&["acme"], last + 1, &Edit::default()).await, "message-unknown");
    assert_eq!(code(&["acme"], u64::MAX, &Edit::default()).await, "message-unknown");
    for fixed in ["tenant_id", "levada.dead.code", SOURCE[0].0] {
        assert_eq!(code(&["acme"], last, &edit("x", &[(fixed, Some("x"))])).await, "body-invalid");
    }
    // The port refuses this one after it was leased: it is given back.
    let held_back = edit("x", &[("levada.deliver_at", Some("not a time"))]);
    assert_eq!(code(&["acme"], last, &held_back).await, "schedule-invalid");
    assert_eq!(letters.stats().leased, 0);
    assert_eq!(letters.stats().backlog_messages, 3, "nothing is lost");
}

#[tokio::test]
async fn an_event_that_was_edited_and_sent_again_leaves_its_key_to_its_senders_retry_also_after_a_kill() {
    let port = fresh();
    let dead = port.topic("acme/dead").await;
    let policy = DeadLetterPolicy { topic: dead.clone(), max_delivery_attempts: 5 };
    let set = |s: &mut SubscriptionSpec| {
        s.ordered = true;
        s.dead_letter = Some(policy);
    };
    let ordered = port.subscribe("acme/ordered", &name("home/orders"), set).await;
    let letters = port.subscribe("acme/letters", &dead, |_| {}).await;
    let event = || crate::Publish {
        context: TenantContext::system(tenant("acme"), "test"),
        message: Message { ordering_key: Some("k".into()), ..message("acme", "wrong") },
        idempotency_key: Some("order-7".into()),
    };
    let orders = crate::tests::topic("orders");
    let publish = async |port: &Port| {
        let mut results = port.world.bus.publish(&orders, vec![event()]).await.expect("answers");
        results.remove(0)
    };
    let first = publish(&port).await.expect("accepted");
    assert_eq!(ordered.pull(singly()).await.expect("pulls").len(), 1);
    ordered.unblock(&tenant("acme"), "k", Unblock::Park).await.expect("parked");
    port.visible(&dead).await;
    let id = letters.pull(limits(1)).await.expect("pulls")[0].message_id;
    let edited = Edit { even_if_taken: true, ..edit("right", &[]) };
    let sent = admin(&port).resend(&principal(&["acme"]), &name("acme/letters"), id, &edited).await;
    assert!(sent.expect("sent").message_id > first.offset);
    // Killed: what a clean end would have saved is read from the log again.
    let (disk, clock) = (port.world.disk.clone(), port.world.clock.clone());
    drop((ordered, letters, port));
    let port = open(disk, clock);
    let retry = publish(&port).await.expect("the same event");
    assert_eq!((retry.offset, retry.duplicate), (first.offset, true));
}

#[tokio::test]
async fn what_is_sent_again_counts_against_the_rate_of_its_tenant() {
    let (port, _ordered, letters) = parked().await;
    let tokens = std::sync::atomic::AtomicU64::new(2);
    let take = move |of: &TenantId, cost: u64| {
        assert_eq!((of.as_str(), cost), ("acme", 1));
        let left = tokens.fetch_update(
            std::sync::atomic::Ordering::SeqCst,
            std::sync::atomic::Ordering::SeqCst,
            |n| n.checked_sub(cost),
        );
        left.map(drop).map_err(|_| levada_core::Problem::new(429, "rate-limited", "no tokens"))
    };
    let admin = admin(&port).with_rate(Arc::new(take));
    let done =
        admin.redrive(&principal(&["acme"]), &name("acme/letters"), &all()).await.expect("some are sent");
    assert_eq!((done.published, done.more), (2, true));
    let refused = admin.redrive(&principal(&["acme"]), &name("acme/letters"), &all()).await;
    assert_eq!(refused.map_err(|p| p.code), Err("rate-limited".to_owned()));
    let waiting = letters.pull(limits(9)).await.expect("pulls");
    assert_eq!(bodies(&waiting), ["3"], "what was not sent is still there");
    let (acme, letters, edit) = (principal(&["acme"]), name("acme/letters"), Edit::default());
    let one = admin.resend(&acme, &letters, waiting[0].message_id, &edit).await;
    assert_eq!(one.map_err(|p| p.code), Err("rate-limited".to_owned()));
}
