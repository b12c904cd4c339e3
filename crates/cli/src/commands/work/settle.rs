//! Carries out verdicts: acknowledges, gives back, moves to the dead letter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use levada_core::retry::Backoff;
use levada_core::{IdSource, RandomIds, attr};
use serde_json::{Value, json};

use super::api::{Api, ApiError, Pulled, Settings};
use super::leases::Leases;
use super::report::Reporter;
use super::verdict::{Verdict, cut};

/// Tries of a call that settles, in some 10 s.
const TRIES: u32 = 6;

const BACKOFF: Backoff = Backoff { base: Duration::from_millis(250), cap: Duration::from_secs(4) };

/// What settling needs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Settler {
    pub api: Api,
    pub settings: Arc<Settings>,
    pub leases: Leases,
    pub reporter: Arc<Reporter>,
}

/// A delay with full jitter before try `attempt`.
pub fn delay(backoff: Backoff, attempt: u32) -> Duration {
    let bits = (RandomIds.uuid().as_u128() & u128::from(u32::MAX)) as u32;
    backoff.jittered(attempt, f64::from(bits) / (f64::from(u32::MAX) + 1.0))
}

impl Settler {
    /// Settles a batch. `took_ms` is for the report.
    pub async fn settle(&self, judged: Vec<(Pulled, Verdict)>, took_ms: u64) {
        let (mut done, mut back) = (Vec::new(), Vec::new());
        for (pulled, verdict) in judged {
            let verdict = match verdict {
                Verdict::DeadLetter(reason) => self.bury(&pulled, reason).await,
                other => other,
            };
            let list = if matches!(verdict, Verdict::Retry(_)) { &mut back } else { &mut done };
            list.push(pulled.ack_id.clone());
            self.reporter.settled(&pulled.message.message_id, pulled.delivery_attempt, &verdict, took_ms);
        }
        tokio::join!(self.acknowledge(done), self.give_back(back));
    }

    async fn acknowledge(&self, ids: Vec<String>) {
        let (mut left, mut attempt, mut lost) = (ids.clone(), 0, 0);
        let mut why = String::new();
        while !left.is_empty() {
            let failures = self.api.acknowledge(&left).await;
            lost += failures.lasting.len();
            if !failures.message.is_empty() {
                why = failures.message;
            }
            left = failures.transient;
            attempt += 1;
            if attempt == TRIES {
                lost += left.len();
                break;
            }
            if !left.is_empty() {
                tokio::time::sleep(delay(BACKOFF, attempt)).await;
            }
        }
        // Until here they are renewed, so that a slow acknowledgement is not a late one.
        self.leases.remove(&ids);
        if lost > 0 {
            self.reporter.unsettled(lost, &why);
        }
    }

    /// Makes the server deliver the messages again, as its retry policy says.
    pub async fn give_back(&self, ids: Vec<String>) {
        if ids.is_empty() {
            return;
        }
        self.leases.remove(&ids);
        let failures = self.api.modify_ack_deadline(&ids, 0).await;
        if !failures.transient.is_empty() {
            tokio::time::sleep(delay(BACKOFF, 1)).await;
            // At the latest they come again when their lease ends.
            let _ = self.api.modify_ack_deadline(&failures.transient, 0).await;
        }
    }

    /// Publishes a message to the dead-letter topic. It is acknowledged only after that, so a
    /// crash between the two leaves a second copy in the dead letter, never none.
    async fn bury(&self, pulled: &Pulled, reason: String) -> Verdict {
        let id = &pulled.message.message_id;
        let Some(policy) = &self.settings.dead_letter else {
            self.reporter.warn(&format!(
                "message {id} can never be processed ({reason}), but {} has no dead-letter policy: it is given \
                 back and comes again; set `deadLetterPolicy` on the subscription",
                self.api.path()
            ));
            return Verdict::Retry(reason);
        };
        let letter = letter(pulled, self.api.path(), &reason);
        let mut attempt = 0;
        loop {
            match self.api.publish(&policy.topic, &letter).await {
                Ok(()) => return Verdict::DeadLetter(reason),
                Err(error) if error.is_transient() && attempt + 1 < TRIES => {
                    attempt += 1;
                    tokio::time::sleep(delay(BACKOFF, attempt)).await;
                }
                Err(error) => {
                    self.reporter.warn(&refused(id, &policy.topic, &error));
                    return Verdict::Retry(reason);
                }
            }
        }
    }
}

