//! Checksums of the blocks of a data file, kept with the commit that makes it visible.
//!
//! A disk that flips a bit says nothing, and most flips in a Parquet file decode well: to
//! another number. So each block of 1 MiB has a checksum in the table's log (the tag
//! [`BLOCKS_TAG`] of the file's `add` action), and the store compares it with what it reads,
//! whatever part of the block is asked for. Other programs that read the tables ignore tags.
//!
//! The checksum is XXH3 with 64 bits: it finds what a disk does by accident. It is no proof
//! against somebody who can write to the folder; such a person can write the log as well.

use std::fmt::Write;
use std::io;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::types::Owner;

/// The name of the tag in the table's log.
pub(crate) const BLOCKS_TAG: &str = "levada.blocks.xxh3";
pub(crate) const BLOCK_BYTES: u64 = 1 << 20;
const DIGITS: usize = 16;

/// A file whose bytes are not those that were written, or that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub owner: Owner,
    /// The table, such as `silver.orders`.
    pub table: String,
    /// The file, relative to the lake.
    pub file: String,
    pub reason: String,
}

/// The checksums of a file's blocks, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Blocks {
    len: u64,
    sums: Vec<u64>,
}

impl Blocks {
    pub fn of(bytes: &[u8]) -> Self {
        let sums = bytes.chunks(BLOCK_BYTES as usize).map(xxh3_64).collect();
        Self { len: bytes.len() as u64, sums }
    }

    /// Adds the next block, of which only the last may be a short one.
    pub fn push(&mut self, block: &[u8]) {
        self.len += block.len() as u64;
        self.sums.push(xxh3_64(block));
    }

    /// The form of the tag: 16 hexadecimal digits a block.
    pub fn to_tag(&self) -> String {
        let mut text = String::with_capacity(self.sums.len() * DIGITS);
        for sum in &self.sums {
            let _ = write!(text, "{sum:016x}");
        }
        text
    }

    /// Reads [`Self::to_tag`] of a file of `len` bytes; `None` where the two do not fit.
    pub fn parse(text: &str, len: u64) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() as u64 != len.div_ceil(BLOCK_BYTES) * DIGITS as u64 {
            return None;
        }
        let sum = |chunk: &[u8]| u64::from_str_radix(std::str::from_utf8(chunk).ok()?, 16).ok();
        let sums = digits.chunks(DIGITS).map(sum).collect::<Option<Vec<_>>>()?;
        Some(Self { len, sums })
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// The whole blocks in which a range lies.
    pub fn covering(&self, range: &Range<u64>) -> Range<u64> {
        let start = range.start / BLOCK_BYTES * BLOCK_BYTES;
        let end = range.end.div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
        start..end.min(self.len)
    }

    /// Compares whole blocks, the first of which begins at `start`.
    ///
    /// # Errors
    /// `InvalidData`, naming the damaged block by its place.
    pub fn check(&self, start: u64, bytes: &[u8]) -> io::Result<()> {
        let first = usize::try_from(start / BLOCK_BYTES).unwrap_or(usize::MAX);
        for (i, block) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
            if self.sums.get(first + i).copied() != Some(xxh3_64(block)) {
                let at = start + i as u64 * BLOCK_BYTES;
                return Err(damaged(&format!(
                    "the bytes {at} to {} do not match the checksum that was kept when they were written",
                    at + block.len() as u64
                )));
            }
        }
        Ok(())
    }

    /// # Errors
    /// `InvalidData` where the file has another length than it was written with.
    pub fn check_len(&self, len: u64) -> io::Result<()> {
        if len == self.len {
            return Ok(());
        }
        Err(damaged(&format!("the file has {len} bytes and was written with {}", self.len)))
    }
}

/// The error of bytes that are not those that were written.
fn damaged(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{DAMAGED}{reason}"))
}

/// How the text of such an error begins, so that it is known again behind other layers' errors.
pub(crate) const DAMAGED: &str = "damaged: ";

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn every_flipped_bit_is_seen_and_its_block_named() {
        let block = BLOCK_BYTES as usize;
        for len in [0, 1, block - 1, block, block + 1, 2 * block + 77] {
            let whole = bytes(len);
            let blocks = Blocks::of(&whole);
            assert_eq!(Blocks::parse(&blocks.to_tag(), len as u64), Some(blocks.clone()));
            blocks.check(0, &whole).expect("nothing changed");
            for at in (0..len).step_by(block / 3 + 1) {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << (at % 8);
                let error = blocks.check(0, &flipped).expect_err("a bit changed").to_string();
                assert!(error.contains(&format!("the bytes {} to", at / block * block)), "{error}");
            }
        }
    }

    #[test]
    fn a_range_is_checked_by_the_blocks_around_it() {
        let whole = bytes(2 * BLOCK_BYTES as usize + 77);
        let blocks = Blocks::of(&whole);
        assert_eq!(blocks.covering(&(5..6)), 0..BLOCK_BYTES);
        assert_eq!(blocks.covering(&(BLOCK_BYTES - 1..BLOCK_BYTES + 1)), 0..2 * BLOCK_BYTES);
        let tail = blocks.covering(&(blocks.len() - 8..blocks.len()));
        assert_eq!(tail, 2 * BLOCK_BYTES..blocks.len());
        blocks.check(tail.start, &whole[tail.start as usize..]).expect("nothing changed");
    }

    #[test]
    fn tags_that_do_not_fit_their_file_are_no_checksums() {
        assert_eq!(Blocks::parse("", 1), None);
        assert_eq!(Blocks::parse("zzzzzzzzzzzzzzzz", 1), None);
        assert_eq!(Blocks::parse("00000000000000ff0", 1), None);
        assert!(Blocks::parse("", 0).is_some());
    }
}
