//! The thread that commits: one group after the other, answered as early as each append's
//! durability allows, and handed on once it is durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::commit::{Committer, Group};
use crate::error::LogError;
use crate::format::to_blocks;
use crate::queue::{Queue, Taken, Waiting};
use crate::{Append, Durability};

/// Written and not yet durable at most; more is synced before the interval ends.
const MAX_HELD_BYTES: usize = 8 << 20;

/// Group buffers on their way back from the demultiplexer.
pub(crate) type Buffers = Arc<Mutex<Vec<Vec<u8>>>>;

pub(crate) struct CommitThread {
    committer: Committer,
    queue: Arc<Queue>,
    buffers: Buffers,
    groups: SyncSender<Group>,
    /// Written groups that no sync has followed yet.
    held: Vec<Group>,
    held_bytes: usize,
    /// When they must be synced.
    due: Option<Instant>,
}

impl CommitThread {
    pub(crate) fn new(
        committer: Committer,
        queue: Arc<Queue>,
        buffers: Buffers,
        groups: SyncSender<Group>,
    ) -> Self {
        Self { committer, queue, buffers, groups, held: Vec::new(), held_bytes: 0, due: None }
    }

    pub(crate) fn run(mut self) {
        let group_bytes = self.committer.shared.config.group_bytes;
        loop {
            match self.queue.take(group_bytes, self.due) {
                Taken::Appends(waiting) => {
                    self.wait_for_checkpoint();
                    self.commit(waiting);
                }
                // A sync that fails poisons the log, and everybody hears of it there.
                Taken::Due => drop(self.sync()),
                Taken::Closed => return drop(self.sync()),
            }
        }
    }

    fn commit(&mut self, waiting: Vec<Waiting>) {
        let buffer = self.buffers.lock().pop().unwrap_or_default();
        let appends: Vec<&[Append]> = waiting.iter().map(|w| w.records.as_slice()).collect();
        if appends.iter().all(|records| records.is_empty()) {
            // A flush: it is answered with where each topic ends.
            let synced = self.sync().map(|()| self.committer.next_offsets().to_vec());
            return waiting.into_iter().for_each(|w| w.finish(synced.clone()));
        }
        let (mut group, offsets) = match self.committer.prepare(&appends, buffer) {
            Ok(prepared) => prepared,
            Err(error) => return waiting.into_iter().for_each(|w| w.finish(Err(error.clone()))),
        };
        let open = waiting.into_iter().zip(offsets).collect();
        let (early, open) = answer(open, Durability::Memory);
        if let Err(error) = self.committer.write(&mut group) {
            if early > 0 {
                tracing::error!(%error, records = early, "messages of topics in memory could not be written");
                self.committer.shared.counters.lost(early);
            }
            return open.into_iter().for_each(|(w, _)| w.finish(Err(error.clone())));
        }
        let (_, open) = answer(open, Durability::Interval);
        self.held_bytes += to_blocks(group.buffer.len());
        self.held.push(group);
        let is_in_time = self.due.is_none_or(|due| due > Instant::now());
        if open.is_empty() && self.held_bytes < MAX_HELD_BYTES && is_in_time {
            let interval = Duration::from_millis(self.committer.shared.config.sync_interval_ms);
            self.due.get_or_insert_with(|| Instant::now() + interval);
            return;
        }
        let synced = self.committer.sync();
        for (waiting, offsets) in open {
            waiting.finish(synced.clone().map(|()| offsets));
        }
        self.after_sync(synced.is_ok());
    }

    /// Hands on what has become durable, or lets go of what never will.
    fn after_sync(&mut self, is_durable: bool) {
        (self.due, self.held_bytes) = (None, 0);
        for group in self.held.drain(..).filter(|_| is_durable) {
            // Fails only when the demultiplexer has given up, which poisons the log.
            drop(self.groups.send(group));
        }
    }

    /// Makes durable what was written, and hands it on.
    fn sync(&mut self) -> Result<(), LogError> {
        let synced = self.committer.sync();
        self.after_sync(synced.is_ok());
        synced
    }

    /// Bounds the commit files that a restart would replay.
    fn wait_for_checkpoint(&mut self) {
        let shared = self.committer.shared.clone();
        let too_many = |committer: &Committer| {
            let first = shared.first_needed_file.load(Ordering::Acquire);
            committer.file_seq() >= first + shared.config.max_commit_files
        };
        // What is held here would be waited for in vain.
        if too_many(&self.committer) && self.sync().is_err() {
            return;
        }
        while too_many(&self.committer) && shared.check_accepts().is_ok() {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

type Open = Vec<(Waiting, Vec<u64>)>;

/// Answers appends of one durability: the records in them, and the appends that are left.
fn answer(open: Open, durability: Durability) -> (u64, Open) {
    if open.iter().all(|(w, _)| w.durability != durability) {
        return (0, open);
    }
    let (now, later): (Open, Open) = open.into_iter().partition(|(w, _)| w.durability == durability);
    let mut records = 0;
    for (waiting, offsets) in now {
        records += offsets.len() as u64;
        waiting.finish(Ok(offsets));
    }
    (records, later)
}
