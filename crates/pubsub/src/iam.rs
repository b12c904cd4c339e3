//! `google.iam.v1.IAMPolicy`: policies are kept as they are given; what a caller may do is
//! decided by the roles of its key, and `TestIamPermissions` answers by them. A policy ends with
//! its resource.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use tonic::Code;

use crate::access::Access;
use crate::api::{Call, PubsubApi};
use crate::error::ApiError;
use crate::messages::iam;
use crate::names;
use crate::publisher::missing;

/// Policies larger than this are refused.
const MAX_POLICY_BYTES: usize = 64 << 10;
const MAX_PERMISSIONS: usize = 100;

/// Keeps a policy, encoded, by the full name of its resource.
pub trait PolicyStore: Send + Sync {
    fn get(&self, resource: &str) -> Result<Option<Bytes>, ApiError>;
    /// # Errors
    /// RESOURCE_EXHAUSTED when there are too many, UNAVAILABLE when it cannot be kept now.
    fn set(&self, resource: &str, policy: Bytes) -> Result<(), ApiError>;
    /// Of one that is not there too.
    fn remove(&self, resource: &str) -> Result<(), ApiError>;
    /// The resources that have one.
    fn names(&self) -> Vec<String>;
}

/// Policies in memory, as the emulator keeps them: for development and tests.
#[derive(Debug, Default)]
pub struct MemoryPolicies(Mutex<BTreeMap<String, Bytes>>);

const MAX_MEMORY_POLICIES: usize = 10_000;

impl PolicyStore for MemoryPolicies {
    fn get(&self, resource: &str) -> Result<Option<Bytes>, ApiError> {
        Ok(self.0.lock().get(resource).cloned())
    }

    fn set(&self, resource: &str, policy: Bytes) -> Result<(), ApiError> {
        let mut all = self.0.lock();
        if all.len() >= MAX_MEMORY_POLICIES && !all.contains_key(resource) {
            return Err(ApiError::new(
                Code::ResourceExhausted,
                "There are too many policies; delete resources first.",
            ));
        }
        all.insert(resource.to_owned(), policy);
        Ok(())
    }

    fn remove(&self, resource: &str) -> Result<(), ApiError> {
        self.0.lock().remove(resource);
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().keys().cloned().collect()
    }
}

impl PubsubApi {
    /// Ends the policy of a resource that was deleted, or was made: one that expired left its own
    /// behind.
    pub(crate) fn forget_policy(&self, resource: &str) {
        if let Err(error) = self.policies.remove(resource) {
            tracing::warn!(resource, %error, "a policy outlives its resource");
        }
    }

    /// A topic, subscription, snapshot or schema that the caller may see, by the path under which
    /// it is kept.
    async fn policy_of(&self, call: &Call, resource: &str) -> Result<(Access, String), ApiError> {
        match resource.split('/').nth(2) {
            Some("topics") => {
                let name = names::resource(resource, "topics")?;
                let access = self.access(call, &name)?;
                self.topic(call, &name)?;
                Ok((access, resource.to_owned()))
            }
            Some("subscriptions") => {
                let opened = self.open(call, resource)?;
                let kept = opened.port.spec().name.path("subscriptions");
                Ok((opened.access, kept))
            }
            Some("snapshots") => {
                let name = self.open_snapshot(call, resource)?.name;
                Ok((self.access(call, &name)?, name.path("snapshots")))
            }
            Some("schemas") => {
                let name = names::resource(resource, "schemas")?;
                let access = self.access(call, &name)?;
                self.schemas.get(&name, None).await?;
                Ok((access, resource.to_owned()))
            }
            _ => Err(ApiError::invalid(format!(
                "Invalid resource name given (name={}): policies belong to topics, subscriptions, snapshots and \
                 schemas.",
                names::shown(resource)
            ))),
        }
    }

    fn kept_policy(&self, resource: &str) -> Result<iam::Policy, ApiError> {
        let Some(kept) = self.policies.get(resource)? else { return Ok(with_etag(iam::Policy::default())) };
        let policy = iam::Policy::decode(kept).map_err(|error| {
            ApiError::new(Code::Internal, format!("the kept policy cannot be read: {error}"))
        })?;
        Ok(with_etag(policy))
    }

