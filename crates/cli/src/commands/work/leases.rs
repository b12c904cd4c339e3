//! Keeps the leases of what is held: at half the ack deadline all of them are renewed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::api::Api;
use super::report::Reporter;

/// Between two tries to renew while the server is away.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The ack ids that the worker holds. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    held: Mutex<HashSet<String>>,
    added: Notify,
}

impl Leases {
    fn held(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn add<'a>(&self, ids: impl IntoIterator<Item = &'a String>) {
        self.held().extend(ids.into_iter().cloned());
        self.0.added.notify_one();
    }

    pub fn remove<'a>(&self, ids: impl IntoIterator<Item = &'a String>) {
        let mut held = self.held();
        for id in ids {
            held.remove(id);
        }
    }

    pub fn len(&self) -> usize {
        self.held().len()
    }

    /// Renews until it is dropped; sleeps while nothing is held.
    pub async fn keep(self, api: Api, deadline: Duration, reporter: Arc<Reporter>) {
        let half = deadline / 2;
        let mut pause = half;
        loop {
            while self.len() == 0 {
                self.0.added.notified().await;
                pause = half;
            }
            tokio::time::sleep(pause).await;
            let ids: Vec<String> = self.held().iter().cloned().collect();
            if ids.is_empty() {
                continue;
            }
            let renewal = api.modify_ack_deadline(&ids, deadline.as_secs());
            pause = match tokio::time::timeout(half, renewal).await {
                Ok(failures) => {
                    if !failures.lasting.is_empty() {
                        self.remove(&failures.lasting);
                        let (n, why) = (failures.lasting.len(), &failures.message);
                        reporter.warn(&format!(
                            "the leases of {n} messages are lost; they will come again: {why}"
                        ));
                    }
                    if failures.transient.is_empty() { half } else { TRY_AGAIN.min(half) }
                }
                Err(_) => TRY_AGAIN.min(half),
            };
        }
    }
}
