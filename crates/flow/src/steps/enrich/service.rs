//! One enrichment service as a step sees it: cache, breaker, timeout and retries around a GET.

use std::sync::Arc;
use std::time::Duration;

use levada_config::model::{Enrich, Owner};
use levada_core::{BreakerConfig, BreakerState, Egress};
use levada_outbound::{Outbound, OutboundError, refusal};
use levada_schema::Extractor;
use moka::future::Cache;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Method};

use super::EnrichContext;
use super::answer::{Answer, CallError, describe, read};
use super::breakers::Guarded;
use crate::metrics;
use crate::names;

/// Why a row cannot be enriched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    pub code: &'static str,
    pub reason: String,
    pub attempts: u32,
}

#[derive(Clone)]
struct Cached {
    answer: Arc<Answer>,
    /// By the context's clock.
    expires: Duration,
}

pub struct Service {
    name: String,
    origin: String,
    client: Outbound,
    fields: Extractor,
    breaker: Guarded,
    cache: Cache<String, Cached>,
    context: EnrichContext,
    ttl: Duration,
    attempts: u32,
}

impl Service {
    pub fn new(
        config: &Enrich,
        origin: &str,
        owner: &Owner,
        egress: Egress,
        context: &EnrichContext,
    ) -> Result<Self, String> {
        let limits =
            BreakerConfig { failures: config.breaker_failures.max(1), open_for: config.breaker_open };
        let headers = headers(config, context)?;
        let (timeout, concurrency) = (config.timeout, config.concurrency.max(1));
        let client = Outbound::new(egress, move || {
            Client::builder()
                .timeout(timeout)
                .pool_max_idle_per_host(concurrency)
                .default_headers(headers.clone())
                .user_agent(concat!("levada/", env!("CARGO_PKG_VERSION")))
        });
        // A client that cannot be made is told of now, not at the first row.
        let _ = client.request(Method::GET, origin).map_err(|error| error.to_string())?;
        // One tenant's failures must not keep another from the same service.
        let scope = format!("{} {origin}", names::lake_owner(owner));
        Ok(Self {
            name: config.name.to_string(),
            origin: origin.to_owned(),
            client,
            fields: Extractor::new(&config.fields),
            breaker: context.breakers.of(&scope, limits, Arc::clone(&context.clock)),
            cache: Cache::builder().max_capacity(context.cache_entries).time_to_live(config.ttl).build(),
            context: context.clone(),
            ttl: config.ttl,
            attempts: config.attempts.max(1),
        })
    }

    /// Whether the breaker is not closed.
    pub fn is_suspect(&self) -> bool {
        self.breaker.state() != BreakerState::Closed
    }

    /// The answer at a URL, from the cache or the service.
    pub async fn lookup(&self, url: &str) -> Result<Arc<Answer>, Miss> {
        if let Some(cached) = self.cache.get(url).await
            && self.context.clock.monotonic() < cached.expires
        {
            metrics::enrich_cached(&self.name);
            return Ok(cached.answer);
        }
        let answer = Arc::new(self.ask(url).await?);
        let expires = self.context.clock.monotonic() + self.ttl;
        self.cache.insert(url.to_owned(), Cached { answer: Arc::clone(&answer), expires }).await;
        Ok(answer)
    }

    async fn ask(&self, url: &str) -> Result<Answer, Miss> {
        let mut attempts = 0;
        loop {
            let permit = self.breaker.permit().map_err(|wait| Miss {
                code: "enrich-unavailable",
                reason: format!(
                    "{} failed too often and is not asked for another {} s",
                    self.origin,
                    wait.as_secs().max(1)
                ),
                attempts,
            })?;
            attempts += 1;
            let outcome = self.call(url).await;
            metrics::enrich_called(&self.name, outcome.is_ok());
            let (code, reason) = match outcome {
                Ok(answer) => {
                    permit.success();
                    return Ok(answer);
                }
                Err(CallError::Transient(reason)) => {
                    drop(permit);
                    if attempts < self.attempts {
                        let unit = (self.context.jitter)();
                        tokio::time::sleep(self.context.backoff.jittered(attempts - 1, unit)).await;
                        continue;
                    }
                    ("enrich-unavailable", reason)
                }
                // The service is up; what it says is of no use.
                Err(CallError::Wrong(reason)) => {
                    permit.success();
                    ("enrich-bad-answer", reason)
                }
                Err(CallError::Refused(reason)) => {
                    permit.success();
                    ("enrich-refused", reason)
                }
                Err(CallError::Forbidden(reason)) => ("egress-refused", reason),
            };
            return Err(Miss { code, reason: format!("{reason} ({url})"), attempts });
        }
    }

    async fn call(&self, url: &str) -> Result<Answer, CallError> {
        let request = self.client.request(Method::GET, url).map_err(|error| match error {
            OutboundError::Refused(refused) => CallError::Forbidden(refused.to_string()),
            other => CallError::Wrong(other.to_string()),
        })?;
        let response = request.send().await.map_err(|error| match refusal(&error) {
            Some(refused) => CallError::Forbidden(refused.to_string()),
            None => CallError::Transient(describe(&error)),
        })?;
        read(response, &self.fields, self.context.answer_bytes).await
    }
}

fn headers(config: &Enrich, context: &EnrichContext) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(name) = &config.bearer_secret {
        let secret = (context.secrets)(name).ok_or_else(|| format!("the secret `{name}` is not set"))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {secret}"))
            .map_err(|_| format!("the secret `{name}` holds characters that no header may hold"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}
