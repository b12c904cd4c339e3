//! Sources that bring data in from outside: so far, files in a watched folder.
//!
//! A source implements [`levada_core::RecordReader`] and keeps no truth of its own. The
//! pipeline's epoch manifest holds the position; whatever a source writes beside it (the
//! ledger of files that are done, the spooled copy of the file at hand) is valid only as far
//! as that position says.
//!
//! A file's way: it is seen ([`listing`]), it is complete or rests ([`looks`]), it is copied into
//! the spool and hashed in one pass ([`spool`]), the copy is archived to bronze ([`Archive`]), its
//! rows are read from the copy ([`rows`]), and it becomes an entry of the done set ([`ledger`]).
//! Reading the copy means that a landing file may change or go away at any moment without a row
//! being torn.
//!
//! A file that grows afterwards goes the same way again, as the part that was appended ([`part`]):
//! the hash of what was read tells an appended file from a rewritten one. What has no end at the
//! end of a file that may still be written is held back until it has one, or has rested for long.

mod archive;
mod arrivals;
mod gzip;
mod ledger;
mod listing;
mod looks;
mod metrics;
mod open;
mod part;
mod position;
mod reader;
mod rows;
mod schedule;
mod spool;
mod taking;
mod window;

pub use archive::{Archive, ArchiveError, ArchiveName};
pub use reader::{ChangedFile, FileLimits, FileReader, FileReaderConfig};
pub use rows::Column;

#[cfg(test)]
mod tests;
