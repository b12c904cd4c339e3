//! A gateway with two tenants and a handful of keys, and a client that hides nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use levada_access::{KeyRing, NewKey, RateLimiter};
use levada_bus::admin::{ProjectOwner, SubscriptionAdmin};
use levada_bus::{Bus, BusConfig, EmbeddedBus};
use levada_core::{
    ManualClock, MemoryBudget, Problem, ProjectId, Quota, Quotas, RandomIds, Role, TenantId, TenantSet,
    TopicName,
};
use levada_disk::{Disk, SimDisk};
use levada_http::{
    AppState, Check, DeclaredTenants, Failing, GatewayConfig, ModelRun, ModelStatus, Operations, Parts,
    PipelineCounts, PipelineStatus, RouteRule, Routes, ServerConfig, TenantShare, app_with, serve,
};
use levada_lake::{Lake, LakeConfig};
use levada_store::DocumentStore;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const NOW_MS: i64 = 1_700_000_000_000;
/// No step of a test takes longer unless something hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a valid id")
}

pub fn topic(name: &str) -> TopicName {
    TopicName::new(name).expect("a valid name")
}

pub fn only(names: &[&str]) -> TenantSet {
    TenantSet::Only(names.iter().map(|n| tenant(n)).collect())
}

/// What can differ between tests.
pub struct Setup {
    pub gateway: GatewayConfig,
    pub server: ServerConfig,
    pub limits: Option<levada_access::Rate>,
    pub memory: MemoryBudget,
    pub quotas: Quotas,
    pub extra: Router,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            gateway: GatewayConfig::default(),
            server: ServerConfig { drain_timeout: PATIENCE, ..ServerConfig::default() },
            limits: None,
            memory: MemoryBudget::unlimited(),
            quotas: Quotas::default(),
            extra: Router::new(),
        }
    }
}

pub struct Gateway {
    pub address: SocketAddr,
    pub state: AppState,
    pub clock: Arc<ManualClock>,
    pub disk: SimDisk,
    pub ring: Arc<KeyRing>,
    pub operations: Arc<TestOperations>,
    pub port: Arc<EmbeddedBus>,
    keys: BTreeMap<&'static str, String>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<usize>,
}

