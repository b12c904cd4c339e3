//! The key ring: creates, checks, lists and revokes API keys.
//!
//! On disk lies one document a key, holding a keyed BLAKE3 hash of the credential, and one
//! document with the hash key. A stolen copy of the key documents alone is therefore no
//! help in testing guesses, and 256 random bits leave nothing to guess anyway, so a slow
//! password hash would only cost latency. In memory lies a map by key id; a request costs
//! one hash and one constant-time comparison.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use levada_core::{Authenticator, Clock, Principal, Problem, Role, TenantSet};
use levada_store::DocumentStore;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::key::{KeyInfo, KeyState, NewKey, STORED_VERSION, StoredKey};
use crate::secret::{MAX_PRESENTED_BYTES, Secret, fill_random, key_id};

/// Keys held at most. Beyond it, revoked and expired ones are forgotten, oldest first.
pub const MAX_KEYS: usize = 10_000;

const KEY_PREFIX: &str = "access/keys/";
const HASH_KEY: &str = "access/hash-key";
const MAX_NAME_CHARS: usize = 100;

/// Why a change to the key ring failed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("no key has the id `{0}`")]
    NotFound(String),
    #[error("{0}")]
    Invalid(&'static str),
    #[error("the key ring is full: {MAX_KEYS} keys are active")]
    Full,
    #[error("the last key that administers the platform cannot be revoked")]
    LastAdmin,
    #[error("key storage failed: {0}")]
    Store(String),
    #[error("the stored keys cannot be read: {0}")]
    Corrupt(String),
    #[error("the operating system gave no randomness: {0}")]
    Randomness(String),
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        let detail = error.to_string();
        match error {
            AccessError::NotFound(_) => Problem::new(404, "key-unknown", detail)
                .hint("list the keys to see their ids; only keys of your own tenants are shown"),
            AccessError::Invalid(_) => Problem::new(422, "key-invalid", detail),
            AccessError::Full => {
                Problem::new(409, "keys-exhausted", detail).hint("revoke keys that are no longer used")
            }
            AccessError::LastAdmin => Problem::new(409, "key-last-admin", detail)
                .hint("create another admin key for all tenants first"),
            AccessError::Store(_) | AccessError::Corrupt(_) | AccessError::Randomness(_) => {
                Problem::new(503, "key-storage", "the key could not be stored durably")
                    .hint("look at the server's log for the cause; the request can be repeated")
            }
        }
    }
}

struct Entry {
    info: KeyInfo,
    principal: Arc<Principal>,
    hash: blake3::Hash,
}

#[derive(Serialize, Deserialize)]
struct StoredHashKey {
    version: u32,
    /// 32 bytes in base64.
    key: String,
}

/// All API keys of an installation. Share it by `Arc`.
pub struct KeyRing {
    store: DocumentStore,
    clock: Arc<dyn Clock>,
    hash_key: [u8; 32],
    keys: RwLock<HashMap<String, Entry>>,
    /// Held while a change is written, so that changes are stored in the order in which they take effect.
    changes: Mutex<()>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("keys", &self.keys.read().len()).finish_non_exhaustive()
    }
}

impl KeyRing {
    /// Reads the keys of the store; makes the hash key where there is none yet.
    ///
    /// # Errors
    /// When a document cannot be read or is damaged: a ring that silently forgot a
    /// revocation would be worse than one that does not open.
    pub fn open(store: DocumentStore, clock: Arc<dyn Clock>) -> Result<Self, AccessError> {
        let mut keys = HashMap::new();
        for name in store.list(KEY_PREFIX).map_err(stored)? {
            let key: StoredKey = store
                .get(&name)
                .map_err(stored)?
                .ok_or_else(|| AccessError::Corrupt(format!("`{name}` is listed and missing")))?;
            if key.version != STORED_VERSION {
                return Err(AccessError::Corrupt(format!(
                    "`{name}` has the unknown version {}",
                    key.version
                )));
            }
            let hash = blake3::Hash::from_hex(&key.hash)
                .map_err(|e| AccessError::Corrupt(format!("`{name}` holds no valid hash: {e}")))?;
            let info = key.info();
            keys.insert(info.id.clone(), Entry { principal: Arc::new(info.principal()), info, hash });
        }
        let hash_key = open_hash_key(&store, keys.is_empty())?;
        Ok(Self { store, clock, hash_key, keys: RwLock::new(keys), changes: Mutex::new(()) })
    }

