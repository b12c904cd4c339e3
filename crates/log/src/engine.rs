//! The log without threads: append, demultiplex and checkpoint in the caller's thread.
//! Simulations drive it, one operation after the other, so that a seed replays exactly;
//! `Log` puts the same parts on threads.

use std::sync::Arc;

use levada_core::{Clock, TenantId, TopicName};
use levada_disk::Disk;

use crate::checkpoint::Plan;
use crate::commit::{Committer, Group, check_append};
use crate::demux::Demux;
use crate::error::LogError;
use crate::quarantine::Quarantined;
use crate::recover::{self, Recovery};
use crate::registry::AddError;
use crate::retain::{Retention, retain};
use crate::scrub::Scrubbed;
use crate::shared::Shared;
use crate::topic::Topic;
use crate::{Append, Bounds, LogConfig, LogStats, Stored, TopicId};

/// A log in one thread.
#[derive(Debug)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) committer: Committer,
    pub(crate) demux: Demux,
    /// A durable group that found no space in the segments.
    waiting: Option<Group>,
    spare_buffer: Vec<u8>,
}

impl Engine {
    /// Opens the log in `dir`, creating it when there is none; see [`crate::Log::open`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &str,
        config: LogConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Recovery), LogError> {
        let (shared, committer, demux, recovery) = recover::open(disk, dir, config, clock)?;
        Ok((Self { shared, committer, demux, waiting: None, spare_buffer: Vec::new() }, recovery))
    }

    pub fn topic(&self, name: &TopicName) -> Result<TopicId, LogError> {
        Ok(ensure_topics(&self.shared, std::slice::from_ref(name))?[0])
    }

    pub fn lane(&self, tenant: &TenantId) -> Result<u32, LogError> {
        Ok(ensure_lanes(&self.shared, std::slice::from_ref(tenant))?[0])
    }

    pub fn lane_name(&self, lane: u32) -> Option<TenantId> {
        self.shared.registry.lane_name(lane)
    }

    /// Appends the records as one group; durable and visible to readers when this returns.
    pub fn append(&mut self, records: &[Append]) -> Result<Vec<u64>, LogError> {
        check_append(&self.shared, records)?;
        self.flush_waiting()?;
        let buffer = std::mem::take(&mut self.spare_buffer);
        let (group, mut offsets) = self.committer.commit(&[records], buffer)?;
        match self.demux.apply(&group) {
            Ok(()) => self.spare_buffer = group.buffer,
            // It is durable: the caller gets its offsets, the segments catch up later.
            Err(LogError::Full) => self.waiting = Some(group),
            Err(error) => return Err(error),
        }
        if self.checkpoint_is_due() {
            match self.checkpoint() {
                Ok(()) | Err(LogError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(offsets.pop().unwrap_or_default())
    }

    fn flush_waiting(&mut self) -> Result<(), LogError> {
        if let Some(group) = &self.waiting {
            self.demux.apply(group)?;
            self.waiting = None;
        }
        Ok(())
    }

    fn checkpoint_is_due(&self) -> bool {
        let first = self.shared.first_needed_file.load(std::sync::atomic::Ordering::Acquire);
        self.demux.position.file_seq >= first + self.shared.config.checkpoint_files
    }

    /// Makes the segments durable and frees the commit files before them.
    pub fn checkpoint(&mut self) -> Result<(), LogError> {
        self.flush_waiting()?;
        let plan = Plan::take(&mut self.demux);
        plan.run(&self.shared).inspect_err(|_| self.demux.return_dirty(plan.dirty))
    }

    pub fn read(
        &self,
        topic: TopicId,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, LogError> {
        crate::read::read(&self.shared, topic, from, max_records, max_bytes)
    }

    pub fn bounds(&self, topic: TopicId) -> Result<Bounds, LogError> {
        Ok(self.shared.topic(topic)?.bounds())
    }

    pub fn offset_at(&self, topic: TopicId, timestamp_ms: i64) -> Result<u64, LogError> {
        crate::read::offset_at(&self.shared, topic, timestamp_ms)
    }

    pub fn retain(&mut self, topic: TopicId, retention: Retention) -> Result<u64, LogError> {
        let topic = self.shared.topic(topic)?;
        retain(&mut self.demux, &topic, retention)
    }

    /// Checks full segments in the background; see [`crate::Log::scrub`].
    pub fn scrub(&self, budget_bytes: u64) -> Scrubbed {
        crate::scrub::scrub(&self.shared, budget_bytes)
    }

    pub fn quarantined(&self) -> Vec<Quarantined> {
        self.shared.quarantine.list()
    }

    pub fn stats(&self) -> LogStats {
        stats(&self.shared)
    }
}

pub(crate) fn stats(shared: &Shared) -> LogStats {
    LogStats {
        full: shared.segments_full.load(std::sync::atomic::Ordering::Acquire),
        poisoned: shared.poisoned().map(|e| e.to_string()),
        ..shared.counters.snapshot()
    }
}

/// The numbers of these topics; new ones are durable when this returns, with one sync.
pub(crate) fn ensure_topics(shared: &Shared, names: &[TopicName]) -> Result<Vec<TopicId>, LogError> {
    let ids = || names.iter().map(|name| shared.registry.topic_id(name)).collect::<Option<Vec<_>>>();
    if let Some(ids) = ids() {
        return Ok(ids);
    }
    add(shared, names, &[])?;
    Ok(ids().expect("the names were just added"))
}

/// The numbers of these tenants; new ones are durable when this returns, with one sync.
pub(crate) fn ensure_lanes(shared: &Shared, tenants: &[TenantId]) -> Result<Vec<u32>, LogError> {
    let ids = || tenants.iter().map(|name| shared.registry.lane_id(name)).collect::<Option<Vec<_>>>();
    if let Some(ids) = ids() {
        return Ok(ids);
    }
    add(shared, &[], tenants)?;
    Ok(ids().expect("the names were just added"))
}

fn add(shared: &Shared, topics: &[TopicName], lanes: &[TenantId]) -> Result<(), LogError> {
    if let Some(error) = shared.poisoned() {
        return Err(error);
    }
    let added = |new: Vec<(TopicId, TopicName)>| {
        let new = new.into_iter().map(|(id, name)| Arc::new(Topic::new(id, name, &shared.dir)));
        shared.topics.write().extend(new);
    };
    shared.registry.add(topics, lanes, added).map_err(|error| match error {
        AddError::Full => LogError::Full,
        AddError::Broken(error) => shared.poison("a write to the registry", &error),
    })
}
