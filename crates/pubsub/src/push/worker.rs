//! Posts the messages of one subscription, as many at a time as the endpoint takes well.
//!
//! The number begins small and grows with every success; a failure halves it and makes a
//! pause, which doubles while failures go on. So an endpoint that is down is asked once a
//! minute, and one that comes back is soon at full rate.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, header};
use levada_bus::port::{Consumer, PullLimits, Received, SubscriptionPort, SubscriptionSpec};
use levada_core::ResourceName;
use levada_outbound::{Outbound, OutboundError, refusal};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::slots::{OWN_POSTS, Slots};
use super::{PushConfig, request};
use crate::api::PubsubApi;
use crate::metrics;

/// Messages at a time to begin with, as Google does.
const FIRST_WINDOW: f64 = 3.0;
const PULL_WAIT: Duration = Duration::from_secs(60);
const MAX_PULL_BYTES: usize = 16 << 20;

/// What all workers share.
pub(super) struct Poster {
    api: PubsubApi,
    client: Outbound,
    config: PushConfig,
    slots: Slots,
}

impl Poster {
    pub(super) fn new(api: PubsubApi, client: Outbound, config: PushConfig) -> Self {
        let slots = Slots::new(config.max_posts, api.guards.quotas.clone());
        Self { api, client, config, slots }
    }
}

/// Whether a subscription is one to push.
pub(super) fn pushes(spec: &SubscriptionSpec) -> bool {
    spec.push.is_some() && !spec.detached
}

/// How the endpoint has been doing.
#[derive(Debug)]
struct Pace {
    window: f64,
    failures: u32,
}

impl Pace {
    fn went(&mut self, well: bool, max: usize) {
        if well {
            self.window = (self.window + 1.0).min(max as f64);
            self.failures = 0;
        } else {
            self.window = (self.window / 2.0).max(1.0);
            self.failures = self.failures.saturating_add(1);
        }
    }

    fn pause(&self, config: &PushConfig) -> Duration {
        if self.failures == 0 {
            return Duration::ZERO;
        }
        config.min_backoff.saturating_mul(1 << (self.failures - 1).min(20)).min(config.max_backoff)
    }
}

/// Runs until the subscription no longer pushes, or the API is drained.
pub(super) async fn run(poster: Arc<Poster>, name: ResourceName) {
    let pace = Arc::new(Mutex::new(Pace { window: FIRST_WINDOW, failures: 0 }));
    let own = Arc::new(Semaphore::new(OWN_POSTS));
    let mut posts = JoinSet::new();
    loop {
        while posts.try_join_next().is_some() {}
        let Ok(port) = poster.api.bus.subscription(&name) else { break };
        let spec = port.spec();
        if !pushes(&spec) {
            break;
        }
        let owner = poster.api.push_owner(&spec);
        let (window, pause) = {
            let pace = pace.lock();
            // What could not be posted now is better leased later.
            ((pace.window as usize).min(poster.slots.most(&owner)), pace.pause(&poster.config))
        };
        let waiting = async {
            tokio::time::sleep(pause).await;
            if posts.len() >= window {
                posts.join_next().await;
                return Ok(Vec::new());
            }
            let limits = PullLimits {
                max_messages: window - posts.len(),
                max_bytes: MAX_PULL_BYTES,
                wait: PULL_WAIT,
                ack_deadline: None,
                consumer: Consumer::Single,
            };
            tokio::select! {
                received = port.pull(limits) => received,
                () = port.changed() => Ok(Vec::new()),
            }
        };
        let received = tokio::select! {
            received = waiting => received,
            () = poster.api.drained() => break,
        };
        match received {
            Ok(received) => {
                metrics::delivered("push", received.len());
                for message in received {
                    let (poster, port, pace) = (poster.clone(), port.clone(), pace.clone());
                    let (owner, own) = (owner.clone(), own.clone());
                    posts.spawn(async move {
                        let Ok(_slot) = poster.slots.take(&owner, &own).await else { return };
                        post(&poster, &port, message, &pace).await;
                    });
                }
            }
            Err(error) => {
                tracing::debug!(subscription = %name, %error, "cannot lease messages to push");
                pace.lock().went(false, poster.config.max_in_flight);
            }
        }
    }
    while posts.join_next().await.is_some() {}
}

