//! The platform as the console sees it: the engines' figures, narrowed to the principal.
//! A file a page.

mod dead_letters;
mod messages;
mod models;
mod overview;
mod pipelines;
mod scans;
mod sql;
mod subscriptions;
mod topics;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use levada_access::KeyRing;
use levada_bus::Bus;
use levada_bus::admin::SubscriptionAdmin;
use levada_config::model::Owner;
use levada_console::{
    ConsoleData, DeadLetter, DeadLetterFilter, DeadLetterPage, Health, MessageEdit, MessageFilter,
    MessagePage, MessageRow, ModelRow, Overview, PipelineDetail, PipelineRow, PubsubTopicRow, QueryAnswer,
    RedriveDone, RedriveOrder, Resent, SubscriptionDetail, SubscriptionRow, TableRow, TopicRow, Unblock,
};
use levada_core::{Authenticator, Clock, Principal, Problem, ResourceName, TenantSet, TopicName};
use levada_lake::{Lake, QueryLimits};

use crate::census::Census;
use crate::meter::Meter;
use crate::operations::{Engines, owner_tenant};
use crate::sampler::Sampler;
use scans::Scans;

/// Implements the console's port over the running parts.
pub struct PlatformData {
    keys: Arc<KeyRing>,
    bus: Bus,
    lake: Lake,
    engines: Arc<Engines>,
    subscriptions: SubscriptionAdmin,
    sampler: Sampler,
    census: Census,
    limits: QueryLimits,
    clock: Arc<dyn Clock>,
    started: Instant,
    meter: Meter,
    scans: Scans,
}

/// What the console looks at.
pub struct Parts {
    pub keys: Arc<KeyRing>,
    pub bus: Bus,
    pub lake: Lake,
    pub engines: Arc<Engines>,
    pub subscriptions: SubscriptionAdmin,
    pub sampler: Sampler,
    pub census: Census,
    pub limits: QueryLimits,
    pub clock: Arc<dyn Clock>,
}

/// What stands in place of a reason that may quote another tenant's record.
const OPERATOR_KNOWS: &str = "it does not run as it should; its operator knows why";

impl PlatformData {
    pub fn new(parts: Parts) -> Self {
        let Parts { keys, bus, lake, engines, subscriptions, sampler, census, limits, clock } = parts;
        Self {
            keys,
            bus,
            lake,
            engines,
            subscriptions,
            sampler,
            census,
            limits,
            clock,
            started: Instant::now(),
            meter: Meter::default(),
            scans: Scans::default(),
        }
    }

    /// Reads of the log, in their turn.
    async fn of_bus<T: Send + 'static>(
        &self,
        principal: &Principal,
        read: impl FnOnce(&Bus) -> Result<T, levada_bus::BusError> + Send + 'static,
    ) -> Result<T, Problem> {
        let bus = self.bus.clone();
        self.scans.run(principal, move || read(&bus).map_err(bus_problem)).await
    }
}

/// Whether a principal sees the whole of what an owner has: of what tenants share, only the
/// platform does.
fn sees_whole(principal: &Principal, owner: &Owner) -> bool {
    match owner_tenant(owner) {
        None => principal.tenants == TenantSet::All,
        Some(tenant) => principal.tenants.contains(&tenant),
    }
}

fn key(owner: &Owner, name: &str) -> String {
    match owner_tenant(owner) {
        None => name.to_owned(),
        Some(tenant) => format!("{tenant}.{name}"),
    }
}

fn owner_text(owner: &Owner) -> String {
    owner_tenant(owner).map_or_else(|| "shared".to_owned(), |t| t.to_string())
}

fn urgency(health: Health) -> u8 {
    match health {
        Health::Failing => 4,
        Health::Degraded => 3,
        Health::Waiting => 2,
        Health::Healthy | Health::Idle => 0,
    }
}

fn bus_problem(error: levada_bus::BusError) -> Problem {
    Problem::new(503, "bus-unavailable", error.to_string()).hint("look at the server's log")
}

