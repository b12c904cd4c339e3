//! Changing a subscription where Google's API has no field for it: weights, how much of the
//! delivery each tenant gets beside the others, and a bound on the rate.

use std::collections::BTreeMap;

use levada_core::{Principal, Problem, ResourceName, TenantId};

use super::{SubscriptionAdmin, SubscriptionReport, problem};
use crate::port::SubscriptionSpec;

/// The largest weight of a tenant; the smallest is 1.
pub const MAX_WEIGHT: u32 = 1_000;
/// The most tenants that one subscription names weights of.
pub const MAX_WEIGHED_TENANTS: usize = 10_000;

/// The highest rate of a subscription that has one, in messages a second.
pub const MAX_RATE_PER_S: u32 = 1_000_000;

/// What to change of a subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscriptionChange {
    pub weighing: Weighing,
    /// Messages a second at most, `Some(None)` ends the bound; `None` leaves it as it is.
    pub max_rate_per_s: Option<Option<u32>>,
}

/// New weights of tenants; `None` takes a tenant's weight away, so that it counts 1 again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weighing {
    /// Forget all weights first.
    pub from_nothing: bool,
    pub tenants: BTreeMap<TenantId, Option<u32>>,
}

impl SubscriptionAdmin {
    /// Changes settings all together or not at all; what is not named stays. Who sees a
    /// subscription may weigh its own tenants: one of the platform is seen by callers for all
    /// tenants only.
    ///
    /// # Errors
    /// `subscription-unknown` (404), `tenant-forbidden` (403) for a tenant that is not the
    /// caller's, `body-invalid` (422) for a weight outside of 1 to [`MAX_WEIGHT`], more than
    /// [`MAX_WEIGHED_TENANTS`] tenants, or a rate outside of 1 to [`MAX_RATE_PER_S`].
    pub async fn change(
        &self,
        principal: &Principal,
        name: &ResourceName,
        change: &SubscriptionChange,
    ) -> Result<SubscriptionReport, Problem> {
        // One change after the other: each reads what is kept and writes it back.
        let _changing = self.changing.lock().await;
        let seen = self.find(principal, name)?;
        let mut spec: SubscriptionSpec = (*seen.spec).clone();
        spec.weights = weighed(principal, spec.weights, &change.weighing)?;
        if let Some(rate_per_s) = change.max_rate_per_s {
            check_rate(rate_per_s)?;
            spec.max_rate_per_s = rate_per_s;
        }
        if spec != *seen.spec {
            self.port.update_subscription(spec).await.map_err(|error| problem(&error))?;
            let tenants = change.weighing.tenants.len();
            tracing::info!(
                actor = %principal.id, subscription = %name, tenants, rate = ?change.max_rate_per_s,
                "subscription changed"
            );
        }
        Ok(self.find(principal, name)?.report(principal))
    }
}

fn weighed(
    principal: &Principal,
    mut weights: BTreeMap<TenantId, u32>,
    weighing: &Weighing,
) -> Result<BTreeMap<TenantId, u32>, Problem> {
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
                let detail = format!("the weight of `{tenant}` is {weight}; a weight is 1 to {MAX_WEIGHT}");
                return Err(Problem::new(422, "body-invalid", detail));
            }
        }
    }
    if weights.len() > MAX_WEIGHED_TENANTS {
        let detail = format!("a subscription keeps weights of {MAX_WEIGHED_TENANTS} tenants at most");
        return Err(Problem::new(422, "body-invalid", detail)
            .hint("take weights away with null; a tenant without one counts 1"));
    }
    Ok(weights)
}

/// # Errors
/// `body-invalid` (422).
pub(super) fn check_rate(rate_per_s: Option<u32>) -> Result<(), Problem> {
    if rate_per_s.is_none_or(|rate| (1..=MAX_RATE_PER_S).contains(&rate)) {
        return Ok(());
    }
    Err(Problem::new(422, "body-invalid", format!("a rate is 1 to {MAX_RATE_PER_S} messages a second")))
}
