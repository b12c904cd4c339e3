//! Serves the Pub/Sub API alone on loopback, over the bus in memory. Without a key as the second
//! argument no credentials are needed; with one it is an admin's of the tenant `acme`, which
//! owns the one project that there is then, `acme`.
//!
//! ```text
//! cargo run -p levada-pubsub --example serve -- 127.0.0.1:8085
//! PUBSUB_EMULATOR_HOST=127.0.0.1:8085 python tests/python/pubsub_client.py
//! ```

#[path = "../src/tests/memory.rs"]
mod memory;

use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use levada_core::{
    Authenticator, Principal, Problem, ProjectId, RandomIds, Role, SystemClock, TenantId, TenantSet,
};
use levada_disk::SimDisk;
use levada_pubsub::{
    MemoryPolicies, Owner, Parts, Projects, PubsubApi, PubsubConfig, PushConfig, PushKey, StoredSchemas,
    push_router, router,
};
use levada_store::DocumentStore;

/// The one key.
struct OneKey(Option<String>);

impl Authenticator for OneKey {
    fn is_valid(&self, _: &levada_core::Principal) -> bool {
        true
    }

    fn authenticate(&self, secret: &str) -> Result<Arc<Principal>, Problem> {
        if self.0.as_deref() != Some(secret) {
            return Err(Problem::new(401, "unauthenticated", "the key is unknown"));
        }
        Ok(Arc::new(Principal {
            id: "key".to_owned(),
            name: "the one key".to_owned(),
            tenants: TenantSet::Only([acme()].into()),
            roles: [Role::Admin].into(),
        }))
    }
}

fn acme() -> TenantId {
    TenantId::new("acme").expect("a valid id")
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8085".to_owned());
    let key = std::env::args().nth(2);
    let projects = match key {
        Some(_) => Projects::new([(ProjectId::new("acme").expect("a valid id"), Owner::Tenant(acme()))]),
        None => Projects::dev([]),
    };
    let clock = Arc::new(SystemClock::new());
    let store = DocumentStore::open(Arc::new(SimDisk::new(1)), "schemas").map_err(std::io::Error::other)?;
    let schemas = StoredSchemas::open(store, clock.clone()).map_err(std::io::Error::other)?;
    let api = PubsubApi::new(Parts {
        bus: Arc::new(memory::MemoryBus::default()),
        authenticator: Arc::new(OneKey(key)),
        projects: Arc::new(projects),
        schemas: Arc::new(schemas),
        policies: Arc::new(MemoryPolicies::default()),
        clock,
        ids: Arc::new(RandomIds),
        guards: levada_pubsub::Guards::default(),
        config: PubsubConfig {
            egress: levada_core::Egress::default().with_loopback(),
            ..PubsubConfig::default()
        },
    });
    let listener = tokio::net::TcpListener::bind(&address).await?;
    let key =
        PushKey::generate().and_then(|bytes| PushKey::from_pkcs8(&bytes)).map_err(std::io::Error::other)?;
    let push = PushConfig::new(&format!("http://{}", listener.local_addr()?), Arc::new(key));
    let app = router(&api).merge(push_router(&push));
    tokio::spawn(async move { api.push(push).await });
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http2().timer(TokioTimer::new()).max_concurrent_streams(256).adaptive_window(true);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("connection ended: {error}");
            }
        });
    }
}
