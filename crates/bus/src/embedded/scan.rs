//! Reading a topic for a subscription: what is new for its machine, and the bytes of what
//! it leases.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use levada_log::{LogError, Stored};

use crate::codec;
use crate::delivery::{Lease, Seen, Waiting};
use crate::embedded::Embedded;
use crate::embedded::schedule;
use crate::embedded::subscription::Subscription;
use crate::port::{KeyScope, PortError};

/// Read at once. Little, so that it is still in the processor's cache when it is looked at.
const CHUNK_RECORDS: usize = 4_096;
const CHUNK_BYTES: usize = 256 << 10;
/// Read at once of messages that are known and were not kept.
const AGAIN_RECORDS: usize = 1_024;
const AGAIN_BYTES: usize = 1 << 20;
/// Scanned by one call beyond what it needs itself, so that a tenant behind another's
/// backlog is found.
const AHEAD_BYTES: usize = 4 << 20;
/// Read for one record of a run, roughly; what is missing then is read next.
const RUN_BYTES: usize = 2 << 10;
/// Runs of messages that wait before one that is near its delivery. A backlog of one tenant is
/// one run, and all of it is near. What they read shall fit into the cache twice: a chunk of
/// which half is delivered still has its room.
const NEAR_RUNS: usize = 20_000;
/// Of what is near, what is kept: while less than this waits before it.
const KEPT_BYTES: u64 = 64 << 20;
/// Between two scans of what is far ahead. A consumer that gets so far in that time needs none.
const FAR_PAUSE: Duration = Duration::from_millis(100);
const FAST_RECORDS: u64 = 5_000;
/// A read of fewer records is made longer.
const AHEAD_RECORDS: usize = 64;
/// Records between two wanted ones that are read rather than begun anew behind.
const GAP_RECORDS: u64 = 16;

/// How far a scan goes ahead of delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Until [`NEAR_RUNS`] wait.
    Near,
    /// As far as there is room to remember where messages are.
    Far,
}

/// What a scan left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// It is at the end of the topic, or has no room.
    Nothing,
    More,
    /// Only what is far ahead.
    Far,
}

impl Embedded {
    /// Scans ahead in the background, to the end of the topic where there is room: first what is
    /// near, then what is far, and that at a bounded pace, because it is read once more for its
    /// delivery.
    pub fn catch_up(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        if subscription.catching_up.swap(true, Ordering::AcqRel) {
            return;
        }
        let (embedded, subscription) = (self.clone(), subscription.clone());
        tokio::spawn(async move {
            let mut reach = Reach::Near;
            while !subscription.is_deleted() {
                let (scans, own) = (embedded.clone(), subscription.clone());
                let scanned = tokio::task::spawn_blocking(move || scans.scan(&own, 0, reach)).await;
                subscription.ready.notify_waiters();
                match scanned {
                    Ok(Ok(Left::More)) => reach = Reach::Near,
                    Ok(Ok(Left::Far)) => {
                        let position = || subscription.machine.lock().state.scan_position();
                        let before = position();
                        tokio::time::sleep(FAR_PAUSE).await;
                        let is_fast = position().saturating_sub(before) >= FAST_RECORDS;
                        reach = if is_fast { Reach::Near } else { Reach::Far };
                    }
                    Ok(Ok(Left::Nothing) | Err(_)) | Err(_) => break,
                }
            }
            subscription.catching_up.store(false, Ordering::Release);
            subscription.ready.notify_waiters();
        });
    }

    /// Tells the machine of what the topic holds: until `wanted` messages wait, and then a
    /// good deal further. Blocks on the disk.
    pub fn scan(&self, subscription: &Subscription, wanted: usize, reach: Reach) -> Result<Left, PortError> {
        // Who has enough does not wait for another scan.
        let _alone = match subscription.scanning.try_lock() {
            Some(alone) => alone,
            None if wanted > 0 && subscription.machine.lock().state.waiting() >= wanted as u64 => {
                return Ok(Left::More);
            }
            None => subscription.scanning.lock(),
        };
        self.scan_alone(subscription, wanted, reach)
    }

