//! `levada subscriptions redrive`: one call of the server after the other, until nothing is left.

use serde_json::{Value, json};

use crate::args::RedriveArgs;
use crate::client::Connection;
use crate::output::{Failure, Output, exit};

/// Messages of one call: the bar moves now and then.
const A_CALL: u64 = 1_000;

/// What all calls did together.
#[derive(Debug, Default, PartialEq)]
struct Done {
    published: u64,
    /// As of the last call: what is skipped is met by every call again.
    skipped: u64,
    refused: Vec<Value>,
}

pub async fn redrive(
    output: &Output,
    server: &Connection,
    path: &str,
    args: &RedriveArgs,
) -> Result<(), Failure> {
    let bar = output.bar(args.limit, "sent again");
    let done = calls(server, path, args, |published| bar.set_position(published)).await;
    bar.finish_and_clear();
    let Done { published, skipped, refused } = done?;
    if output.json {
        output.value(&json!({ "published": published, "skipped": skipped, "refused": refused }));
    } else {
        output.say(&format!("{published} sent again, {skipped} skipped by the filter"));
        for refusal in &refused {
            output.say(&format!(
                "{} refused [{}], the first: {}",
                refusal["count"],
                refusal["code"].as_str().unwrap_or("?"),
                refusal["detail"].as_str().unwrap_or("?")
            ));
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(Failure::silent(exit::FAILED)) }
}

async fn calls(
    server: &Connection,
    path: &str,
    args: &RedriveArgs,
    told: impl Fn(u64),
) -> Result<Done, Failure> {
    let mut done = Done::default();
    loop {
        let left = args.limit.map_or(A_CALL, |limit| (limit - done.published).min(A_CALL));
        let mut body = json!({ "filter": args.filter, "limit": left });
        if let Some(rate) = args.rate {
            body["rate_per_s"] = json!(rate);
        }
        let answer = server.post(path, &body).await?;
        let published = answer["published"].as_u64().unwrap_or(0);
        done.published += published;
        done.skipped = answer["skipped"].as_u64().unwrap_or(0);
        done.refused = answer["refused"].as_array().cloned().unwrap_or_default();
        told(done.published);
        let enough = args.limit.is_some_and(|limit| done.published >= limit);
        if enough || published == 0 || answer["more"] != true {
            return Ok(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::SubscriptionName;

    /// A server with so many dead letters, two of which it refuses.
    async fn server(mut letters: u64) -> Connection {
        let (to, mut asked) = tokio::sync::mpsc::channel::<(Value, tokio::sync::oneshot::Sender<Value>)>(1);
        tokio::spawn(async move {
            while let Some((body, answer)) = asked.recv().await {
                let published = body["limit"].as_u64().expect("a limit").min(letters);
                letters -= published;
                let refused = json!([{"code": "redrive-source-unknown", "count": 2, "detail": "no source"}]);
                let _ = answer.send(json!({
                    "published": published, "skipped": 0, "more": letters > 0,
                    "refused": if letters > 0 { json!([]) } else { refused },
                }));
            }
        });
        let handler = move |axum::Json(body): axum::Json<Value>| {
            let to = to.clone();
            async move {
                let (answer, answered) = tokio::sync::oneshot::channel();
                to.send((body, answer)).await.expect("asked");
                axum::Json(answered.await.expect("answered"))
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let app = axum::Router::new().route("/redrive", axum::routing::post(handler));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Connection::to(url, None).expect("a client")
    }

    fn args(limit: Option<u64>) -> RedriveArgs {
        let subscription = SubscriptionName { name: "p/dead".to_owned(), pubsub_project: None };
        RedriveArgs { subscription, filter: String::new(), limit, rate: None }
    }

    #[tokio::test]
    async fn it_calls_until_nothing_is_left_or_the_limit_is_reached() {
        let done = calls(&server(2_500).await, "/redrive", &args(None), |_| {}).await.expect("done");
        assert_eq!((done.published, done.refused.len()), (2_500, 1));
        let told = std::cell::RefCell::new(Vec::new());
        let limited = args(Some(1_200));
        let done = calls(&server(2_500).await, "/redrive", &limited, |n| told.borrow_mut().push(n)).await;
        assert_eq!(done.expect("done").published, 1_200);
        assert_eq!(*told.borrow(), [1_000, 1_200]);
    }
}
