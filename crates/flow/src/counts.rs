//! What became of the rows of each step.

use serde::{Deserialize, Serialize};

use crate::chain::Chain;

/// Rows that reached a step, and where they went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCounts {
    #[serde(rename = "in")]
    pub rows_in: u64,
    #[serde(rename = "out")]
    pub rows_out: u64,
    /// Duplicates.
    #[serde(default)]
    pub dropped: u64,
    /// Sent to the dead letter.
    #[serde(default)]
    pub dead: u64,
}

impl std::ops::AddAssign for StepCounts {
    fn add_assign(&mut self, other: Self) {
        self.rows_in += other.rows_in;
        self.rows_out += other.rows_out;
        self.dropped += other.dropped;
        self.dead += other.dead;
    }
}

/// A step and what it did since the pipeline's first epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFigures {
    /// `validate` is the first; the others are called as in dead letters, such as
    /// `enrich:weather`.
    pub name: String,
    #[serde(flatten)]
    pub counts: StepCounts,
}

/// The steps of a pipeline with what they did up to the last manifest. A step goes on from the
/// one of its name; what steps did that are gone is forgotten.
pub fn carried_on(chain: &Chain, before: &[StepFigures]) -> Vec<StepFigures> {
    let names = std::iter::once("validate").chain(chain.names().iter().map(String::as_str));
    let carry = |name: &str| {
        let found = before.iter().find(|step| step.name == name);
        StepFigures { name: name.to_owned(), counts: found.map(|step| step.counts).unwrap_or_default() }
    };
    names.map(carry).collect()
}
