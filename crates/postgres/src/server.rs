//! The listener: accepts, bounds how many are connected, and drains at the end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use levada_core::{Authenticator, MemoryBudget, OwnedMemory, Quotas, SignIns, SystemClock};
use levada_lake::{Lake, QueryLimits};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cancel::Registry;
use crate::connection;
use crate::doorstep::{Doorstep, Stay};
use crate::error::PostgresError;
use crate::kept;
use crate::places::Places;

/// Settings of the door.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// Where to listen. There is no TLS yet: keep it on loopback, or behind a tunnel.
    pub address: String,
    /// Clients that have logged in; of one owner, its quota `postgres_sessions`.
    pub max_connections: usize,
    /// Of those, for administrators of the platform alone.
    pub reserved_connections: usize,
    /// Connections that have not logged in, of all addresses and of one. At the bound the oldest
    /// makes room.
    pub max_logins: usize,
    pub max_peer_logins: usize,
    /// From the connection to the end of the login.
    pub handshake_timeout: Duration,
    /// Between two messages of a client.
    pub idle_timeout: Duration,
    /// How often a session asks whether its key is still good, also while it waits or sends.
    pub recheck: Duration,
    /// Largest message that a client may send.
    pub max_message_bytes: usize,
    /// Prepared statements of one connection; open portals and cursors are a quarter of that.
    pub max_statements: usize,
    /// How long running statements may go on after the server was told to stop.
    pub drain_timeout: Duration,
    /// Of each statement. A client may ask for a shorter timeout.
    pub limits: QueryLimits,
    pub quotas: Quotas,
    /// Of the process. Prepared statements and portals take a share of it, divided by owners.
    pub memory: MemoryBudget,
    /// Delays logins with a key that fails again and again from one address.
    pub sign_ins: Arc<SignIns>,
    /// The program's version, shown in `server_version`.
    pub version: String,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:5433".to_owned(),
            max_connections: 256,
            reserved_connections: 8,
            max_logins: 256,
            max_peer_logins: 64,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
            recheck: Duration::from_secs(1),
            max_message_bytes: 1 << 20,
            max_statements: 512,
            drain_timeout: Duration::from_secs(10),
            limits: QueryLimits::default(),
            quotas: Quotas::default(),
            memory: MemoryBudget::unlimited(),
            sign_ins: Arc::new(SignIns::new(Arc::new(SystemClock::new()), 10, Duration::from_secs(10))),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What all connections share.
pub(crate) struct Shared {
    pub config: PostgresConfig,
    pub lake: Lake,
    pub authenticator: Arc<dyn Authenticator>,
    pub cancels: Arc<Registry>,
    pub places: Places,
    /// What prepared statements and portals of all sessions hold.
    pub kept: OwnedMemory,
    pub stop: CancellationToken,
}

/// A bound listener.
pub struct PostgresServer {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for PostgresServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl PostgresServer {
    /// Binds the listener; nobody is served before [`PostgresServer::run`].
    ///
    /// # Errors
    /// [`PostgresError::Listen`] when the address cannot be had.
    pub async fn bind(
        config: PostgresConfig,
        lake: Lake,
        authenticator: Arc<dyn Authenticator>,
    ) -> Result<Self, PostgresError> {
        let failed = |source| PostgresError::Listen { address: config.address.clone(), source };
        let listener = TcpListener::bind(&config.address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        crate::metrics::describe();
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "the PostgreSQL listener has no TLS and is open beyond loopback");
        }
        let shared = Arc::new(Shared {
            kept: kept::of_all(&config.memory),
            places: Places::new(config.max_connections, config.reserved_connections, config.quotas.clone()),
            config,
            lake,
            authenticator,
            cancels: Arc::default(),
            stop: CancellationToken::new(),
        });
        Ok(Self { listener, address, shared })
    }

    /// The address in use, for instance where port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` resolves, then lets running statements end within the drain time.
    ///
    /// # Errors
    /// [`PostgresError::Accept`] when the listener fails for good.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), PostgresError> {
        let config = &self.shared.config;
        let doorstep = Doorstep::new(config.max_logins, config.max_peer_logins);
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let (socket, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_passing(&error) => {
                    tracing::warn!(%error, "a PostgreSQL connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                Err(error) => return Err(PostgresError::Accept(error)),
            };
            let (shared, stay) = (Arc::clone(&self.shared), doorstep.enter(from.ip()));
            connections.spawn(async move { serve(socket, from, &shared, stay).await });
        }
        self.shared.stop.cancel();
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.shared.config.drain_timeout, drained).await.is_err() {
            tracing::warn!("statements over PostgreSQL did not end in time and are cut");
        }
        Ok(())
    }
}

async fn serve(socket: TcpStream, from: SocketAddr, shared: &Shared, stay: Stay) {
    if let Err(failure) = connection::serve(socket, from, shared, stay).await {
        tracing::debug!(%from, %failure, "postgres connection ended");
    }
}

/// The peer's fault, or a shortage that may end.
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::WouldBlock
    ) || matches!(error.raw_os_error(), Some(23 | 24 | 105))
}
