//! The idempotency window: which publishes are remembered, bounded by time and count.
//!
//! What one tenant publishes never makes the window forget another's keys: see `shares`.
//!
//! A key is reserved before its record is appended, so that two publishes of one key that
//! race end as one record. The window is saved as a chain of files, each with the keys
//! added since the one before and the offset per topic up to which the chain is complete;
//! a restart loads the chain and reads only the records after it, whatever the log's size.

mod files;
mod shares;
mod slots;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use levada_core::{TenantId, TopicName};
use levada_disk::{Disk, read_all, write_atomic};
use parking_lot::Mutex;
use tokio::sync::watch;

use files::file_path;
use shares::Shares;
use slots::Slots;

/// Entries that are looked at before the lock is given back.
const STEP: usize = 1_024;

/// What identifies a publish: 128 bits of BLAKE3 over topic, tenant and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyHash(u128);

impl KeyHash {
    pub fn new(topic: &TopicName, tenant: &TenantId, key: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [topic.as_str(), tenant.as_str(), key] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut first = [0u8; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(u128::from_le_bytes(first))
    }
}

/// XXH3 over the body: tells a repeat from a conflict. Whoever makes two bodies of one hash
/// can only hide a conflict among their own publishes, so it need not be cryptographic.
pub(crate) fn fingerprint(body: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(body)
}

/// Where the first publish of a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Pending,
    At(u64),
    Failed,
}

#[derive(Debug)]
enum Slot {
    /// The channel is there once somebody waits: nearly always nobody does.
    Pending {
        fingerprint: u64,
        outcome: Option<watch::Sender<Outcome>>,
    },
    Done {
        fingerprint: u64,
        offset: u64,
        at_ms: i64,
    },
}

/// What the window says of a key.
#[derive(Debug)]
pub(crate) enum Reservation {
    /// The caller must end it with [`Window::complete`] or [`Window::release`].
    New,
    Duplicate(u64),
    /// The first publish is under way.
    Wait(watch::Receiver<Outcome>),
    Conflict,
}

/// A remembered publish, as saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub key: KeyHash,
    pub fingerprint: u64,
    pub topic: u32,
    /// The number of its tenant's lane.
    pub lane: u32,
    pub offset: u64,
    pub at_ms: i64,
}

#[derive(Debug, Default)]
struct Inner {
    slots: Slots,
    shares: Shares,
    unsaved: Vec<Entry>,
    files: VecDeque<SavedFile>,
    next_file: u64,
}

#[derive(Debug, Clone, Copy)]
struct SavedFile {
    number: u64,
    newest_ms: i64,
    entries: usize,
}

/// The window of one bus.
#[derive(Debug)]
pub(crate) struct Window {
    window_ms: i64,
    max_keys: usize,
    inner: Mutex<Inner>,
}

/// What one tenant has in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaneUse {
    pub lane: u32,
    pub keys: usize,
    /// Keys that went before their time since this was asked last.
    pub forgotten: u64,
}

impl Window {
    pub fn new(window: std::time::Duration, max_keys: usize) -> Self {
        let window_ms = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        let inner = Inner { shares: Shares::new(max_keys), ..Inner::default() };
        Self { window_ms, max_keys, inner: Mutex::new(inner) }
    }

    /// At most this many keys of one tenant are remembered; its oldest go first.
    pub fn bound(&self, lane: u32, keys: u64) {
        self.inner.lock().shares.bound(lane, usize::try_from(keys).unwrap_or(usize::MAX));
    }

    /// What each tenant has, of those who have or had something.
    pub fn usage(&self) -> Vec<LaneUse> {
        self.inner.lock().shares.usage()
    }

    pub fn len(&self) -> usize {
        self.inner.lock().slots.len()
    }

    pub fn unsaved(&self) -> usize {
        self.inner.lock().unsaved.len()
    }

