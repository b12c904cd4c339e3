//! The file source as the pipelines see it.
//!
//! Blocking work runs on a blocking thread, one step at a time. A cancelled read leaves its step
//! running; the next read collects it, so nothing is lost and nothing is read twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use levada_config::model::{
    FileFolder, FileFormat, FileSource, Pipeline, Project, Schema, Step as PipelineStep,
};
use levada_core::{Clock, ReadError, RecordBatchIn, RecordReader, SourceName};
use levada_disk::Disk;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::archive::{Archive, ArchiveError};
use crate::gzip::Bounds;
use crate::position::Position;
use crate::rows::{Column, Layout};
use crate::taking::{Step, Taking};

/// What happens to a file that comes again under its name with other content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedFile {
    /// It is read whole as a new version: the pipeline drops by key the rows it already has.
    NewVersion,
    /// It is told as a reject `file-changed`, once a version, and not read.
    Reject,
}

/// Bounds on what a file may ask of us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLimits {
    /// Longest line, row or array element.
    pub record_bytes: usize,
    /// Largest file, as it lies in the folder.
    pub file_bytes: u64,
    /// Most that a compressed file may hold.
    pub decompressed_bytes: u64,
    /// Most output for each byte of compressed input, judged once 64 MiB have come out.
    pub ratio: u64,
}

impl Default for FileLimits {
    fn default() -> Self {
        Self { record_bytes: 1 << 20, file_bytes: 1 << 30, decompressed_bytes: 64 << 30, ratio: 250 }
    }
}

/// Settings of one file source.
#[derive(Debug, Clone)]
pub struct FileReaderConfig {
    /// Also the bronze source name.
    pub pipeline: SourceName,
    pub source: FileSource,
    /// The watched folder on this machine. It need not exist yet.
    pub folder: PathBuf,
    /// What the header of a CSV file is compared with; empty: with nothing.
    pub columns: Arc<[Column]>,
    pub changed: ChangedFile,
    pub limits: FileLimits,
    /// Time between two looks at the folder. Looks at a folder of very many files are rarer.
    pub poll: Duration,
}

impl FileReaderConfig {
    /// The settings of a pipeline's source.
    pub fn new(project: &Project, pipeline: &Pipeline, source: &FileSource, data_dir: &Path) -> Self {
        let by_key = pipeline.steps.iter().any(|step| matches!(step, PipelineStep::Deduplicate(_)));
        Self {
            pipeline: pipeline.name.clone(),
            source: source.clone(),
            folder: folder(project, &source.folder, data_dir),
            columns: columns(source.format, pipeline.schema.as_ref()),
            changed: if by_key { ChangedFile::NewVersion } else { ChangedFile::Reject },
            limits: FileLimits::default(),
            poll: Duration::from_secs(1),
        }
    }

    /// How a file is read.
    pub(crate) fn layout(&self, gzip: bool, complete: bool) -> Layout {
        let limits = &self.limits;
        Layout {
            format: self.source.format,
            delimiter: self.source.delimiter,
            columns: Arc::clone(&self.columns),
            gzip,
            complete,
            record_bytes: limits.record_bytes,
            bounds: Bounds { bytes: limits.decompressed_bytes, ratio: limits.ratio },
        }
    }

    /// Names what a file must be so as not to be refused whole.
    pub(crate) fn judges_by(&self) -> u32 {
        let FileSource { format, delimiter, .. } = &self.source;
        crc32c::crc32c(format!("{format:?} {delimiter:?} {:?}", self.columns).as_bytes())
    }
}

/// The columns of a schema that a CSV file may carry: not those of the envelope, nor those that
/// lie deeper in a body.
fn columns(format: FileFormat, schema: Option<&Schema>) -> Arc<[Column]> {
    let fields = schema.filter(|_| format == FileFormat::Csv).map_or(&[][..], |schema| &schema.fields);
    let column = |field: &levada_config::model::Field| match &field.path[..] {
        [name] => Some(Column { name: name.clone(), required: field.required }),
        _ => None,
    };
    fields.iter().filter_map(column).collect()
}

/// Where a folder of the project lies on this machine.
fn folder(project: &Project, folder: &FileFolder, data_dir: &Path) -> PathBuf {
    match folder {
        FileFolder::Local(path) => project.root.join(path),
        FileFolder::Bucket { bucket, prefix } => {
            let named = project.buckets.get(bucket).map_or(Path::new(bucket), PathBuf::as_path);
            data_dir.join("buckets").join(named).join(prefix.trim_matches('/'))
        }
    }
}

