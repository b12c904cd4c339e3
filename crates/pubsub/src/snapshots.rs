//! Snapshots of subscriptions.

use levada_bus::port::{PortError, SnapshotSpec};
use levada_core::ResourceName;

use crate::access::Caller;
use crate::api::{Call, PubsubApi, filtered};
use crate::convert;
use crate::error::ApiError;
use crate::limits;
use crate::mask;
use crate::messages::pb;
use crate::names;
use crate::publisher::missing;

impl PubsubApi {
    /// A snapshot that the caller may see; NOT_FOUND otherwise.
    pub(crate) fn open_snapshot(&self, call: &Caller, path: &str) -> Result<SnapshotSpec, ApiError> {
        let name = names::resource(path, "snapshots")?;
        let access = self.access(call, &name)?;
        let seen = |kept: &ResourceName| {
            self.bus.snapshot(kept).ok().filter(|spec| access.sees(spec.tenant.as_ref()))
        };
        match access.kept(&name).iter().find_map(seen) {
            Some(spec) => Ok(spec),
            None => {
                self.bus.snapshot(&name)?;
                Err(ApiError::not_found(name.id.as_str()))
            }
        }
    }

    /// Whether the caller sees what is kept under exactly that name.
    pub(crate) fn sees_snapshot(&self, call: &Caller, kept: &ResourceName) -> bool {
        let Some(access) = call.enter(&kept.project) else { return false };
        self.bus.snapshot(kept).is_ok_and(|spec| access.sees(spec.tenant.as_ref()))
    }

    /// A snapshot by the name that the caller uses.
    fn shown_snapshot(&self, call: &Caller, spec: SnapshotSpec) -> pb::Snapshot {
        let name = self.shown(call, &spec.name);
        convert::snapshot_out(SnapshotSpec { name, ..spec })
    }

    pub(crate) async fn get_snapshot(
        &self,
        call: &Call,
        request: pb::GetSnapshotRequest,
    ) -> Result<pb::Snapshot, ApiError> {
        Ok(self.shown_snapshot(call, self.open_snapshot(call, &request.snapshot)?))
    }

    pub(crate) async fn list_snapshots(
        &self,
        call: &Call,
        request: pb::ListSnapshotsRequest,
    ) -> Result<pb::ListSnapshotsResponse, ApiError> {
        let project = names::project(&request.project)?;
        let access = self.project(call, &project)?;
        let wanted = names::page(request.page_size, &request.page_token)?;
        let page = filtered(
            &wanted,
            |page| Ok(self.bus.snapshots(&project, page)),
            |spec| &spec.name,
            |spec| access.sees(spec.tenant.as_ref()),
        )?;
        Ok(pb::ListSnapshotsResponse {
            next_page_token: names::page_token(page.next.as_ref()),
            snapshots: page.items.into_iter().map(|spec| self.shown_snapshot(call, spec)).collect(),
        })
    }

    pub(crate) async fn create_snapshot(
        &self,
        call: &Call,
        request: pb::CreateSnapshotRequest,
    ) -> Result<pb::Snapshot, ApiError> {
        if !request.name.is_empty() {
            names::resource(&request.name, "snapshots")?;
        }
        if call.may_operate() && self.open_snapshot(call, &request.name).is_ok() {
            return Err(PortError::AlreadyExists { what: "snapshot", name: request.name }.into());
        }
        let opened = self.open(call, &request.subscription)?;
        call.require(call.may_operate(), "engineer or admin")?;
        limits::labels(&request.labels)?;
        let subscription = opened.port.spec().name.clone();
        let name = if request.name.is_empty() {
            let id = format!("snapshot-{}", self.ids.uuid().simple());
            ResourceName::new(subscription.project.clone(), levada_core::ResourceId::new(&id)?)
        } else {
            names::resource(&request.name, "snapshots")?
        };
        let access = self.project(call, &name.project)?;
        // A snapshot in a project of another owner would show a backlog to that owner.
        if access.owner != opened.access.owner {
            return Err(ApiError::invalid(
                "The snapshot must be in a project of the same owner as the subscription's; use the \
                 subscription's own project.",
            ));
        }
        let tenant = opened.port.spec().tenant.clone();
        self.admit_snapshot(&name.project, &access.owner, tenant.as_ref())?;
        if self.open_snapshot(call, &name.path("snapshots")).is_ok() {
            return Err(PortError::AlreadyExists { what: "snapshot", name: name.to_string() }.into());
        }
        // Another tenant may have the name.
        let own = access.own_name(&name, tenant.as_ref())?;
        let labels = convert::sorted(&request.labels);
        let spec = match (self.bus.create_snapshot(name, &subscription, labels.clone()).await, own) {
            (Err(PortError::AlreadyExists { .. }), Some(own)) => {
                self.bus.create_snapshot(own, &subscription, labels).await?
            }
            (made, _) => made?,
        };
        self.forget_policy(&spec.name.path("snapshots"));
        Ok(self.shown_snapshot(call, spec))
    }

    pub(crate) async fn update_snapshot(
        &self,
        call: &Call,
        request: pb::UpdateSnapshotRequest,
    ) -> Result<pb::Snapshot, ApiError> {
        let given = request.snapshot.ok_or_else(|| missing("snapshot"))?;
        let mut spec = self.open_snapshot(call, &given.name)?;
        call.require(call.may_operate(), "engineer or admin")?;
        let paths = mask::paths(request.update_mask.as_ref(), &mask::SNAPSHOT)?;
        for path in paths {
            if path == "labels" {
                limits::labels(&given.labels)?;
                spec.labels = convert::sorted(&given.labels);
            } else {
                let time = given.expire_time.as_ref().ok_or_else(|| missing("snapshot.expire_time"))?;
                spec.expires_at_ms = convert::timestamp_in("snapshot.expire_time", time)?;
            }
        }
        Ok(self.shown_snapshot(call, self.bus.update_snapshot(spec).await?))
    }

    pub(crate) async fn delete_snapshot(
        &self,
        call: &Call,
        request: pb::DeleteSnapshotRequest,
    ) -> Result<(), ApiError> {
        let spec = self.open_snapshot(call, &request.snapshot)?;
        call.require(call.may_operate(), "engineer or admin")?;
        self.bus.delete_snapshot(&spec.name).await?;
        self.forget_policy(&spec.name.path("snapshots"));
        Ok(())
    }
}