    pub fn reserve(&self, key: KeyHash, fingerprint: u64, now_ms: i64) -> Reservation {
        let mut inner = self.inner.lock();
        match inner.slots.get_mut(&key) {
            Some(Slot::Pending { fingerprint: first, outcome }) => {
                return if *first == fingerprint {
                    let sender = outcome.get_or_insert_with(|| watch::Sender::new(Outcome::Pending));
                    Reservation::Wait(sender.subscribe())
                } else {
                    Reservation::Conflict
                };
            }
            Some(Slot::Done { fingerprint: first, offset, at_ms }) if now_ms - *at_ms <= self.window_ms => {
                return if *first == fingerprint {
                    Reservation::Duplicate(*offset)
                } else {
                    Reservation::Conflict
                };
            }
            Some(Slot::Done { .. }) | None => {}
        }
        inner.slots.insert(key, Slot::Pending { fingerprint, outcome: None });
        Reservation::New
    }

    /// Ends reservations whose records are on disk.
    pub fn complete(&self, entries: &[Entry]) {
        let mut inner = self.inner.lock();
        for entry in entries {
            inner.unsaved.push(*entry);
            if let Some(Slot::Pending { outcome: Some(outcome), .. }) = inner.insert(*entry) {
                outcome.send_replace(Outcome::At(entry.offset));
            }
        }
        if let Some(newest) = entries.last() {
            self.evict(&mut inner, newest.at_ms);
        }
    }

    /// Ends reservations whose records were not kept.
    pub fn release(&self, keys: &[KeyHash]) {
        let mut inner = self.inner.lock();
        for key in keys {
            if let Some(Slot::Pending { outcome: Some(outcome), .. }) = inner.slots.remove(key) {
                outcome.send_replace(Outcome::Failed);
            }
        }
    }

    /// Restores an entry that the saved chain lacks, read from the log at start.
    pub fn restore(&self, entry: Entry, now_ms: i64) {
        let mut inner = self.inner.lock();
        let entry = Entry { at_ms: now_ms, ..entry };
        inner.insert(entry);
        inner.unsaved.push(entry);
        self.evict(&mut inner, now_ms);
    }

    fn evict(&self, inner: &mut Inner, now_ms: i64) {
        let Inner { shares, slots, .. } = inner;
        shares.evict(now_ms.saturating_sub(self.window_ms), |key, at_ms| {
            if matches!(slots.get(&key), Some(Slot::Done { at_ms: kept, .. }) if *kept == at_ms) {
                slots.remove(&key);
            }
        });
    }

    /// Saves what is not yet saved and deletes files that lie wholly outside the window.
    /// `covered` is, per topic, the offset below which every remembered key is in this file
    /// or an earlier one; the caller holds off publishes while it reads the offsets.
    pub fn save(
        &self,
        disk: &dyn Disk,
        dir: &str,
        covered: &[(u32, u64)],
        now_ms: i64,
    ) -> std::io::Result<()> {
        let (number, mut entries): (u64, Vec<Entry>) = {
            let mut inner = self.inner.lock();
            inner.next_file += 1;
            (inner.next_file - 1, std::mem::take(&mut inner.unsaved))
        };
        // What is beyond may not be durable yet: a power loss would leave a key of nothing.
        let ends: HashMap<u32, u64> = covered.iter().copied().collect();
        let later = entries.extract_if(.., |e| ends.get(&e.topic).is_some_and(|end| e.offset >= *end));
        let later: Vec<Entry> = later.collect();
        if !later.is_empty() {
            let mut inner = self.inner.lock();
            let newer = std::mem::replace(&mut inner.unsaved, later);
            inner.unsaved.extend(newer);
        }
        let outdated =
            self.inner.lock().outdated_files(now_ms - self.window_ms, self.max_keys, entries.len());
        let added = entries.len();
        entries.extend(self.remembered(disk, dir, &outdated));
        if let Err(error) = write_atomic(disk, &file_path(dir, number), &files::encode(covered, &entries)) {
            let mut inner = self.inner.lock();
            entries.truncate(added);
            let newer = std::mem::replace(&mut inner.unsaved, entries);
            inner.unsaved.extend(newer);
            return Err(error);
        }
        let newest_ms = entries.iter().map(|e| e.at_ms).max().unwrap_or(now_ms);
        {
            let mut inner = self.inner.lock();
            inner.files.push_back(SavedFile { number, newest_ms, entries: entries.len() });
            inner.files.retain(|file| !outdated.contains(&file.number));
        }
        for number in outdated {
            disk.remove(&file_path(dir, number))?;
        }
        Ok(())
    }