async fn post(poster: &Poster, port: &Arc<dyn SubscriptionPort>, message: Received, pace: &Mutex<Pace>) {
    let ack_id = message.ack_id;
    let well = match send(poster, &port.spec(), message).await {
        Ok(()) => true,
        Err(failure) => {
            failure.tell(&port.spec().name, pace.lock().failures == 0);
            false
        }
    };
    metrics::pushed(well);
    let settled = if well {
        port.acknowledge(vec![ack_id]).await
    } else {
        port.modify_ack_deadlines(vec![(ack_id, Duration::ZERO)]).await
    };
    if let Err(error) = settled {
        // The lease ends by itself, and the message comes again.
        tracing::debug!(subscription = %port.spec().name, %error, "cannot settle a pushed message");
    }
    pace.lock().went(well, poster.config.max_in_flight);
}

/// Posts one message within its ack deadline.
async fn send(poster: &Poster, spec: &SubscriptionSpec, message: Received) -> Result<(), Failure> {
    let Some(push) = &spec.push else { return Err("the subscription no longer pushes".to_owned().into()) };
    let (headers, body) = request::build(spec, push, &message);
    let request = poster.client.request(Method::POST, &push.endpoint)?;
    let mut request = request.headers(headers).body(body).timeout(spec.ack_deadline);
    if let Some(oidc) = &push.oidc {
        // Also of one that was kept before tokens were held to their project.
        poster.api.check_token(spec, push).map_err(|error| Failure::Forbidden(error.message))?;
        let (config, now_ms) = (&poster.config, poster.api.clock.now_ms());
        let token = config.key.token(&config.issuer, &push.endpoint, oidc, now_ms);
        request =
            request.header(header::AUTHORIZATION, format!("Bearer {}", token.map_err(|e| e.to_string())?));
    }
    let answer = request.send().await?;
    match answer.status().as_u16() {
        102 | 200 | 201 | 202 | 204 => Ok(()),
        status => Err(format!("the endpoint answered {status}").into()),
    }
}

/// Why a message was not taken.
enum Failure {
    Refused(String),
    /// By the rules of this server: no further attempt helps until somebody changes something.
    Forbidden(String),
}

impl Failure {
    /// `is_first`: the endpoint did well until now.
    fn tell(self, subscription: &ResourceName, is_first: bool) {
        match self {
            Self::Forbidden(reason) => {
                metrics::push_forbidden();
                if is_first {
                    tracing::warn!(%subscription, reason, "messages are not pushed: egress-refused");
                }
            }
            Self::Refused(reason) => {
                tracing::debug!(%subscription, reason, "an endpoint refused a message");
            }
        }
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

impl From<OutboundError> for Failure {
    fn from(error: OutboundError) -> Self {
        match error {
            OutboundError::Refused(refused) => Self::Forbidden(refused.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        match refusal(&error) {
            Some(refused) => Self::Forbidden(refused.to_string()),
            None => Self::Refused(error.without_url().to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::PushKey;

    #[test]
    fn the_pace_grows_with_success_and_pauses_longer_with_each_failure() {
        let key = PushKey::from_pkcs8(&PushKey::generate().expect("a key")).expect("a key");
        let config = PushConfig::new("https://levada.example/", Arc::new(key));
        let mut pace = Pace { window: FIRST_WINDOW, failures: 0 };
        for _ in 0..2_000 {
            pace.went(true, config.max_in_flight);
        }
        assert_eq!((pace.window as usize, pace.pause(&config)), (1_000, Duration::ZERO));
        let mut pauses = Vec::new();
        for _ in 0..40 {
            pace.went(false, config.max_in_flight);
            pauses.push(pace.pause(&config));
        }
        assert_eq!(pauses[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!((pauses[39], pace.window as usize), (Duration::from_secs(60), 1));
        pace.went(true, config.max_in_flight);
        assert_eq!(pace.pause(&config), Duration::ZERO);
    }
}
