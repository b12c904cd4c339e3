//! The files of the idempotency window.

use bytes::{Buf, BufMut};

use super::{Entry, KeyHash};

const MAGIC: &[u8; 4] = b"LVDW";
/// 2: fingerprints are XXH3. 3: an entry says whose it is. A file of another version counts as
/// damaged: its keys are read from the log again.
const VERSION: u32 = 3;
const ENTRY_BYTES: usize = 16 + 8 + 4 + 4 + 8 + 8;

pub(super) fn file_path(dir: &str, number: u64) -> String {
    format!("{dir}/{number:012}.window")
}

/// `LVDW`, version, topics, entries (counts as `u32`), the topics, the entries, CRC32C of all before.
pub(super) fn encode(covered: &[(u32, u64)], entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(20 + covered.len() * 12 + entries.len() * ENTRY_BYTES);
    out.put_slice(MAGIC);
    out.put_u32_le(VERSION);
    out.put_u32_le(covered.len() as u32);
    out.put_u32_le(entries.len() as u32);
    for (topic, next) in covered {
        out.put_u32_le(*topic);
        out.put_u64_le(*next);
    }
    for entry in entries {
        out.put_u128_le(entry.key.0);
        out.put_u64_le(entry.fingerprint);
        out.put_u32_le(entry.topic);
        out.put_u32_le(entry.lane);
        out.put_u64_le(entry.offset);
        out.put_i64_le(entry.at_ms);
    }
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    out
}

/// A file's contents: per topic the offset up to which it is complete, and its entries.
pub(super) type Decoded = (Vec<(u32, u64)>, Vec<Entry>);

pub(super) fn decode(bytes: &[u8]) -> Option<Decoded> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut body = body.strip_prefix(MAGIC)?;
    if body.len() < 12 || body.get_u32_le() != VERSION {
        return None;
    }
    let (topics, entries) = (body.get_u32_le() as usize, body.get_u32_le() as usize);
    if body.len() != topics.checked_mul(12)?.checked_add(entries.checked_mul(ENTRY_BYTES)?)? {
        return None;
    }
    let covered = (0..topics).map(|_| (body.get_u32_le(), body.get_u64_le())).collect();
    let entries = (0..entries)
        .map(|_| Entry {
            key: KeyHash(body.get_u128_le()),
            fingerprint: body.get_u64_le(),
            topic: body.get_u32_le(),
            lane: body.get_u32_le(),
            offset: body.get_u64_le(),
            at_ms: body.get_i64_le(),
        })
        .collect();
    Some((covered, entries))
}