    /// What files that are about to go hold of what is still remembered: another tenant's flood
    /// makes files old before their time.
    fn remembered(&self, disk: &dyn Disk, dir: &str, files: &[u64]) -> Vec<Entry> {
        let mut kept = Vec::new();
        for number in files {
            let Some((_, entries)) =
                read_all(disk, &file_path(dir, *number)).ok().and_then(|bytes| files::decode(&bytes))
            else {
                continue;
            };
            // In steps: publishes wait for the lock.
            for some in entries.chunks(STEP) {
                let inner = self.inner.lock();
                let is_live = |entry: &&Entry| matches!(inner.slots.get(&entry.key), Some(Slot::Done { offset, .. }) if *offset == entry.offset);
                kept.extend(some.iter().filter(is_live).copied());
            }
        }
        kept
    }

    /// Loads the chain of saved files. Returns per topic the offset from which the log must
    /// be read again. A damaged file ends the chain: what it held is read from the log.
    pub fn load(&self, disk: &dyn Disk, dir: &str, now_ms: i64) -> std::io::Result<HashMap<u32, u64>> {
        disk.create_dir_all(dir)?;
        let mut numbers: Vec<u64> = disk
            .list(dir)?
            .iter()
            .filter_map(|entry| entry.name.strip_suffix(".window")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        let mut covered = HashMap::new();
        let mut chain = Vec::new();
        let mut intact = true;
        for number in numbers {
            let path = file_path(dir, number);
            let decoded =
                if intact { read_all(disk, &path).ok().and_then(|b| files::decode(&b)) } else { None };
            intact = decoded.is_some();
            match decoded {
                Some((file_covered, entries)) => {
                    covered = file_covered.into_iter().collect();
                    chain.push((number, entries));
                }
                None => disk.remove(&path)?,
            }
        }
        let newest_ms = chain.iter().flat_map(|(_, e)| e).map(|e| e.at_ms).max().unwrap_or(now_ms);
        for (number, entries) in chain {
            self.adopt(number, &entries, newest_ms - self.window_ms, now_ms);
        }
        Ok(covered)
    }

    /// Downtime does not count: what was remembered at the stop is remembered for a full
    /// window after the start, so that a client that retries across it is still recognised.
    fn adopt(&self, number: u64, entries: &[Entry], cutoff_ms: i64, now_ms: i64) {
        let mut inner = self.inner.lock();
        for entry in entries.iter().filter(|e| e.at_ms >= cutoff_ms) {
            inner.insert(Entry { at_ms: now_ms, ..*entry });
        }
        inner.files.push_back(SavedFile { number, newest_ms: now_ms, entries: entries.len() });
        inner.next_file = number + 1;
        self.evict(&mut inner, now_ms);
    }
}

impl Inner {
    fn insert(&mut self, entry: Entry) -> Option<Slot> {
        let done = Slot::Done { fingerprint: entry.fingerprint, offset: entry.offset, at_ms: entry.at_ms };
        self.shares.add(entry.lane, entry.key, entry.at_ms);
        self.slots.insert(entry.key, done)
    }

    /// The files that need not be kept beside one more of `new` entries.
    fn outdated_files(&self, cutoff_ms: i64, max_keys: usize, new: usize) -> Vec<u64> {
        let mut later: usize = self.files.iter().map(|f| f.entries).sum::<usize>() + new;
        let mut outdated = Vec::new();
        for oldest in &self.files {
            later -= oldest.entries;
            if oldest.newest_ms >= cutoff_ms && later < max_keys {
                break;
            }
            outdated.push(oldest.number);
        }
        outdated
    }
}

/// Shared by the bus and its save task.
pub(crate) type SharedWindow = Arc<Window>;
