//! Publish-side deduplication of one topic: messages of a tenant with the same value of an
//! attribute are one message, as long as the window says.
//!
//! The log is the truth, and this is an index of it: from 64 bits of a hash over tenant and
//! value to the offset of the first message. A hit is only a duplicate when the record there
//! has the tenant and the value, and is not older than the window; so the window is exact, a
//! chance collision of hashes costs a read and never a message, and a key takes 17 bytes and
//! what a hash map leaves free. The topic's records are kept as long as the window.
//!
//! A value is reserved before its record is appended, so that two publishes that race end as
//! one record. The index is saved as a chain of files, each with the keys added since the one
//! before; a restart loads the chain and reads only the records after it.

mod files;
mod shards;
mod upkeep;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use levada_core::TenantId;
use levada_disk::Disk;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::idempotency::Outcome;
use files::Files;
use shards::Shards;

/// 128 bits of BLAKE3 over tenant and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ValueHash(u128);

impl ValueHash {
    pub fn new(tenant: &TenantId, value: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [tenant.as_str(), value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut first = [0u8; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        let group = shards::group_bits(xxhash_rust::xxh3::xxh3_64(tenant.as_str().as_bytes()));
        Self(u128::from_le_bytes(first) & !u128::from(shards::GROUP_MASK) | u128::from(group))
    }

    /// What the index knows of it. Some of its bits say whose it is.
    fn tag(self) -> u64 {
        self.0 as u64
    }
}

/// Keys of all topics together, and the most there may be.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    /// Deduplicated topics.
    topics: AtomicUsize,
    max: usize,
}

impl Budget {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), topics: AtomicUsize::new(0), max: max.max(1) })
    }

    fn add(&self, keys: usize) {
        self.used.fetch_add(keys, Ordering::Relaxed);
    }

    /// What each topic may have when there is no room for more.
    fn share(&self) -> usize {
        self.max / self.topics.load(Ordering::Relaxed).max(1)
    }

    fn give_back(&self, keys: usize) {
        self.used.fetch_sub(keys, Ordering::Relaxed);
    }
}

/// What the index says of a value.
#[derive(Debug)]
pub(crate) enum Reserved {
    /// The caller must end it with [`Deduplicator::complete`] or [`Deduplicator::release`].
    New,
    /// Another message stands there now: look at it, and ask again.
    Look(u64),
    /// The first publish is under way.
    Wait(watch::Receiver<Outcome>),
}

type Pending = HashMap<ValueHash, Option<watch::Sender<Outcome>>, ahash::RandomState>;

/// The deduplication of one topic.
#[derive(Debug)]
pub(crate) struct Deduplicator {
    pub attribute: String,
    /// Messages below this offset were published before the deduplication was switched on.
    pub since: u64,
    window_ms: AtomicI64,
    shards: Shards,
    pending: Mutex<Pending>,
    /// Keys that are in no file yet.
    unsaved: Mutex<Vec<(u64, u64)>>,
    files: Mutex<Files>,
    budget: Arc<Budget>,
}

impl Deduplicator {
    pub fn new(attribute: &str, window: Duration, since: u64, dir: String, budget: Arc<Budget>) -> Self {
        budget.topics.fetch_add(1, Ordering::Relaxed);
        Self {
            attribute: attribute.to_owned(),
            since,
            window_ms: AtomicI64::new(millis(window)),
            shards: Shards::default(),
            pending: Mutex::default(),
            unsaved: Mutex::default(),
            files: Mutex::new(Files::new(dir)),
            budget,
        }
    }

    pub fn window_ms(&self) -> i64 {
        self.window_ms.load(Ordering::Relaxed)
    }

    pub fn set_window(&self, window: Duration) {
        self.window_ms.store(millis(window), Ordering::Relaxed);
    }

    pub fn len(&self) -> usize {
        self.shards.len()
    }

    pub fn unsaved(&self) -> usize {
        self.unsaved.lock().len()
    }

    /// Where a message of the value may stand. Only its record tells: see the module.
    pub fn look_up(&self, value: ValueHash) -> Option<u64> {
        self.shards.get(value.tag())
    }

    /// Reserves a value whose messages up to `checked` were looked at and are none.
    pub fn reserve(&self, value: ValueHash, checked: Option<u64>) -> Reserved {
        let mut pending = self.pending.lock();
        if let Some(outcome) = pending.get_mut(&value) {
            let sender = outcome.get_or_insert_with(|| watch::Sender::new(Outcome::Pending));
            return Reserved::Wait(sender.subscribe());
        }
        // Completed between the look and the lock?
        match self.look_up(value).filter(|offset| Some(*offset) != checked) {
            Some(offset) => Reserved::Look(offset),
            None => {
                pending.insert(value, None);
                Reserved::New
            }
        }
    }

