//! Sources that bring data in from outside: so far, files in a watched folder.
//!
//! A source implements [`levada_core::RecordReader`] and keeps no truth of its own. The
//! pipeline's epoch manifest holds the position; whatever a source writes beside it (the
//! ledger of files that are done, the spooled copy of the file at hand) is valid only as far
//! as that position says.
//!
//! A file's way: it is seen ([`listing`]), it is stable, it is copied into the spool and hashed
//! in one pass ([`spool`]), the copy is archived to bronze ([`Archive`]), its rows are read from
//! the copy ([`rows`]), and it becomes an entry of the done set ([`ledger`]). Reading the copy
//! means that a landing file may change or go away at any moment without a row being torn.

mod archive;
mod gzip;
mod ledger;
mod listing;
mod metrics;
mod position;
mod reader;
mod rows;
mod schedule;
mod spool;
mod taking;
mod window;

pub use archive::{Archive, ArchiveError, ArchiveName};
pub use reader::{ChangedFile, FileLimits, FileReader, FileReaderConfig};

#[cfg(test)]
mod tests;