    /// Makes a key. The secret is returned here and nowhere else, ever again. The key opens
    /// doors once it is durable.
    ///
    /// # Errors
    /// [`AccessError::Invalid`] for a name, tenant set or role set that makes no sense, and
    /// storage errors, after which the key does not exist.
    pub fn create(&self, new: NewKey) -> Result<(KeyInfo, Secret), AccessError> {
        let (id, secret) = Secret::draw()?;
        let info = self.insert(new, id, &secret)?;
        Ok((info, secret))
    }

    /// Makes the first key that administers the platform, unless an active one exists.
    /// `keep` puts the secret where its owner will find it, before the key itself is
    /// stored: a crash between the two leaves a useless secret, never an unreachable key.
    ///
    /// # Errors
    /// What `keep` and [`KeyRing::create`] answer.
    pub fn ensure_admin(
        &self,
        keep: impl FnOnce(&Secret) -> std::io::Result<()>,
    ) -> Result<Option<KeyInfo>, AccessError> {
        if self.active_admins() > 0 {
            return Ok(None);
        }
        let (id, secret) = Secret::draw()?;
        keep(&secret).map_err(|e| AccessError::Store(format!("the first admin key: {e}")))?;
        let new = NewKey {
            name: "admin".to_owned(),
            tenants: TenantSet::All,
            roles: [Role::Admin].into(),
            expires_at_ms: None,
        };
        self.insert(new, id, &secret).map(Some)
    }

    /// Revokes a key: no request that is authenticated after this returns, or even while it
    /// runs, gets in by it. Revoking a revoked key answers as the first time.
    ///
    /// # Errors
    /// `NotFound`, `LastAdmin`, and storage errors; after one of those the key is dead in
    /// this process and the call must be repeated to make it last.
    pub fn revoke(&self, id: &str) -> Result<KeyInfo, AccessError> {
        let _order = self.changes.lock();
        let now_ms = self.clock.now_ms();
        let document = {
            let mut keys = self.keys.write();
            let admins = count_active_admins(&keys, now_ms);
            let entry =
                keys.get_mut(id).ok_or_else(|| AccessError::NotFound(id.chars().take(64).collect()))?;
            let active = entry.info.state(now_ms) == KeyState::Active;
            if active && entry.info.is_platform_admin() && admins == 1 {
                return Err(AccessError::LastAdmin);
            }
            entry.info.revoked_at_ms.get_or_insert(now_ms);
            StoredKey::new(&entry.info, &entry.hash)
        };
        self.store.put(&document_name(id), &document).map_err(stored)?;
        Ok(document.info())
    }

    /// The time by which keys expire, in milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Every key, newest first, revoked and expired ones included.
    pub fn list(&self) -> Vec<KeyInfo> {
        let mut all: Vec<KeyInfo> = self.keys.read().values().map(|e| e.info.clone()).collect();
        all.sort_by(|a, b| b.created_at_ms.cmp(&a.created_at_ms).then_with(|| a.id.cmp(&b.id)));
        all
    }

    pub fn get(&self, id: &str) -> Option<KeyInfo> {
        self.keys.read().get(id).map(|e| e.info.clone())
    }

    fn insert(&self, new: NewKey, id: String, secret: &Secret) -> Result<KeyInfo, AccessError> {
        let now_ms = self.clock.now_ms();
        check(&new, now_ms)?;
        let _order = self.changes.lock();
        self.make_room(now_ms)?;
        let info = KeyInfo {
            id,
            name: new.name.trim().to_owned(),
            tenants: new.tenants,
            roles: new.roles,
            created_at_ms: now_ms,
            expires_at_ms: new.expires_at_ms,
            revoked_at_ms: None,
        };
        let hash = blake3::keyed_hash(&self.hash_key, secret.expose().as_bytes());
        self.store.put(&document_name(&info.id), &StoredKey::new(&info, &hash)).map_err(stored)?;
        let entry = Entry { info: info.clone(), principal: Arc::new(info.principal()), hash };
        self.keys.write().insert(info.id.clone(), entry);
        Ok(info)
    }