fn refused(id: &str, topic: &str, error: &ApiError) -> String {
    format!(
        "message {id} cannot be moved to its dead-letter topic {topic}: {error}; it is given back. Does the topic \
         exist, and may this key publish to it?"
    )
}

/// The message as a dead letter: with the attributes that Pub/Sub gives its own dead letters,
/// and the reason.
fn letter(pulled: &Pulled, subscription: &str, reason: &str) -> Value {
    let message = &pulled.message;
    let (project, name) = match subscription.split('/').collect::<Vec<_>>().as_slice() {
        ["projects", project, "subscriptions", name] => ((*project).to_owned(), (*name).to_owned()),
        _ => (String::new(), subscription.to_owned()),
    };
    let reason =
        if reason.is_empty() { "the program gave no reason".to_owned() } else { cut(reason.to_owned()) };
    let added = [
        (attr::DEAD_REASON, reason),
        (attr::DEAD_CODE, "rejected-by-worker".to_owned()),
        (attr::DEAD_STAGE, "work".to_owned()),
        (attr::DEAD_ATTEMPTS, pulled.delivery_attempt.max(1).to_string()),
        ("CloudPubSubDeadLetterSourceSubscription", name),
        ("CloudPubSubDeadLetterSourceSubscriptionProject", project),
        ("CloudPubSubDeadLetterSourceDeliveryCount", pulled.delivery_attempt.max(1).to_string()),
        ("CloudPubSubDeadLetterSourceTopicPublishTime", message.publish_time.clone()),
    ];
    let mut attributes: BTreeMap<&str, &str> =
        message.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    // None of them counts against the limit of the message's own.
    attributes.extend(added.iter().map(|(name, value)| (*name, value.as_str())));
    let mut letter = json!({ "data": message.data, "attributes": attributes });
    if !message.ordering_key.is_empty() {
        letter["orderingKey"] = Value::from(message.ordering_key.as_str());
    }
    letter
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::work::api::PubsubMessage;

    #[test]
    fn a_dead_letter_keeps_what_it_was_and_says_why() {
        let message = PubsubMessage {
            data: "e30=".into(),
            attributes: [("tenant_id".to_owned(), "acme".to_owned())].into(),
            ordering_key: "k".into(),
            publish_time: "2026-01-01T00:00:00Z".into(),
            ..Default::default()
        };
        let pulled = Pulled { message, delivery_attempt: 3, ..Default::default() };
        let letter = letter(&pulled, "projects/p/subscriptions/orders-worker", "no such tenant");
        assert_eq!(letter["data"], "e30=");
        assert_eq!(letter["orderingKey"], "k");
        let attributes = &letter["attributes"];
        assert_eq!(attributes["tenant_id"], "acme");
        assert_eq!(attributes["levada.dead.reason"], "no such tenant");
        assert_eq!(attributes["CloudPubSubDeadLetterSourceDeliveryCount"], "3");
        assert_eq!(attributes["CloudPubSubDeadLetterSourceSubscription"], "orders-worker");
        assert_eq!(attributes["CloudPubSubDeadLetterSourceSubscriptionProject"], "p");
    }

    #[test]
    fn a_full_message_keeps_its_own_attributes() {
        let attributes: BTreeMap<_, _> = (0..100).map(|n| (format!("a{n}"), String::new())).collect();
        let message = PubsubMessage { attributes: attributes.clone(), ..Default::default() };
        let letter = letter(&Pulled { message, ..Default::default() }, "projects/p/subscriptions/sub", "bad");
        assert_eq!(letter["attributes"].as_object().unwrap().len(), 108);
        assert!(attributes.keys().all(|name| letter["attributes"].get(name).is_some()));
    }
}
