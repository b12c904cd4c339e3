//! What is known and kept of an API key.

use std::collections::BTreeSet;

use levada_core::{Principal, Role, TenantSet};
use serde::{Deserialize, Serialize};

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What a person calls it; shown in lists, 1 to 100 characters.
    pub name: String,
    pub tenants: TenantSet,
    pub roles: BTreeSet<Role>,
    /// `None`: until it is revoked.
    pub expires_at_ms: Option<i64>,
}

/// Whether a key opens anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    Active,
    Expired,
    Revoked,
}

/// A key as lists show it: everything but the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    pub id: String,
    pub name: String,
    pub tenants: TenantSet,
    pub roles: BTreeSet<Role>,
    pub created_at_ms: i64,
    pub expires_at_ms: Option<i64>,
    pub revoked_at_ms: Option<i64>,
}

impl KeyInfo {
    pub fn state(&self, now_ms: i64) -> KeyState {
        if self.revoked_at_ms.is_some() {
            KeyState::Revoked
        } else if self.expires_at_ms.is_some_and(|at| at <= now_ms) {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }

    pub fn principal(&self) -> Principal {
        Principal {
            id: self.id.clone(),
            name: self.name.clone(),
            tenants: self.tenants.clone(),
            roles: self.roles.clone(),
        }
    }

    /// Whether the key administers the whole platform.
    pub fn is_platform_admin(&self) -> bool {
        self.tenants == TenantSet::All && self.roles.contains(&Role::Admin)
    }
}

/// The stored form, version 1. Kept apart from [`KeyInfo`] so that a change of what lists
/// show cannot change what is on disk.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredKey {
    pub version: u32,
    pub id: String,
    pub name: String,
    pub tenants: TenantSet,
    pub roles: BTreeSet<Role>,
    pub created_at_ms: i64,
    pub expires_at_ms: Option<i64>,
    pub revoked_at_ms: Option<i64>,
    /// Keyed BLAKE3 of the whole credential, in hexadecimal.
    pub hash: String,
}

pub(crate) const STORED_VERSION: u32 = 1;

impl StoredKey {
    pub fn new(info: &KeyInfo, hash: &blake3::Hash) -> Self {
        Self {
            version: STORED_VERSION,
            id: info.id.clone(),
            name: info.name.clone(),
            tenants: info.tenants.clone(),
            roles: info.roles.clone(),
            created_at_ms: info.created_at_ms,
            expires_at_ms: info.expires_at_ms,
            revoked_at_ms: info.revoked_at_ms,
            hash: hash.to_hex().to_string(),
        }
    }

    pub fn info(&self) -> KeyInfo {
        KeyInfo {
            id: self.id.clone(),
            name: self.name.clone(),
            tenants: self.tenants.clone(),
            roles: self.roles.clone(),
            created_at_ms: self.created_at_ms,
            expires_at_ms: self.expires_at_ms,
            revoked_at_ms: self.revoked_at_ms,
        }
    }
}