    /// Scans a little further unless somebody does so already.
    pub fn scan_if_free(&self, subscription: &Subscription) -> Result<Left, PortError> {
        match subscription.scanning.try_lock() {
            Some(_alone) => self.scan_alone(subscription, 0, Reach::Far),
            None => Ok(Left::Nothing),
        }
    }

    fn scan_alone(
        &self,
        subscription: &Subscription,
        wanted: usize,
        reach: Reach,
    ) -> Result<Left, PortError> {
        if subscription.spec().detached {
            return Ok(Left::Nothing);
        }
        let log = &self.bus.inner.log;
        let mut scanned_bytes = 0;
        loop {
            let bounds = log.bounds(subscription.log.id);
            let end = bounds.next.min(subscription.until);
            let (from, generation, is_near) = {
                let mut machine = subscription.machine.lock();
                machine.state.drop_below(bounds.first);
                let enough = machine.state.waiting() >= wanted as u64 && scanned_bytes >= AHEAD_BYTES;
                let is_near = machine.state.waiting_runs() < NEAR_RUNS;
                match machine.state.wants_scan() {
                    Some(from) if from < end && !is_near && reach == Reach::Near => return Ok(Left::Far),
                    Some(from) if from < end && !enough => (from, machine.generation, is_near),
                    Some(from) if from < end => return Ok(Left::More),
                    Some(_) | None => return Ok(Left::Nothing),
                }
            };
            let mut records = match log.read(subscription.log.id, from, CHUNK_RECORDS, CHUNK_BYTES) {
                Ok(records) => records,
                Err(LogError::Corrupt(damage)) => {
                    tracing::error!(
                        subscription = %subscription.spec().name, from, resume = damage.resume,
                        "messages are damaged on disk and cannot be delivered; their bytes are in quarantine"
                    );
                    let mut machine = subscription.machine.lock();
                    if machine.generation == generation {
                        machine.state.pass(damage.resume.min(subscription.until));
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let is_end = records.is_empty();
            records.retain(|record| record.offset < end);
            if records.is_empty() && !is_end {
                // What was left until a replay's end is gone.
                let mut machine = subscription.machine.lock();
                if machine.generation == generation {
                    machine.state.pass(end);
                }
                continue;
            }
            let Some(last) = records.last().map(|record| record.offset) else { return Ok(Left::Nothing) };
            let read_bytes = records.iter().map(|r| r.head.len() + r.body.len()).sum::<usize>();
            scanned_bytes += read_bytes;
            let scope = subscription.key_scope();
            let seen: Vec<(Seen, i64)> = records
                .iter()
                .filter_map(|record| Some((self.seen(subscription, scope, record)?, record.timestamp_ms)))
                .collect();
            let mut machine = subscription.machine.lock();
            // A seek in between: what was read may be behind where it went.
            if machine.generation != generation {
                continue;
            }
            // What is far from its delivery is read again then: it would keep the room of what is near.
            let is_kept = is_near
                && machine.is_used(self.bus.inner.clock.monotonic())
                && machine.state.waiting() * (read_bytes / records.len()) as u64 <= KEPT_BYTES;
            for (seen, timestamp_ms) in seen {
                if machine.state.discards(seen.message.offset, timestamp_ms) {
                    continue;
                }
                machine.state.scanned(seen);
            }
            machine.state.pass(last + 1);
            if is_kept {
                let mut cache = subscription.cache.lock();
                cache.keep_read(records, |record| machine.state.is_expected(record.offset));
            }
        }
    }

    /// What the machine has to know of a record; `None` when the subscription does not want it.
    fn seen(&self, subscription: &Subscription, scope: KeyScope, record: &Stored) -> Option<Seen> {
        if subscription.lane.is_some_and(|lane| lane != record.lane) {
            return None;
        }
        let (ordering_key, attributes) = codec::decode(&record.head)
            .inspect_err(|error| {
                tracing::error!(offset = record.offset, %error, "a message cannot be read and is passed over");
            })
            .ok()?;
        if !subscription.filter.matches(&attributes) {
            return None;
        }
        // What cannot be read as a schedule was published another way: it is due at once.
        let due_ms = schedule::due_ms(&attributes, record.timestamp_ms).ok().flatten();
        // Before it would be gone by its age.
        let retention = subscription.spec().retention;
        let latest = i64::try_from((retention - retention / 10).as_millis()).unwrap_or(i64::MAX);
        let latest_ms = record.timestamp_ms.saturating_add(latest);
        let not_before_ms = due_ms.map(|due_ms| due_ms.min(latest_ms));
        let bytes = u32::try_from(record.head.len() + record.body.len()).unwrap_or(u32::MAX);
        let (lane, key) = subscription.place(scope, record.lane, ordering_key.as_deref());
        let message = Waiting { offset: record.offset, bytes, key };
        Some(Seen { lane, message, not_before_ms })
    }

    /// The records of some offsets, in their order, as far as they still are there. Blocks on
    /// the disk.
    pub fn load(
        &self,
        subscription: &Subscription,
        offsets: &[u64],
    ) -> Result<Vec<Option<Stored>>, PortError> {
        let mut cache = subscription.cache.lock();
        let mut found: Vec<Option<Stored>> = offsets.iter().map(|offset| cache.take(*offset)).collect();
        drop(cache);
        let missing = found.iter().zip(offsets).enumerate().filter(|(_, (record, _))| record.is_none());
        let mut missing: Vec<(u64, usize)> = missing.map(|(at, (_, offset))| (*offset, at)).collect();
        missing.sort_unstable();
        let mut rest = missing.as_slice();
        while let Some((&(first, _), _)) = rest.split_first() {
            // Neighbours, and those that are not far apart, are one read.
            let near = rest.windows(2).take_while(|pair| pair[1].0 - pair[0].0 <= GAP_RECORDS).count();
            let run = usize::try_from(rest[near].0 - first + 1).unwrap_or(AGAIN_RECORDS).min(AGAIN_RECORDS);
            // Many tenants take turns: what lies around a lone message is wanted in a moment, and
            // a read of a whole chunk costs little more than one of it.
            let reads_ahead = run < AHEAD_RECORDS
                && subscription.machine.lock().state.expects_after(first + run as u64)
                && subscription.cache.lock().make_room_for(AGAIN_BYTES);
            let (records, bytes) = match reads_ahead {
                true => (AGAIN_RECORDS, AGAIN_BYTES),
                false => (run, (run * RUN_BYTES).min(AGAIN_BYTES)),
            };
            let records = match self.bus.inner.log.read(subscription.log.id, first, records, bytes) {
                Ok(records) => records,
                Err(LogError::Corrupt(_)) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            let mut next = first + 1;
            let mut ahead = Vec::new();
            let mut wanted = rest.iter().peekable();
            for record in records {
                next = record.offset + 1;
                while wanted.next_if(|(offset, _)| *offset < record.offset).is_some() {}
                match wanted.next_if(|(offset, _)| *offset == record.offset) {
                    Some((_, at)) => found[*at] = Some(record),
                    None if reads_ahead => ahead.push(record),
                    None => {}
                }
            }
            if !ahead.is_empty() {
                let machine = subscription.machine.lock();
                let mut cache = subscription.cache.lock();
                cache.keep_read(ahead, |record| machine.state.is_expected(record.offset));
            }
            let done = rest.partition_point(|(offset, _)| *offset < next);
            rest = &rest[done.max(1)..];
        }
        Ok(found)
    }

    /// The records of leases, in their order. A lease whose record is gone is settled.
    pub fn load_leases(
        &self,
        subscription: &Subscription,
        leases: Vec<Lease>,
    ) -> Result<Vec<(Lease, Stored)>, PortError> {
        let offsets: Vec<u64> = leases.iter().map(|lease| lease.offset).collect();
        let records = match self.load(subscription, &offsets) {
            Ok(records) => records,
            Err(error) => {
                let mut machine = subscription.machine.lock();
                leases.iter().rev().for_each(|lease| machine.state.give_back(lease));
                return Err(error);
            }
        };
        let (mut loaded, mut gone) = (Vec::with_capacity(leases.len()), Vec::new());
        for (lease, record) in leases.into_iter().zip(records) {
            match record {
                Some(record) => loaded.push((lease, record)),
                None => gone.push(lease.offset),
            }
        }
        if !gone.is_empty() {
            let mut machine = subscription.machine.lock();
            for offset in gone {
                machine.state.settle(offset);
                machine.pending.push(offset);
            }
        }
        Ok(loaded)
    }
}
