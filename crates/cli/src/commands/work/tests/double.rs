//! A Pub/Sub server of one subscription in memory: leases, retry at once, ordering keys.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::Notify;

pub const SUBSCRIPTION: &str = "projects/p/subscriptions/orders-worker";
pub const DEAD_TOPIC: &str = "projects/p/topics/orders-dlq";

#[derive(Debug, Default)]
pub struct Kept {
    pub id: String,
    pub data: String,
    pub key: String,
    pub attempts: u32,
    /// The newest lease and its end.
    pub lease: Option<(String, Instant)>,
    pub is_done: bool,
}

#[derive(Debug, Default)]
pub struct Model {
    pub messages: Vec<Kept>,
    pub dead: Vec<Value>,
    pub pulls: u32,
    /// Ack ids of renewals, in order.
    pub renewed: Vec<String>,
    pub given_back: u32,
    /// So many of the next calls answer this status.
    pub failing: BTreeMap<&'static str, (u32, u16)>,
    pub is_ordered: bool,
    next: u64,
}

#[derive(Clone, Default)]
pub struct Double {
    model: Arc<Mutex<Model>>,
    changed: Arc<Notify>,
    pub lease: Duration,
}

impl Double {
    pub fn new(lease: Duration, messages: &[(&str, &str)]) -> Self {
        let double = Self { lease, ..Default::default() };
        double.add(messages);
        double
    }

    /// Adds messages: ordering key and data.
    pub fn add(&self, messages: &[(&str, &str)]) {
        self.change(|model| {
            for (key, data) in messages {
                let id = (model.messages.len() + 1).to_string();
                let (key, data) = ((*key).to_owned(), (*data).to_owned());
                model.messages.push(Kept { id, data, key, ..Default::default() });
            }
        });
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        let result = change(&mut self.model.lock().unwrap());
        self.changed.notify_waiters();
        result
    }

    /// Waits until the model is so; 30 s at most.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Model) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if is_so(&self.model.lock().unwrap()) {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(30), wait).await.is_err() {
            panic!("not within 30 s: {what}: {:#?}", self.model.lock().unwrap());
        }
    }

    /// Serves on a free port and answers the address.
    pub async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/v1/{*call}", post(answer)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{address}")
    }

    async fn pull(&self, max: usize) -> Value {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let taken = self.model.lock().unwrap().take(max, self.lease);
            if !taken.is_empty() || Instant::now() >= end {
                self.changed.notify_waiters();
                return json!({ "receivedMessages": taken });
            }
            // Also to see leases end.
            let _ = tokio::time::timeout(Duration::from_millis(50), changed).await;
        }
    }
}

impl Model {
    fn take(&mut self, max: usize, lease: Duration) -> Vec<Value> {
        let now = Instant::now();
        let mut busy = HashSet::new();
        let mut out = Vec::new();
        for kept in self.messages.iter_mut().filter(|kept| !kept.is_done) {
            let is_leased = kept.lease.as_ref().is_some_and(|(_, end)| *end > now);
            let waits = self.is_ordered && !kept.key.is_empty() && busy.contains(&kept.key);
            if is_leased {
                busy.insert(kept.key.clone());
            }
            if is_leased || waits || out.len() >= max {
                continue;
            }
            self.next += 1;
            kept.attempts += 1;
            let ack_id = format!("ack-{}-{}", kept.id, self.next);
            kept.lease = Some((ack_id.clone(), now + lease));
            out.push(json!({ "ackId": ack_id, "deliveryAttempt": kept.attempts, "message": {
                "messageId": kept.id, "orderingKey": kept.key, "data": STANDARD.encode(&kept.data),
                "attributes": { "tenant_id": "acme" }, "publishTime": "2026-01-01T00:00:00Z",
            } }));
        }
        out
    }

    fn leased(&mut self, ack_id: &str) -> Option<&mut Kept> {
        let now = Instant::now();
        let holds = |kept: &Kept| kept.lease.as_ref().is_some_and(|(id, end)| id == ack_id && *end > now);
        self.messages.iter_mut().find(|kept| holds(kept))
    }

    pub fn all_done(&self) -> bool {
        self.messages.iter().all(|kept| kept.is_done)
    }

    pub fn attempts(&self) -> Vec<u32> {
        self.messages.iter().map(|kept| kept.attempts).collect()
    }
}

async fn answer(
    State(double): State<Double>,
    Path(call): Path<String>,
    body: Bytes,
) -> (StatusCode, axum::Json<Value>) {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let ids = || body["ackIds"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned());
    let (resource, action) = call.rsplit_once(':').unwrap();
    let failure = double.change(|model| {
        let (left, status) = model.failing.get_mut(action)?;
        *left = left.checked_sub(1)?;
        StatusCode::from_u16(*status).ok()
    });
    if let Some(status) = failure {
        return (status, axum::Json(json!({ "error": { "message": "Not now.", "code": status.as_u16() } })));
    }
    let answer = match (resource, action) {
        (SUBSCRIPTION, "pull") => {
            double.change(|model| model.pulls += 1);
            double.pull(body["maxMessages"].as_u64().unwrap() as usize).await
        }
        (SUBSCRIPTION, "acknowledge") => double.change(|model| {
            for id in ids() {
                if let Some(kept) = model.leased(&id) {
                    kept.is_done = true;
                }
            }
            json!({})
        }),
        (SUBSCRIPTION, "modifyAckDeadline") => double.change(|model| {
            let seconds = body["ackDeadlineSeconds"].as_u64().unwrap();
            for id in ids() {
                if seconds == 0 {
                    model.given_back += 1;
                } else {
                    model.renewed.push(id.clone());
                }
                if let Some(kept) = model.leased(&id) {
                    let end = Instant::now() + Duration::from_secs(seconds);
                    kept.lease = (seconds > 0).then_some((id, end));
                }
            }
            json!({})
        }),
        (DEAD_TOPIC, "publish") => double.change(|model| {
            model.dead.extend(body["messages"].as_array().unwrap().iter().cloned());
            json!({ "messageIds": ["1"] })
        }),
        _ => return (StatusCode::NOT_FOUND, axum::Json(json!({ "error": { "message": "Not found." } }))),
    };
    (StatusCode::OK, axum::Json(answer))
}
