//! Where a pipeline stands: its figures up to an epoch. They are part of every manifest, so a
//! restart goes on from them.

use std::sync::Arc;

use crate::chain::Chain;
use crate::counts::{StepFigures, carried_on};
use crate::epoch::OpenEpoch;
use crate::manifest::{Manifest, Totals};
use crate::shares::Shares;

/// Figures since the pipeline's first epoch.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// The last epoch; 0 before the first.
    pub epoch: u64,
    /// When it was sealed.
    pub at_ms: Option<i64>,
    pub totals: Totals,
    pub shares: Arc<Shares>,
    pub steps: Arc<Vec<StepFigures>>,
}

impl Standing {
    /// What the last manifest says, for the steps that there are now.
    pub fn of(last: Option<&Manifest>, chain: Option<&Chain>) -> Self {
        let steps = |before: &[StepFigures]| {
            Arc::new(chain.map(|chain| carried_on(chain, before)).unwrap_or_default())
        };
        match last {
            None => Self { steps: steps(&[]), ..Self::default() },
            Some(last) => Self {
                epoch: last.meta.epoch,
                at_ms: last.meta.at_ms,
                totals: last.meta.totals,
                shares: Arc::clone(&last.shares),
                steps: steps(&last.meta.steps),
            },
        }
    }

    /// The same after one more epoch.
    pub fn after(&self, epoch: u64, at_ms: i64, content: &OpenEpoch) -> Self {
        let mut next = self.clone();
        (next.epoch, next.at_ms) = (epoch, Some(at_ms));
        next.totals += content.figures;
        if content.shares != Shares::default() {
            Arc::make_mut(&mut next.shares).add(&content.shares, epoch, at_ms);
        }
        let steps = Arc::make_mut(&mut next.steps);
        steps.iter_mut().zip(&content.steps).for_each(|(step, more)| step.counts += *more);
        next
    }
}
