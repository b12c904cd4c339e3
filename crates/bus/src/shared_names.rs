//! Names in projects that tenants share.
//!
//! In a project of the platform each tenant has names of its own for its subscriptions and
//! snapshots: a name that another tenant took must neither be refused, which would tell of it,
//! nor lead to the other's. The first who takes `<id>` has it; to any further tenant the same
//! name is kept as `<id>~<tenant>` and shown as `<id>`. The platform sees all names as they are kept.

use levada_core::{NameError, ResourceId, ResourceName, TenantId, TenantSet};

const MARK: char = '~';

/// The name as a tenant's own, beside the same name of another.
///
/// # Errors
/// [`NameError`] when there is no room for the tenant.
pub fn own(name: &ResourceName, tenant: &TenantId) -> Result<ResourceName, NameError> {
    let id = ResourceId::new(&format!("{}{MARK}{tenant}", name.id))?;
    Ok(ResourceName::new(name.project.clone(), id))
}

/// Whether an id could be some tenant's own name, so that nobody may choose it.
pub fn is_reserved(id: &ResourceId) -> bool {
    id.as_str().contains(MARK)
}

/// What a holder of those tenants calls what is kept under a name.
pub fn shown(name: &ResourceName, tenants: &TenantSet) -> ResourceName {
    let TenantSet::Only(tenants) = tenants else { return name.clone() };
    let own = name
        .id
        .as_str()
        .rsplit_once(MARK)
        .filter(|(_, owner)| TenantId::new(owner).is_ok_and(|owner| tenants.contains(&owner)));
    match own.map(|(id, _)| ResourceId::new(id)) {
        Some(Ok(id)) => ResourceName::new(name.project.clone(), id),
        _ => name.clone(),
    }
}

/// What a tenant calls what is kept under a name.
pub fn shown_to(name: &ResourceName, tenant: &TenantId) -> ResourceName {
    shown(name, &TenantSet::Only([tenant.clone()].into()))
}

/// Under which names may be kept what a holder of those tenants calls so, the likeliest first.
pub fn kept(name: &ResourceName, tenants: &TenantSet) -> Vec<ResourceName> {
    let own = match tenants {
        TenantSet::All => Vec::new(),
        TenantSet::Only(tenants) => tenants.iter().filter_map(|tenant| own(name, tenant).ok()).collect(),
    };
    std::iter::once(name.clone()).chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ResourceName {
        text.parse().expect("a name")
    }

    fn tenants(ids: &[&str]) -> TenantSet {
        TenantSet::Only(ids.iter().map(|id| TenantId::new(id).expect("a tenant")).collect())
    }

    #[test]
    fn each_tenant_finds_and_sees_its_own_name() {
        let acme = TenantId::new("acme").expect("a tenant");
        let orders = name("home/orders");
        let kept_as = own(&orders, &acme).expect("room");
        assert_eq!(kept_as, name("home/orders~acme"));
        assert!(is_reserved(&kept_as.id) && !is_reserved(&orders.id));
        assert_eq!(shown(&kept_as, &tenants(&["acme", "globex"])), orders);
        assert_eq!(shown_to(&kept_as, &acme), orders);
        for other in [tenants(&["globex"]), TenantSet::All] {
            assert_eq!(shown(&kept_as, &other), kept_as);
        }
        assert_eq!(kept(&orders, &tenants(&["acme"])), [orders.clone(), kept_as]);
        assert_eq!(kept(&orders, &TenantSet::All), [orders]);
        assert!(own(&name(&format!("home/{}", "o".repeat(255))), &acme).is_err());
    }
}
