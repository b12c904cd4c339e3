//! One running Levada: how the parts are put together, started and stopped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use levada_access::{KeyRing, Rate, RateLimiter};
use levada_bus::port::BusPort;
use levada_bus::{Bus, BusConfig, EmbeddedBus};
use levada_config::Secrets;
use levada_config::model::{Limits, Owner, Pipeline, Project, Source};
use levada_connect::{FileReader, FileReaderConfig};
use levada_core::{
    Backoff, Clock, Egress, IdSource, MemoryHold, Principal, ProjectId, RandomIds, ReadError, SystemClock,
    TenantId,
};
use levada_disk::{Disk, RealDisk};
use levada_flow::{FileReaders, Models, ModelsConfig, Pipelines};
use levada_http::{
    AppState, DeclaredTenants, GatewayConfig, MetricsAccess, Parts, QueryConfig, RouteRule, Routes,
};
use levada_lake::{Lake, QueryLimits};
use levada_postgres::{PostgresConfig, PostgresServer};
use levada_pubsub::{PubsubApi, PubsubConfig, PushConfig, PushKey, StoredSchemas};
use levada_store::DocumentStore;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::archive::LakeArchive;
use crate::census::Census;
use crate::console_data::{self, PlatformData};
use crate::data_dir::DataDir;
use crate::maintenance;
use crate::operations::{EngineOperations, Engines};
use crate::pubsub::{self, StoredPolicies};
use crate::sampler::Sampler;
use crate::shared::Shared;
use crate::telemetry::Export;
use crate::topics;

pub const LAKE_DIR: &str = "lake";
const KEYS_DIR: &str = "store/access";
const POLICIES_DIR: &str = "store/pubsub-policies";
const SCHEMAS_DIR: &str = "store/pubsub-schemas";
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// What to run and where.
pub struct Options {
    pub project: Project,
    pub secrets: Secrets,
    pub data_dir: PathBuf,
    pub http: String,
    pub postgres: Option<String>,
    /// Requests from the machine itself need no key. For the demo only.
    pub open_on_loopback: Option<Arc<Principal>>,
    /// The Pub/Sub API asks for no credential, and every project exists.
    pub dev: bool,
    /// Where traces and metrics are sent.
    pub telemetry: Option<levada_telemetry::Config>,
}

/// A running server. [`Server::stop`] drains it; dropping it does not.
pub struct Server {
    pub url: String,
    pub postgres: Option<SocketAddr>,
    pub admin_key_path: PathBuf,
    /// The first admin key was made in this start.
    pub first_start: bool,
    pub dev: bool,
    pub bus: Bus,
    pub lake: Lake,
    pub engines: Arc<Engines>,
    data: DataDir,
    state: AppState,
    pubsub: PubsubApi,
    export: Export,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    _bus_memory: MemoryHold,
}

