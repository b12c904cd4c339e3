//! Rates of tenants: what is sent again counts like what is sent.

use std::sync::Arc;

use levada_core::{Problem, TenantId};

use crate::bus::Bus;

/// Takes so many tokens of a tenant, or refuses with `rate-limited` (429).
pub type TakeTokens = Arc<dyn Fn(&TenantId, u64) -> Result<(), Problem> + Send + Sync>;

impl Bus {
    /// Dead letters that are sent again count against their tenant's rate from now on. Of two
    /// calls the first one counts.
    pub fn limit_resends(&self, take: TakeTokens) {
        let _ = self.inner.rate.set(take);
    }

    pub(crate) fn take_token(&self, tenant: &TenantId) -> Result<(), Problem> {
        self.inner.rate.get().map_or(Ok(()), |take| take(tenant, 1))
    }
}
