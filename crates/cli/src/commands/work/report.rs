//! What a worker tells: a status line on a terminal, events with `--json`, else only what
//! went wrong and a closing line.

use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::verdict::Verdict;
use crate::output::Output;

#[derive(Debug, Default)]
struct Counts {
    acked: AtomicU64,
    retried: AtomicU64,
    dead_lettered: AtomicU64,
    unsettled: AtomicU64,
}

/// Figures of a worker's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    pub acked: u64,
    pub retried: u64,
    pub dead_lettered: u64,
    /// Whose acknowledgement failed: they come again.
    pub unsettled: u64,
}

/// Prints events; shared by all parts of a worker.
#[derive(Debug)]
pub struct Reporter {
    output: Output,
    bar: ProgressBar,
    counts: Counts,
}

impl Reporter {
    pub fn new(output: &Output, subscription: &str) -> Self {
        let bar = if output.json { ProgressBar::hidden() } else { output.bar(None, "work") };
        if let Ok(style) = indicatif::ProgressStyle::with_template("{prefix:>12} {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(subscription.to_owned());
        Self { output: output.clone(), bar, counts: Counts::default() }
    }

    /// An event for `--json`.
    pub fn event(&self, event: &Value) {
        if self.output.json {
            self.output.value(event);
        }
    }

    /// A line of talk, above the status line.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| self.output.say(text));
    }

    /// What a person should know.
    pub fn warn(&self, text: &str) {
        if self.output.json {
            self.event(&json!({ "event": "warning", "message": text }));
        } else {
            self.say(&format!("warning: {text}"));
        }
    }

    /// What became of a message.
    pub fn settled(&self, message_id: &str, attempt: u32, verdict: &Verdict, took_ms: u64) {
        let (count, line) = match verdict {
            Verdict::Ack => (&self.counts.acked, None),
            Verdict::Retry(reason) => (&self.counts.retried, Some(format!("retry {message_id}: {reason}"))),
            Verdict::DeadLetter(reason) => {
                (&self.counts.dead_lettered, Some(format!("dead letter {message_id}: {reason}")))
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
        if self.output.json {
            self.event(&json!({
                "event": "message", "message_id": message_id, "attempt": attempt,
                "verdict": verdict.name(), "reason": verdict.reason(), "ms": took_ms,
            }));
        } else if let Some(line) = line {
            self.say(&line);
        }
    }

    /// Acknowledgements that failed for good.
    pub fn unsettled(&self, messages: usize, why: &str) {
        self.counts.unsettled.fetch_add(messages as u64, Ordering::Relaxed);
        self.warn(&format!("{messages} messages are done but not acknowledged and will come again: {why}"));
    }

    /// Draws the status line.
    pub fn status(&self, state: &str, running: usize, waiting: usize) {
        let Totals { acked, retried, dead_lettered, .. } = self.totals();
        self.bar.set_message(format!(
            "{state} · {running} running, {waiting} waiting · {acked} acked, {retried} retried, {dead_lettered} dead"
        ));
    }

    pub fn totals(&self) -> Totals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals {
            acked: read(&self.counts.acked),
            retried: read(&self.counts.retried),
            dead_lettered: read(&self.counts.dead_lettered),
            unsettled: read(&self.counts.unsettled),
        }
    }

    /// The closing line.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
        let Totals { acked, retried, dead_lettered, unsettled } = self.totals();
        self.event(&json!({
            "event": "stopped", "acked": acked, "retried": retried, "dead_lettered": dead_lettered,
            "unsettled": unsettled,
        }));
        if !self.output.json {
            self.output.say(&format!("{acked} acked, {retried} retried, {dead_lettered} dead-lettered"));
        }
    }
}
