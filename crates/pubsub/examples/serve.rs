//! Serves the Pub/Sub API alone, without credentials, on loopback:
//!
//! ```text
//! cargo run -p levada-pubsub --example serve -- 127.0.0.1:8085
//! PUBSUB_EMULATOR_HOST=127.0.0.1:8085 python tests/python/pubsub_client.py
//! ```

#[path = "../tests/support/memory.rs"]
mod memory;

use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use levada_core::{Authenticator, Principal, Problem, RandomIds, SystemClock};
use levada_pubsub::{
    MemoryPolicies, NoSchemas, Parts, Projects, PubsubApi, PubsubConfig, PushConfig, PushKey, push_router,
    router,
};

struct Nobody;

impl Authenticator for Nobody {
    fn authenticate(&self, _: &str) -> Result<Arc<Principal>, Problem> {
        Err(Problem::new(401, "unauthenticated", "this server knows no keys"))
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8085".to_owned());
    let api = PubsubApi::new(Parts {
        bus: Arc::new(memory::MemoryBus::default()),
        authenticator: Arc::new(Nobody),
        projects: Arc::new(Projects::dev([])),
        schemas: Arc::new(NoSchemas),
        policies: Arc::new(MemoryPolicies::default()),
        clock: Arc::new(SystemClock::new()),
        ids: Arc::new(RandomIds),
        config: PubsubConfig::default(),
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
