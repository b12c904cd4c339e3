//! Weights: how much of a subscription's delivery each tenant gets beside the others.

use std::collections::BTreeMap;

use levada_core::{Principal, Problem, ResourceName, TenantId};

use super::{SubscriptionAdmin, SubscriptionReport, problem};
use crate::port::SubscriptionSpec;

/// The largest weight of a tenant; the smallest is 1.
pub const MAX_WEIGHT: u32 = 1_000;
/// The most tenants that one subscription names weights of.
pub const MAX_WEIGHED_TENANTS: usize = 10_000;

/// New weights of tenants; `None` takes a tenant's weight away, so that it counts 1 again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weighing {
    /// Forget all weights first.
    pub from_nothing: bool,
    pub tenants: BTreeMap<TenantId, Option<u32>>,
}

impl SubscriptionAdmin {
    /// Sets tenants' weights and leaves those alone that are not named. Who sees a subscription
    /// may do so for its own tenants: one of the platform is seen by callers for all tenants only.
    ///
    /// # Errors
    /// `subscription-unknown` (404), `tenant-forbidden` (403) for a tenant that is not the
    /// caller's, `body-invalid` (422) for a weight outside of 1 to [`MAX_WEIGHT`] or for more
    /// than [`MAX_WEIGHED_TENANTS`] tenants.
    pub async fn weigh(
        &self,
        principal: &Principal,
        name: &ResourceName,
        weighing: &Weighing,
    ) -> Result<SubscriptionReport, Problem> {
        // One change after the other: each reads what is kept and writes it back.
        let _changing = self.changing.lock().await;
        let seen = self.find(principal, name)?;
        let mut weights = seen.spec.weights.clone();
        if weighing.from_nothing {
            // Weights of tenants that the caller does not see are not its to take away.
            weights.retain(|tenant, _| !principal.tenants.contains(tenant));
        }
        for (tenant, weight) in &weighing.tenants {
            principal.enter(tenant)?;
            match weight {
                None => {
                    weights.remove(tenant);
                }
                Some(weight) if (1..=MAX_WEIGHT).contains(weight) => {
                    weights.insert(tenant.clone(), *weight);
                }
                Some(weight) => {
                    let detail =
                        format!("the weight of `{tenant}` is {weight}; a weight is 1 to {MAX_WEIGHT}");
                    return Err(Problem::new(422, "body-invalid", detail));
                }
            }
        }
        if weights.len() > MAX_WEIGHED_TENANTS {
            let detail = format!("a subscription keeps weights of {MAX_WEIGHED_TENANTS} tenants at most");
            return Err(Problem::new(422, "body-invalid", detail)
                .hint("take weights away with null; a tenant without one counts 1"));
        }
        if weights != seen.spec.weights {
            let spec = SubscriptionSpec { weights, ..(*seen.spec).clone() };
            self.port.update_subscription(spec).await.map_err(|error| problem(&error))?;
            let tenants = weighing.tenants.len();
            tracing::info!(actor = %principal.id, subscription = %name, tenants, "tenants weighed");
        }
        Ok(self.find(principal, name)?.report(principal))
    }
}
