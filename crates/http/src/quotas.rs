//! Quotas and memory as they are shown: `GET /v1/quotas`, and the metrics.

use std::collections::{BTreeMap, HashSet};

use axum::extract::State;
use axum::response::Response;
use levada_core::{MemoryBudget, MemoryUse, Quota, QuotaOwner, QuotaUse, Quotas};
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use serde::Serialize;

use crate::auth::Caller;
use crate::routes::json;
use crate::state::AppState;

pub const HELD: &str = "levada_quota_held";
pub const LIMIT: &str = "levada_quota_limit";
pub const REFUSED: &str = "levada_quota_refused_total";
pub const MEMORY_USED: &str = "levada_memory_used_bytes";
pub const MEMORY_LIMIT: &str = "levada_memory_limit_bytes";
/// Owners that metrics tell apart.
const MAX_OWNERS: usize = 1_000;
const OTHERS: &str = "_other";

#[derive(Serialize)]
struct View<'a> {
    quotas: Vec<Row>,
    /// Of the whole process; to administrators of the platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Vec<MemoryRow<'a>>>,
}

#[derive(Serialize)]
struct Row {
    /// The tenant; the id of the key of one that has several tenants.
    owner: String,
    quota: Quota,
    what: &'static str,
    held: u64,
    limit: u64,
    /// Since the program started.
    refused: u64,
}

#[derive(Serialize)]
struct MemoryRow<'a> {
    name: &'a str,
    used_bytes: usize,
    limit_bytes: usize,
}

/// Every quota of the caller; to administrators of the platform also what others hold.
pub async fn list(State(state): State<AppState>, caller: Caller) -> Response {
    let all = caller.principal.is_platform_admin();
    let own = QuotaOwner::of(&caller.principal);
    let usage = state.quotas.usage();
    let held = |quota| usage.iter().find(|of| of.owner == own && of.quota == quota).cloned();
    let none = |quota| {
        let limit = state.quotas.limit(&own, quota);
        QuotaUse { owner: own.clone(), quota, held: 0, limit, refused: 0 }
    };
    let mut shown: Vec<QuotaUse> =
        Quota::ALL.into_iter().map(|quota| held(quota).unwrap_or_else(|| none(quota))).collect();
    if all {
        let is_live = |of: &&QuotaUse| of.owner != own && (of.held > 0 || of.refused > 0);
        shown.extend(usage.iter().filter(is_live).cloned());
    }
    let quotas = shown.into_iter().map(|of| Row {
        owner: of.owner.as_str().to_owned(),
        what: of.quota.what(),
        quota: of.quota,
        held: of.held,
        limit: of.limit,
        refused: of.refused,
    });
    let memory = all.then(|| memory(&state.memory));
    let memory = memory.as_deref().map(|rows| {
        let row = |of: &MemoryUse| MemoryRow { name: of.what, used_bytes: of.used, limit_bytes: of.limit };
        rows.iter().map(row).collect()
    });
    json(&View { quotas: quotas.collect(), memory })
}

/// The whole budget, and its shares.
fn memory(budget: &MemoryBudget) -> Vec<MemoryUse> {
    let whole = MemoryUse { what: "memory", used: budget.used(), limit: budget.limit() };
    std::iter::once(whole).chain(budget.shares()).collect()
}

pub(crate) fn describe() {
    describe_gauge!(HELD, Unit::Count, "What is held of a quota, by owner and quota");
    describe_gauge!(LIMIT, Unit::Count, "What may be held of a quota, by owner and quota");
    describe_counter!(REFUSED, Unit::Count, "What a quota refused, by owner and quota");
    describe_gauge!(MEMORY_USED, Unit::Bytes, "Memory held of the budget of the process, by share");
    describe_gauge!(MEMORY_LIMIT, Unit::Bytes, "Memory that may be held, by share");
}

/// Writes what is held into the metrics, of the first thousand owners apart.
#[derive(Debug, Default)]
pub struct ShareMeter {
    owners: HashSet<String>,
}

impl ShareMeter {
    /// Call it every few seconds.
    pub fn record(&mut self, quotas: &Quotas, budget: &MemoryBudget) {
        let mut rows: BTreeMap<(String, Quota), (u64, u64, u64)> = BTreeMap::new();
        for of in quotas.usage() {
            let row = rows.entry((self.label(of.owner.as_str()), of.quota)).or_default();
            *row = (row.0 + of.held, row.1.max(of.limit), row.2 + of.refused);
        }
        for ((owner, quota), (held, limit, refused)) in rows {
            let quota = quota.name();
            gauge!(HELD, "owner" => owner.clone(), "quota" => quota).set(held as f64);
            gauge!(LIMIT, "owner" => owner.clone(), "quota" => quota).set(limit as f64);
            if refused > 0 {
                counter!(REFUSED, "owner" => owner, "quota" => quota).absolute(refused);
            }
        }
        for of in memory(budget) {
            gauge!(MEMORY_USED, "share" => of.what).set(of.used as f64);
            gauge!(MEMORY_LIMIT, "share" => of.what).set(of.limit as f64);
        }
    }

    fn label(&mut self, owner: &str) -> String {
        if !self.owners.contains(owner) {
            if self.owners.len() >= MAX_OWNERS {
                return OTHERS.to_owned();
            }
            self.owners.insert(owner.to_owned());
        }
        owner.to_owned()
    }
}
