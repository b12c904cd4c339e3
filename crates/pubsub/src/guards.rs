//! What a caller may take of what all share: places, memory and rates; and whether it still may.
//! Things that are kept are counted in `stock`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use levada_access::RateLimiter;
use levada_bus::port::Publication;
use levada_core::{OwnedMemory, Problem, Quota, QuotaOwner, QuotaPlace, Quotas, TenantId};
use tonic::Code;

use crate::api::{Call, PubsubApi};
use crate::error::ApiError;

/// Whoever waits asks so often whether its credential is still good.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Of one stream: being pulled, queued, and with the transport.
const ANSWERS_ON_THEIR_WAY: usize = 4;
const MIN_ANSWER_BYTES: usize = 64 << 10;

/// What the calls of all owners share.
#[derive(Debug, Clone)]
pub struct Guards {
    pub quotas: Quotas,
    /// What request bodies may hold.
    pub bodies: OwnedMemory,
    /// Bytes of messages that one owner's streams and pulls may have on their way.
    pub answer_bytes: usize,
    /// A body must be complete within this time.
    pub body_timeout: Duration,
    /// Messages a second of each tenant; `None` does not limit.
    pub limits: Option<Arc<RateLimiter>>,
}

impl Default for Guards {
    /// Default quotas, and neither memory nor rates bounded: for tests and tools.
    fn default() -> Self {
        Self {
            quotas: Quotas::default(),
            bodies: OwnedMemory::unlimited(),
            answer_bytes: usize::MAX,
            body_timeout: Duration::from_secs(30),
            limits: None,
        }
    }
}

impl Call {
    /// Whose quotas the call counts against.
    pub(crate) fn owner(&self) -> QuotaOwner {
        QuotaOwner::of(&self.principal)
    }
}

impl PubsubApi {
    /// Whether who made the call still may.
    ///
    /// # Errors
    /// UNAUTHENTICATED when the credential was revoked or has expired since.
    pub(crate) fn valid(&self, call: &Call) -> Result<(), ApiError> {
        // Who came in without a credential has none to lose.
        if call.is_open() || self.authenticator.is_valid(&call.principal) {
            return Ok(());
        }
        Err(ApiError::new(
            Code::Unauthenticated,
            "Request had invalid authentication credentials: the key was revoked or has expired meanwhile.",
        ))
    }

    /// Ends when the credential of a call is no longer good.
    pub(crate) async fn revoked(&self, call: &Call) -> ApiError {
        loop {
            if let Err(error) = self.valid(call) {
                return error;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// From now on a call waits: it gives up its place among those that are answered, and holds
    /// one of this quota.
    pub(crate) fn wait(&self, call: &Call, quota: Quota) -> Result<QuotaPlace, ApiError> {
        match &call.place {
            Some(place) => Ok(place.wait(&call.principal, quota)?),
            None => Ok(self.guards.quotas.take(&call.owner(), quota)?),
        }
    }

    /// The most that one answer to an owner brings, of at most `most` bytes: the more of its
    /// streams and calls are open, the less each, since a client may read none of them.
    pub(crate) fn answer_bytes(&self, owner: &QuotaOwner, most: usize) -> usize {
        let open = [Quota::Streams, Quota::WaitingReads, Quota::Requests];
        let open: u64 = open.into_iter().map(|quota| self.guards.quotas.held(owner, quota)).sum();
        let open = usize::try_from(open).unwrap_or(usize::MAX).saturating_mul(ANSWERS_ON_THEIR_WAY).max(1);
        (self.guards.answer_bytes / open).clamp(MIN_ANSWER_BYTES.min(most), most)
    }

    /// Takes a token of its tenant for each message.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, with the time after which it can succeed.
    pub(crate) fn take_tokens(&self, items: &[Publication]) -> Result<(), ApiError> {
        let Some(limits) = &self.guards.limits else { return Ok(()) };
        let mut costs: BTreeMap<&TenantId, u64> = BTreeMap::new();
        for item in items {
            *costs.entry(item.context.tenant()).or_default() += 1;
        }
        for (tenant, cost) in costs {
            limits.admit(tenant, cost)?;
        }
        Ok(())
    }
}

/// What a problem tells a client of this API about when to come again.
pub(crate) fn retry_of(problem: &Problem) -> Option<Duration> {
    problem.retry_after_s.filter(|_| problem.status == 429 || problem.status == 503).map(Duration::from_secs)
}
