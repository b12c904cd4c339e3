//! What of a found file is to be read: all of it, what was appended since, or nothing.

use bytes::Bytes;

use crate::gzip;
use crate::ledger::Seen;
use crate::position::{Current, Done, Next};
use crate::rows::{self, Layout, Origin, Start, sniff};
use crate::spool::{Copied, FileRead, Want};

/// The last bytes that tell whether a text may end there.
pub(crate) const TAIL_BYTES: usize = 4096;
/// First bytes that surely hold the header of a file that was read before, compressed or not.
const HEADER_SPARE_BYTES: usize = 64 << 10;

/// What the ledger says of a file that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// Read from its beginning: it is new, or was refused whole before.
    Fresh,
    /// Its old content stands at its beginning: read what follows.
    Grown(Next),
    /// Nothing but its times is new.
    Touched,
    /// Other content under its name.
    Changed,
}

/// What to copy of a file of this size.
pub(crate) fn want(seen: Option<&Seen>, size: u64, record_bytes: usize) -> Want {
    match seen.and_then(|seen| seen.next.map(|next| (seen, next))) {
        Some((seen, next)) if size >= seen.size => Want {
            from: next.from,
            prefix: Some(seen.size),
            head_bytes: if next.from > 0 { record_bytes + HEADER_SPARE_BYTES } else { 0 },
        },
        _ => Want::default(),
    }
}

/// What the content is, beside what was read under its name.
pub(crate) fn judge(seen: Option<&Seen>, size: u64, copied: &Copied) -> Judged {
    let Some(seen) = seen else { return Judged::Fresh };
    if seen.refused.is_some() {
        return Judged::Fresh;
    }
    if copied.whole.as_bytes() == &seen.hash && !seen.held {
        return Judged::Touched;
    }
    match (seen.next, copied.prefix) {
        (Some(next), Some(prefix)) if prefix.as_bytes() == &seen.hash && size >= seen.size => {
            Judged::Grown(next)
        }
        _ => Judged::Changed,
    }
}

impl Current {
    /// The part begins where an earlier one ended.
    pub fn goes_on_at(&mut self, next: Next, copied: &Copied) {
        let Next { from, offset, line, array, closed, tail } = next;
        self.from = from;
        self.part = (from > 0).then(|| copied.part.to_hex().to_string());
        (self.offset, self.line) = (offset, line);
        (self.array, self.closed, self.tail) = (array, closed, tail);
    }

    pub fn origin(&self) -> Origin {
        let Current { offset, line, array, closed, .. } = *self;
        Origin {
            start: Start { offset, line, array, closed },
            is_part: self.from > 0,
            header: self.header.clone(),
            tail: self.tail,
        }
    }

    /// Where reading goes on once the file has grown.
    pub fn next(&self, resume: rows::Resume, gzip: bool) -> Next {
        let Start { offset, line, array, closed } = resume.start;
        let next = |from, offset| Next { from, offset, line, array, closed, tail: resume.tail };
        match gzip {
            // A member that was read to its end is followed by another one.
            true if resume.at_end => next(self.file.size, 0),
            true => next(self.from, offset),
            false => next(self.from + offset, 0),
        }
    }

    /// The entry of the file, read as far as that.
    pub fn done(self, next: Option<Next>, held: bool, refused: Option<u32>) -> Done {
        Done { next, held, refused, ..self.file }
    }
}

/// The header line of the file, where the part begins without it.
pub(crate) fn header(copied: &Copied, layout: &Layout) -> std::io::Result<Option<String>> {
    match rows::header_of(Bytes::copy_from_slice(&copied.head), layout) {
        Err(error) if gzip::is_content_fault(&error) => Ok(None),
        header => header,
    }
}

/// Whether a gzip stream has a proper end, and its text too.
pub(crate) fn gzip_may_end(copy: FileRead, layout: &Layout, json: bool) -> std::io::Result<bool> {
    let tail = gzip::tail(copy, layout.bounds, TAIL_BYTES)?;
    Ok(tail.is_some_and(|tail| sniff::may_end(&tail, json)))
}