    pub(crate) async fn get_iam_policy(
        &self,
        call: &Call,
        request: iam::GetIamPolicyRequest,
    ) -> Result<iam::Policy, ApiError> {
        let (_, resource) = self.policy_of(call, &request.resource).await?;
        call.require(call.may_operate(), "engineer or admin")?;
        self.kept_policy(&resource)
    }

    pub(crate) async fn set_iam_policy(
        &self,
        call: &Call,
        request: iam::SetIamPolicyRequest,
    ) -> Result<iam::Policy, ApiError> {
        let (access, resource) = self.policy_of(call, &request.resource).await?;
        call.require(call.principal.is_admin(), "admin")?;
        require_ownership(&access, kind_of(&request.resource))?;
        let mut policy = request.policy.ok_or_else(|| missing("policy"))?;
        if policy.encoded_len() > MAX_POLICY_BYTES {
            let text = format!("The policy is larger than {MAX_POLICY_BYTES} bytes.");
            return Err(ApiError::invalid_field("policy", text));
        }
        if let Some(binding) = policy.bindings.iter().find(|binding| binding.role.is_empty()) {
            let members = names::shown(&binding.members.join(", "));
            return Err(ApiError::invalid(format!("The binding of `{members}` has no role.")));
        }
        if !policy.etag.is_empty() && policy.etag != self.kept_policy(&resource)?.etag {
            return Err(ApiError::new(
                Code::Aborted,
                "There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff.",
            ));
        }
        policy.etag = Bytes::new();
        self.admit_policy(&resource)?;
        self.policies.set(&resource, policy.encode_to_vec().into())?;
        Ok(with_etag(policy))
    }

    pub(crate) async fn test_iam_permissions(
        &self,
        call: &Call,
        request: iam::TestIamPermissionsRequest,
    ) -> Result<iam::TestIamPermissionsResponse, ApiError> {
        if request.permissions.len() > MAX_PERMISSIONS {
            return Err(ApiError::invalid(format!(
                "At most {MAX_PERMISSIONS} permissions can be tested at once."
            )));
        }
        let mut held = Vec::new();
        // A resource that is missing answers with no permissions, as documented.
        if let Ok((access, _)) = self.policy_of(call, &request.resource).await {
            for permission in request.permissions {
                if holds(call, &access, &permission)? {
                    held.push(permission);
                }
            }
        }
        Ok(iam::TestIamPermissionsResponse { permissions: held })
    }
}

/// `topics` of `projects/<project>/topics/<id>`.
fn kind_of(resource: &str) -> &str {
    resource.split('/').nth(2).unwrap_or_default()
}

/// Topics and schemas belong to the owner of their project. A subscription or snapshot belongs
/// to whoever sees it.
fn require_ownership(access: &Access, kind: &str) -> Result<(), ApiError> {
    match kind {
        "topics" | "schemas" => access.require_topic_control(),
        _ => Ok(()),
    }
}

fn holds(call: &Call, access: &Access, permission: &str) -> Result<bool, ApiError> {
    let parts: Vec<&str> = permission.split('.').collect();
    let ["pubsub", kind, verb] = parts.as_slice() else {
        return Err(ApiError::invalid(format!(
            "The permission `{}` is not one of Pub/Sub; write it as pubsub.topics.publish.",
            names::shown(permission)
        )));
    };
    Ok(match (*kind, *verb) {
        (_, "get" | "list") => true,
        ("topics", "publish") => call.may_publish(),
        ("subscriptions", "consume") => call.may_consume(),
        (_, "setIamPolicy") => call.principal.is_admin() && require_ownership(access, kind).is_ok(),
        ("topics", "attachSubscription") => call.may_operate(),
        ("topics" | "schemas", _) => access.require_topic_control().is_ok(),
        _ => call.may_operate(),
    })
}

/// The etag is a checksum of the content.
fn with_etag(mut policy: iam::Policy) -> iam::Policy {
    policy.etag = Bytes::new();
    let sum = crc32c::crc32c(&policy.encode_to_vec());
    policy.etag = Bytes::copy_from_slice(&sum.to_be_bytes());
    policy
}
