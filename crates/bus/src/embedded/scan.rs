//! Reading a topic for a subscription: what is new for its machine, and the bytes of what
//! it leases.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use levada_log::{LogError, Stored};

use crate::codec;
use crate::delivery::{Lease, Seen, Waiting};
use crate::embedded::Embedded;
use crate::embedded::schedule;
use crate::embedded::subscription::Subscription;
use crate::port::PortError;

/// Read at once.
const CHUNK_RECORDS: usize = 1_024;
const CHUNK_BYTES: usize = 1 << 20;
/// Scanned by one call beyond what it needs itself, so that a tenant behind another's
/// backlog is found.
const AHEAD_BYTES: usize = 4 << 20;
/// Read for one record of a run, roughly; what is missing then is read next.
const RUN_BYTES: usize = 2 << 10;
/// A read of fewer records is made longer.
const AHEAD_RECORDS: usize = 64;
/// Records between two wanted ones that are read rather than begun anew behind.
const GAP_RECORDS: u64 = 16;

impl Embedded {
    /// Scans to the end of the topic in the background.
    pub fn catch_up(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        if subscription.catching_up.swap(true, Ordering::AcqRel) {
            return;
        }
        let (embedded, subscription) = (self.clone(), subscription.clone());
        tokio::task::spawn_blocking(move || {
            while !subscription.is_deleted() && matches!(embedded.scan(&subscription, 0), Ok(true)) {}
            subscription.catching_up.store(false, Ordering::Release);
            subscription.ready.notify_waiters();
        });
    }

    /// Tells the machine of what the topic holds: until `wanted` messages wait, and then a
    /// good deal further. Answers whether there is more to scan now. Blocks on the disk.
    pub fn scan(&self, subscription: &Subscription, wanted: usize) -> Result<bool, PortError> {
        if subscription.spec().detached {
            return Ok(false);
        }
        // Who has enough does not wait for another scan.
        let _alone = match subscription.scanning.try_lock() {
            Some(alone) => alone,
            None if subscription.machine.lock().state.waiting() >= wanted as u64 => return Ok(true),
            None => subscription.scanning.lock(),
        };
        let log = &self.bus.inner.log;
        let mut scanned_bytes = 0;
        loop {
            let bounds = log.bounds(subscription.log.id);
            let end = bounds.next.min(subscription.until);
            let (from, generation) = {
                let mut machine = subscription.machine.lock();
                machine.state.drop_below(bounds.first);
                let enough = machine.state.waiting() >= wanted as u64 && scanned_bytes >= AHEAD_BYTES;
                match machine.state.wants_scan() {
                    Some(from) if from < end && !enough => (from, machine.generation),
                    Some(from) => return Ok(from < end),
                    None => return Ok(false),
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
            let Some(last) = records.last().map(|record| record.offset) else { return Ok(false) };
            scanned_bytes += records.iter().map(|r| r.head.len() + r.body.len()).sum::<usize>();
            let seen: Vec<(Seen, &Stored)> = records
                .iter()
                .filter_map(|record| Some((self.seen(subscription, record)?, record)))
                .collect();
            let mut machine = subscription.machine.lock();
            // A seek in between: what was read may be behind where it went.
            if machine.generation != generation {
                continue;
            }
            let discard_before_ms = machine.state.discard_before_ms();
            let is_used = machine.is_used(self.bus.inner.clock.monotonic());
            let mut cache = subscription.cache.lock();
            for (seen, record) in seen {
                if discard_before_ms.is_some_and(|before| record.timestamp_ms < before) {
                    continue;
                }
                if is_used && !machine.state.settled().contains(record.offset) {
                    cache.keep(record);
                }
                machine.state.scanned(seen);
            }
            machine.state.pass(last + 1);
        }
    }

    /// What the machine has to know of a record; `None` when the subscription does not want it.
    fn seen(&self, subscription: &Subscription, record: &Stored) -> Option<Seen> {
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
        let key = subscription.key(record.lane, ordering_key.as_deref());
        let message = Waiting { offset: record.offset, bytes, key };
        Some(Seen { lane: record.lane, message, not_before_ms })
    }

    /// The records of some offsets, as far as they still are there. Blocks on the disk.
    pub fn load(
        &self,
        subscription: &Subscription,
        offsets: impl Iterator<Item = u64>,
    ) -> Result<HashMap<u64, Stored>, PortError> {
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        {
            let mut cache = subscription.cache.lock();
            for offset in offsets {
                match cache.take(offset) {
                    Some(record) => drop(found.insert(offset, record)),
                    None => missing.push(offset),
                }
            }
        }
        missing.sort_unstable();
        let mut rest = missing.as_slice();
        while let Some((&first, _)) = rest.split_first() {
            // Neighbours, and those that are not far apart, are one read.
            let near = rest.windows(2).take_while(|pair| pair[1] - pair[0] <= GAP_RECORDS).count();
            let run = usize::try_from(rest[near] - first + 1).unwrap_or(CHUNK_RECORDS).min(CHUNK_RECORDS);
            // Many tenants take turns: what lies around a lone message is wanted in a moment, and
            // a read of a whole chunk costs little more than one of it.
            let reads_ahead = run < AHEAD_RECORDS
                && subscription.machine.lock().state.expects_after(first + run as u64)
                && subscription.cache.lock().has_room_for(CHUNK_BYTES);
            let (records, bytes) = match reads_ahead {
                true => (CHUNK_RECORDS, CHUNK_BYTES),
                false => (run, (run * RUN_BYTES).min(CHUNK_BYTES)),
            };
            let records = match self.bus.inner.log.read(subscription.log.id, first, records, bytes) {
                Ok(records) => records,
                Err(LogError::Corrupt(_)) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            let mut next = first + 1;
            let mut ahead = Vec::new();
            for record in records {
                next = record.offset + 1;
                if rest.binary_search(&record.offset).is_ok() {
                    found.insert(record.offset, record);
                } else if reads_ahead {
                    ahead.push(record);
                }
            }
            if !ahead.is_empty() {
                let machine = subscription.machine.lock();
                ahead.retain(|record| machine.state.is_expected(record.offset));
                drop(machine);
                let mut cache = subscription.cache.lock();
                ahead.iter().for_each(|record| cache.keep(record));
            }
            let done = rest.partition_point(|offset| *offset < next);
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
        let mut records = match self.load(subscription, leases.iter().map(|lease| lease.offset)) {
            Ok(records) => records,
            Err(error) => {
                let mut machine = subscription.machine.lock();
                leases.iter().rev().for_each(|lease| machine.state.give_back(lease));
                return Err(error);
            }
        };
        let (mut loaded, mut gone) = (Vec::with_capacity(leases.len()), Vec::new());
        for lease in leases {
            match records.remove(&lease.offset) {
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
