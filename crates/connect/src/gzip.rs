//! Bounded decompression: a small file must not become an endless one.
//!
//! Memory is bounded by streaming anyway; these bounds keep a hostile file from taking the
//! processor and the lake's disk. DEFLATE can reach a ratio of about 1,032 and real data
//! seldom passes 30, so the ratio is judged only once a fair amount has come out.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// Output below this size is never judged by its ratio.
const RATIO_GRACE_BYTES: u64 = 64 << 20;

/// Most output, and most output for each byte of input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub bytes: u64,
    pub ratio: u64,
}

struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.count += n as u64;
        Ok(n)
    }
}

/// Reads what a gzip stream (of one or more members) holds.
pub(crate) struct Gunzip<R> {
    decoder: MultiGzDecoder<BufReader<Counted<R>>>,
    given: u64,
    bounds: Bounds,
}

impl<R: Read> Gunzip<R> {
    pub fn new(inner: R, bounds: Bounds) -> Self {
        let counted = Counted { inner, count: 0 };
        let decoder = MultiGzDecoder::new(BufReader::with_capacity(64 << 10, counted));
        Self { decoder, given: 0, bounds }
    }
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.decoder.read(into)?;
        self.given += n as u64;
        if self.given > self.bounds.bytes {
            return Err(invalid(format!("it holds more than {} bytes", self.bounds.bytes)));
        }
        let taken = self.decoder.get_ref().get_ref().count;
        let allowed = taken.saturating_mul(self.bounds.ratio).max(RATIO_GRACE_BYTES);
        if self.given > allowed {
            return Err(invalid(format!("it grows more than {}-fold", self.bounds.ratio)));
        }
        Ok(n)
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// The last of what a gzip stream holds, at most `keep` bytes; `None` when the stream has no
/// proper end.
pub(crate) fn tail(file: impl Read, bounds: Bounds, keep: usize) -> io::Result<Option<Vec<u8>>> {
    let mut stream = Gunzip::new(file, bounds);
    let mut tail = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(Some(tail)),
            Ok(n) => {
                tail.extend_from_slice(&chunk[..n]);
                tail.drain(..tail.len().saturating_sub(keep));
            }
            Err(error) if is_content_fault(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Whether a read failed because of what the file holds, not because of the disk.
pub(crate) fn is_content_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}
