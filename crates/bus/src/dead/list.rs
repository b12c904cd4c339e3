//! Lists of dead letters, and counts. Of what is looked through, only a step is in memory.

use std::collections::BTreeMap;

use levada_core::{TenantSet, TopicName, attr};

use super::{DeadEntry, DeadFilter, entry, size};
use crate::bus::{Bus, Delivered};
use crate::config::BusError;

/// How many records one listing looks at, at most.
const SCAN_RECORDS: u64 = 200_000;
/// Records of one step at most. The newest come first, so the way is back in steps, which begin
/// small and grow where records are small.
const SCAN_STEP: u64 = 4_096;
const FIRST_STEP: u64 = 64;
const GROWTH: u64 = 4;
/// A step holds no more than this and what one read adds, unless a single record is larger.
const STEP_BYTES: usize = 4 << 20;
/// A list of dead letters stops growing here, even below its limit.
pub const MAX_LISTED_BYTES: usize = 8 << 20;

impl Bus {
    /// Lists dead letters of the tenants, newest first: up to the limit of the filter or
    /// [`MAX_LISTED_BYTES`], whichever comes first.
    ///
    /// # Errors
    /// [`BusError::Log`] for damage on disk.
    pub fn dead_letters(&self, tenants: &TenantSet, filter: &DeadFilter) -> Result<Vec<DeadEntry>, BusError> {
        let mut found = Vec::new();
        for topic in self.dead_topics(filter.topic.as_ref()) {
            found.extend(self.dead_letters_of(&topic, tenants, filter)?);
            found.sort_by_key(|e| std::cmp::Reverse((e.published_at_ms, e.offset)));
            found.truncate(filter.limit);
            let mut bytes = 0;
            let mut fits = |entry: &DeadEntry| {
                let before = bytes;
                bytes += size(&entry.message);
                before < MAX_LISTED_BYTES
            };
            let kept = found.iter().take_while(|entry| fits(entry)).count();
            found.truncate(kept);
        }
        Ok(found)
    }

    /// The dead-letter topics that exist, or the one meant by a topic's name.
    fn dead_topics(&self, only: Option<&TopicName>) -> Vec<TopicName> {
        let topics = self.inner.topics.read();
        let mut names: Vec<TopicName> = match only {
            Some(name) if name.is_dead_letter() => vec![name.clone()],
            Some(name) => name.dead_letter().into_iter().collect(),
            None => topics.keys().filter(|n| n.is_dead_letter()).cloned().collect(),
        };
        names.retain(|name| topics.contains_key(name));
        names.sort();
        names
    }

    fn dead_letters_of(
        &self,
        topic: &TopicName,
        tenants: &TenantSet,
        filter: &DeadFilter,
    ) -> Result<Vec<DeadEntry>, BusError> {
        let resent = self.resent(topic)?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        if filter.limit == 0 {
            return Ok(found);
        }
        self.scan_letters(topic, tenants, filter, |delivered| {
            bytes += size(&delivered.message);
            found.push(entry(topic, delivered, &resent.lock()));
            found.len() < filter.limit && bytes < MAX_LISTED_BYTES
        })?;
        Ok(found)
    }

    /// Hands the dead letters that match to `visit`, newest first, for as long as it wants more.
    /// Only a step of them is in memory.
    pub(super) fn scan_letters(
        &self,
        topic: &TopicName,
        tenants: &TenantSet,
        filter: &DeadFilter,
        mut visit: impl FnMut(Delivered) -> bool,
    ) -> Result<(), BusError> {
        let bounds = self.bounds(topic)?;
        let mut high = filter.before.unwrap_or(bounds.next).min(bounds.next);
        let floor = bounds.first.max(high.saturating_sub(SCAN_RECORDS));
        let mut step = FIRST_STEP;
        while high > floor {
            let wanted = floor.max(high.saturating_sub(step));
            let (low, records) = self.read_range(topic, wanted, high)?;
            step = if low == wanted { (step * GROWTH).min(SCAN_STEP) } else { high - low };
            for delivered in records.into_iter().rev() {
                if matches(&delivered, tenants, filter) && !visit(delivered) {
                    return Ok(());
                }
            }
            high = low;
        }
        Ok(())
    }

    /// The records before `high`, from `low` on or from later on where that would be too many
    /// bytes. A log is read forwards, so how far back the bytes reach shows only on the way: the
    /// range is halved then.
    fn read_range(
        &self,
        topic: &TopicName,
        mut low: u64,
        high: u64,
    ) -> Result<(u64, Vec<Delivered>), BusError> {
        let size = |delivered: &Delivered| size(&delivered.message);
        let (mut at, mut records, mut bytes) = (low, Vec::new(), 0);
        while at < high {
            let chunk = self.read(topic, at, (high - at) as usize, STEP_BYTES)?;
            let Some(last) = chunk.last() else { break };
            at = last.offset + 1;
            let within = chunk.into_iter().filter(|delivered| delivered.offset < high);
            records.extend(within.inspect(|delivered| bytes += size(delivered)));
            while bytes > STEP_BYTES && at < high {
                low += (high - low) / 2;
                at = at.max(low);
                records.retain(|delivered| delivered.offset >= low);
                bytes = records.iter().map(size).sum();
            }
        }
        Ok((low, records))
    }

    /// How many dead letters of the tenants wait, by code. Looks at the newest 200,000 a topic.
    ///
    /// # Errors
    /// [`BusError::Log`] for damage on disk.
    pub fn dead_letter_counts(&self, tenants: &TenantSet) -> Result<BTreeMap<String, u64>, BusError> {
        let mut counts = BTreeMap::new();
        let filter = DeadFilter::default();
        for topic in self.dead_topics(None) {
            let resent = self.resent(&topic)?;
            self.scan_letters(&topic, tenants, &filter, |delivered| {
                if !resent.lock().contains(delivered.offset) {
                    let code = delivered.message.attributes.get(attr::DEAD_CODE).unwrap_or("");
                    match counts.get_mut(code) {
                        Some(count) => *count += 1,
                        None => drop(counts.insert(code.to_owned(), 1)),
                    }
                }
                true
            })?;
        }
        Ok(counts)
    }
}

fn matches(delivered: &Delivered, tenants: &TenantSet, filter: &DeadFilter) -> bool {
    let attributes = &delivered.message.attributes;
    let is =
        |name, wanted: &Option<String>| wanted.as_deref().is_none_or(|w| attributes.get(name) == Some(w));
    tenants.contains(&delivered.message.tenant)
        && filter.tenant.as_ref().is_none_or(|t| *t == delivered.message.tenant)
        && is(attr::DEAD_PIPELINE, &filter.pipeline)
        && is(attr::DEAD_CODE, &filter.code)
}
