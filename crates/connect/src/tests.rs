//! The file source as a pipeline would drive it: files appear, batches come out, the position
//! goes through its stored form at will.

mod crashes;
mod formats;
mod growing;
mod headers;
mod slow_writers;
mod watching;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use levada_config::model::{Delimiter, FileFolder, FileFormat, FileSource};
use levada_core::{Clock, ManualClock, ReadError, RecordBatchIn, RecordReader, TenantId};
use levada_disk::{Disk, DiskFile, RealDisk, read_exact_at};
use parking_lot::Mutex;
use serde_json::Value;

use crate::{Archive, ArchiveError, ArchiveName, ChangedFile, FileLimits, FileReader, FileReaderConfig};

/// Bronze in memory.
#[derive(Debug, Default)]
struct MemoryArchive(Mutex<HashMap<String, Bytes>>);

#[async_trait]
impl Archive for MemoryArchive {
    async fn keep(&self, name: &ArchiveName, content: Arc<dyn DiskFile>) -> Result<(), ArchiveError> {
        let failed =
            |error: std::io::Error| ArchiveError { object: name.name.clone(), reason: error.to_string() };
        let mut bytes = vec![0; usize::try_from(content.len().map_err(failed)?).unwrap()];
        read_exact_at(content.as_ref(), 0, &mut bytes).map_err(failed)?;
        let before = self.0.lock().insert(format!("{}/{}", name.tenant, name.name), bytes.clone().into());
        assert!(before.is_none_or(|before| before == bytes), "a bronze object is never replaced");
        Ok(())
    }

    async fn fetch(&self, name: &ArchiveName) -> Result<Option<Bytes>, ArchiveError> {
        Ok(self.0.lock().get(&format!("{}/{}", name.tenant, name.name)).cloned())
    }
}

/// A folder with a reader on it, and everything that outlives the reader.
struct Bench {
    _dir: tempfile::TempDir,
    landing: PathBuf,
    disk: Arc<dyn Disk>,
    archive: Arc<MemoryArchive>,
    clock: Arc<ManualClock>,
    config: FileReaderConfig,
}

impl Bench {
    fn new(format: FileFormat) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let landing = dir.path().join("landing");
        fs::create_dir_all(&landing).unwrap();
        fs::create_dir_all(dir.path().join("data")).unwrap();
        let disk = Arc::new(RealDisk::new(dir.path().join("data")).unwrap());
        let source = FileSource {
            location: "landing".to_owned(),
            folder: FileFolder::Local("landing".into()),
            pattern: "*".to_owned(),
            format,
            gzip: None,
            delimiter: Delimiter::Comma,
            settle: FileSource::SETTLE,
            settle_end: FileSource::SETTLE_END,
            schedule: None,
            tenant: TenantId::new("acme").unwrap(),
            null_values: Vec::new(),
        };
        let config = FileReaderConfig {
            pipeline: "orders".parse().unwrap(),
            source,
            folder: landing.clone(),
            columns: Arc::from([]),
            changed: ChangedFile::Reject,
            limits: FileLimits { record_bytes: 1000, ..FileLimits::default() },
            poll: Duration::ZERO,
        };
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        Self { _dir: dir, landing, disk, archive: Arc::default(), clock, config }
    }

    fn reader(&self) -> FileReader {
        let archive: Arc<dyn Archive> = self.archive.clone();
        let clock: Arc<dyn Clock> = self.clock.clone();
        FileReader::new(self.config.clone(), archive, self.disk.clone(), "connect/orders", clock).unwrap()
    }

    /// Puts a file where the reader sees it whole at its first look.
    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        put(&self.landing, name, content.as_ref());
    }
}

/// Writes a file as a copying program does: content first, then its own, older time.
fn put(folder: &Path, name: &str, content: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    let before = fs::metadata(&path).unwrap().modified().unwrap() - Duration::from_secs(10);
    fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
}

async fn read(reader: &mut FileReader, rows: usize) -> RecordBatchIn {
    reader.read(rows, usize::MAX, Duration::ZERO).await.unwrap()
}

/// Everything there is to read now, in batches of `rows`.
async fn drain(reader: &mut FileReader, rows: usize) -> Result<Vec<RecordBatchIn>, ReadError> {
    let mut batches = Vec::new();
    let mut empty = 0;
    // Two looks make a file stable, a third one finds nothing new.
    while empty < 3 {
        let batch = reader.read(rows, usize::MAX, Duration::ZERO).await?;
        if batch.is_empty() {
            empty += 1;
        } else {
            batches.push(batch);
        }
    }
    Ok(batches)
}

/// Rows as `line body`, rejects as `line !code`, in order of lines.
fn told(batches: &[RecordBatchIn]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        let rows = batch.records.iter().map(|r| (r.offset, String::from_utf8_lossy(&r.body).into_owned()));
        let rejects = batch.rejects.iter().map(|r| (r.record.offset, format!("!{}", r.code)));
        let mut both: Vec<_> = rows.chain(rejects).collect();
        both.sort_by_key(|(line, _)| *line);
        lines.extend(both.into_iter().map(|(line, text)| format!("{line} {text}")));
    }
    lines
}

fn codes(batches: &[RecordBatchIn]) -> Vec<&'static str> {
    batches.iter().flat_map(|b| b.rejects.iter().map(|r| r.code)).collect()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A position as it comes back from a manifest.
fn stored(position: &Value) -> Value {
    serde_json::from_str(&position.to_string()).unwrap()
}
