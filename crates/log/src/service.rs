//! The log on three threads, behind a handle that is cheap to clone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use levada_core::{Clock, TenantId, TopicName};
use levada_disk::Disk;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::checkpoint::{Plan, sync_segments};
use crate::commit::{Group, check_append};
use crate::commit_thread::{Buffers, CommitThread};
use crate::demux::Demux;
use crate::engine::{Engine, ensure_lanes, ensure_topics, stats};
use crate::error::LogError;
use crate::files::SegmentKey;
use crate::quarantine::Quarantined;
use crate::queue::{Queue, block_on};
use crate::recover::Recovery;
use crate::retain::{Retention, retain};
use crate::scrub::Scrubbed;
use crate::shared::Shared;
use crate::{Append, Bounds, Durability, LogConfig, LogStats, Stored, TopicId};

/// Durable groups that may wait for the demultiplexer, each at most about `group_bytes`.
const GROUPS_IN_FLIGHT: usize = 3;
/// Segments are synced after so many bytes, long before a checkpoint needs it.
const EARLY_SYNC_BYTES: usize = 8 << 20;
/// Pause before a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_millis(100);
/// Group buffers above this are not kept.
const MAX_KEPT_BUFFER: usize = 8 << 20;

/// A log. Clones share it; it is closed with the last of them, or by [`Log::close`].
#[derive(Debug, Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    demux: Arc<Mutex<Demux>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log in `dir`, creating it when there is none, replays what was committed
    /// after the last checkpoint, and starts its threads.
    ///
    /// # Errors
    /// `Full` when there is no space to replay into, `CorruptFile` when the checkpoint or
    /// the registry is damaged, `Io` otherwise. Nothing is lost by trying again.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &str,
        config: LogConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Recovery), LogError> {
        let (engine, recovery) = Engine::open(disk, dir, config, clock)?;
        let Engine { shared, committer, demux, .. } = engine;
        let queue = Arc::new(Queue::new(shared.config.queue_bytes));
        let demux = Arc::new(Mutex::new(demux));
        let buffers: Buffers = Arc::default();
        let (groups_in, groups_out) = sync_channel(GROUPS_IN_FLIGHT);
        // Without a buffer: a plan is handed over only when the one before it is done with.
        let (syncs_in, syncs_out) = sync_channel(0);
        let commit = CommitThread::new(committer, queue.clone(), buffers.clone(), groups_in);
        let demultiplex = DemuxThread {
            shared: shared.clone(),
            demux: demux.clone(),
            buffers,
            syncs: syncs_in,
            unsynced_bytes: 0,
        };
        let (s, d) = (shared.clone(), demux.clone());
        let threads = vec![
            spawn("log-commit", move || commit.run())?,
            spawn("log-demux", move || demultiplex.run(&groups_out))?,
            spawn("log-checkpoint", move || run_checkpoints(&s, &d, &syncs_out))?,
        ];
        let inner = Inner { shared, queue, demux, threads: Mutex::new(threads) };
        Ok((Self { inner: Arc::new(inner) }, recovery))
    }

    /// The number of a topic, given out durably when it has none yet.
    pub fn topic(&self, name: &TopicName) -> Result<TopicId, LogError> {
        Ok(self.ensure_topics(std::slice::from_ref(name))?[0])
    }

    /// As [`Log::topic`] for many, with one sync.
    pub fn ensure_topics(&self, names: &[TopicName]) -> Result<Vec<TopicId>, LogError> {
        ensure_topics(&self.inner.shared, names)
    }

    pub fn topics(&self) -> Vec<(TopicId, TopicName)> {
        self.inner.shared.topics.read().iter().map(|t| (t.id, t.name.clone())).collect()
    }

    /// The number of a tenant, given out durably when it has none yet.
    pub fn lane(&self, tenant: &TenantId) -> Result<u32, LogError> {
        Ok(self.ensure_lanes(std::slice::from_ref(tenant))?[0])
    }

    /// As [`Log::lane`] for many, with one sync.
    pub fn ensure_lanes(&self, tenants: &[TenantId]) -> Result<Vec<u32>, LogError> {
        ensure_lanes(&self.inner.shared, tenants)
    }

    pub fn lane_name(&self, lane: u32) -> Option<TenantId> {
        self.inner.shared.registry.lane_name(lane)
    }

    /// Appends the records in one commit group and answers their offsets once the group is
    /// durable. Readers see them shortly after. Waits while the queue is full.
    ///
    /// Cancellation: a dropped future may or may not have appended.
    pub async fn append(&self, records: Vec<Append>) -> Result<Vec<u64>, LogError> {
        self.append_as(records, Durability::Fsync).await
    }

    /// As [`Log::append`], answered as early as `durability` says.
    pub async fn append_as(
        &self,
        records: Vec<Append>,
        durability: Durability,
    ) -> Result<Vec<u64>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = check_append(&self.inner.shared, &records)?;
        self.inner.shared.check_accepts()?;
        self.queue(records, bytes, durability).await
    }

    /// Waits until everything that was answered so far is durable.
    ///
    /// # Errors
    /// When the sync fails: what was answered early is lost then. `Full` as for an append.
    pub async fn flush(&self) -> Result<(), LogError> {
        // Not behind appends that wait for space.
        self.inner.shared.check_accepts()?;
        self.queue(Vec::new(), 0, Durability::Fsync).await.map(drop)
    }

    /// Flushes and answers the offset that the next record of a topic gets: all before it is
    /// durable. Readers may see it a moment later. Blocks the thread.
    ///
    /// # Errors
    /// As for [`Log::flush`].
    pub fn durable_end(&self, topic: TopicId) -> Result<u64, LogError> {
        self.inner.shared.check_accepts()?;
        let ends = block_on(self.queue(Vec::new(), 0, Durability::Fsync))?;
        Ok(ends.get(topic.0 as usize).copied().unwrap_or(0))
    }

    async fn queue(
        &self,
        records: Vec<Append>,
        bytes: usize,
        durability: Durability,
    ) -> Result<Vec<u64>, LogError> {
        let answer = self.inner.queue.push(records, bytes, durability).await?;
        // The commit thread ends without an answer only when it is poisoned.
        answer.await.unwrap_or_else(|_| Err(self.inner.shared.poisoned().unwrap_or(LogError::Closed)))
    }

    /// As [`Log::append`] for callers outside of a runtime; blocks the thread.
    pub fn append_blocking(&self, records: Vec<Append>) -> Result<Vec<u64>, LogError> {
        block_on(self.append(records))
    }

    /// Committed records from an offset on, in order; empty at the end. Starts at the first
    /// kept record when `from` lies before it. At least one record is answered even if it
    /// alone has more than `max_bytes`. Blocks on the disk.
    ///
    /// # Errors
    /// `Corrupt` when the record at `from` is damaged: it names the offset from which
    /// reading can go on. Good records before the damage are answered first.
    pub fn read(
        &self,
        topic: TopicId,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, LogError> {
        crate::read::read(&self.inner.shared, topic, from, max_records, max_bytes)
    }

    /// What a topic holds; zeros for an unknown topic.
    pub fn bounds(&self, topic: TopicId) -> Bounds {
        self.inner.shared.topic(topic).map_or_else(|_| Bounds::default(), |t| t.bounds())
    }

    /// The end visible to readers, as it moves. For an unknown topic it stays at 0.
    pub fn watch(&self, topic: TopicId) -> watch::Receiver<u64> {
        let topic = self.inner.shared.topic(topic);
        topic.map_or_else(|_| watch::Sender::new(0).subscribe(), |t| t.visible.subscribe())
    }

    /// The first offset whose record is at or after a time; the end when there is none.
    ///
    /// # Errors
    /// When a segment or its index cannot be read. An answer made up instead could make a
    /// caller drop everything.
    pub fn offset_at(&self, topic: TopicId, timestamp_ms: i64) -> Result<u64, LogError> {
        crate::read::offset_at(&self.inner.shared, topic, timestamp_ms)
    }

    /// Removes what the retention does not allow, in whole segments; answers how many
    /// records went.
    pub fn retain(&self, topic: TopicId, retention: Retention) -> Result<u64, LogError> {
        let topic = self.inner.shared.topic(topic)?;
        retain(&mut self.inner.demux.lock(), &topic, retention)
    }

    /// Hands every record at or after a time to `visit`, topic by topic, newest topics
    /// last, until so many bytes were read. Damaged records are passed over.
    pub fn scan_since(
        &self,
        timestamp_ms: i64,
        limit_bytes: u64,
        mut visit: impl FnMut(TopicId, &Stored),
    ) -> Result<(), LogError> {
        let mut left = limit_bytes;
        for (topic, _) in self.topics() {
            let mut from = self.offset_at(topic, timestamp_ms)?;
            while left > 0 {
                let records = match self.read(topic, from, 4_096, 1 << 20) {
                    Ok(records) => records,
                    Err(LogError::Corrupt(damage)) => {
                        from = damage.resume;
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let Some(last) = records.last() else { break };
                from = last.offset + 1;
                for record in records.iter().filter(|r| r.timestamp_ms >= timestamp_ms) {
                    left = left.saturating_sub((record.head.len() + record.body.len()) as u64);
                    visit(topic, record);
                }
            }
        }
        Ok(())
    }

    /// Goes on with checking the records of full segments, for about so many bytes; 0 does
    /// nothing. Damage goes into quarantine, is counted and logged. A round that has seen
    /// them all is followed by a pause, see [`LogConfig::scrub_every_ms`]. Blocks on the
    /// disk, and holds nobody else up.
    pub fn scrub(&self, budget_bytes: u64) -> Scrubbed {
        crate::scrub::scrub(&self.inner.shared, budget_bytes)
    }

    /// Damage found since the log was opened.
    pub fn quarantined(&self) -> Vec<Quarantined> {
        self.inner.shared.quarantine.list()
    }

    pub fn stats(&self) -> LogStats {
        LogStats { queued_bytes: self.inner.queue.queued_bytes(), ..stats(&self.inner.shared) }
    }

    /// Commits what is queued, makes a checkpoint and ends the threads. Later appends
    /// answer `Closed`; reads go on. Blocks; calling it again does nothing.
    pub fn close(&self) -> Result<(), LogError> {
        self.inner.close()
    }
}

impl Inner {
    fn close(&self) -> Result<(), LogError> {
        self.shared.closing.store(true, Ordering::Release);
        self.queue.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        let was_open = !threads.is_empty();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the log has panicked");
            }
        }
        if let Some(error) = self.shared.poisoned() {
            return Err(error);
        }
        if !was_open {
            return Ok(());
        }
        let plan = Plan::take(&mut self.demux.lock());
        plan.run(&self.shared)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the log was closed without a checkpoint");
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LogError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(crate::error::io_error(format!("start the thread {name}")))
}

struct DemuxThread {
    shared: Arc<Shared>,
    demux: Arc<Mutex<Demux>>,
    buffers: Buffers,
    syncs: SyncSender<SyncOrder>,
    /// Written to segments since they were last handed over to be synced.
    unsynced_bytes: usize,
}

/// What the demultiplexer asks of the checkpoint thread.
#[derive(Debug)]
enum SyncOrder {
    Checkpoint(Plan),
    /// Only of segments, between two checkpoints.
    Segments(BTreeSet<SegmentKey>),
}

impl DemuxThread {
    fn run(mut self, groups: &Receiver<Group>) {
        let idle = Duration::from_millis(self.shared.config.idle_checkpoint_ms.max(1));
        loop {
            match groups.recv_timeout(idle) {
                Ok(group) => {
                    if !self.apply(&group) {
                        return;
                    }
                    let bytes = group.buffer.len();
                    let mut buffers = self.buffers.lock();
                    if buffers.len() < GROUPS_IN_FLIGHT && group.buffer.capacity() <= MAX_KEPT_BUFFER {
                        buffers.push(group.buffer);
                    }
                    drop(buffers);
                    self.unsynced_bytes += bytes;
                    self.checkpoint(false);
                    self.sync_early();
                }
                Err(RecvTimeoutError::Timeout) => self.checkpoint(true),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Applies a group, waiting for space if need be; false when the log is poisoned.
    fn apply(&self, group: &Group) -> bool {
        loop {
            match self.demux.lock().apply(group) {
                Ok(()) => return true,
                Err(LogError::Full) if !self.shared.closing.load(Ordering::Acquire) => {}
                // When closing, the group is replayed at the next start.
                Err(_) => return false,
            }
            tracing::warn!("the disk is full: appends are refused until there is space");
            std::thread::park_timeout(FULL_RETRY);
        }
    }

    /// Hands a checkpoint to its thread when one is due and none is under way.
    fn checkpoint(&mut self, idle: bool) {
        let mut demux = self.demux.lock();
        let first = self.shared.first_needed_file.load(Ordering::Acquire);
        let due = demux.position.file_seq >= first + self.shared.config.checkpoint_files;
        if !(due || idle && demux.dirty.has_segments()) {
            return;
        }
        let plan = Plan::take(&mut demux);
        match self.syncs.try_send(SyncOrder::Checkpoint(plan)) {
            Ok(()) => self.unsynced_bytes = 0,
            Err(TrySendError::Full(sync) | TrySendError::Disconnected(sync)) => {
                if let SyncOrder::Checkpoint(plan) = sync {
                    demux.return_dirty(plan.dirty);
                }
            }
        }
    }

    /// Has segments synced every few megabytes: a checkpoint that finds hundreds of them would
    /// keep the disk from commits, of all tenants, for a tenth of a second.
    fn sync_early(&mut self) {
        if self.unsynced_bytes < EARLY_SYNC_BYTES {
            return;
        }
        let segments = self.demux.lock().dirty.segments.clone();
        if segments.len() <= self.shared.config.sync_each_limit
            && self.syncs.try_send(SyncOrder::Segments(segments)).is_ok()
        {
            self.unsynced_bytes = 0;
        }
    }
}

fn run_checkpoints(shared: &Arc<Shared>, demux: &Mutex<Demux>, syncs: &Receiver<SyncOrder>) {
    while let Ok(sync) = syncs.recv() {
        match sync {
            SyncOrder::Checkpoint(plan) => {
                if plan.run(shared).is_err() {
                    demux.lock().return_dirty(plan.dirty);
                }
            }
            // A failure has poisoned the log, and everybody hears of it there.
            SyncOrder::Segments(segments) => drop(sync_segments(shared, &segments)),
        }
    }
}