/// Keys of every gateway: name, tenants, role.
fn keys() -> [(&'static str, TenantSet, Role); 9] {
    [
        ("admin", TenantSet::All, Role::Admin),
        ("platform-engineer", TenantSet::All, Role::Engineer),
        ("admin-a", only(&["a"]), Role::Admin),
        ("engineer-a", only(&["a"]), Role::Engineer),
        ("client-a", only(&["a"]), Role::Client),
        ("analyst-a", only(&["a"]), Role::Analyst),
        ("admin-b", only(&["b"]), Role::Admin),
        ("client-b", only(&["b"]), Role::Client),
        ("service-ab", only(&["a", "b"]), Role::Service),
    ]
}

impl Gateway {
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        let disk = SimDisk::new(7);
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let ids = Arc::new(RandomIds);
        let mut bus = BusConfig::default();
        // A simulated disk holds its files in memory.
        bus.log.commit_file_bytes = 16 << 20;
        bus.log.min_free_bytes = 8 << 20;
        let (bus, _) = Bus::open(shared.clone(), bus, clock.clone()).expect("the bus opens");
        let lake =
            Lake::open(shared.clone(), "lake", LakeConfig::default(), clock.clone()).expect("the lake opens");
        let store = DocumentStore::open(shared, "access").expect("the store opens");
        let ring = Arc::new(KeyRing::open(store, clock.clone()).expect("the ring opens"));
        let port = EmbeddedBus::open(bus.clone(), ProjectId::new("home").expect("a project"));
        let port = Arc::new(port.expect("the subscriptions open"));
        let operations = Arc::new(TestOperations::default());
        let _ = operations.subscriptions.set(SubscriptionAdmin::new(port.clone(), Arc::new(owner_of)));
        let state = AppState::new(Parts {
            authenticator: ring.clone(),
            keys: ring.clone(),
            limits: Arc::new(RateLimiter::new(setup.limits, clock.clone())),
            bus,
            lake,
            routes: Arc::new(routes()),
            tenants: Arc::new(DeclaredTenants::new([tenant("a"), tenant("b"), tenant("default")])),
            operations: operations.clone(),
            clock: clock.clone(),
            ids,
            metrics: Some(recorder()),
            tracing: None,
            memory: setup.memory,
            quotas: setup.quotas,
            config: setup.gateway,
        });
        let keys = keys()
            .into_iter()
            .map(|(name, tenants, role)| (name, create_key(&ring, name, tenants, &[role]).1))
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let router = app_with(state.clone(), setup.extra);
        let draining = state.clone();
        let shutdown = async move {
            let _ = stopped.await;
            draining.drain();
        };
        let server = tokio::spawn(serve(listener, router, shutdown, setup.server));
        Self { address, state, clock, disk, ring, operations, port, keys, stop: Some(stop), server }
    }

    pub fn key(&self, name: &str) -> &str {
        &self.keys[name]
    }

    /// Tells the server to stop; [`Gateway::stopped`] waits for it.
    pub fn stop(&mut self) {
        self.stop.take().expect("stopped once").send(()).expect("the server runs");
    }

    /// How many connections were cut.
    pub async fn stopped(self) -> usize {
        let stopped = tokio::time::timeout(PATIENCE, self.server).await;
        stopped.expect("the server stops in time").expect("without a panic")
    }

    pub fn call(&self, method: Method, path: &str) -> Call {
        let request = Request::builder().method(method).uri(path).header("host", self.address.to_string());
        Call { address: self.address, request, body: Bytes::new() }
    }

    pub fn get(&self, key: &str, path: &str) -> Call {
        self.call(Method::GET, path).bearer(self.key(key))
    }

    pub fn post(&self, key: &str, path: &str, body: impl Into<Bytes>) -> Call {
        self.call(Method::POST, path).bearer(self.key(key)).json(body)
    }

    /// Publishes, expects 202, and waits until readers see it all.
    pub async fn publish(&self, key: &str, body: impl Into<Bytes>) -> Value {
        let answer = self.post(key, "/v1/events", body).send().await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
        self.settled(&answer).await;
        answer.json()
    }

    /// Waits until readers see what an answer says was kept. Kept is durable; visible is a moment later.
    pub async fn settled(&self, answer: &Answer) {
        for result in answer.json()["results"].as_array().expect("results") {
            if let (Some(name), Some(offset)) = (result["topic"].as_str(), result["offset"].as_u64()) {
                self.visible(name, offset + 1).await;
            }
        }
    }

    /// Waits until so many requests are being answered.
    pub async fn in_flight(&self, requests: usize) {
        let reached = async {
            while self.state.admission.in_flight() != requests {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("the requests arrive in time");
    }

    /// Waits until all owners together hold so much of a quota.
    pub async fn holds(&self, quota: Quota, count: u64) {
        let reached = async {
            let held =
                || self.state.quotas.usage().iter().filter(|u| u.quota == quota).map(|u| u.held).sum::<u64>();
            while held() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("the places are taken in time");
    }

    /// Waits until readers of a topic see this many messages.
    pub async fn visible(&self, name: &str, messages: u64) {
        let mut end = self.state.bus.end(&topic(name)).expect("the topic exists");
        let seen = tokio::time::timeout(PATIENCE, end.wait_for(|end| *end >= messages)).await;
        seen.expect("visible in time").expect("the log runs");
    }

    pub async fn raw(&self) -> Raw {
        Raw(TcpStream::connect(self.address).await.expect("connected"))
    }
}

pub fn create_key(ring: &KeyRing, name: &str, tenants: TenantSet, roles: &[Role]) -> (String, String) {
    let new = NewKey {
        name: name.to_owned(),
        tenants,
        roles: roles.iter().copied().collect(),
        expires_at_ms: None,
    };
    let (info, secret) = ring.create(new).expect("a key");
    (info.id, secret.expose().to_owned())
}

fn routes() -> Routes {
    let rule = |owner: Option<&str>, name: &str, types: &[&str]| RouteRule {
        tenant: owner.map(tenant),
        topic: topic(name),
        event_types: types.iter().map(|t| (*t).to_owned()).collect(),
    };
    Routes::new(vec![rule(None, "orders", &["order.*"]), rule(Some("a"), "a-private", &["secret.*"])])
}

/// One recorder a process.
fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| levada_http::metrics::install().expect("the only recorder").0).clone()
}

/// Pipelines and models of tenant a, and shared ones, all marked.
#[derive(Default)]
pub struct TestOperations {
    pub runs: AtomicUsize,
    pub broken: std::sync::atomic::AtomicBool,
    subscriptions: OnceLock<SubscriptionAdmin>,
}

/// `home` is the platform's project, `project-a` and `project-b` are those of the tenants.
fn owner_of(project: &ProjectId) -> Option<ProjectOwner> {
    match project.as_str() {
        "home" => Some(ProjectOwner::Platform),
        of_tenant => of_tenant.strip_prefix("project-").map(|t| ProjectOwner::Tenant(tenant(t))),
    }
}

pub const MARKER: &str = "marker-of-tenant-a";
/// Every figure of tenant a, and of all tenants together, is this and a little more: it cannot be
/// mistaken for anything else in an answer.
pub const FIGURE: u64 = 777_000_000_000;

#[async_trait::async_trait]
impl Operations for TestOperations {
    fn pipelines(&self) -> Vec<PipelineStatus> {
        let counts = |n| PipelineCounts { records_in: n, out: n + 1, dropped: n + 2, dead: n + 3 };
        let number = |n: u64| i64::try_from(n).ok();
        let share = |n: u64, backlog| TenantShare {
            counts: counts(n),
            backlog,
            epoch: number(n + 4),
            committed_at_ms: number(n + 5),
        };
        let own = PipelineStatus {
            name: "a_pipeline".into(),
            tenant: Some(tenant("a")),
            description: Some(MARKER.into()),
            state: "running".into(),
            ..PipelineStatus::default()
        };
        let shared = PipelineStatus {
            name: "shared_pipeline".into(),
            state: "failed".into(),
            error: Some(MARKER.into()),
            counts: counts(FIGURE + 10),
            by_tenant: BTreeMap::from([
                (tenant("a"), share(FIGURE, Some(FIGURE + 100))),
                (tenant("b"), share(10, Some(20))),
            ]),
            backlog: Some(FIGURE + 120),
            epoch: number(FIGURE + 4),
            committed_at_ms: number(FIGURE + 5),
            ..PipelineStatus::default()
        };
        let others = PipelineStatus {
            name: "pipeline_of_others".into(),
            by_tenant: BTreeMap::from([(tenant("a"), share(FIGURE, None))]),
            counts: counts(FIGURE),
            backlog: Some(FIGURE + 100),
            epoch: number(FIGURE + 4),
            committed_at_ms: number(FIGURE + 5),
            ..PipelineStatus::default()
        };
        vec![own, shared, others]
    }

    fn models(&self) -> Vec<ModelStatus> {
        let own = ModelStatus {
            name: "a_model".into(),
            tenant: Some(tenant("a")),
            description: Some(MARKER.into()),
            state: "ready".into(),
            ..ModelStatus::default()
        };
        let shared = ModelStatus {
            name: "shared_model".into(),
            state: "failed".into(),
            reason: Some(MARKER.into()),
            rows: Some(FIGURE + 456),
            ..ModelStatus::default()
        };
        vec![own, shared]
    }

    fn failing(&self) -> Vec<Failing> {
        let part = |kind, name: &str, of: Option<&str>| Failing {
            kind,
            name: name.into(),
            tenant: of.map(tenant),
            reason: MARKER.into(),
        };
        vec![
            part("pipeline", "a_pipeline", Some("a")),
            part("pipeline", "shared_pipeline", None),
            part("model", "a_model", Some("a")),
        ]
    }

    fn subscriptions(&self) -> Option<SubscriptionAdmin> {
        self.subscriptions.get().cloned()
    }

    async fn run_model(&self, _: Option<&TenantId>, name: &str) -> Result<ModelRun, Problem> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        Ok(ModelRun { name: name.to_owned(), rows: 1, duration_ms: 2, epoch: None })
    }

    fn checks(&self) -> Vec<Check> {
        vec![Check {
            name: "log".into(),
            ok: !self.broken.load(Ordering::SeqCst),
            detail: Some(MARKER.into()),
        }]
    }
}

