//! The port through which the console sees the platform, and what it is told.
//!
//! Shapes are made for display: texts are finished, counts are of the principal's own
//! tenants. An implementation narrows every answer to the principal; the console never
//! filters rows itself.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use levada_core::{Principal, Problem, ResourceName, TopicName};
use serde::{Deserialize, Serialize};

use crate::message::{
    MessageEdit, MessageFilter, MessagePage, MessageRow, PubsubTopicRow, RedriveDone, RedriveOrder,
};
use crate::rows::ShownRows;
pub use crate::subscription::{BlockedRow, LaneRow, SubscriptionDetail, SubscriptionRow, Unblock};

/// What the console asks of the platform. One method an operation.
///
/// Every method that takes a principal answers for that principal's tenants and roles
/// only, and answers a thing outside them exactly as one that does not exist. Methods are
/// cancelled by dropping their future.
#[async_trait]
pub trait ConsoleData: Send + Sync + 'static {
    /// Called at sign-in and again on every request, so a revoked key ends its sessions.
    ///
    /// # Errors
    /// `unauthenticated` (401) for an unknown, expired or revoked secret. Any other
    /// problem leaves an existing session in place.
    async fn authenticate(&self, secret: &str) -> Result<Arc<Principal>, Problem>;

    /// # Errors
    /// A problem to show in place of the page.
    async fn overview(&self, principal: &Principal) -> Result<Overview, Problem>;

    /// In the order to show them, those that need attention first.
    ///
    /// # Errors
    /// A problem to show in place of the page.
    async fn pipelines(&self, principal: &Principal) -> Result<Vec<PipelineRow>, Problem>;

    /// One pipeline by [`PipelineRow::key`]; `None` if the principal sees no such one.
    ///
    /// # Errors
    /// A problem to show in place of the page.
    async fn pipeline(&self, principal: &Principal, key: &str) -> Result<Option<PipelineDetail>, Problem>;

    /// # Errors
    /// A problem to show in place of the page.
    async fn models(&self, principal: &Principal) -> Result<Vec<ModelRow>, Problem>;

    /// Refreshes a model now, by [`ModelRow::key`]; the answer is a sentence for the user.
    ///
    /// # Errors
    /// A problem to show above the list.
    async fn run_model(&self, principal: &Principal, key: &str) -> Result<String, Problem>;

    /// # Errors
    /// A problem to show in place of the page.
    async fn topics(&self, principal: &Principal) -> Result<Vec<TopicRow>, Problem>;

    /// In the order to show them, those that need attention first; at most a thousand. None
    /// where the platform has no Pub/Sub bus.
    ///
    /// # Errors
    /// A problem to show in place of the page.
    async fn subscriptions(&self, _principal: &Principal) -> Result<Vec<SubscriptionRow>, Problem> {
        Ok(Vec::new())
    }

    /// One subscription; `None` if the principal sees no such one.
    ///
    /// # Errors
    /// A problem to show in place of the page.
    async fn subscription(
        &self,
        _principal: &Principal,
        _name: &ResourceName,
    ) -> Result<Option<SubscriptionDetail>, Problem> {
        Ok(None)
    }

    /// Frees a blocked ordering key; the answer is a sentence for the user.
    ///
    /// # Errors
    /// A problem to show above the page.
    async fn unblock(
        &self,
        _principal: &Principal,
        name: &ResourceName,
        _tenant: &str,
        _key: &str,
        _how: Unblock,
    ) -> Result<String, Problem> {
        Err(no_subscription(name))
    }

    /// Sets a tenant's weight in a subscription, `None` takes it away; the answer is a sentence.
    ///
    /// # Errors
    /// A problem to show above the page.
    async fn weigh(
        &self,
        _principal: &Principal,
        name: &ResourceName,
        _tenant: &str,
        _weight: Option<u32>,
    ) -> Result<String, Problem> {
        Err(no_subscription(name))
    }

    /// Messages of a subscription's topic that it would get, newest first, without consuming any.
    ///
    /// # Errors
    /// A problem to show in place of the page.
    async fn messages(
        &self,
        _principal: &Principal,
        name: &ResourceName,
        _filter: &MessageFilter,
    ) -> Result<MessagePage, Problem> {
        Err(no_subscription(name))
    }

    /// One of them; `None` if there is no such one.
    ///
    /// # Errors
    /// A problem to show in place of the page.
    async fn message(
        &self,
        _principal: &Principal,
        name: &ResourceName,
        _message_id: u64,
    ) -> Result<Option<MessageRow>, Problem> {
        Err(no_subscription(name))
    }

    /// Sends dead letters back to where they came from.
    ///
    /// # Errors
    /// A problem to show above the page.
    async fn redrive(
        &self,
        _principal: &Principal,
        name: &ResourceName,
        _order: &RedriveOrder,
    ) -> Result<RedriveDone, Problem> {
        Err(no_subscription(name))
    }

    /// Edits one dead letter and sends it back; the answer is a sentence for the user.
    ///
    /// # Errors
    /// A problem to show above the form, which keeps what was typed.
    async fn resend_message(
        &self,
        _principal: &Principal,
        name: &ResourceName,
        _message_id: u64,
        _edit: &MessageEdit,
    ) -> Result<String, Problem> {
        Err(no_subscription(name))
    }

    /// The topics of the Pub/Sub projects that the principal sees; at most a thousand.
    ///
    /// # Errors
    /// A problem to show in place of the page.
    async fn pubsub_topics(&self, _principal: &Principal) -> Result<Vec<PubsubTopicRow>, Problem> {
        Ok(Vec::new())
    }

    /// Newest first, at most `filter.limit`.
    ///
    /// # Errors
    /// A problem to show in place of the page.
    async fn dead_letters(
        &self,
        principal: &Principal,
        filter: &DeadLetterFilter,
    ) -> Result<DeadLetterPage, Problem>;

    /// One dead letter by its place in a dead-letter topic.
    ///
    /// # Errors
    /// A problem to show in place of the page.
    async fn dead_letter(
        &self,
        principal: &Principal,
        topic: &TopicName,
        offset: u64,
    ) -> Result<Option<DeadLetter>, Problem>;

    /// Sends dead letters of one topic again.
    ///
    /// # Errors
    /// A problem to show above the list.
    async fn resend(
        &self,
        principal: &Principal,
        topic: &TopicName,
        offsets: &[u64],
    ) -> Result<Resent, Problem>;

    /// Runs one read-only statement and answers at most `max_rows` rows as text. Reading ends where
    /// the page is full ([`ShownRows::is_full`]).
    ///
    /// # Errors
    /// A problem to show under the statement.
    async fn query(&self, principal: &Principal, sql: &str, max_rows: usize) -> Result<QueryAnswer, Problem>;

    /// The tables that the principal may query.
    ///
    /// # Errors
    /// A problem to show in place of the list.
    async fn tables(&self, principal: &Principal) -> Result<Vec<TableRow>, Problem>;
}

