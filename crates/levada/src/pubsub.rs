//! The Pub/Sub API as this binary serves it: its projects, and where its policies are kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use levada_bus::admin::{ProjectOwner, SubscriptionAdmin};
use levada_bus::port::BusPort;
use levada_config::model::{Namespace, Project};
use levada_core::{ProjectId, TenantId};
use levada_pubsub::{ApiError, Code, EditedMessages, Owner, PolicyStore, Projects, SchemaStore};
use levada_store::{DocumentStore, StoreError};
use parking_lot::Mutex;

const MAX_POLICIES: usize = 10_000;

/// The platform's own project: named like the project folder, as far as a project id can be.
pub fn home(project: &Project) -> ProjectId {
    let letters = project.name.chars().map(|c| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
        _ => '-',
    });
    let id: String = letters.take(63).collect();
    let id = id.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    ProjectId::new(id).or_else(|_| ProjectId::new("levada")).expect("a constant that is a project id")
}

/// Who owns which project. `dev`: every other project exists too, for everybody.
pub fn projects(project: &Project, dev: bool) -> Projects {
    let owner = |tenant: &Option<TenantId>| tenant.clone().map_or(Owner::Platform, Owner::Tenant);
    let declared = project
        .server
        .namespaces
        .iter()
        .map(|Namespace { project, tenant }| (project.clone(), owner(tenant)));
    // The last one counts: the home project has everybody's events and cannot be given away.
    let all = declared.chain(std::iter::once((home(project), Owner::Platform)));
    if dev {
        return Projects::dev(all);
    }
    let projects = Projects::new(all);
    projects.declare_tenants(project.tenants.iter().map(|t| t.id.clone()));
    projects
}

/// Operates the subscriptions of a bus by the same rules of ownership as the Pub/Sub API.
/// Edited messages keep the limits and schemas of that API too.
pub fn admin(
    port: Arc<dyn BusPort>,
    projects: Arc<Projects>,
    schemas: Arc<dyn SchemaStore>,
) -> SubscriptionAdmin {
    let owner_of = move |project: &ProjectId| match projects.owner(project)? {
        Owner::Platform => Some(ProjectOwner::Platform),
        Owner::Tenant(tenant) => Some(ProjectOwner::Tenant(tenant)),
    };
    let rule = EditedMessages::new(schemas);
    SubscriptionAdmin::new(port, Arc::new(owner_of)).with_rule(Arc::new(rule))
}

/// Policies, a document each.
pub struct StoredPolicies {
    store: DocumentStore,
    /// The resources that have one.
    names: Mutex<BTreeSet<String>>,
}

impl StoredPolicies {
    /// # Errors
    /// When the folder cannot be read.
    pub fn open(store: DocumentStore) -> Result<Self, StoreError> {
        let mut names = BTreeSet::new();
        for document in store.list("")? {
            let kept: Option<(String, Vec<u8>)> = store.get(&document)?;
            names.extend(kept.map(|(name, _)| name));
        }
        Ok(Self { store, names: Mutex::new(names) })
    }
}

/// Resource names hold slashes and may be long: a document is named by their hash.
fn document(resource: &str) -> String {
    blake3::hash(resource.as_bytes()).to_hex()[..40].to_owned()
}

fn unavailable(error: &StoreError) -> ApiError {
    ApiError::unavailable(format!("The policy cannot be kept or read now: {error}."))
}

impl PolicyStore for StoredPolicies {
    fn get(&self, resource: &str) -> Result<Option<Bytes>, ApiError> {
        let kept: Option<(String, Vec<u8>)> =
            self.store.get(&document(resource)).map_err(|e| unavailable(&e))?;
        Ok(kept.filter(|(name, _)| name == resource).map(|(_, policy)| Bytes::from(policy)))
    }

    fn set(&self, resource: &str, policy: Bytes) -> Result<(), ApiError> {
        let mut names = self.names.lock();
        if names.len() >= MAX_POLICIES && !names.contains(resource) {
            let text = format!("There are {MAX_POLICIES} policies, the most that are kept.");
            return Err(ApiError::new(Code::ResourceExhausted, text));
        }
        let kept = (resource, policy.to_vec());
        self.store.put(&document(resource), &kept).map_err(|e| unavailable(&e))?;
        names.insert(resource.to_owned());
        Ok(())
    }

    fn remove(&self, resource: &str) -> Result<(), ApiError> {
        let mut names = self.names.lock();
        if names.contains(resource) {
            self.store.remove(&document(resource)).map_err(|e| unavailable(&e))?;
            names.remove(resource);
        }
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        self.names.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use levada_disk::SimDisk;

    use super::*;

    #[test]
    fn policies_outlive_the_process_and_belong_to_one_resource() {
        let disk: Arc<dyn levada_disk::Disk> = Arc::new(SimDisk::new(1));
        let open = || {
            let store = DocumentStore::open(disk.clone(), "policies").expect("a store");
            StoredPolicies::open(store).expect("policies")
        };
        open().set("projects/p/topics/one", Bytes::from_static(b"\x08\x01")).expect("kept");
        let again = open();
        assert_eq!(again.get("projects/p/topics/one").ok().flatten(), Some(Bytes::from_static(b"\x08\x01")));
        assert_eq!(again.get("projects/p/topics/two").ok().flatten(), None);
        for resource in ["projects/p/topics/one", "projects/p/topics/two"] {
            again.remove(resource).expect("removed");
        }
        assert_eq!((again.get("projects/p/topics/one").ok().flatten(), again.names().len()), (None, 0));
        assert_eq!(open().get("projects/p/topics/one").ok().flatten(), None);
    }
}