    /// Ends reservations whose records are in the log.
    pub fn complete(&self, values: &[(ValueHash, u64)]) {
        {
            let mut unsaved = self.unsaved.lock();
            for (value, offset) in values {
                self.add(value.tag(), *offset);
                unsaved.push((value.tag(), *offset));
            }
        }
        let mut pending = self.pending.lock();
        for (value, offset) in values {
            if let Some(Some(outcome)) = pending.remove(value) {
                outcome.send_replace(Outcome::At(*offset));
            }
        }
    }

    /// Ends reservations whose records were not kept.
    pub fn release(&self, values: &[ValueHash]) {
        let mut pending = self.pending.lock();
        for value in values {
            if let Some(Some(outcome)) = pending.remove(value) {
                outcome.send_replace(Outcome::Failed);
            }
        }
    }

    /// Takes up a record that is in no file, read from the log at start.
    pub fn restore(&self, value: ValueHash, offset: u64) {
        // The first of a value counts, not one that was sent again on purpose.
        if self.shards.get(value.tag()).is_none() {
            self.add(value.tag(), offset);
            self.unsaved.lock().push((value.tag(), offset));
        }
    }

    fn add(&self, tag: u64, offset: u64) {
        if self.shards.insert(tag, offset) {
            self.budget.add(1);
        }
    }

    /// Forgets what lies below an offset: those messages are older than the window. Answers
    /// how many more had to go because all topics together have too many: the oldest of whoever
    /// has most in this topic, so that one tenant's values do not make it forget another's.
    pub fn forget(&self, floor: u64, end: u64) -> usize {
        self.budget.give_back(self.shards.drop_below(floor));
        let (mut early, mut floors) = (0, HashMap::new());
        // Only who has more than its share makes room; in steps of a sixteenth of its messages.
        while self.budget.used() > self.budget.max && self.len() > self.budget.share() {
            let group = self.shards.largest_group();
            let at = floors.entry(group).or_insert(floor);
            if *at >= end {
                break;
            }
            *at += ((end - *at) / 16).max(1);
            let gone = self.shards.drop_group_below(group, *at);
            self.budget.give_back(gone);
            early += gone;
        }
        early
    }

    /// Saves what is in no file yet and deletes files wholly below `floor`. `covered` is the
    /// offset below which every key is in this file or an earlier one; the caller holds off
    /// publishes while it reads it.
    pub fn save(&self, disk: &dyn Disk, covered: u64, floor: u64) -> std::io::Result<()> {
        let mut files = self.files.lock();
        // What is beyond may not be durable: after a power loss the key would point to another
        // message.
        let entries: Vec<(u64, u64)> = {
            let mut unsaved = self.unsaved.lock();
            let (saved, later) = unsaved.drain(..).partition(|(_, offset)| *offset < covered);
            *unsaved = later;
            saved
        };
        if let Err(error) = files.save(disk, covered, &entries) {
            let mut unsaved = self.unsaved.lock();
            let newer = std::mem::replace(&mut *unsaved, entries);
            unsaved.extend(newer);
            return Err(error);
        }
        files.drop_below(disk, floor)
    }

    /// Loads what was saved of the messages from `floor` up to `end`. Answers the offset from
    /// which the log must be read; a damaged file ends the chain.
    pub fn load(&self, disk: &dyn Disk, floor: u64, end: u64) -> std::io::Result<u64> {
        let floor = floor.max(self.since);
        let covered = self.files.lock().load(disk, |tag, offset| {
            // What a power loss took from the log is not known any more.
            if (floor..end).contains(&offset) {
                self.add(tag, offset);
            }
        })?;
        Ok(covered.map_or(floor, |covered| covered.clamp(floor, end.max(floor))))
    }

    /// Removes the files: the deduplication was switched off.
    pub fn remove(&self, disk: &dyn Disk) -> std::io::Result<()> {
        self.files.lock().remove(disk)
    }
}

