//! One client: login, then message after message until it leaves, idles or must go.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use pgwire::error::ErrorInfo;
use pgwire::messages::response::{NoticeResponse, ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::ParameterStatus;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cancel::Registration;
use crate::codec::Codec;
use crate::doorstep::Stay;
use crate::error::{Failure, Outcome, fatal};
use crate::kept::Shelf;
use crate::metrics::Connected;
use crate::places::Place;
use crate::portal::{Portal, Prepared};
use crate::server::Shared;
use crate::session::Session;
use crate::startup::{Opening, log_in, negotiate};

pub(crate) type Io = Framed<TcpStream, Codec>;

/// A client that takes longer to read one batch of rows is cut off.
pub(crate) const STALL: Duration = Duration::from_secs(120);

/// Codes of refusals that come before all of a message was read.
const LEAVES_UNREAD: [&str; 3] = ["08P01", "22021", "54000"];
/// Of a message that was refused, what is still taken in, and for how long.
const MAX_DRAINED_BYTES: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// A logged-in client.
pub(crate) struct Connection<'a> {
    pub io: Io,
    pub shared: &'a Shared,
    pub session: Session,
    pub registration: Registration,
    pub statements: HashMap<String, Arc<Prepared>>,
    /// Portals of the protocol and cursors of SQL are one thing.
    pub portals: HashMap<String, Portal>,
    /// Where both take their bytes from.
    pub shelf: Shelf,
    pub status: TransactionStatus,
    /// Cancelled when the key is no longer good.
    revoked: CancellationToken,
    /// After an error in the extended protocol: until the next Sync.
    skipping: bool,
}

struct Opened<'a> {
    session: Session,
    registration: Registration,
    _place: Place<'a>,
    _connected: Connected,
}

/// Serves a connection to its end.
///
/// # Errors
/// Why it ended, for the log; the client was told where it could be.
pub(crate) async fn serve(socket: TcpStream, from: SocketAddr, shared: &Shared, stay: Stay) -> Outcome<()> {
    socket.set_nodelay(true).map_err(|e| Failure::Wire(e.into()))?;
    let mut io = Framed::new(socket, Codec::new(shared.config.max_message_bytes));
    let opening = tokio::time::timeout(shared.config.handshake_timeout, open(&mut io, shared, from));
    let opening = tokio::select! {
        opening = opening => opening,
        () = stay.leave.cancelled() => Ok(Err(fatal(
            "53300",
            "too many connections have not logged in; this one made room for another",
            Some("log in as soon as you are connected"),
        ))),
    };
    let opened = match opening {
        Ok(Ok(Some(opened))) => opened,
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(failure)) => return part(&mut io, failure).await,
        Err(_) => return part(&mut io, fatal("08P01", "the login took too long", None)).await,
    };
    drop(stay);
    let Opened { session, registration, _place, _connected } = opened;
    let revoked = CancellationToken::new();
    let _watch = watch(shared, &session, revoked.clone());
    let mut connection = Connection {
        io,
        shared,
        shelf: Shelf::new(shared.kept.clone(), &session.principal),
        session,
        registration,
        statements: HashMap::new(),
        portals: HashMap::new(),
        status: TransactionStatus::Idle,
        revoked,
        skipping: false,
    };
    match connection.run().await {
        Ok(()) => Ok(()),
        Err(failure) => {
            let is_unread =
                matches!(&failure, Failure::Fatal(info) if LEAVES_UNREAD.contains(&info.code.as_str()));
            let parted = part(&mut connection.io, failure).await;
            if is_unread {
                drain(&mut connection.io, shared).await;
            }
            parted
        }
    }
}

/// Takes in, and forgets, what the client still sends. A socket that is closed over unread bytes
/// resets the connection, and the client would lose the error that was sent before.
async fn drain(io: &mut Io, shared: &Shared) {
    let socket = io.get_mut();
    let mut part = [0; 8 << 10];
    let drained = async {
        let mut left = MAX_DRAINED_BYTES;
        while let Ok(read @ 1..) = socket.read(&mut part).await {
            left = left.saturating_sub(read);
            if left == 0 {
                return;
            }
        }
    };
    tokio::select! {
        () = shared.stop.cancelled() => {}
        _ = tokio::time::timeout(DRAIN_TIME, drained) => {}
    }
}

async fn open<'a>(io: &mut Io, shared: &'a Shared, from: SocketAddr) -> Outcome<Option<Opened<'a>>> {
    let Opening::Startup(startup) = negotiate(io, shared).await? else { return Ok(None) };
    let registration = shared.cancels.register();
    let (session, place) = log_in(io, shared, &startup, &registration, from).await?;
    Ok(Some(Opened { session, registration, _place: place, _connected: Connected::new() }))
}

/// Asks again and again whether the key is still good, and tells when it is not.
fn watch(shared: &Shared, session: &Session, revoked: CancellationToken) -> AbortOnDropHandle<()> {
    let (authenticator, principal) = (shared.authenticator.clone(), session.principal.clone());
    let every = shared.config.recheck;
    AbortOnDropHandle::new(tokio::spawn(async move {
        while authenticator.is_valid(&principal) {
            tokio::time::sleep(every).await;
        }
        revoked.cancel();
    }))
}

