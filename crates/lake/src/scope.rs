//! What a caller may see, and which table a name means for this caller.

use std::collections::BTreeSet;
use std::sync::Arc;

use levada_core::{Principal, Problem, SourceName, TableName, TenantId, TenantSet, Zone};

use crate::engine::CATALOG;
use crate::lake::Lake;
use crate::table::Slot;
use crate::types::Owner;

/// Tenants and zones of a session.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub tenants: TenantSet,
    pub zones: BTreeSet<Zone>,
}

/// What a name means.
#[derive(Debug)]
pub(crate) enum Meaning {
    /// A table; with the tenants whose rows pass, or `None` where all rows do.
    Table(Arc<Slot>, Option<Arc<BTreeSet<TenantId>>>),
    /// The objects of a source; of these tenants.
    Source(SourceName, BTreeSet<TenantId>),
    /// Several tenants have it: their qualified names.
    Ambiguous(Vec<String>),
    Nothing,
}

impl Scope {
    /// # Errors
    /// `tenant-forbidden` when `narrowed` is not among the principal's tenants.
    pub fn of(principal: &Principal, narrowed: Option<&TenantId>) -> Result<Self, Problem> {
        let tenants = match narrowed {
            Some(tenant) => TenantSet::Only([principal.enter(tenant)?.tenant().clone()].into()),
            None => principal.tenants.clone(),
        };
        let zones = Zone::ALL.into_iter().filter(|zone| principal.may_read(*zone)).collect();
        Ok(Self { tenants, zones })
    }

    /// What a model of `owner` may read: all zones of its own tenant, or everything.
    pub fn of_owner(owner: &Owner) -> Self {
        let tenants = match owner {
            Owner::Shared => TenantSet::All,
            Owner::Tenant(tenant) => TenantSet::Only([tenant.clone()].into()),
        };
        Self { tenants, zones: Zone::ALL.into() }
    }

    fn sees(&self, owner: &Owner) -> bool {
        match owner {
            Owner::Shared => true,
            Owner::Tenant(tenant) => self.tenants.contains(tenant),
        }
    }

    /// The tenants whose rows of a shared table pass; `None` where all do.
    fn filter(&self) -> Option<Arc<BTreeSet<TenantId>>> {
        match &self.tenants {
            TenantSet::All => None,
            TenantSet::Only(tenants) => Some(Arc::new(tenants.clone())),
        }
    }

    /// The meaning of `catalog.zone.name`. In the common catalogue a session of one tenant
    /// finds its own table before a shared one; a session of several finds the shared one,
    /// or the only one. A catalogue named like a tenant holds that tenant's own tables.
    pub fn resolve(&self, lake: &Lake, catalog: &str, name: &TableName) -> Meaning {
        if !self.zones.contains(&name.zone) {
            return Meaning::Nothing;
        }
        if name.zone == Zone::Bronze {
            return self.resolve_source(lake, catalog, &name.name);
        }
        let tables = lake.inner.tables.read();
        let Some(owners) = tables.get(name) else { return Meaning::Nothing };
        let own = |slot: &Arc<Slot>| Meaning::Table(Arc::clone(slot), None);
        if catalog != CATALOG {
            let owner = TenantId::new(catalog).ok().map(Owner::Tenant);
            let found = owner.filter(|owner| self.sees(owner)).and_then(|owner| owners.get(&owner));
            return found.map_or(Meaning::Nothing, own);
        }
        if let Some(slot) = self.tenants.single().and_then(|t| owners.get(&Owner::Tenant(t.clone()))) {
            return own(slot);
        }
        if let Some(slot) = owners.get(&Owner::Shared) {
            return Meaning::Table(Arc::clone(slot), self.filter());
        }
        let mut visible = owners.iter().filter(|(owner, _)| self.sees(owner));
        match (visible.next(), visible.next()) {
            (None, _) => Meaning::Nothing,
            (Some((_, slot)), None) => own(slot),
            _ => {
                let seen = owners.keys().filter(|owner| self.sees(owner));
                Meaning::Ambiguous(seen.map(|owner| qualified(owner.as_str(), name)).collect())
            }
        }
    }

    fn resolve_source(&self, lake: &Lake, catalog: &str, name: &SourceName) -> Meaning {
        let sources = lake.inner.sources.read();
        let Some(tenants) = sources.get(name) else { return Meaning::Nothing };
        let in_catalog = |tenant: &&TenantId| catalog == CATALOG || tenant.as_str() == catalog;
        let visible: BTreeSet<TenantId> =
            tenants.iter().filter(|t| self.tenants.contains(t)).filter(in_catalog).cloned().collect();
        if visible.is_empty() { Meaning::Nothing } else { Meaning::Source(name.clone(), visible) }
    }

    /// Names of a zone that mean something in the catalogue.
    pub fn names(&self, lake: &Lake, catalog: &str, zone: Zone) -> Vec<SourceName> {
        let candidates: Vec<TableName> = match zone {
            Zone::Bronze => {
                let sources = lake.inner.sources.read();
                sources.keys().map(|source| TableName::new(zone, source.clone())).collect()
            }
            _ => lake.inner.tables.read().keys().filter(|name| name.zone == zone).cloned().collect(),
        };
        candidates
            .into_iter()
            .filter(|name| {
                matches!(self.resolve(lake, catalog, name), Meaning::Table(..) | Meaning::Source(..))
            })
            .map(|name| name.name)
            .collect()
    }

    /// Tenants whose own tables cannot all be reached without naming the tenant.
    pub fn tenant_catalogs(&self, lake: &Lake) -> Vec<String> {
        if self.tenants.single().is_some() {
            return Vec::new();
        }
        let tables = lake.inner.tables.read();
        let mut found = BTreeSet::new();
        for (name, owners) in tables.iter().filter(|(name, _)| self.zones.contains(&name.zone)) {
            if owners.len() < 2 {
                continue;
            }
            let tenants = owners.keys().filter(|owner| self.sees(owner)).filter_map(Owner::tenant);
            found.extend(tenants.map(|tenant| tenant.to_string()));
            debug_assert!(name.zone != Zone::Bronze);
        }
        found.into_iter().collect()
    }

    /// Whether the name is a catalogue that this caller may look into.
    pub fn has_catalog(&self, catalog: &str) -> bool {
        catalog == CATALOG || TenantId::new(catalog).is_ok_and(|tenant| self.tenants.contains(&tenant))
    }
}

/// `tenant.zone.name` as SQL writes it.
pub(crate) fn qualified(tenant: &str, name: &TableName) -> String {
    let plain = tenant.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !tenant.starts_with(|c: char| c.is_ascii_digit());
    if plain { format!("{tenant}.{name}") } else { format!("\"{tenant}\".{name}") }
}
