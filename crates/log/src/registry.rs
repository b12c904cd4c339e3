//! Which number stands for which topic and tenant. Numbers are given out once; the file
//! `registry` only grows, one checksummed frame a batch of new names:
//! `magic, payload length, checksum, payload`, the payload being `kind, id, length, name`
//! for each name. At start the file is written anew, so that what a killed process left
//! unsynced cannot vanish later.

use std::collections::HashMap;
use std::sync::Arc;

use levada_core::{TenantId, TopicName};
use levada_disk::{Disk, DiskFile, OpenMode, read_all, write_atomic};
use parking_lot::Mutex;

use crate::TopicId;
use crate::error::{LogError, io_error};
use crate::format::Fields;

const MAGIC: u32 = u32::from_le_bytes(*b"LVR1");
const FRAME_HEADER: usize = 12;
const KIND_TOPIC: u8 = 1;
const KIND_LANE: u8 = 2;

#[derive(Debug, Default)]
struct Names {
    topics: Vec<TopicName>,
    lanes: Vec<TenantId>,
    topic_ids: HashMap<TopicName, u32>,
    lane_ids: HashMap<TenantId, u32>,
}

#[derive(Debug)]
pub(crate) struct Registry {
    names: Mutex<Names>,
    /// Held over write and sync, so that one caller at a time extends the file.
    file: Mutex<RegistryFile>,
}

#[derive(Debug)]
struct RegistryFile {
    file: Arc<dyn DiskFile>,
    len: u64,
}

/// Why names could not be added.
pub(crate) enum AddError {
    Full,
    Broken(std::io::Error),
}

impl Registry {
    pub(crate) fn open(disk: &dyn Disk, dir: &str) -> Result<Self, LogError> {
        let path = format!("{dir}/registry");
        let names = match read_all(disk, &path) {
            Ok(bytes) => {
                decode(&bytes).map_err(|reason| LogError::CorruptFile { file: path.clone(), reason })?.0
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Names::default(),
            Err(error) => return Err(io_error(format!("read {path}"))(error)),
        };
        let bytes = names.encode(0, 0);
        write_atomic(disk, &path, &bytes).map_err(io_error(format!("write {path}")))?;
        let file = disk.open(&path, OpenMode::Existing).map_err(io_error(format!("open {path}")))?;
        let file = Mutex::new(RegistryFile { file, len: bytes.len() as u64 });
        Ok(Self { names: Mutex::new(names), file })
    }

    pub(crate) fn topics(&self) -> Vec<(TopicId, TopicName)> {
        (0..).map(TopicId).zip(self.names.lock().topics.iter().cloned()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        let names = self.names.lock();
        names.topics.is_empty() && names.lanes.is_empty()
    }

    pub(crate) fn topic_id(&self, name: &TopicName) -> Option<TopicId> {
        self.names.lock().topic_ids.get(name).copied().map(TopicId)
    }

    pub(crate) fn lane_id(&self, tenant: &TenantId) -> Option<u32> {
        self.names.lock().lane_ids.get(tenant).copied()
    }

    pub(crate) fn lane_name(&self, lane: u32) -> Option<TenantId> {
        self.names.lock().lanes.get(lane as usize).cloned()
    }

    /// Numbers the names that have none yet; durable when this returns. `added` sees the
    /// new topics in the order of their numbers, before any other caller can use them.
    pub(crate) fn add(
        &self,
        topics: &[TopicName],
        lanes: &[TenantId],
        added: impl FnOnce(Vec<(TopicId, TopicName)>),
    ) -> Result<(), AddError> {
        let mut file = self.file.lock();
        let (first_topic, first_lane, new) = self.names.lock().missing(topics, lanes);
        if new.topics.is_empty() && new.lanes.is_empty() {
            return Ok(());
        }
        let frame = new.encode(first_topic, first_lane);
        if let Err(error) = file.file.write_at(file.len, &frame) {
            // Half a frame must not stand before the next one.
            let cut = file.file.set_len(file.len);
            return Err(match cut {
                Ok(()) if levada_disk::is_disk_full(&error) => AddError::Full,
                _ => AddError::Broken(error),
            });
        }
        file.file.sync_data().map_err(AddError::Broken)?;
        file.len += frame.len() as u64;
        added((first_topic as u32..).map(TopicId).zip(new.topics.iter().cloned()).collect());
        let mut names = self.names.lock();
        new.topics.into_iter().for_each(|name| names.add_topic(name));
        new.lanes.into_iter().for_each(|name| names.add_lane(name));
        Ok(())
    }
}

impl Names {
    /// The first free numbers and the names that have none.
    fn missing(&self, topics: &[TopicName], lanes: &[TenantId]) -> (usize, usize, Names) {
        let mut new = Names::default();
        let unknown = topics.iter().filter(|name| !self.topic_ids.contains_key(*name));
        unknown.for_each(|name| new.add_topic(name.clone()));
        let unknown = lanes.iter().filter(|name| !self.lane_ids.contains_key(*name));
        unknown.for_each(|name| new.add_lane(name.clone()));
        (self.topics.len(), self.lanes.len(), new)
    }

    fn add_topic(&mut self, name: TopicName) {
        if !self.topic_ids.contains_key(&name) {
            self.topic_ids.insert(name.clone(), self.topics.len() as u32);
            self.topics.push(name);
        }
    }

    fn add_lane(&mut self, name: TenantId) {
        if !self.lane_ids.contains_key(&name) {
            self.lane_ids.insert(name.clone(), self.lanes.len() as u32);
            self.lanes.push(name);
        }
    }

    /// One frame with these names, numbered from the given ones on; empty without names.
    fn encode(&self, first_topic: usize, first_lane: usize) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut put = |kind: u8, id: usize, name: &str| {
            payload.push(kind);
            payload.extend_from_slice(&(id as u32).to_le_bytes());
            payload.extend_from_slice(&(name.len() as u16).to_le_bytes());
            payload.extend_from_slice(name.as_bytes());
        };
        (first_topic..).zip(&self.topics).for_each(|(id, name)| put(KIND_TOPIC, id, name.as_str()));
        (first_lane..).zip(&self.lanes).for_each(|(id, name)| put(KIND_LANE, id, name.as_str()));
        if payload.is_empty() {
            return Vec::new();
        }
        let mut out = Vec::with_capacity(FRAME_HEADER + payload.len());
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
        out.extend_from_slice(&payload);
        out
    }
}

/// The payload of a valid frame at the start of the bytes, and the frame's length.
fn frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let mut fields = Fields(bytes);
    if fields.u32()? != MAGIC {
        return None;
    }
    let len = fields.u32()? as usize;
    let crc = fields.u32()?;
    let payload = fields.bytes(len)?;
    (crc32c::crc32c(payload) == crc).then_some((payload, FRAME_HEADER + len))
}

