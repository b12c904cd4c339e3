//! The bronze zone: objects as they came, immutable, and their lines as a table.
//!
//! An object lies at `tenant=<t>/bronze/source=<s>/date=<d>/<name>`. What a line means is
//! told by the name: `.events.ndjson` holds event envelopes in the format below, anything
//! else is a landed file whose lines are kept as they are. A last extension `.gz` or `.zst`
//! means compressed.
//!
//! An event archive has one JSON object a line:
//!
//! ```json
//! {"offset":7,"event_id":"..","event_type":"..","timestamp":"<RFC 3339>","published_at":1764000000000,
//!  "attributes":{"k":"v"},"payload":<the JSON as it came>}
//! ```
//!
//! A payload that is not JSON, or that spans lines, is `"payload_base64":".."` instead.
//! The format is stored for good: `testdata/archive-v1.events.ndjson` holds it still.

mod envelope;
mod reader;
mod roster;
mod table;

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use levada_disk::DiskFile;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Context, LakeError};
use crate::lake::Lake;
use crate::types::{Archived, BronzeObject};

pub use envelope::{Envelope, Payload, encode_line};
pub(crate) use reader::schema as table_schema;
pub(crate) use roster::{Entry, Rosters};
pub(crate) use table::BronzeTable;

/// Ending of the name of an event archive, before the ending of its compression.
pub const EVENTS: &str = ".events.ndjson";
/// Names longer than this are refused.
const NAME_BYTES: usize = 200;

/// Compresses an archive cheaply; add `.zst` to its name.
///
/// # Errors
/// When memory runs out inside the compressor.
pub fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::with_capacity(bytes.len() / 4), 1)?;
    encoder.include_checksum(true)?;
    encoder.write_all(bytes)?;
    encoder.finish()
}

impl Lake {
    /// Keeps an object for good. Durable when it returns. The same content again is fine.
    ///
    /// # Errors
    /// [`LakeError::ObjectConflict`] when the name is taken by other content,
    /// [`LakeError::Damaged`] when date or name are not usable, IO errors otherwise.
    pub async fn archive(&self, object: BronzeObject) -> Result<Archived, LakeError> {
        let path = location(&object)?;
        let at = Path::from(path.as_str());
        let put = self.store().put_opts(&at, object.bytes.clone().into(), PutMode::Create.into()).await;
        let created = match put {
            Ok(_) => true,
            Err(Error::AlreadyExists { .. }) => {
                self.same_content(&at, &object.bytes).await?;
                false
            }
            Err(error) => {
                return Err(deltalake::DeltaTableError::from(error)).context(|| format!("archiving {path}"));
            }
        };
        let (len, sum) = (object.bytes.len() as u64, xxh3_64(&object.bytes));
        self.enroll(&object.source, &Entry { len, sum, path: path.clone() }).await?;
        self.note_source(&object.source, &object.tenant);
        Ok(Archived { path, created })
    }

    /// The same for the content of a file, of which only a block at a time is in memory. The
    /// object's own bytes do not matter.
    ///
    /// # Errors
    /// As [`Lake::archive`].
    pub async fn archive_file(
        &self,
        object: BronzeObject,
        content: Arc<dyn DiskFile>,
    ) -> Result<Archived, LakeError> {
        let path = location(&object)?;
        let at = Path::from(path.as_str());
        let what = || format!("archiving {path}");
        let created = match self.store().put_file(&at, Arc::clone(&content)).await {
            Ok(()) => true,
            Err(Error::AlreadyExists { .. }) => {
                self.settle_folder(&at).await?;
                let same = self.store().equals(&at, content).await;
                if !same.map_err(deltalake::DeltaTableError::from).context(what)? {
                    return Err(LakeError::ObjectConflict { path });
                }
                false
            }
            Err(error) => return Err(deltalake::DeltaTableError::from(error)).context(what),
        };
        // What was kept is what is noted: a flipped bit of the copy shows here already.
        let (len, sum) =
            self.store().digest(&at).await.map_err(deltalake::DeltaTableError::from).context(what)?;
        self.enroll(&object.source, &Entry { len, sum, path: path.clone() }).await?;
        self.note_source(&object.source, &object.tenant);
        Ok(Archived { path, created })
    }

    /// The content kept under the name of `object`, whose own bytes do not matter.
    ///
    /// # Errors
    /// [`LakeError::Damaged`] when date or name are not usable, IO errors otherwise.
    pub async fn archived(&self, object: &BronzeObject) -> Result<Option<Bytes>, LakeError> {
        let path = location(object)?;
        let read = async { self.store().get(&Path::from(path.as_str())).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(deltalake::DeltaTableError::from(error)).context(|| format!("reading {path}")),
        }
    }

    /// Whoever wrote the object may have been killed before its name was durable.
    async fn settle_folder(&self, at: &Path) -> Result<(), LakeError> {
        let dir = at.as_ref().rsplit_once('/').map_or("", |(dir, _)| dir);
        let settled = self.store().settle(dir).await;
        settled.map_err(deltalake::DeltaTableError::from).context(|| format!("comparing {at}"))
    }

    async fn same_content(&self, at: &Path, bytes: &Bytes) -> Result<(), LakeError> {
        let what = || format!("comparing {at}");
        self.settle_folder(at).await?;
        let found = self.store().get(at).await.map_err(deltalake::DeltaTableError::from).context(what)?;
        let same = found.meta.size == bytes.len() as u64
            && found.bytes().await.map_err(deltalake::DeltaTableError::from).context(what)? == *bytes;
        if same { Ok(()) } else { Err(LakeError::ObjectConflict { path: at.to_string() }) }
    }
}

fn location(object: &BronzeObject) -> Result<String, LakeError> {
    let BronzeObject { tenant, source, date, name, .. } = object;
    let refuse =
        |reason: &str| LakeError::Damaged { path: format!("bronze object `{name}`"), reason: reason.into() };
    if chrono::NaiveDate::parse_from_str(date, "%Y-%m-%d").is_err() || date.len() != 10 {
        return Err(refuse("its date is not YYYY-MM-DD"));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'=' | b'+' | b'@');
    if name.is_empty() || name.len() > NAME_BYTES || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(refuse("a name has 1 to 200 letters, digits and . - _ = + @, and no leading dot"));
    }
    Ok(format!("tenant={tenant}/bronze/source={source}/date={date}/{name}"))
}
