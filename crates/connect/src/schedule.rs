//! When files are taken: on arrival, or at the times of a cron expression (UTC).

use chrono::{DateTime, Utc};
use croner::Cron;
use levada_core::ReadError;

#[derive(Debug)]
pub(crate) struct Schedule {
    cron: Option<Cron>,
    /// Last moment that is accounted for: the end of a run, or the start of the watch.
    last_ms: Option<i64>,
    running: bool,
}

impl Schedule {
    pub fn new(expression: Option<&str>) -> Result<Self, ReadError> {
        let cron = expression.map(|text| text.parse::<Cron>()).transpose().map_err(|error| ReadError {
            message: format!("the schedule `{}` is no cron expression: {error}", expression.unwrap_or("")),
            retryable: false,
        })?;
        Ok(Self { cron, last_ms: None, running: false })
    }

    pub fn restore(&mut self, last_run_ms: Option<i64>) {
        self.last_ms = last_run_ms;
        self.running = false;
    }

    pub fn last_run_ms(&self) -> Option<i64> {
        self.cron.as_ref().and(self.last_ms)
    }

    /// Whether files may be taken now. A time that passed while nothing ran counts once.
    pub fn is_open(&mut self, now_ms: i64) -> bool {
        let Some(cron) = &self.cron else { return true };
        if self.running {
            return true;
        }
        let last = *self.last_ms.get_or_insert(now_ms);
        let due = DateTime::<Utc>::from_timestamp_millis(last)
            .and_then(|last| cron.find_next_occurrence(&last, false).ok());
        self.running = due.is_some_and(|due| due.timestamp_millis() <= now_ms);
        self.running
    }

    /// Everything that lay in the folder at this run has been taken.
    pub fn close(&mut self, now_ms: i64) {
        if self.running {
            self.running = false;
            self.last_ms = Some(now_ms);
        }
    }
}
