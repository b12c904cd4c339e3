//! What the handlers work with: the engines, the ports, the bounds.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use levada_access::{KeyRing, RateLimiter};
use levada_bus::Bus;
use levada_core::{
    Admission, Authenticator, Clock, IdSource, MemoryBudget, OwnedMemory, Principal, Problem, Quotas, SignIns,
};
use levada_lake::Lake;
use levada_telemetry::Ingest;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Semaphore, watch};

use crate::auth::Tenants;
use crate::metrics::{RequestMetrics, TenantLabels};
use crate::operations::Operations;
use crate::routing::Route;

/// Requests with one key from one address that are refused, before further ones wait.
const SIGN_IN_BURST: u32 = 100;
const SIGN_IN_REFILL: Duration = Duration::from_secs(1);

/// Reads of messages at the same time. Each may meet a record larger than it asked for.
const MAX_READS: usize = 16;

/// Who may read `/metrics`. Its figures are of the whole platform, so a key that is bound
/// to single tenants is never enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MetricsAccess {
    /// A key for all tenants with the role admin or engineer.
    #[default]
    Key,
    /// Also any client on the machine itself.
    Loopback,
    /// Anybody who reaches the port.
    Open,
}

/// Bounds of the gateway.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    pub max_body_bytes: usize,
    pub max_batch_events: usize,
    /// Request bodies held in memory by all requests together, and no more than a quarter of the
    /// memory budget; one caller holds a quarter of it.
    pub max_bodies_bytes: usize,
    /// Requests being answered at the same time; more get 503. What a caller may have of them is
    /// its quota `requests`; health checks and metrics need none of them.
    pub max_requests: usize,
    /// Requests of one address that have not said yet who calls.
    pub max_unknown_requests: usize,
    /// A body must be complete within this time.
    pub body_timeout: Duration,
    pub publish_timeout: Duration,
    /// Longest `wait_ms` of a read that waits for messages.
    pub max_wait: Duration,
    pub query: QueryConfig,
    pub metrics: MetricsAccess,
    /// The caller of requests without a credential that come from the machine itself, as
    /// the demo wants it. `None` keeps the gateway closed.
    pub loopback_principal: Option<Arc<Principal>>,
    /// Some door asks this machine for no credential: requests under a foreign name or of a
    /// foreign page are refused at every address.
    pub own_site_only: bool,
}

/// Bounds of one SQL query.
#[derive(Debug, Clone)]
pub struct QueryConfig {
    pub memory_bytes: usize,
    pub timeout: Duration,
    pub max_rows: usize,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 10 << 20,
            max_batch_events: 10_000,
            max_bodies_bytes: 512 << 20,
            max_requests: 4_096,
            max_unknown_requests: 256,
            body_timeout: Duration::from_secs(30),
            publish_timeout: Duration::from_secs(30),
            max_wait: Duration::from_secs(30),
            query: QueryConfig::default(),
            metrics: MetricsAccess::default(),
            loopback_principal: None,
            own_site_only: false,
        }
    }
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, timeout: Duration::from_secs(30), max_rows: 100_000 }
    }
}

/// What the binary puts together.
pub struct Parts {
    pub authenticator: Arc<dyn Authenticator>,
    pub keys: Arc<KeyRing>,
    pub limits: Arc<RateLimiter>,
    pub bus: Bus,
    pub lake: Lake,
    pub routes: Arc<dyn Route>,
    pub tenants: Arc<dyn Tenants>,
    pub operations: Arc<dyn Operations>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
    /// `None`: `/metrics` answers 404.
    pub metrics: Option<PrometheusHandle>,
    /// `None`: events are not traced.
    pub tracing: Option<Ingest>,
    pub memory: MemoryBudget,
    pub quotas: Quotas,
    pub config: GatewayConfig,
}

/// Shared by all requests; cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Inner>);

pub struct Inner {
    pub parts: Parts,
    pub started_ms: i64,
    pub tenant_labels: TenantLabels,
    pub(crate) request_metrics: RequestMetrics,
    /// What request bodies may hold.
    pub bodies: OwnedMemory,
    /// What answers may hold that are made or have not been sent yet.
    pub answers: OwnedMemory,
    /// Those who read messages from the disk now.
    pub(crate) reads: Arc<Semaphore>,
    pub admission: Admission,
    pub(crate) sign_ins: SignIns,
    draining: watch::Sender<bool>,
}

impl Deref for AppState {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Deref for Inner {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl AppState {
    pub fn new(parts: Parts) -> Self {
        let config = &parts.config;
        let quarter = parts.memory.limit() / 4;
        let bodies = config.max_bodies_bytes.min(quarter);
        // The largest body must fit in one caller's part.
        let own = (bodies / 4).max(config.max_body_bytes.min(bodies));
        Self(Arc::new(Inner {
            started_ms: parts.clock.now_ms(),
            tenant_labels: TenantLabels::default(),
            request_metrics: RequestMetrics::default(),
            bodies: OwnedMemory::new(&parts.memory, "request bodies", bodies, own),
            answers: OwnedMemory::new(&parts.memory, "answers", quarter, quarter / 4),
            reads: Arc::new(Semaphore::new(MAX_READS)),
            admission: Admission::new(config.max_requests, config.max_unknown_requests, parts.quotas.clone()),
            sign_ins: SignIns::new(parts.clock.clone(), SIGN_IN_BURST, SIGN_IN_REFILL),
            draining: watch::Sender::new(false),
            parts,
        }))
    }

    /// Whether a caller that came in earlier still may. The caller that the gateway made itself,
    /// where it is open on loopback, has no credential to lose.
    pub(crate) fn is_valid(&self, principal: &Principal) -> bool {
        let made = self.config.loopback_principal.as_ref().is_some_and(|own| own.id == principal.id);
        made || self.authenticator.is_valid(principal)
    }

    /// Asks [`AppState::is_valid`].
    ///
    /// # Errors
    /// `unauthenticated`.
    pub(crate) fn still_valid(&self, principal: &Principal) -> Result<(), Problem> {
        if self.is_valid(principal) {
            return Ok(());
        }
        let detail = "the credential was revoked or expired while the call waited";
        Err(Problem::new(401, "unauthenticated", detail).hint("send a valid API key"))
    }

    /// Says that the process is about to stop: `/readyz` turns to 503 and waiting reads
    /// return at once. Call it when the shutdown signal comes, before [`crate::serve`] drains.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Ends when [`AppState::drain`] is called.
    pub async fn drained(&self) {
        let mut draining = self.draining.subscribe();
        // The sender lives as long as `self`, so an error cannot come.
        let _ = draining.wait_for(|d| *d).await;
    }
}
