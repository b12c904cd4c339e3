//! The index on disk: a chain of files, each with what came since the one before.
//!
//! A file is the magic `LVDD`, `u32` version (2: a tag says whose it is), `u64` covered offset, `u32` number of keys,
//! then for each key `u64` tag and `u64` offset, and a CRC-32C over all of it; little endian.

use std::collections::VecDeque;

use bytes::{Buf, BufMut};
use levada_disk::{Disk, read_all, write_atomic};

const MAGIC: &[u8; 4] = b"LVDD";
const VERSION: u32 = 2;
const KEY_BYTES: usize = 16;
/// More files than this are written as one at the next start.
const MAX_FILES: usize = 64;

#[derive(Debug)]
struct Saved {
    number: u64,
    /// Every key in it is below this offset.
    end: u64,
}

#[derive(Debug)]
pub(super) struct Files {
    dir: String,
    chain: VecDeque<Saved>,
    next: u64,
}

impl Files {
    pub(super) fn new(dir: String) -> Self {
        Self { dir, chain: VecDeque::new(), next: 0 }
    }

    fn path(&self, number: u64) -> String {
        format!("{}/{number:012}.keys", self.dir)
    }

    pub(super) fn save(&mut self, disk: &dyn Disk, covered: u64, keys: &[(u64, u64)]) -> std::io::Result<()> {
        disk.create_dir_all(&self.dir)?;
        write_atomic(disk, &self.path(self.next), &encode(covered, keys))?;
        let last = keys.iter().map(|(_, offset)| offset + 1).max().unwrap_or(0);
        self.chain.push_back(Saved { number: self.next, end: last });
        self.next += 1;
        Ok(())
    }

    /// The newest stays: it says what is covered.
    pub(super) fn drop_below(&mut self, disk: &dyn Disk, floor: u64) -> std::io::Result<()> {
        while self.chain.len() > 1 && self.chain.front().is_some_and(|saved| saved.end <= floor) {
            if let Some(saved) = self.chain.pop_front() {
                disk.remove(&self.path(saved.number))?;
            }
        }
        Ok(())
    }

    /// Hands over every key, and answers what the chain covers; `None` where there is none.
    pub(super) fn load(
        &mut self,
        disk: &dyn Disk,
        mut visit: impl FnMut(u64, u64),
    ) -> std::io::Result<Option<u64>> {
        let mut covered = None;
        let mut kept = Vec::new();
        let numbers = self.numbers(disk)?;
        let merge = numbers.len() > MAX_FILES;
        let mut intact = true;
        for number in numbers {
            self.next = self.next.max(number + 1);
            let read = if intact { read_all(disk, &self.path(number)).ok() } else { None };
            let Some((file_covered, keys)) = read.and_then(|bytes| decode(&bytes)) else {
                intact = false;
                disk.remove(&self.path(number))?;
                continue;
            };
            covered = Some(file_covered);
            keys.iter().for_each(|(tag, offset)| visit(*tag, *offset));
            let end = keys.iter().map(|(_, offset)| offset + 1).max().unwrap_or(0);
            self.chain.push_back(Saved { number, end });
            if merge {
                kept.extend(keys);
            }
        }
        if let Some(covered) = covered.filter(|_| merge) {
            let before = std::mem::take(&mut self.chain);
            self.save(disk, covered, &kept)?;
            for saved in before {
                disk.remove(&self.path(saved.number))?;
            }
        }
        Ok(covered)
    }

    pub(super) fn remove(&mut self, disk: &dyn Disk) -> std::io::Result<()> {
        for number in self.numbers(disk)? {
            disk.remove(&self.path(number))?;
        }
        self.chain.clear();
        Ok(())
    }

    fn numbers(&self, disk: &dyn Disk) -> std::io::Result<Vec<u64>> {
        disk.create_dir_all(&self.dir)?;
        let names = disk.list(&self.dir)?;
        let mut numbers: Vec<u64> =
            names.iter().filter_map(|entry| entry.name.strip_suffix(".keys")?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

fn encode(covered: u64, keys: &[(u64, u64)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + keys.len() * KEY_BYTES);
    out.put_slice(MAGIC);
    out.put_u32_le(VERSION);
    out.put_u64_le(covered);
    out.put_u32_le(keys.len() as u32);
    for (tag, offset) in keys {
        out.put_u64_le(*tag);
        out.put_u64_le(*offset);
    }
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    out
}

/// The covered offset and the keys.
type Decoded = (u64, Vec<(u64, u64)>);

fn decode(bytes: &[u8]) -> Option<Decoded> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut body = body.strip_prefix(MAGIC)?;
    if body.len() < 16 || body.get_u32_le() != VERSION {
        return None;
    }
    let (covered, count) = (body.get_u64_le(), body.get_u32_le() as usize);
    if body.len() != count.checked_mul(KEY_BYTES)? {
        return None;
    }
    Some((covered, (0..count).map(|_| (body.get_u64_le(), body.get_u64_le())).collect()))
}
