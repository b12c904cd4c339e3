//! An object store over [`Disk`] that has fsynced data and directories when it answers.
//!
//! object_store's own local adapter never fsyncs, so an acknowledged object could vanish
//! with the power. Here an object is written to a temporary file, synced, given its name
//! (link for create-only, rename for overwrite) and its directory synced; only then does
//! the call return. Every directory on the way down is synced into its parent once.
//!
//! A failed fsync poisons the store: what the operating system dropped cannot be asked
//! for again, so nothing more is written until a restart reads what is really there.

mod operations;
mod sums;
mod upload;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use levada_disk::{Disk, DiskFile};
use object_store::path::Path;
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, RenameTargetMode, Result,
};
use parking_lot::{Mutex, RwLock};

use crate::blocks::{BLOCK_BYTES, Blocks};

pub(crate) use sums::is_log;

/// Where unfinished objects lie, relative to the store's directory. Emptied at open.
const TEMPORARY: &str = ".tmp";
/// Directories known to be durable; forgotten beyond this, which only costs fsyncs.
const KNOWN_DIRS: usize = 100_000;

/// See the module's description. Cheap to clone.
#[derive(Clone)]
pub struct DiskStore {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    disk: Arc<dyn Disk>,
    dir: String,
    /// The simulated disk works inline, so that a seed replays the order of operations.
    blocking: bool,
    next_temporary: AtomicU64,
    durable_dirs: Mutex<HashSet<String>>,
    poisoned: AtomicBool,
    /// Checksums of the objects that have them: every read of one is compared.
    blocks: RwLock<HashMap<Path, Arc<Blocks>>>,
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskStore({})", self.inner.dir)
    }
}

impl fmt::Display for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskStore({})", self.inner.dir)
    }
}

impl DiskStore {
    /// Opens the store in `dir` of the disk and removes what unfinished writes left.
    ///
    /// # Errors
    /// When the directory can be neither read nor created.
    pub fn open(disk: Arc<dyn Disk>, dir: &str) -> io::Result<Self> {
        let blocking = disk.local_path(dir).is_some();
        let inner = Inner {
            disk,
            dir: dir.trim_matches('/').to_owned(),
            blocking,
            next_temporary: AtomicU64::new(0),
            durable_dirs: Mutex::default(),
            poisoned: AtomicBool::new(false),
            blocks: RwLock::default(),
        };
        inner.ensure_dir(&inner.full(TEMPORARY))?;
        inner.clear_temporary()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// From now on reads of these objects are compared with their checksums. An object loses them
    /// when it is removed or replaced.
    pub(crate) fn expect(&self, objects: impl IntoIterator<Item = (Path, Arc<Blocks>)>) {
        self.inner.blocks.write().extend(objects);
    }

    /// Compares up to `most` blocks of an object with its checksums; answers where to go on.
    ///
    /// # Errors
    /// `NotFound`, and `Generic` with the text of [`Blocks::check`].
    pub(crate) async fn verify(
        &self,
        location: &Path,
        blocks: &Arc<Blocks>,
        start: u64,
        most: u64,
    ) -> Result<Option<u64>> {
        let (at, blocks) = (location.clone(), Arc::clone(blocks));
        self.run(location, move |inner| inner.verify(&at, &blocks, start, most)).await
    }

    /// Keeps a copy of an open file under a name that is not taken.
    ///
    /// # Errors
    /// `AlreadyExists` where it is, and IO errors.
    pub(crate) async fn put_file(&self, location: &Path, content: Arc<dyn DiskFile>) -> Result<()> {
        let at = location.clone();
        self.run(location, move |inner| inner.put_file(&at, &*content)).await
    }

    /// Whether an object holds exactly the bytes of a file.
    ///
    /// # Errors
    /// When one of the two cannot be read.
    pub(crate) async fn equals(&self, location: &Path, content: Arc<dyn DiskFile>) -> Result<bool> {
        let at = location.clone();
        self.run(location, move |inner| inner.equals(&at, &*content)).await
    }

    /// Length and XXH3 of an object, of which only a block at a time is in memory.
    ///
    /// # Errors
    /// `NotFound`, and IO errors.
    pub(crate) async fn digest(&self, location: &Path) -> Result<(u64, u64)> {
        let at = location.clone();
        self.run(location, move |inner| inner.digest(&at)).await
    }

    /// Compares a file of a table's log with its checksums, where it has them. Answers its blocks.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub(crate) async fn verify_log(&self, location: &Path) -> Result<u64> {
        let at = location.clone();
        self.run(location, move |inner| inner.verify_log(&at)).await
    }

