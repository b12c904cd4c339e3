//! The beginning of a connection: encryption refused, who it is, the key.

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use levada_core::SignIns;
use pgwire::messages::response::{GssEncResponse, ReadyForQuery, SslResponse, TransactionStatus};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, Startup,
};
use pgwire::messages::{
    PgWireBackendMessage, PgWireFrontendMessage, ProtocolVersion, SslNegotiationMetaMessage,
};

use crate::cancel::Registration;
use crate::codec::Phase;
use crate::connection::Io;
use crate::error::{Failure, Outcome, fatal, info};
use crate::places::Place;
use crate::server::Shared;
use crate::session::{Login, Session};
use crate::settings::Until;

/// Encryption requests that a client may send before it starts.
const MAX_NEGOTIATIONS: usize = 4;

/// What a connection turned out to be.
pub(crate) enum Opening {
    Startup(Startup),
    /// A cancel request, which has been followed.
    Cancel,
    /// Nothing: the client left.
    Gone,
}

/// Reads up to the startup message.
///
/// # Errors
/// Fatal for what is not the protocol.
pub(crate) async fn negotiate(io: &mut Io, shared: &Shared) -> Outcome<Opening> {
    for _ in 0..MAX_NEGOTIATIONS {
        let Some(message) = io.next().await else { return Ok(Opening::Gone) };
        match message? {
            PgWireFrontendMessage::SslNegotiation(SslNegotiationMetaMessage::PostgresSsl(_)) => {
                io.send(PgWireBackendMessage::SslResponse(SslResponse::Refuse)).await?;
            }
            PgWireFrontendMessage::SslNegotiation(SslNegotiationMetaMessage::PostgresGss(_)) => {
                io.send(PgWireBackendMessage::GssEncResponse(GssEncResponse::Refuse)).await?;
            }
            PgWireFrontendMessage::SslNegotiation(SslNegotiationMetaMessage::None) => {
                io.codec_mut().enter(Phase::Startup);
            }
            PgWireFrontendMessage::CancelRequest(request) => {
                shared.cancels.cancel(request.pid, &request.secret_key);
                return Ok(Opening::Cancel);
            }
            PgWireFrontendMessage::Startup(startup) => return Ok(Opening::Startup(startup)),
            _ => break,
        }
    }
    Err(fatal("08P01", "the connection did not begin with a startup message", None))
}

/// Asks for the key and logs in. Only who has logged in takes a place.
///
/// # Errors
/// Fatal: 28P01, 3D000, 08P01, 53300.
pub(crate) async fn log_in<'a>(
    io: &mut Io,
    shared: &'a Shared,
    startup: &Startup,
    registration: &Registration,
    from: SocketAddr,
) -> Outcome<(Session, Place<'a>)> {
    agree_on_version(io, startup).await?;
    let parameter = |name: &str| startup.parameters.get(name).cloned();
    let user = parameter("user")
        .ok_or_else(|| fatal("28000", "no user name was given", Some("any name will do")))?;
    io.codec_mut().enter(Phase::Password);
    io.send(PgWireBackendMessage::Authentication(Authentication::CleartextPassword)).await?;
    let secret = match io.next().await {
        Some(Ok(PgWireFrontendMessage::PasswordMessageFamily(message))) => message.into_password()?.password,
        Some(Err(error)) => return Err(error.into()),
        _ => return Err(fatal("28P01", "no password was given", Some("the password is an API key"))),
    };
    io.codec_mut().enter(Phase::Ready);
    let (address, account) = (Some(from.ip()), SignIns::account(&secret).to_owned());
    let login = Login { user, database: parameter("database").unwrap_or_default(), secret };
    let opened = Session::new(
        shared.lake.clone(),
        shared.authenticator.clone(),
        shared.config.limits,
        login,
        registration.number,
        format!("15.0 (Levada {})", shared.config.version),
    );
    let mut session = match opened {
        Ok(session) => session,
        Err(failure) => {
            if failure.is_wrong_key() {
                shared.config.sign_ins.failed(address, &account).map_err(|problem| {
                    crate::metrics::login("delayed");
                    let mut told = info("FATAL", &problem);
                    "28000".clone_into(&mut told.code);
                    Failure::Fatal(Box::new(told))
                })?;
            }
            crate::metrics::login("refused");
            tracing::info!(%from, %failure, "postgres login refused");
            return Err(failure);
        }
    };
    shared.config.sign_ins.succeeded(address, &account);
    let place = shared.places.take(&session.principal).map_err(|problem| {
        crate::metrics::login("no_place");
        let mut told = info("FATAL", &problem);
        "53300".clone_into(&mut told.code);
        Failure::Fatal(Box::new(told))
    })?;
    crate::metrics::login("ok");
    let options = parameter("options").unwrap_or_default();
    let named = startup.parameters.iter().map(|(name, value)| (name.clone(), value.clone()));
    let named = named.filter(|(name, _)| !is_of_the_protocol(name)).chain(options_of(&options));
    for (name, value) in named {
        session.settings.set(&name, &value, Until::Session).map_err(|failure| match failure {
            Failure::Statement(mut info) => {
                "FATAL".clone_into(&mut info.severity);
                Failure::Fatal(info)
            }
            other => other,
        })?;
    }
    session.settings.end_login();
    welcome(io, &session, registration).await?;
    Ok((session, place))
}

fn is_of_the_protocol(name: &str) -> bool {
    matches!(name, "user" | "database" | "options" | "replication") || name.starts_with("_pq_.")
}

/// The settings of `-c name=value` and `--name=value`. A backslash keeps the space after it.
fn options_of(options: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        let Some(word) = words.last_mut() else { break };
        match c {
            '\\' => word.extend(chars.next()),
            c if c.is_whitespace() => words.push(String::new()),
            c => word.push(c),
        }
    }
    let mut found = Vec::new();
    let mut is_next = false;
    for word in words.iter().filter(|word| !word.is_empty()) {
        let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") => {
                is_next = true;
                continue;
            }
            Some(setting) => setting,
            None if is_next => word,
            None => continue,
        };
        is_next = false;
        if let Some((name, value)) = setting.split_once('=') {
            found.push((name.replace('-', "_"), value.to_owned()));
        }
    }
    found
}

async fn agree_on_version(io: &mut Io, startup: &Startup) -> Outcome<()> {
    let (major, minor) = (startup.protocol_number_major, startup.protocol_number_minor);
    if major != 3 {
        return Err(fatal("0A000", format!("protocol {major}.{minor} is not spoken here, 3.0 is"), None));
    }
    let unknown: Vec<String> =
        startup.parameters.keys().filter(|name| name.starts_with("_pq_.")).cloned().collect();
    if minor > 0 || !unknown.is_empty() {
        let offer = NegotiateProtocolVersion::new(ProtocolVersion::PROTOCOL3_0.into(), unknown);
        io.feed(PgWireBackendMessage::NegotiateProtocolVersion(offer)).await?;
    }
    io.codec_mut().speak(ProtocolVersion::PROTOCOL3_0);
    Ok(())
}

async fn welcome(io: &mut Io, session: &Session, registration: &Registration) -> Outcome<()> {
    io.feed(PgWireBackendMessage::Authentication(Authentication::Ok)).await?;
    for (name, value) in session.settings.reported() {
        io.feed(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(name, value))).await?;
    }
    let key = BackendKeyData::new(registration.number, registration.secret.clone());
    io.feed(PgWireBackendMessage::BackendKeyData(key)).await?;
    io.send(PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(TransactionStatus::Idle))).await?;
    Ok(())
}
