//! The few sequences of disk operations that must not be written twice: whole-file
//! reads, atomic replacement and durable folders.

use std::io;

use crate::{Disk, DiskFile, OpenMode};

/// The folder that holds `path`; the root is `""`.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// Whether an error says that the disk, or the quota on it, is full.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Fills `buf` from a position.
///
/// # Errors
/// `UnexpectedEof` when the file ends before the buffer is full.
pub fn read_exact_at(file: &dyn DiskFile, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
    while !buf.is_empty() {
        let n = file.read_at(offset, buf)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        offset += n as u64;
        buf = &mut buf[n..];
    }
    Ok(())
}

/// The whole contents of a file.
pub fn read_all(disk: &dyn Disk, path: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let len = usize::try_from(file.len()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; len];
    read_exact_at(&*file, 0, &mut bytes)?;
    Ok(bytes)
}

/// Replaces a file so that after a crash it holds either the old or the new contents,
/// and, once this returns, the new ones. The folder must exist. Uses `<path>.tmp`, so
/// two writers of the same path must take turns.
pub fn write_atomic(disk: &dyn Disk, path: &str, bytes: &[u8]) -> io::Result<()> {
    let tmp = format!("{path}.tmp");
    match disk.remove(&tmp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let file = disk.open(&tmp, OpenMode::CreateNew)?;
        file.write_at(0, bytes)?;
        file.sync_all()
    })();
    if let Err(error) = written {
        // The half-written file must not keep space on a full disk; the first error counts.
        drop(disk.remove(&tmp));
        return Err(error);
    }
    disk.rename(&tmp, path)?;
    disk.sync_dir(parent(path))
}

/// Creates a folder and those above it, and makes each of their names durable, also of
/// those that exist: whoever created them may have been killed before the sync.
pub fn create_dir_durable(disk: &dyn Disk, path: &str) -> io::Result<()> {
    disk.create_dir_all(path)?;
    let mut dir = path;
    while !dir.is_empty() {
        dir = parent(dir);
        disk.sync_dir(dir)?;
    }
    Ok(())
}