#[async_trait]
impl ConsoleData for PlatformData {
    async fn authenticate(&self, secret: &str) -> Result<Arc<Principal>, Problem> {
        Authenticator::authenticate(&*self.keys, secret)
    }

    async fn overview(&self, principal: &Principal) -> Result<Overview, Problem> {
        self.overview_page(principal).await
    }

    async fn pipelines(&self, principal: &Principal) -> Result<Vec<PipelineRow>, Problem> {
        Ok(self.pipeline_rows(principal))
    }

    async fn pipeline(&self, principal: &Principal, key: &str) -> Result<Option<PipelineDetail>, Problem> {
        self.pipeline_page(principal, key).await
    }

    async fn models(&self, principal: &Principal) -> Result<Vec<ModelRow>, Problem> {
        Ok(self.model_rows(principal))
    }

    async fn run_model(&self, principal: &Principal, key: &str) -> Result<String, Problem> {
        self.run_one_model(principal, key).await
    }

    async fn topics(&self, principal: &Principal) -> Result<Vec<TopicRow>, Problem> {
        Ok(self.topic_rows(principal))
    }

    async fn subscriptions(&self, principal: &Principal) -> Result<Vec<SubscriptionRow>, Problem> {
        self.subscription_rows(principal).await
    }

    async fn subscription(
        &self,
        principal: &Principal,
        name: &ResourceName,
    ) -> Result<Option<SubscriptionDetail>, Problem> {
        self.subscription_page(principal, name).await
    }

    async fn unblock(
        &self,
        principal: &Principal,
        name: &ResourceName,
        tenant: &str,
        key: &str,
        how: Unblock,
    ) -> Result<String, Problem> {
        self.free_key(principal, name, tenant, key, how).await
    }

    async fn weigh(
        &self,
        principal: &Principal,
        name: &ResourceName,
        tenant: &str,
        weight: Option<u32>,
    ) -> Result<String, Problem> {
        self.weigh_tenant(principal, name, tenant, weight).await
    }

    async fn messages(
        &self,
        principal: &Principal,
        name: &ResourceName,
        filter: &MessageFilter,
    ) -> Result<MessagePage, Problem> {
        self.message_page(principal, name, filter).await
    }

    async fn message(
        &self,
        principal: &Principal,
        name: &ResourceName,
        message_id: u64,
    ) -> Result<Option<MessageRow>, Problem> {
        self.one_message(principal, name, message_id).await
    }

    async fn redrive(
        &self,
        principal: &Principal,
        name: &ResourceName,
        order: &RedriveOrder,
    ) -> Result<RedriveDone, Problem> {
        self.send_back(principal, name, order).await
    }

    async fn resend_message(
        &self,
        principal: &Principal,
        name: &ResourceName,
        message_id: u64,
        edit: &MessageEdit,
    ) -> Result<String, Problem> {
        self.send_one_back(principal, name, message_id, edit).await
    }

    async fn pubsub_topics(&self, principal: &Principal) -> Result<Vec<PubsubTopicRow>, Problem> {
        self.pubsub_topic_rows(principal).await
    }

    async fn dead_letters(
        &self,
        principal: &Principal,
        filter: &DeadLetterFilter,
    ) -> Result<DeadLetterPage, Problem> {
        self.dead_letter_page(principal, filter).await
    }

    async fn dead_letter(
        &self,
        principal: &Principal,
        topic: &TopicName,
        offset: u64,
    ) -> Result<Option<DeadLetter>, Problem> {
        self.one_dead_letter(principal, topic, offset).await
    }

    async fn resend(
        &self,
        principal: &Principal,
        topic: &TopicName,
        offsets: &[u64],
    ) -> Result<Resent, Problem> {
        self.send_again(principal, topic, offsets).await
    }

    async fn query(&self, principal: &Principal, sql: &str, max_rows: usize) -> Result<QueryAnswer, Problem> {
        self.run_query(principal, sql, max_rows).await
    }

    async fn tables(&self, principal: &Principal) -> Result<Vec<TableRow>, Problem> {
        self.table_rows(principal).await
    }
}