/// Reads the files of one folder, each exactly once.
pub struct FileReader {
    state: State,
    archive: Arc<dyn Archive>,
    poll: Duration,
    /// After everything that `read` has returned.
    position: Value,
    backlog: u64,
}

enum State {
    Idle(Box<Taking>),
    Busy(JoinHandle<(Box<Taking>, Result<Step, ReadError>)>),
    /// The blocking half panicked.
    Lost,
}

type Job = Box<dyn FnOnce(&mut Taking) -> Result<Step, ReadError> + Send>;

impl FileReader {
    /// `dir` is the reader's own folder on `disk`, such as `connect/orders`.
    ///
    /// # Errors
    /// When the schedule is no cron expression.
    pub fn new(
        config: FileReaderConfig,
        archive: Arc<dyn Archive>,
        disk: Arc<dyn Disk>,
        dir: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ReadError> {
        let poll = config.poll;
        let taking = Taking::new(config, disk, dir, clock)?;
        Ok(Self {
            position: as_value(&taking),
            state: State::Idle(Box::new(taking)),
            archive,
            poll,
            backlog: 0,
        })
    }

    /// Runs a job, or collects the one that a cancelled call left running.
    async fn run(&mut self, job: Job) -> Result<Step, ReadError> {
        if let State::Idle(_) = self.state
            && let State::Idle(mut taking) = std::mem::replace(&mut self.state, State::Lost)
        {
            self.state = State::Busy(tokio::task::spawn_blocking(move || {
                let outcome = job(&mut taking);
                (taking, outcome)
            }));
        }
        self.collect().await.unwrap_or_else(|| Ok(Step::Idle))
    }

    /// Waits for the running job, if there is one.
    async fn collect(&mut self) -> Option<Result<Step, ReadError>> {
        let outcome = match &mut self.state {
            State::Idle(_) => return None,
            State::Busy(job) => job.await,
            State::Lost => return Some(Err(lost())),
        };
        let Ok((taking, step)) = outcome else {
            self.state = State::Lost;
            return Some(Err(lost()));
        };
        self.position = as_value(&taking);
        self.backlog = taking.backlog();
        self.state = State::Idle(taking);
        Some(step)
    }
}

#[async_trait]
impl RecordReader for FileReader {
    async fn seek(&mut self, position: Option<&Value>) -> Result<(), ReadError> {
        // What a cancelled read left running is superseded by the new position.
        let _superseded = self.collect().await;
        let position = position
            .map(|value| serde_json::from_value::<Position>(value.clone()))
            .transpose()
            .map_err(|error| ReadError {
                message: format!("not a position of a file source: {error}"),
                retryable: false,
            })?;
        let restore = move |taking: &mut Taking| taking.restore(position.as_ref()).map(|()| Step::Idle);
        self.run(Box::new(restore)).await.map(|_idle| ())
    }

    async fn read(
        &mut self,
        max_rows: usize,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<RecordBatchIn, ReadError> {
        let deadline = Instant::now() + wait;
        let next = move |taking: &mut Taking| taking.step(max_rows, max_bytes);
        let mut job: Job = Box::new(next);
        loop {
            job = match self.run(job).await? {
                Step::Batch(batch) => return Ok(batch),
                Step::Archive(name, copy) => {
                    self.archive.keep(&name, copy).await.map_err(retryable)?;
                    Box::new(move |taking| {
                        taking.archived();
                        next(taking)
                    })
                }
                Step::Fetch(name) => {
                    let content = self.archive.fetch(&name).await.map_err(retryable)?;
                    Box::new(move |taking| match taking.refill(content)? {
                        Some(batch) => Ok(Step::Batch(batch)),
                        None => next(taking),
                    })
                }
                Step::Idle => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(RecordBatchIn::default());
                    }
                    sleep(self.poll.min(left)).await;
                    Box::new(next)
                }
            };
        }
    }

    fn position(&self) -> Value {
        self.position.clone()
    }

    fn backlog(&self) -> u64 {
        self.backlog
    }
}

fn as_value(taking: &Taking) -> Value {
    serde_json::to_value(taking.position()).expect("a position is plain data")
}

fn retryable(error: ArchiveError) -> ReadError {
    ReadError { message: error.to_string(), retryable: true }
}

fn lost() -> ReadError {
    ReadError {
        message: "the file source failed inside; it must be opened anew".to_owned(),
        retryable: false,
    }
}