/// What the bytes of a registry hold.
pub(crate) struct Inspected {
    pub(crate) topics: Vec<TopicName>,
    pub(crate) lanes: usize,
    /// Length of the frames; what lies behind was never confirmed.
    pub(crate) end: usize,
}

/// Reads a registry without opening it; the error says what is damaged.
pub(crate) fn inspect(bytes: &[u8]) -> Result<Inspected, String> {
    let (names, end) = decode(bytes)?;
    Ok(Inspected { topics: names.topics, lanes: names.lanes.len(), end })
}

/// Reads all frames, and answers their length too. A bad one at the end was never confirmed
/// and is left out; a bad one before a good one is damage, and without its names nothing
/// can be attributed.
fn decode(bytes: &[u8]) -> Result<(Names, usize), String> {
    let mut names = Names::default();
    let mut at = 0;
    while let Some((payload, len)) = frame(&bytes[at..]) {
        decode_payload(payload, &mut names).ok_or_else(|| format!("names out of order at byte {at}"))?;
        at += len;
    }
    if (at + 1..bytes.len()).any(|i| frame(&bytes[i..]).is_some()) {
        return Err(format!("the frame at byte {at} does not match its checksum, but later ones do"));
    }
    Ok((names, at))
}

fn decode_payload(payload: &[u8], names: &mut Names) -> Option<()> {
    let mut fields = Fields(payload);
    while let Some(kind) = fields.bytes(1) {
        let id = fields.u32()? as usize;
        let len = fields.u16()? as usize;
        let name = std::str::from_utf8(fields.bytes(len)?).ok()?;
        match kind[0] {
            KIND_TOPIC if id == names.topics.len() => names.add_topic(TopicName::stored(name).ok()?),
            KIND_LANE if id == names.lanes.len() => names.add_lane(TenantId::new(name).ok()?),
            _ => return None,
        }
    }
    Some(())
}
