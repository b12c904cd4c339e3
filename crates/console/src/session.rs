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
use levada_core::{Clock, Principal, Quota, QuotaOwner, QuotaPlace, Quotas};
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
    quotas: Quotas,
}

struct Entry {
    secret: Arc<str>,
    owner: QuotaOwner,
    /// Of the key.
    key: String,
    /// `None` where the quota is lower than one session.
    _place: Option<QuotaPlace>,
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
            quotas: config.quotas.clone(),
        }
    }

    /// Begins a session for a key that was just accepted; the answer is the cookie's value.
    /// At the owner's bound a session of its own makes room, at the bound of all one of the owner
    /// that has most: so no owner signs out another's people, and no key the others of its owner.
    pub fn begin(&self, secret: &str, principal: &Principal) -> String {
        let token = random_token();
        let now = self.clock.monotonic();
        let owner = QuotaOwner::of(principal);
        let mut map = self.map.lock();
        map.retain(|_, e| self.is_live(e, now));
        if map.len() >= self.max
            && let Some(most) = most_of(map.values().map(|e| &e.owner)).cloned()
        {
            make_room(&mut map, &most);
        }
        let place = self.quotas.take(&owner, Quota::ConsoleSessions).ok().or_else(|| {
            make_room(&mut map, &owner);
            self.quotas.take(&owner, Quota::ConsoleSessions).ok()
        });
        let entry = Entry {
            secret: secret.into(),
            owner,
            key: principal.id.clone(),
            _place: place,
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

/// Ends a session of an owner: of its key that has most, the one that was unused longest.
fn make_room(map: &mut HashMap<Id, Entry>, owner: &QuotaOwner) {
    let of_owner = || map.iter().filter(|(_, e)| e.owner == *owner);
    let Some(key) = most_of(of_owner().map(|(_, e)| &e.key)).cloned() else { return };
    let oldest = of_owner().filter(|(_, e)| e.key == key).min_by_key(|(_, e)| e.seen).map(|(id, _)| *id);
    if let Some(id) = oldest {
        map.remove(&id);
    }
}

/// What comes most often.
fn most_of<'a, T: Eq + std::hash::Hash + 'a>(all: impl Iterator<Item = &'a T>) -> Option<&'a T> {
    let mut counts: HashMap<&T, usize> = HashMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(one, _)| one)
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

#[cfg(test)]
mod tests {
    use levada_core::{ManualClock, TenantId, TenantQuotas, TenantSet};

    use super::*;

    fn principal(tenant: &str, key: &str) -> Principal {
        let tenants = TenantSet::Only([TenantId::new(tenant).expect("a tenant")].into());
        Principal { id: key.into(), name: key.into(), tenants, roles: Default::default() }
    }

    #[test]
    fn no_owner_signs_out_anothers_people_and_no_key_the_others_of_its_owner() {
        let clock = Arc::new(ManualClock::new(0));
        let quotas = Quotas::new(&[(Quota::ConsoleSessions, 3)], &TenantQuotas::new());
        let config = ConsoleConfig {
            max_sessions: 5,
            quotas: quotas.clone(),
            clock: clock.clone(),
            ..ConsoleConfig::default()
        };
        let sessions = Sessions::new(&config);
        let begin = |tenant: &str, key: &str| {
            clock.advance(Duration::from_secs(1));
            sessions.begin(key, &principal(tenant, key))
        };
        let admin = begin("a", "admin");
        let other = begin("b", "other");
        let many: Vec<String> = (0..20).map(|_| begin("a", "many")).collect();
        let alive = |token: &String| sessions.touch(token).is_some();
        assert!(alive(&admin) && alive(&other), "neither is the one that signs in again and again");
        assert_eq!(many.iter().filter(|token| alive(token)).count(), 2);
        for tenant in ["c", "d", "e"] {
            begin(tenant, tenant);
        }
        assert!(alive(&other), "the owner with most makes room");
        assert!(quotas.usage().iter().all(|of| of.held <= 3));
    }
}