    fn make_room(&self, now_ms: i64) -> Result<(), AccessError> {
        let oldest_dead = {
            let keys = self.keys.read();
            if keys.len() < MAX_KEYS {
                return Ok(());
            }
            keys.values()
                .filter(|e| e.info.state(now_ms) != KeyState::Active)
                .min_by_key(|e| e.info.created_at_ms)
                .map(|e| e.info.id.clone())
        };
        let id = oldest_dead.ok_or(AccessError::Full)?;
        self.store.remove(&document_name(&id)).map_err(stored)?;
        self.keys.write().remove(&id);
        Ok(())
    }

    fn active_admins(&self) -> usize {
        count_active_admins(&self.keys.read(), self.clock.now_ms())
    }
}

impl Authenticator for KeyRing {
    fn authenticate(&self, secret: &str) -> Result<Arc<Principal>, Problem> {
        if secret.len() > MAX_PRESENTED_BYTES {
            return Err(unauthenticated());
        }
        let presented = blake3::keyed_hash(&self.hash_key, secret.as_bytes());
        let keys = self.keys.read();
        let entry = key_id(secret).and_then(|id| keys.get(id));
        // An unknown id is compared as well, so that the time says nothing about ids.
        let expected = entry.map_or([0; 32], |e| *e.hash.as_bytes());
        let equal = bool::from(presented.as_bytes().ct_eq(&expected));
        match entry {
            Some(e) if equal && e.info.state(self.clock.now_ms()) == KeyState::Active => {
                Ok(e.principal.clone())
            }
            _ => Err(unauthenticated()),
        }
    }

    fn is_valid(&self, principal: &Principal) -> bool {
        let keys = self.keys.read();
        keys.get(&principal.id).is_some_and(|e| e.info.state(self.clock.now_ms()) == KeyState::Active)
    }
}

fn unauthenticated() -> Problem {
    Problem::new(401, "unauthenticated", "the credential is unknown, expired or revoked")
        .hint("send a valid API key as `Authorization: Bearer <key>` or `X-API-Key: <key>`")
}

fn count_active_admins(keys: &HashMap<String, Entry>, now_ms: i64) -> usize {
    keys.values().filter(|e| e.info.is_platform_admin() && e.info.state(now_ms) == KeyState::Active).count()
}

fn check(new: &NewKey, now_ms: i64) -> Result<(), AccessError> {
    let name = new.name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        return Err(AccessError::Invalid(
            "the name of a key has 1 to 100 characters and no control characters",
        ));
    }
    if matches!(&new.tenants, TenantSet::Only(set) if set.is_empty()) {
        return Err(AccessError::Invalid("a key is bound to at least one tenant"));
    }
    if new.roles.is_empty() {
        return Err(AccessError::Invalid("a key has at least one role"));
    }
    if new.expires_at_ms.is_some_and(|at| at <= now_ms) {
        return Err(AccessError::Invalid("the expiry of a key lies in the future"));
    }
    Ok(())
}

fn open_hash_key(store: &DocumentStore, may_create: bool) -> Result<[u8; 32], AccessError> {
    if let Some(found) = store.get::<StoredHashKey>(HASH_KEY).map_err(stored)? {
        let bytes = STANDARD.decode(&found.key).ok().and_then(|b| <[u8; 32]>::try_from(b).ok());
        return bytes.ok_or_else(|| AccessError::Corrupt(format!("`{HASH_KEY}` is not 32 bytes")));
    }
    if !may_create {
        return Err(AccessError::Corrupt(format!("`{HASH_KEY}` is missing, and with it every key's check")));
    }
    let mut key = [0u8; 32];
    fill_random(&mut key)?;
    store.put(HASH_KEY, &StoredHashKey { version: 1, key: STANDARD.encode(key) }).map_err(stored)?;
    Ok(key)
}

fn document_name(id: &str) -> String {
    format!("{KEY_PREFIX}{id}")
}

fn stored(error: impl fmt::Display) -> AccessError {
    AccessError::Store(error.to_string())
}

#[cfg(test)]
mod tests;
