//! The console over invented data, to look at it without a platform behind it.
//!
//! `cargo run -p levada-console --example preview [ADDRESS]`, then sign in with
//! `lvd_admin`, `lvd_analyst` or `lvd_alpine`.

mod double;

use std::net::SocketAddr;
use std::sync::Arc;

use levada_console::{ConsoleConfig, router};
use levada_core::SystemClock;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8099".to_owned());
    let data = double::Double::new(Arc::new(SystemClock::new()));
    let config = ConsoleConfig { project: "mountain-weather".to_owned(), ..ConsoleConfig::default() };
    let app = router(Arc::new(data), config).into_make_service_with_connect_info::<SocketAddr>();
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("http://{}/console", listener.local_addr()?);
    axum::serve(listener, app).await
}