/// Tells the client why the connection ends, if it still listens.
async fn part(io: &mut Io, failure: Failure) -> Outcome<()> {
    let info = match failure {
        Failure::Fatal(info) | Failure::Statement(info) => *info,
        Failure::Wire(error) => {
            let info = ErrorInfo::new("FATAL".to_owned(), "08P01".to_owned(), error.to_string());
            send_error(io, info).await?;
            return Err(Failure::Wire(error));
        }
    };
    let ended = Failure::Fatal(Box::new(ErrorInfo::new(
        info.severity.clone(),
        info.code.clone(),
        info.message.clone(),
    )));
    send_error(io, info).await?;
    io.close().await?;
    Err(ended)
}

async fn send_error(io: &mut Io, info: ErrorInfo) -> Outcome<()> {
    let sending = io.send(PgWireBackendMessage::ErrorResponse(info.into()));
    match tokio::time::timeout(Duration::from_secs(5), sending).await {
        Ok(sent) => Ok(sent?),
        Err(_) => Ok(()),
    }
}

fn key_gone() -> Failure {
    let hint = Some("connect again with a valid key");
    fatal("57P01", "terminating connection: the key was revoked or has expired", hint)
}

impl Connection<'_> {
    async fn run(&mut self) -> Outcome<()> {
        let revoked = self.revoked.clone();
        loop {
            let next = tokio::select! {
                () = revoked.cancelled() => return Err(key_gone()),
                () = self.shared.stop.cancelled() => {
                    return Err(fatal("57P01", "the server is shutting down", None));
                }
                next = tokio::time::timeout(self.shared.config.idle_timeout, self.io.next()) => next,
            };
            let message = match next {
                Ok(Some(message)) => message?,
                Ok(None) => return Ok(()),
                Err(_) => return Err(fatal("57P05", "the connection was idle for too long", None)),
            };
            if matches!(message, PgWireFrontendMessage::Terminate(_)) {
                return Ok(());
            }
            // Also in the middle of a result: a whole message more, and no other.
            tokio::select! {
                biased;
                () = revoked.cancelled() => return Err(key_gone()),
                handled = self.handle(message) => handled?,
            }
        }
    }

    /// Handles one message; a statement's failure is told to the client and no failure here.
    async fn handle(&mut self, message: PgWireFrontendMessage) -> Outcome<()> {
        match message {
            PgWireFrontendMessage::Query(query) => {
                self.skipping = false;
                if let Err(failure) = self.simple(&query.query).await {
                    self.tell(failure).await?;
                }
                self.ready().await
            }
            PgWireFrontendMessage::Sync(_) => {
                self.skipping = false;
                self.end_of_series();
                self.ready().await
            }
            PgWireFrontendMessage::Flush(_) => Ok(self.io.flush().await?),
            _ if self.skipping => Ok(()),
            message => {
                if let Err(failure) = self.extended(message).await {
                    self.tell(failure).await?;
                    self.skipping = true;
                }
                Ok(())
            }
        }
    }

    async fn extended(&mut self, message: PgWireFrontendMessage) -> Outcome<()> {
        match message {
            PgWireFrontendMessage::Parse(parse) => self.parse(parse).await,
            PgWireFrontendMessage::Bind(bind) => self.bind(bind).await,
            PgWireFrontendMessage::Describe(describe) => self.describe(describe).await,
            PgWireFrontendMessage::Execute(execute) => self.execute(execute).await,
            PgWireFrontendMessage::Close(close) => self.close(close).await,
            _ => Err(fatal("08P01", "this message has no meaning here", None)),
        }
    }

    async fn tell(&mut self, failure: Failure) -> Outcome<()> {
        let Failure::Statement(info) = failure else { return Err(failure) };
        if self.status == TransactionStatus::Transaction {
            self.status = TransactionStatus::Error;
        }
        self.io.send(PgWireBackendMessage::ErrorResponse((*info).into())).await?;
        Ok(())
    }

    /// Tells the client which of the settings that it follows have changed.
    pub async fn report(&mut self, before: &[(String, String)]) -> Outcome<()> {
        for (name, value) in self.session.settings.reported() {
            if !before.contains(&(name.clone(), value.clone())) {
                let changed = ParameterStatus::new(name, value);
                self.io.feed(PgWireBackendMessage::ParameterStatus(changed)).await?;
            }
        }
        Ok(())
    }

    pub async fn notice(&mut self, code: &str, text: String) -> Outcome<()> {
        let info = ErrorInfo::new("WARNING".to_owned(), code.to_owned(), text);
        self.io.feed(PgWireBackendMessage::NoticeResponse(NoticeResponse::from(info))).await?;
        Ok(())
    }

    async fn ready(&mut self) -> Outcome<()> {
        let ready = ReadyForQuery::new(self.status);
        self.io.send(PgWireBackendMessage::ReadyForQuery(ready)).await?;
        Ok(())
    }
}
