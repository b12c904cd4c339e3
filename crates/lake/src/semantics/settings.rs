//! What a session may set that changes answers.

use datafusion::execution::SessionState;

use super::zone::TimeZone;
use crate::catalog::SEARCH_PATH;
use crate::engine::DEFAULT_SCHEMA;

/// Settings of one session of SQL. Models, pipelines and HTTP have the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlSettings {
    /// Where times without an offset are read, and days and hours counted.
    pub time_zone: TimeZone,
    /// The schemas that a bare name of a table is looked up in, in this order.
    pub search_path: Vec<String>,
}

impl Default for SqlSettings {
    fn default() -> Self {
        Self { time_zone: TimeZone::UTC, search_path: vec![DEFAULT_SCHEMA.to_owned()] }
    }
}

impl SqlSettings {
    /// The schema that bare names belong to: the one of the default path, or a word for all of
    /// another path.
    pub(crate) fn default_schema(&self) -> &'static str {
        match self.search_path.as_slice() {
            [only] if only == DEFAULT_SCHEMA => DEFAULT_SCHEMA,
            _ => SEARCH_PATH,
        }
    }

    /// Makes a planner follow them.
    pub(crate) fn apply(&self, state: &mut SessionState) {
        if *self == Self::default() {
            return;
        }
        let options = state.config_mut().options_mut();
        options.execution.time_zone = Some(self.time_zone.name());
        options.catalog.default_schema = self.default_schema().to_owned();
    }
}