    /// Makes sure that the entries of a directory survive a power cut. A reader that acts
    /// on what it finds there calls this first: an earlier process may have been killed
    /// between naming an object and syncing the name.
    pub(crate) async fn settle(&self, dir: &str) -> Result<()> {
        let full = self.inner.full(dir);
        let at = Path::from(dir);
        self.run(&at, move |inner| match inner.sync_dir(&full) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        })
        .await
    }

    /// Runs disk work: off the async threads on a real disk, in place on a simulated one.
    async fn run<T, F>(&self, location: &Path, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    {
        let result = if self.inner.blocking {
            let inner = Arc::clone(&self.inner);
            match tokio::task::spawn_blocking(move || work(&inner)).await {
                Ok(result) => result,
                Err(error) => Err(io::Error::other(error)),
            }
        } else {
            work(&self.inner)
        };
        result.map_err(|error| convert(location, error))
    }
}

fn convert(location: &Path, error: io::Error) -> Error {
    let path = location.to_string();
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path, source: error.into() },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: error.into() },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: error.into() },
        _ => Error::Generic {
            store: "DiskStore",
            source: io::Error::new(error.kind(), format!("{path}: {error}")).into(),
        },
    }
}

#[async_trait]
impl ObjectStore for DiskStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Overwrite => false,
            PutMode::Create => true,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "put_opts with PutMode::Update".into(),
                    implementer: "DiskStore".into(),
                });
            }
        };
        let to = location.clone();
        let meta = self
            .run(location, move |inner| {
                inner.put(&to, payload.iter(), create)?;
                inner.meta(&to)
            })
            .await?;
        Ok(PutResult { e_tag: meta.e_tag, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(upload::Upload::start(self.clone(), location.clone()).await?))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let at = location.clone();
        let meta = self.run(location, move |inner| inner.meta(&at)).await?;
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => range
                .as_range(meta.size)
                .map_err(|error| Error::Generic { store: "DiskStore", source: Box::new(error) })?,
            None => 0..meta.size,
        };
        let payload =
            if options.head { stream::empty().boxed() } else { self.stream(location.clone(), range.clone()) };
        Ok(GetResult {
            payload: GetResultPayload::Stream(payload),
            meta,
            range,
            attributes: Attributes::default(),
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let at = location.clone();
        let ranges = ranges.to_vec();
        self.run(location, move |inner| inner.read_ranges(&at, &ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        // One directory sync serves all that waits, so that a sweep of a thousand files is not a thousand syncs.
        locations
            .ready_chunks(256)
            .then(move |chunk| {
                let store = store.clone();
                async move { store.delete_chunk(chunk).await }
            })
            .flat_map(stream::iter)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_after(prefix.cloned().unwrap_or_default(), None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_after(prefix.cloned().unwrap_or_default(), Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        let at = prefix.clone();
        self.run(&prefix, move |inner| inner.list_level(&at)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (source, target) = (from.clone(), to.clone());
        let create = options.mode == CopyMode::Create;
        self.run(if create { to } else { from }, move |inner| inner.copy(&source, &target, create)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let (source, target) = (from.clone(), to.clone());
        let create = options.target_mode == RenameTargetMode::Create;
        self.run(if create { to } else { from }, move |inner| inner.rename(&source, &target, create)).await
    }
}

impl DiskStore {
    fn stream(&self, location: Path, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
        let store = self.clone();
        stream::try_unfold(range, move |rest| {
            let (store, location) = (store.clone(), location.clone());
            async move {
                if rest.is_empty() {
                    return Ok(None);
                }
                // To the end of a block, so that none is read twice to compare its checksum.
                let next = rest.start..rest.end.min((rest.start / BLOCK_BYTES + 1) * BLOCK_BYTES);
                let after = next.end..rest.end;
                let at = location.clone();
                let bytes = store.run(&location, move |inner| inner.read(&at, next)).await?;
                Ok(Some((bytes, after)))
            }
        })
        .boxed()
    }

    fn list_after(&self, prefix: Path, offset: Option<Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        stream::once(async move {
            let at = prefix.clone();
            store.run(&prefix, move |inner| inner.list_all(&at, offset.as_ref())).await
        })
        .flat_map(|result| match result {
            Ok(found) => stream::iter(found.into_iter().map(Ok)).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        })
        .boxed()
    }

    async fn delete_chunk(&self, chunk: Vec<Result<Path>>) -> Vec<Result<Path>> {
        let (paths, mut results): (Vec<_>, Vec<_>) = chunk.into_iter().partition(Result::is_ok);
        let paths: Vec<Path> = paths.into_iter().flatten().collect();
        let root = Path::default();
        match self.run(&root, move |inner| Ok(inner.remove_all(paths))).await {
            Ok(removed) => results.extend(
                removed.into_iter().map(|(path, done)| done.map_err(|e| convert(&path, e)).map(|()| path)),
            ),
            Err(error) => results.push(Err(error)),
        }
        results
    }
}

#[cfg(test)]
mod tests;
