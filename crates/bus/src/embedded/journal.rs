//! The journal of acknowledgements: a topic of the log that no user sees.
//!
//! A record's head is `u8` version (1), `u8` kind, `u64` number of the subscription, `u32`
//! generation; all little endian. The body of an acknowledgement is the offsets in ascending
//! order, each as the LEB128 distance to the one before; the body of a seek is the new
//! progress as JSON. A seek begins a new generation, and acknowledgements of an older one
//! mean nothing any more, wherever they stand.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use levada_core::{TenantId, TopicName};
use levada_log::{Append, Log, Stored, TopicId};

use crate::config::BusError;
use crate::delivery::Progress;
use crate::embedded::JOURNAL_TOPIC;

const VERSION: u8 = 1;
const ACKNOWLEDGED: u8 = 1;
const SEEK: u8 = 2;
const HEAD_BYTES: usize = 14;

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    Acknowledged(Vec<u64>),
    Seek(Progress),
}

/// A record, read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub subscription: u64,
    pub generation: u32,
    pub said: Said,
}

pub(crate) struct Journal {
    pub topic: TopicId,
    lane: u32,
    /// Held shared from the append of a record until its effect is in memory; a checkpoint
    /// takes it alone to read an end behind which nothing is half done.
    pub writing: tokio::sync::RwLock<()>,
}

impl Journal {
    pub fn open(log: &Log) -> Result<Self, BusError> {
        let name = TopicName::internal(JOURNAL_TOPIC).map_err(|e| BusError::Store(e.to_string()))?;
        let (topic, lane) = (log.topic(&name)?, log.lane(&TenantId::default_tenant())?);
        Ok(Self { topic, lane, writing: tokio::sync::RwLock::default() })
    }

    /// The record of an acknowledgement; sorts the offsets.
    pub fn acknowledged(
        &self,
        subscription: u64,
        generation: u32,
        offsets: &mut [u64],
        now_ms: i64,
    ) -> Append {
        offsets.sort_unstable();
        let mut body = BytesMut::with_capacity(offsets.len() * 2 + 8);
        let mut before = 0;
        for offset in offsets {
            put_varint(&mut body, *offset - before);
            before = *offset;
        }
        self.append(ACKNOWLEDGED, subscription, generation, body.freeze(), now_ms)
    }

    pub fn seek(
        &self,
        subscription: u64,
        generation: u32,
        progress: &Progress,
        now_ms: i64,
    ) -> Result<Append, BusError> {
        let body = serde_json::to_vec(progress).map_err(|e| BusError::Store(e.to_string()))?;
        Ok(self.append(SEEK, subscription, generation, body.into(), now_ms))
    }

    fn append(&self, kind: u8, subscription: u64, generation: u32, body: Bytes, now_ms: i64) -> Append {
        let mut head = BytesMut::with_capacity(HEAD_BYTES);
        head.put_u8(VERSION);
        head.put_u8(kind);
        head.put_u64_le(subscription);
        head.put_u32_le(generation);
        Append {
            topic: self.topic,
            lane: self.lane,
            key_id: 0,
            timestamp_ms: now_ms,
            head: head.freeze(),
            body,
        }
    }
}

/// `None` for a record that this program does not understand.
pub(crate) fn decode(record: &Stored) -> Option<Entry> {
    let mut head = record.head.clone();
    if head.len() != HEAD_BYTES || head.get_u8() != VERSION {
        return None;
    }
    let (kind, subscription, generation) = (head.get_u8(), head.get_u64_le(), head.get_u32_le());
    let said = match kind {
        ACKNOWLEDGED => Said::Acknowledged(offsets(&record.body)?),
        SEEK => Said::Seek(serde_json::from_slice(&record.body).ok()?),
        _ => return None,
    };
    Some(Entry { subscription, generation, said })
}

fn offsets(mut body: &[u8]) -> Option<Vec<u64>> {
    let (mut offsets, mut at) = (Vec::new(), 0u64);
    while !body.is_empty() {
        at = at.checked_add(varint(&mut body)?)?;
        offsets.push(at);
    }
    Some(offsets)
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(append: Append) -> Stored {
        Stored {
            offset: 0,
            lane: append.lane,
            key_id: 0,
            timestamp_ms: append.timestamp_ms,
            head: append.head,
            body: append.body,
        }
    }

    fn journal() -> Journal {
        Journal { topic: TopicId(0), lane: 0, writing: tokio::sync::RwLock::default() }
    }

    #[test]
    fn records_read_back_as_they_were_written() {
        let mut offsets = [9, 3, 700_000_000_000, u64::MAX, 4, 128];
        let record = stored(journal().acknowledged(7, 2, &mut offsets, 5));
        let said = Said::Acknowledged(vec![3, 4, 9, 128, 700_000_000_000, u64::MAX]);
        assert_eq!(decode(&record), Some(Entry { subscription: 7, generation: 2, said }));
        let progress =
            Progress { settled: Settled::below(8), discard_before_ms: Some(4), ..Progress::default() };
        let record = stored(journal().seek(7, 3, &progress, 5).expect("encodes"));
        assert_eq!(
            decode(&record),
            Some(Entry { subscription: 7, generation: 3, said: Said::Seek(progress) })
        );
    }

    #[test]
    fn records_of_version_1_stay_readable() {
        // Golden: written once by version 1, never regenerated.
        let head = Bytes::from_static(b"\x01\x01\x07\0\0\0\0\0\0\0\x02\0\0\0");
        let body = Bytes::from_static(b"\x03\x01\xac\x02");
        let record = Stored { offset: 0, lane: 0, key_id: 0, timestamp_ms: 0, head, body };
        let said = Said::Acknowledged(vec![3, 4, 304]);
        assert_eq!(decode(&record), Some(Entry { subscription: 7, generation: 2, said }));
    }

    #[test]
    fn damage_is_nothing_and_never_a_panic() {
        let good = stored(journal().acknowledged(7, 2, &mut [1, 300], 5));
        for cut in 0..good.head.len() {
            assert_eq!(decode(&Stored { head: good.head.slice(..cut), ..good.clone() }), None);
        }
        let endless = Bytes::from_static(&[0xff; 20]);
        assert_eq!(decode(&Stored { body: endless, ..good }), None);
    }

    use crate::delivery::Settled;
}