/// One request on a connection of its own.
pub struct Call {
    address: SocketAddr,
    request: http::request::Builder,
    body: Bytes,
}

impl Call {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub fn bearer(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    pub fn json(self, body: impl Into<Bytes>) -> Self {
        self.header("content-type", "application/json").body(body)
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub async fn send(self) -> Answer {
        let request = self.request.body(Full::new(self.body)).expect("a request");
        let sent = async {
            let stream = TcpStream::connect(self.address).await.expect("connected");
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
            tokio::spawn(connection);
            Answer::read(sender.send_request(request).await.expect("an answer")).await
        };
        tokio::time::timeout(PATIENCE, sent).await.expect("an answer in time")
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub async fn read(response: http::Response<hyper::body::Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Self { status: parts.status, headers: parts.headers, body }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().expect("ASCII"))
    }

    /// Expects a complete problem and gives it.
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("https://levada.dev/errors/{code}"));
        assert_eq!(problem["request_id"], self.header("x-request-id"), "{problem}");
        assert!(problem["title"].as_str().is_some_and(|t| !t.is_empty()));
        assert!(problem["detail"].as_str().is_some_and(|d| !d.is_empty()));
        problem
    }
}

/// Bytes on a socket, for what no client library would send.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("written");
    }

    /// Reads until the text contains `end`, or the connection closes.
    pub async fn read_until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        let reading = async {
            let mut buffer = [0; 4096];
            loop {
                match self.0.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(n) => read.extend_from_slice(&buffer[..n]),
                }
                if !end.is_empty() && String::from_utf8_lossy(&read).contains(end) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the server answers or closes in time");
        String::from_utf8_lossy(&read).into_owned()
    }

    pub async fn read_to_close(&mut self) -> String {
        self.read_until("").await
    }
}