impl Server {
    /// Starts every part and returns once the gateway accepts connections.
    ///
    /// # Errors
    /// When the data folder is held by another server, an address is taken, or stored state
    /// cannot be recovered.
    pub async fn start(mut options: Options) -> Result<Self> {
        let metrics = install_metrics();
        let data = DataDir::open(&options.data_dir)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let disk: Arc<dyn Disk> =
            Arc::new(RealDisk::new(data.root()).context("cannot open the data folder")?);
        let project = &mut options.project;
        project.pipelines.extend(unrouted_events(&project.pipelines));
        let export = Export::start(options.telemetry.take(), project, metrics.as_ref(), &clock)?;
        let metrics = metrics.map(|(handle, _)| handle);
        let shared = Shared::of(project, options.dev || options.open_on_loopback.is_some());

        let config = shared.bus_config(options.dev);
        // What its windows and cache may grow to is not there for others.
        let bus_memory = shared.memory.take(config.held_bytes())?;
        let bus = open_bus(disk.clone(), clock.clone(), config).await?;
        let home = pubsub::home(project);
        let port = open_port(home.clone(), &bus).await?;
        topics::ensure(project, routes(project).topics(), &home, &bus, &*port).await?;
        let lake = Lake::open(disk.clone(), LAKE_DIR, shared.lake_config(), clock.clone())
            .context("cannot open the lake")?;
        let key_store = open_store(&disk, KEYS_DIR).await?;
        let keys =
            Arc::new(KeyRing::open(key_store.clone(), clock.clone()).context("cannot open the API keys")?);
        let admin =
            keys.ensure_admin(|secret| data.write_admin_key(secret.expose()).map_err(std::io::Error::other))?;

        let http = TcpListener::bind(&options.http)
            .await
            .with_context(|| format!("cannot listen on {}", options.http))?;
        let address = http.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Vec::new();
        let project = &options.project;
        let query = &project.server.query;
        let limits = QueryLimits {
            memory_bytes: usize::try_from(query.memory_bytes).unwrap_or(usize::MAX),
            timeout: query.timeout,
            max_rows: usize::try_from(query.max_rows).unwrap_or(usize::MAX),
        };
        let postgres = match &options.postgres {
            Some(listen) => {
                let config = PostgresConfig {
                    address: listen.clone(),
                    limits,
                    quotas: shared.quotas.clone(),
                    memory: shared.memory.clone(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..PostgresConfig::default()
                };
                let server = PostgresServer::bind(config, lake.clone(), keys.clone()).await?;
                let address = server.local_addr();
                let stopped = stopped.clone();
                tasks.push(tokio::spawn(async move {
                    if let Err(error) = server.run(until(stopped)).await {
                        tracing::error!(%error, "the PostgreSQL door stopped");
                    }
                }));
                Some(address)
            }
            None => None,
        };

        let engines =
            Arc::new(start_engines(&options, &shared, &bus, &lake, &disk, &clock, data.root()).await?);
        let sampler = Sampler::start(bus.clone(), stopped.clone());
        let (census, counting) = Census::start(disk.clone(), LAKE_DIR, clock.clone(), stopped.clone());
        tasks.push(counting);

        let port = export.follow(port);
        // Not before the port has said how long messages are needed: upkeep deletes the others.
        tasks.push(maintenance::start(
            bus.clone(),
            lake.clone(),
            shared.clone(),
            metrics.clone(),
            stopped.clone(),
        ));
        let projects = Arc::new(pubsub::projects(project, options.dev));
        let (policy_store, schema_store) =
            (open_store(&disk, POLICIES_DIR).await?, open_store(&disk, SCHEMAS_DIR).await?);
        let policies = Arc::new(StoredPolicies::open(policy_store.clone())?);
        let schemas = Arc::new(StoredSchemas::open(schema_store.clone(), clock.clone())?);
        let documents = vec![key_store, policy_store, schema_store, bus.documents()];
        let rates = Arc::new(rate_limiter(project, clock.clone()));
        let counted = rates.clone();
        let take: levada_bus::TakeTokens = Arc::new(move |tenant, cost| counted.admit(tenant, cost));
        bus.limit_resends(take.clone());
        let subscriptions = pubsub::admin(port.clone(), projects.clone(), schemas.clone()).with_rate(take);
        let ids: Arc<dyn IdSource> = Arc::new(RandomIds);
        let state = AppState::new(Parts {
            authenticator: keys.clone(),
            keys: keys.clone(),
            limits: rates.clone(),
            bus: bus.clone(),
            lake: lake.clone(),
            routes: Arc::new(routes(project)),
            tenants: Arc::new(DeclaredTenants::new(project.tenants.iter().map(|t| t.id.clone()))),
            operations: Arc::new(EngineOperations {
                engines: engines.clone(),
                bus: bus.clone(),
                lake: lake.clone(),
                documents,
                subscriptions: subscriptions.clone(),
            }),
            clock: clock.clone(),
            ids,
            metrics,
            tracing: export.ingest(project),
            memory: shared.memory.clone(),
            quotas: shared.quotas.clone(),
            config: GatewayConfig {
                own_site_only: options.dev || options.open_on_loopback.is_some(),
                ..gateway_config(project, limits, options.open_on_loopback.clone())
            },
        });
        let console = levada_console::router(
            Arc::new(PlatformData::new(console_data::Parts {
                keys: keys.clone(),
                bus: bus.clone(),
                lake: lake.clone(),
                engines: engines.clone(),
                subscriptions: subscriptions.clone(),
                sampler,
                census,
                limits,
                clock: clock.clone(),
            })),
            levada_console::ConsoleConfig {
                project: project.name.clone(),
                clock: clock.clone(),
                quotas: shared.quotas.clone(),
                ..levada_console::ConsoleConfig::default()
            },
        );
        let pubsub = PubsubApi::new(levada_pubsub::Parts {
            bus: port,
            authenticator: keys.clone(),
            projects,
            schemas,
            policies,
            clock: clock.clone(),
            ids: Arc::new(RandomIds),
            guards: levada_pubsub::Guards {
                quotas: shared.quotas.clone(),
                bodies: state.bodies.clone(),
                answer_bytes: state.answers.per_owner(),
                limits: Some(rates),
                ..levada_pubsub::Guards::default()
            },
            config: PubsubConfig { egress: shared.egress.clone(), ..PubsubConfig::default() },
        });
        let push = push_config(&data, &format!("http://{}", http.local_addr()?))?;
        let doors = console.merge(levada_pubsub::router(&pubsub)).merge(levada_pubsub::push_router(&push));
        let app = levada_http::app_with(state.clone(), doors);
        tasks.push(maintenance::count_stock(
            pubsub.clone(),
            keys.clone(),
            shared.quotas.clone(),
            stopped.clone(),
        ));
        let pushing = pubsub.clone();
        tasks.push(tokio::spawn(async move { pushing.push(push).await }));
        let serve = levada_http::serve(http, app, until(stopped), levada_http::ServerConfig::default());
        tasks.push(tokio::spawn(async move {
            serve.await;
        }));

        let url = format!("http://{address}");
        data.write_run(&url, postgres.map(|p| p.to_string()).as_deref())?;
        Ok(Self {
            url,
            postgres,
            admin_key_path: data.admin_key_path(),
            first_start: admin.is_some(),
            dev: options.dev,
            bus,
            lake,
            engines,
            data,
            state,
            pubsub,
            export,
            stop,
            tasks,
            _bus_memory: bus_memory,
        })
    }

    /// Drains: no new requests, those in flight finish, pipelines commit what they read,
    /// the log is closed.
    ///
    /// # Errors
    /// When the last writes fail; everything acknowledged is on disk all the same.
    pub async fn stop(self) -> Result<()> {
        self.state.drain();
        self.pubsub.drain();
        self.stop.send_replace(true);
        for task in self.tasks {
            let _ = tokio::time::timeout(STOP_WITHIN, task).await;
        }
        self.engines.stop(STOP_WITHIN).await;
        let closed = self.bus.close().await.context("cannot close the log");
        self.export.stop().await;
        drop(self.data);
        closed
    }
}

/// Ends when the server stops.
pub async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

fn install_metrics() -> Option<(PrometheusHandle, levada_telemetry::Units)> {
    // A second server in one process (tests) shares nothing and exports nothing.
    let installed = levada_http::metrics::install().ok()?;
    levada_log::describe_metrics();
    levada_bus::metrics::describe();
    levada_flow::metrics::describe();
    levada_telemetry::metrics::describe();
    Some(installed)
}

async fn open_bus(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, config: BusConfig) -> Result<Bus> {
    let open = move || -> Result<Bus> {
        let (bus, recovery) = Bus::open(disk, config, clock).context("cannot recover the log")?;
        tracing::info!(
            idempotency_keys = recovery.idempotency_keys,
            scanned_records = recovery.scanned_records,
            log = ?recovery.log,
            "the log is open"
        );
        Ok(bus)
    };
    tokio::task::spawn_blocking(open).await?
}

/// The topics and subscriptions that the log keeps.
async fn open_port(home: ProjectId, bus: &Bus) -> Result<Arc<dyn BusPort>> {
    let bus = bus.clone();
    let open = move || EmbeddedBus::open(bus, home).context("cannot open the subscriptions");
    Ok(Arc::new(tokio::task::spawn_blocking(open).await??))
}

/// A store of documents in a folder of the data folder.
async fn open_store(disk: &Arc<dyn Disk>, dir: &'static str) -> Result<DocumentStore> {
    let disk = disk.clone();
    Ok(tokio::task::spawn_blocking(move || DocumentStore::open(disk, dir)).await??)
}

/// Tokens of pushed messages name this server as their issuer.
fn push_config(data: &DataDir, url: &str) -> Result<PushConfig> {
    let bytes = data.push_key(|| PushKey::generate().context("cannot make the key of pushed messages"))?;
    let key = PushKey::from_pkcs8(&bytes).context("push.key in the data folder is damaged: remove it")?;
    Ok(PushConfig::new(url, Arc::new(key)))
}

/// Events that no pipeline asks for are kept too: they go to the topic `events`, and from
/// there to bronze.
fn unrouted_events(pipelines: &[Pipeline]) -> Option<Pipeline> {
    let topic = levada_core::TopicName::new(levada_http::DEFAULT_TOPIC).ok()?;
    let name = levada_core::SourceName::new(levada_http::DEFAULT_TOPIC).ok()?;
    let taken = pipelines
        .iter()
        .any(|p| p.name == name || matches!(&p.source, Source::Events { topic: t, .. } if *t == topic));
    (!taken).then(|| Pipeline::archive_only(name, topic))
}

/// The rules by which the gateway finds the topic of an event.
fn routes(project: &Project) -> Routes {
    let rule = |pipeline: &Pipeline| match &pipeline.source {
        Source::Events { topic, event_types } => Some(RouteRule {
            tenant: owner_tenant(&pipeline.owner),
            topic: topic.clone(),
            event_types: event_types.clone(),
        }),
        Source::Files(_) => None,
    };
    Routes::new(project.pipelines.iter().filter_map(rule).collect())
}

fn owner_tenant(owner: &Owner) -> Option<TenantId> {
    match owner {
        Owner::Shared => None,
        Owner::Tenant(tenant) => Some(tenant.clone()),
    }
}

fn rate_limiter(project: &Project, clock: Arc<dyn Clock>) -> RateLimiter {
    let rate = |limits: &Limits| {
        limits.events_per_s.map(|per_s| Rate { per_s, burst: limits.burst_events.unwrap_or(per_s) })
    };
    let limiter = RateLimiter::new(rate(&project.server.limits), clock);
    for tenant in &project.tenants {
        if let Some(limits) = &tenant.limits {
            limiter.set(tenant.id.clone(), rate(limits));
        }
    }
    limiter
}

fn gateway_config(project: &Project, limits: QueryLimits, open: Option<Arc<Principal>>) -> GatewayConfig {
    GatewayConfig {
        max_body_bytes: usize::try_from(project.server.max_body_bytes).unwrap_or(usize::MAX),
        query: QueryConfig {
            memory_bytes: limits.memory_bytes,
            timeout: limits.timeout,
            max_rows: limits.max_rows,
        },
        metrics: if open.is_some() { MetricsAccess::Loopback } else { MetricsAccess::Key },
        loopback_principal: open,
        ..GatewayConfig::default()
    }
}

async fn start_engines(
    options: &Options,
    shared: &Shared,
    bus: &Bus,
    lake: &Lake,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    data_dir: &std::path::Path,
) -> Result<Engines> {
    let parts = levada_flow::Parts {
        bus: bus.clone(),
        lake: lake.clone(),
        disk: disk.clone(),
        clock: clock.clone(),
        jitter: Arc::new(rand::random::<f64>),
        enrich: enrich_context(&options.secrets, shared.egress.clone(), clock.clone()),
        memory: levada_flow::FlowMemory::of(&shared.memory),
    };
    let files = file_readers(&options.project, lake, disk, clock, data_dir);
    let pipelines = Pipelines::start(&options.project.pipelines, parts, files).await?;
    let models = Models::start(
        &options.project.models,
        ModelsConfig {
            lake: lake.clone(),
            disk: disk.clone(),
            clock: clock.clone(),
            signals: pipelines.signals().clone(),
        },
    );
    Ok(Engines::new(options.project.clone(), pipelines, models))
}

/// What enrichment steps share.
pub fn enrich_context(
    secrets: &Secrets,
    egress: Egress,
    clock: Arc<dyn Clock>,
) -> levada_flow::EnrichContext {
    let secrets = secrets.clone();
    levada_flow::EnrichContext {
        clock,
        jitter: Arc::new(rand::random::<f64>),
        secrets: Arc::new(move |name| secrets.get(name).map(|s| s.reveal().to_owned())),
        backoff: Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(2) },
        breakers: levada_flow::Breakers::default(),
        egress,
        cache_entries: 100_000,
        answer_bytes: 1 << 20,
    }
}

fn file_readers(
    project: &Project,
    lake: &Lake,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    data_dir: &std::path::Path,
) -> FileReaders {
    let project = project.clone();
    let (lake, disk, clock) = (lake.clone(), disk.clone(), clock.clone());
    let data_dir = data_dir.to_owned();
    Arc::new(move |pipeline, source| {
        let config = FileReaderConfig::new(&project, pipeline, source, &data_dir);
        // Not an error: the folder may be mounted or made later. Making ours saves a step.
        if let Err(error) = std::fs::create_dir_all(&config.folder) {
            tracing::warn!(folder = %config.folder.display(), %error, "cannot make the landing folder");
        }
        let owner = match &pipeline.owner {
            Owner::Shared => "_shared",
            Owner::Tenant(tenant) => tenant.as_str(),
        };
        let dir = format!("connect/{owner}/{}", pipeline.name);
        let reader: Result<FileReader, ReadError> =
            FileReader::new(config, Arc::new(LakeArchive(lake.clone())), disk.clone(), &dir, clock.clone());
        Ok(Box::new(reader?) as _)
    })
}
