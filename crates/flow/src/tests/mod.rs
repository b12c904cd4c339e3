//! Whole pipelines over a real bus and a real lake, on simulated and real disks.

mod crash;
mod decimals;
mod figures;
mod models;
mod rehearsal;
mod rows;
mod service;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use levada_bus::{Bus, BusConfig, Delivered, Publish};
use levada_config::model::{
    Deduplicate, Field, FieldType, Owner, Pipeline, Schema, Source, Step, Validation,
};
use levada_core::{
    Attributes, Backoff, Clock, Message, Problem, ReadError, SourceName, SystemClock, TenantContext,
    TenantId, TopicName, attr,
};
use levada_disk::{Disk, SimDisk};
use levada_lake::{Lake, LakeConfig};
use levada_log::LogConfig;

use crate::{Breakers, EnrichContext, FileReaders, FlowMemory, Parts, PipelineStatus, Pipelines};

/// How long a test waits for something that is due at once.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn name(text: &str) -> SourceName {
    SourceName::new(text).expect("a name")
}

pub fn tenant(text: &str) -> TenantId {
    TenantId::new(text).expect("a tenant")
}

pub fn topic(text: &str) -> TopicName {
    TopicName::new(text).expect("a topic")
}

pub fn field(text: &str, kind: FieldType, required: bool) -> Field {
    Field { name: name(text), path: vec![text.to_owned()], kind, numbers: None, required, description: None }
}

/// A shared pipeline `events` over the topic `events` that deduplicates by `id`.
pub fn pipeline(steps: Vec<Step>) -> Pipeline {
    let fields = vec![field("id", FieldType::String, true), field("n", FieldType::Int64, false)];
    Pipeline {
        name: name("events"),
        owner: Owner::Shared,
        display_name: None,
        description: None,
        file: PathBuf::from("connectors/events.yaml"),
        source: Source::Events { topic: topic("events"), event_types: Vec::new() },
        schema: Some(Schema {
            file: PathBuf::from("s.json"),
            version: "1".into(),
            fields,
            json_schema: None,
        }),
        validation: Validation::Strict,
        steps,
        waiting: Vec::new(),
        sink: "silver.events".parse().expect("a table"),
        epoch: Duration::from_millis(5),
        epoch_bytes: 64 << 20,
        retention: None,
        sla: None,
    }
}

pub fn by_id() -> Step {
    let window = Duration::from_secs(3600);
    Step::Deduplicate(Deduplicate { key: vec![name("id")], window, max_keys: 1_000_000 })
}

/// Everything that a process would hold.
pub struct World {
    pub bus: Bus,
    pub lake: Lake,
    pub parts: Parts,
    pub disk: Arc<dyn Disk>,
}

impl World {
    /// # Errors
    /// What the disk answers, as text.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self, String> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        // Small files: the simulated disk keeps every sector in memory.
        let log = LogConfig {
            commit_file_bytes: 64 << 10,
            segment_bytes: 32 << 10,
            group_bytes: 16 << 10,
            ..LogConfig::default()
        };
        let config = BusConfig { log, ..BusConfig::default() };
        let (bus, _) = Bus::open(disk.clone(), config, clock.clone()).map_err(|e| e.to_string())?;
        let lake = Lake::open(disk.clone(), "lake", LakeConfig::default(), clock.clone())
            .map_err(|e| e.to_string())?;
        let enrich = EnrichContext {
            clock: clock.clone(),
            jitter: Arc::new(|| 0.5),
            secrets: Arc::new(|_| None),
            backoff: Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(2) },
            breakers: Breakers::default(),
            egress: Default::default(),
            cache_entries: 1000,
            answer_bytes: 64 << 10,
        };
        let parts = Parts {
            bus: bus.clone(),
            lake: lake.clone(),
            disk: disk.clone(),
            clock,
            jitter: Arc::new(|| 0.1),
            enrich,
            memory: FlowMemory::of(&levada_core::MemoryBudget::unlimited()),
        };
        Ok(Self { bus, lake, parts, disk })
    }

    pub fn fresh() -> Self {
        Self::open(Arc::new(SimDisk::new(1))).expect("an empty disk")
    }

    pub async fn start(&self, pipelines: &[Pipeline]) -> Pipelines {
        Pipelines::start(pipelines, self.parts.clone(), no_files()).await.expect("starts")
    }

    /// Publishes in one batch; true for each that was accepted.
    pub async fn publish(&self, to: &str, events: &[(&str, &str, &str)]) -> bool {
        let items = events.iter().map(|(owner, id, body)| event(owner, id, body)).collect();
        match self.bus.publish(&topic(to), items).await {
            Ok(results) => results.iter().all(Result::is_ok),
            Err(_) => false,
        }
    }

    /// The rows of a query that sees everything, as texts, sorted.
    pub async fn query(&self, sql: &str) -> Result<Vec<String>, Problem> {
        let batches = self.lake.execute_model(sql, &levada_lake::Owner::Shared).await?;
        Ok(lines(&batches))
    }

    /// The first dead letters of a topic, once readers see so many: an answered publish becomes
    /// visible a moment later.
    pub async fn dead(&self, of: &str, count: u64) -> Vec<Delivered> {
        let dlq = topic(of).dead_letter().expect("a name");
        if !self.bus.has_topic(&dlq) {
            assert_eq!(count, 0, "there are no dead letters");
            return Vec::new();
        }
        let mut end = self.bus.end(&dlq).expect("a topic");
        let seen = tokio::time::timeout(PATIENCE, end.wait_for(|end| *end >= count)).await;
        seen.expect("they come in time").expect("the bus lives");
        self.bus.read(&dlq, 0, 100_000, 1 << 30).expect("reads")
    }

    /// `code stage position` of each dead letter.
    pub async fn dead_codes(&self, of: &str, count: u64) -> Vec<String> {
        let text = |d: &Delivered, n| d.message.attributes.get(n).unwrap_or_default().to_owned();
        let names = [attr::DEAD_CODE, attr::DEAD_STAGE, attr::DEAD_POSITION];
        self.dead(of, count).await.iter().map(|d| names.map(|n| text(d, n)).join(" ")).collect()
    }
}

pub fn event(owner: &str, id: &str, body: &str) -> Publish {
    let attributes: Attributes =
        [(attr::EVENT_ID, id), (attr::EVENT_TYPE, "thing.made")].into_iter().collect();
    Publish {
        context: TenantContext::system(tenant(owner), "test"),
        message: Message {
            tenant: tenant(owner),
            attributes,
            ordering_key: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
        },
        idempotency_key: None,
    }
}

pub fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|c| array_value_to_string(c, row).expect("printable"));
            lines.push(cells.collect::<Vec<_>>().join(" "));
        }
    }
    lines.sort();
    lines
}

pub fn no_files() -> FileReaders {
    Arc::new(|_, _| Err(ReadError { message: "no files in this test".into(), retryable: false }))
}

/// Waits until the status of the first pipeline is as wanted.
pub async fn until(pipelines: &Pipelines, wanted: impl Fn(&PipelineStatus) -> bool) -> PipelineStatus {
    let mut changes = pipelines.changes();
    let wait = async {
        loop {
            changes.borrow_and_update();
            let status = pipelines.status().remove(0);
            if wanted(&status) {
                return status;
            }
            changes.changed().await.expect("pipelines live");
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(status) => status,
        Err(_) => panic!("it did not come to that: {:?}", pipelines.status()),
    }
}