impl Drop for Deduplicator {
    fn drop(&mut self) {
        self.budget.give_back(self.len());
        self.budget.topics.fetch_sub(1, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use levada_disk::SimDisk;

    use super::*;

    fn value(text: &str) -> ValueHash {
        ValueHash::new(&TenantId::default_tenant(), text)
    }

    fn index(budget: &Arc<Budget>) -> Deduplicator {
        Deduplicator::new("id", Duration::from_secs(60), 0, "dedup/1".to_owned(), budget.clone())
    }

    #[test]
    fn a_value_is_one_message_until_its_publish_fails() {
        let index = index(&Budget::new(100));
        assert!(matches!(index.reserve(value("a"), None), Reserved::New));
        let Reserved::Wait(mut waiting) = index.reserve(value("a"), None) else { panic!("it is under way") };
        index.release(&[value("a")]);
        assert_eq!(*waiting.borrow_and_update(), Outcome::Failed);
        assert!(matches!(index.reserve(value("a"), None), Reserved::New));
        index.complete(&[(value("a"), 7)]);
        assert!(matches!(index.reserve(value("a"), None), Reserved::Look(7)), "it came meanwhile");
        assert!(matches!(index.reserve(value("b"), None), Reserved::New));
        assert!(matches!(index.reserve(value("a"), Some(7)), Reserved::New), "too old, or another value");
    }

    #[test]
    fn what_was_saved_is_loaded_and_a_damaged_file_is_read_from_the_log() {
        let disk = SimDisk::new(1);
        let first = index(&Budget::new(1_000));
        for n in 0..10u64 {
            first.reserve(value(&n.to_string()), None);
            first.complete(&[(value(&n.to_string()), n)]);
            if n == 4 || n == 9 {
                first.save(&disk, n + 1, 0).expect("saves");
            }
        }
        let again = index(&Budget::new(1_000));
        assert_eq!(again.load(&disk, 2, 100).expect("loads"), 10);
        assert_eq!(again.len(), 8, "those below 2 are too old");
        let short = index(&Budget::new(1_000));
        assert_eq!(short.load(&disk, 0, 6).expect("loads"), 6, "the log has lost the rest");
        assert_eq!(short.len(), 6);
        let name = disk.list("dedup/1").expect("there")[1].name.clone();
        levada_disk::write_atomic(&disk, &format!("dedup/1/{name}"), b"nonsense").expect("writes");
        let damaged = index(&Budget::new(1_000));
        assert_eq!(damaged.load(&disk, 0, 100).expect("loads"), 5);
        assert_eq!(damaged.len(), 5);
    }

    #[test]
    fn what_may_not_be_durable_is_not_saved() {
        let disk = SimDisk::new(1);
        let first = index(&Budget::new(100));
        first.complete(&[(value("a"), 0), (value("b"), 1)]);
        first.save(&disk, 1, 0).expect("saves");
        assert_eq!(first.unsaved(), 1);
        let again = index(&Budget::new(100));
        assert_eq!(again.load(&disk, 0, 100).expect("loads"), 1);
        assert_eq!(again.len(), 1);
    }

    #[test]
    fn many_topics_make_room_too() {
        let budget = Budget::new(1_000);
        let topics: Vec<Deduplicator> = (0..100).map(|_| index(&budget)).collect();
        for n in 0..20u64 {
            topics.iter().for_each(|topic| topic.complete(&[(value(&n.to_string()), n)]));
        }
        assert_eq!(budget.used(), 2_000);
        for topic in &topics {
            topic.forget(0, 20);
        }
        assert!(budget.used() <= 1_000, "{} are left", budget.used());
    }

    #[test]
    fn one_tenants_values_do_not_make_a_topic_forget_anothers() {
        let budget = Budget::new(1_000);
        let index = index(&budget);
        let of =
            |tenant: &str, n: u64| ValueHash::new(&TenantId::new(tenant).expect("a tenant"), &n.to_string());
        for n in 0..100 {
            index.complete(&[(of("acme", n), n)]);
        }
        for n in 100..5_000 {
            index.complete(&[(of("flood", n), n)]);
        }
        let early = index.forget(0, 5_000);
        assert!(budget.used() <= 1_000 && early >= 4_000, "{early}");
        assert!((0..100).all(|n| index.look_up(of("acme", n)) == Some(n)));
        assert_eq!(index.look_up(of("flood", 100)), None);
        assert_eq!(index.look_up(of("flood", 4_999)), Some(4_999));
    }

    #[test]
    fn too_many_keys_forget_the_oldest_and_say_so() {
        let budget = Budget::new(1_000);
        let index = index(&budget);
        for n in 0..1_500u64 {
            index.reserve(value(&n.to_string()), None);
            index.complete(&[(value(&n.to_string()), n)]);
        }
        let early = index.forget(100, 1_500);
        assert_eq!(early, 1_400 - index.len());
        assert!(budget.used() <= 1_000);
        assert_eq!(index.look_up(value("1499")), Some(1499));
        drop(index);
        assert_eq!(budget.used(), 0);
    }
}
