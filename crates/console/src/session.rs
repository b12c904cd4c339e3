//! Sign-in sessions, kept in memory only: a bounded map from the hash of a random cookie
//! to the key that was shown at sign-in.
//!
//! The key itself is kept, not what it was good for, so that every request can ask again
//! whether it still is. A restart signs everybody out.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use levada_core::Clock;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use crate::app::ConsoleConfig;
use crate::flash::Flash;

const COOKIE: &str = "levada_console";

/// Looked up by hash, so that neither timing nor a memory dump of the map's keys helps to
/// guess a cookie.
type Id = [u8; 32];

/// The sessions of one console.
pub(crate) struct Sessions {
    map: Mutex<HashMap<Id, Entry>>,
    clock: Arc<dyn Clock>,
    lifetime: Duration,
    idle: Duration,
    max: usize,
}

struct Entry {
    secret: Arc<str>,
    csrf: Arc<str>,
    created: Duration,
    seen: Duration,
    flash: Option<Flash>,
}

/// A live session as one request sees it.
#[derive(Clone)]
pub(crate) struct SessionView {
    id: Id,
    secret: Arc<str>,
    csrf: Arc<str>,
}

impl fmt::Debug for SessionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionView(..)")
    }
}

impl SessionView {
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// To be put into every form.
    pub fn csrf(&self) -> &str {
        &self.csrf
    }

    pub fn is_csrf(&self, given: Option<&str>) -> bool {
        given.is_some_and(|g| bool::from(g.as_bytes().ct_eq(self.csrf.as_bytes())))
    }
}

impl Sessions {
    pub fn new(config: &ConsoleConfig) -> Self {
        Self {
            map: Mutex::new(HashMap::new()),
            clock: config.clock.clone(),
            lifetime: config.session_lifetime,
            idle: config.session_idle,
            max: config.max_sessions.max(1),
        }
    }

    /// Begins a session for a key that was just accepted; the answer is the cookie's value.
    /// When full, the session that was unused longest makes room.
    pub fn begin(&self, secret: &str) -> String {
        let token = random_token();
        let now = self.clock.monotonic();
        let mut map = self.map.lock();
        if map.len() >= self.max {
            map.retain(|_, e| self.is_live(e, now));
        }
        if map.len() >= self.max
            && let Some(oldest) = map.iter().min_by_key(|(_, e)| e.seen).map(|(id, _)| *id)
        {
            map.remove(&oldest);
        }
        let entry = Entry {
            secret: secret.into(),
            csrf: random_token().into(),
            created: now,
            seen: now,
            flash: None,
        };
        map.insert(id_of(&token), entry);
        token
    }

    /// The session of a cookie, marked as used now.
    pub fn touch(&self, token: &str) -> Option<SessionView> {
        let id = id_of(token);
        let now = self.clock.monotonic();
        let mut map = self.map.lock();
        let entry = map.get_mut(&id)?;
        if !self.is_live(entry, now) {
            map.remove(&id);
            return None;
        }
        entry.seen = now;
        Some(SessionView { id, secret: entry.secret.clone(), csrf: entry.csrf.clone() })
    }

    /// Whether a session still lives; does not count as use.
    pub fn is_alive(&self, session: &SessionView) -> bool {
        let now = self.clock.monotonic();
        self.map.lock().get(&session.id).is_some_and(|e| self.is_live(e, now))
    }

    pub fn end(&self, session: &SessionView) {
        self.map.lock().remove(&session.id);
    }

    /// Leaves a message for the next page of this session.
    pub fn leave(&self, session: &SessionView, flash: Flash) {
        if let Some(entry) = self.map.lock().get_mut(&session.id) {
            entry.flash = Some(flash);
        }
    }

    pub fn take_flash(&self, session: &SessionView) -> Option<Flash> {
        self.map.lock().get_mut(&session.id)?.flash.take()
    }

    fn is_live(&self, entry: &Entry, now: Duration) -> bool {
        now.saturating_sub(entry.created) < self.lifetime && now.saturating_sub(entry.seen) < self.idle
    }
}

/// 256 bits from the generator that the operating system seeds. Passed-in randomness
/// would make sessions guessable by whoever knows a test's seed, so this one is ambient.
fn random_token() -> String {
    let mut bytes = [0u8; 32];
    rand::fill(&mut bytes[..]);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn id_of(token: &str) -> Id {
    *blake3::hash(token.as_bytes()).as_bytes()
}

/// The session cookie's value, if the request has a plausible one.
pub(crate) fn cookie_token(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == COOKIE && value.len() == 43)
        .map(|(_, value)| value.to_owned())
}

/// `Set-Cookie` of a new session, or with an empty token the one that removes it.
pub(crate) fn set_cookie(config: &ConsoleConfig, request: &HeaderMap, token: &str) -> String {
    let forwarded = request.get("x-forwarded-proto").is_some_and(|v| v.as_bytes() == b"https");
    let secure = if config.https || forwarded { "; Secure" } else { "" };
    let age = if token.is_empty() { 0 } else { config.session_lifetime.as_secs() };
    format!("{COOKIE}={token}; Path=/console; HttpOnly; SameSite=Strict; Max-Age={age}{secure}")
}
