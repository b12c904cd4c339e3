//! Push delivery: one worker for each subscription with an endpoint.
//!
//! The supervisor starts and stops workers as subscriptions change. A worker leases messages
//! like any subscriber and posts each to the endpoint: a good answer acknowledges, anything
//! else gives the message back, to come again by the subscription's retry policy.

mod oidc;
mod request;
mod slots;
mod worker;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use levada_core::ResourceName;
use levada_outbound::Outbound;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

pub(crate) use oidc::router;
pub use oidc::{PushKey, PushKeyError};

use crate::api::PubsubApi;

/// Subscriptions that another door changed are seen after this at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// What push delivery works with.
#[derive(Debug, Clone)]
pub struct PushConfig {
    /// Messages of one subscription posted at the same time, at most.
    pub max_in_flight: usize,
    /// Posts of all subscriptions at the same time, at most.
    pub max_posts: usize,
    /// Pause after the first failure; it doubles with each further one.
    pub min_backoff: Duration,
    pub max_backoff: Duration,
    /// The URL that tokens name as their issuer, under which `/.well-known/` is reached.
    pub issuer: String,
    /// The key that signs tokens.
    pub key: Arc<PushKey>,
}

impl PushConfig {
    /// With bounds that suit one process, for tokens of that issuer.
    pub fn new(issuer: &str, key: Arc<PushKey>) -> Self {
        Self {
            max_in_flight: 1_000,
            max_posts: 4_000,
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(60),
            issuer: issuer.trim_end_matches('/').to_owned(),
            key,
        }
    }
}

/// Which subscriptions may need a worker.
#[derive(Debug, Default)]
pub(crate) struct Pushing {
    named: Mutex<BTreeSet<ResourceName>>,
    changed: Notify,
}

impl Pushing {
    /// A subscription that pushes was made, or one was changed.
    pub(crate) fn touched(&self, name: &ResourceName, pushes: bool) {
        if pushes {
            self.named.lock().insert(name.clone());
        }
        self.changed.notify_one();
    }
}

impl PubsubApi {
    /// Delivers to endpoints until the API is drained. Run it beside the server.
    pub async fn push(&self, config: PushConfig) {
        let client = Outbound::new(self.config.egress.clone(), reqwest::Client::builder);
        let poster = Arc::new(worker::Poster::new(self.clone(), client, config));
        let mut workers = JoinSet::new();
        let mut running: HashMap<ResourceName, AbortHandle> = HashMap::new();
        loop {
            running.retain(|_, worker| !worker.is_finished());
            for name in self.pushes() {
                running
                    .entry(name.clone())
                    .or_insert_with(|| workers.spawn(worker::run(poster.clone(), name)));
            }
            tokio::select! {
                () = self.pushing.changed.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                Some(_) = workers.join_next() => {}
                () = self.drained() => break,
            }
        }
        // Posts that are under way get their answers; workers stop by themselves.
        while workers.join_next().await.is_some() {}
    }

    /// The subscriptions that push now.
    fn pushes(&self) -> Vec<ResourceName> {
        let mut names = self.pushing.named.lock().clone();
        names.extend(self.bus.push_subscriptions());
        names.retain(|name| self.bus.subscription(name).is_ok_and(|port| worker::pushes(&port.spec())));
        *self.pushing.named.lock() = names.clone();
        names.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