fn no_subscription(name: &ResourceName) -> Problem {
    Problem::new(404, "subscription-unknown", format!("there is no subscription `{name}`"))
}

/// How a part is. Shown as a word with a mark, never by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Works, and has had something to do.
    Healthy,
    /// Works, with nothing to do so far.
    Idle,
    /// Waits for something that the project lacks.
    Waiting,
    /// Works, but slower than it should or with some failures.
    Degraded,
    /// Does not work; a person must act.
    Failing,
}

/// The first page. Parts that need a role are empty for principals without it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Overview {
    pub health: Health,
    /// Why health is not [`Health::Healthy`]: one sentence a cause.
    pub notes: Vec<String>,
    /// Events accepted a second, over the last sample.
    pub events_per_s: f64,
    /// Oldest first, one a `rate_step_s`; the last one is `events_per_s`.
    pub rate_history: Vec<f64>,
    pub rate_step_s: u32,
    /// Since the platform was started.
    pub accepted: u64,
    pub duplicates: u64,
    pub dead_letters: u64,
    /// From acceptance to queryable, recent; `None` before the first epoch.
    pub latency_p50_ms: Option<f64>,
    pub latency_p99_ms: Option<f64>,
    /// Accepted, and not yet in a committed epoch, as far as that is known.
    pub backlog: u64,
    pub uptime_s: u64,
    pub pipelines: Vec<PipelineRow>,
    pub models: Vec<ModelRow>,
    pub zones: Vec<ZoneRow>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PipelineRow {
    /// Names the pipeline in addresses; stable, unique among all tenants.
    pub key: String,
    pub name: String,
    /// `shared`, or the tenant.
    pub owner: String,
    /// Where its input comes from, such as `topic weather` or `folder landing/`.
    pub source: String,
    /// The table it fills, such as `silver.weather`.
    pub sink: String,
    /// What its dead letters call it.
    pub full_name: String,
    /// Since its first epoch, as is what follows.
    pub received: u64,
    pub written: u64,
    /// Duplicates and rows that a rule dropped.
    pub dropped: u64,
    pub dead: u64,
    /// `None` where nobody knows whose the waiting records are.
    pub backlog: Option<u64>,
    pub rate_per_s: f64,
    /// The last one that held a record of the principal's tenants.
    pub epoch: Option<u64>,
    pub last_commit_ms: Option<i64>,
    pub health: Health,
    /// Why, where health is not good.
    pub note: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PipelineDetail {
    pub row: PipelineRow,
    pub description: Option<String>,
    /// The project file that defines it.
    pub file: String,
    /// From source to sink.
    pub steps: Vec<StepRow>,
    pub dead_by_reason: Vec<ReasonCount>,
    /// Newest first.
    pub epochs: Vec<EpochRow>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepRow {
    /// What kind of step, such as `deduplicate`.
    pub kind: String,
    /// What it does, in one line.
    pub summary: String,
    /// Why it does not run; `None` if it runs.
    pub waits_for: Option<String>,
    /// `None` for a step that does not run, and for a principal that does not see all tenants
    /// whose rows pass it.
    pub counts: Option<StepCounts>,
}

/// Rows that reached a step, and where they went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCounts {
    pub rows_in: u64,
    pub rows_out: u64,
    pub dropped: u64,
    pub dead: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReasonCount {
    /// Stable code, such as `schema-invalid`.
    pub code: String,
    pub count: u64,
}

/// A committed epoch that held a record of the principal's tenants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EpochRow {
    pub epoch: u64,
    pub committed_ms: i64,
    /// Of the principal's tenants, as written to the pipeline's table.
    pub rows: u64,
    /// Files and time are of all tenants together: `None` for who does not see all.
    pub files: Option<u64>,
    /// `None` for an epoch before the last start, too.
    pub duration_ms: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelRow {
    /// Names the model in addresses; stable, unique among all tenants.
    pub key: String,
    pub name: String,
    pub owner: String,
    /// The table it fills, such as `gold.daily`.
    pub table: String,
    pub depends_on: Vec<String>,
    /// Cron expression; `None` runs after its inputs or by command.
    pub schedule: Option<String>,
    pub rows: Option<u64>,
    pub last_run_ms: Option<i64>,
    pub last_duration_ms: Option<u64>,
    pub health: Health,
    pub note: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ZoneRow {
    pub zone: String,
    /// Tables; in bronze, sources.
    pub tables: u64,
    /// Objects of bronze; `None` in the other zones.
    pub objects: Option<u64>,
    pub rows: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TopicRow {
    pub name: String,
    /// First offset still kept, and the one that the next message gets.
    pub first: u64,
    pub next: u64,
    pub bytes: u64,
    pub rate_per_s: f64,
    /// What an acknowledgement means, such as `synced to disk`.
    pub durability: String,
    /// 99 of 100 publishes were answered by the log within this time; `None`: not known.
    #[serde(default)]
    pub commit_p99_us: Option<u64>,
    /// Such as `7 days`; `None` keeps all.
    pub retention: Option<String>,
    /// Who reads it: pipelines and subscriptions.
    pub readers: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DeadLetterFilter {
    /// A dead-letter topic.
    pub topic: Option<TopicName>,
    /// Pipeline name.
    pub pipeline: Option<String>,
    /// Code of the reason.
    pub code: Option<String>,
    /// [`DeadLetterPage::next`] of the page before.
    pub after: Option<String>,
    pub limit: usize,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DeadLetterPage {
    pub letters: Vec<DeadLetter>,
    /// Opaque; `None` on the last page.
    pub next: Option<String>,
    /// Whether the letters were too large for a whole page, with no `next` to go on by.
    #[serde(default)]
    pub is_full: bool,
    /// Values to filter by.
    pub topics: Vec<String>,
    pub pipelines: Vec<String>,
    pub reasons: Vec<ReasonCount>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The dead-letter topic and the place in it.
    pub topic: TopicName,
    pub offset: u64,
    pub tenant: String,
    pub code: String,
    /// A sentence: why it could not be processed.
    pub reason: String,
    pub stage: String,
    pub attempts: u32,
    pub pipeline: Option<String>,
    /// Offset in the original topic, or `file:line`.
    pub position: Option<String>,
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub at_ms: i64,
    /// Set once it was sent again; shown as a mark, not as a time.
    pub resent_ms: Option<i64>,
    pub attributes: Vec<(String, String)>,
    /// The original bytes; of a letter in a page of them, they may be left out.
    pub body: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resent {
    pub sent: u64,
    /// Those that could not be sent, for instance because retention removed them.
    pub missing: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueryAnswer {
    /// As many as the page has room for.
    pub rows: ShownRows,
    /// Whether there were more rows than asked for.
    pub truncated: bool,
    pub elapsed_ms: u64,
    /// As of which epochs, such as `weather 412`.
    pub as_of: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TableRow {
    /// As written in SQL, such as `silver.orders`.
    pub name: String,
    pub rows: Option<u64>,
    /// Files of a table, objects of a source.
    pub files: Option<u64>,
    pub bytes: Option<u64>,
    /// Column name and type, in order.
    pub columns: Vec<(String, String)>,
    pub description: Option<String>,
}
