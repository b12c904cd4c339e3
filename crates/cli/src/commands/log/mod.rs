//! `levada log verify`: the message log of a stopped server, checked without opening it.

mod report;
#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use levada_disk::RealDisk;
use levada_log::{VerifyReport, verify};

use crate::args::{LogArgs, LogCommand};
use crate::output::{Failure, Output, exit};

/// The log's folder in a data folder.
const LOG: &str = "log";

pub fn log(output: &Output, args: LogArgs) -> Result<(), Failure> {
    match args.command {
        LogCommand::Verify { dir } => {
            let (folder, found) = check(output, &dir)?;
            if output.json {
                output.value(&report::json(&folder, &found));
            } else {
                report::print(output, &folder, &found);
            }
            if found.is_clean() { Ok(()) } else { Err(Failure::silent(exit::FAILED)) }
        }
    }
}

/// Nothing was checked: neither clean nor damaged.
fn unchecked(message: String) -> Failure {
    Failure::new(exit::USAGE, message)
}

/// Verifies the log that is meant by a folder; answers where it lies too.
fn check(output: &Output, dir: &Path) -> Result<(PathBuf, VerifyReport), Failure> {
    let folder = find(dir)?;
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name().and_then(|n| n.to_str())) else {
        return Err(unchecked(format!("{} cannot be a log's folder", folder.display())));
    };
    // Held to the end, so that no server starts on what is being read.
    let _lock = lock(parent)?;
    let cannot = |error: &dyn std::fmt::Display| unchecked(format!("{}: {error}", folder.display()));
    let disk = RealDisk::new(parent).map_err(|e| cannot(&e))?;
    let bar = output.byte_bar(0, "verified");
    let mut tell = |progress: levada_log::Progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
    };
    let found = verify(&disk, name, &mut tell).map_err(|e| cannot(&e))?;
    bar.finish_and_clear();
    Ok((folder, found))
}

/// The log's folder, absolute: the one below a data folder, or the one that was named.
fn find(dir: &Path) -> Result<PathBuf, Failure> {
    let is_log = |dir: &Path| {
        dir.join("commit").is_dir() && (dir.join("registry").is_file() || dir.join("topics").is_dir())
    };
    let dir = dir.canonicalize().map_err(|e| unchecked(format!("{}: {e}", dir.display())))?;
    for folder in [dir.join(LOG), dir.clone()] {
        if is_log(&folder) {
            return Ok(folder);
        }
    }
    let failure = unchecked(format!("there is no log in {}", dir.display()));
    let data = crate::client::data_dir(&dir);
    Err(if is_log(&data.join(LOG)) {
        failure.hint(format!("this project's data folder is {}", data.display()))
    } else {
        failure.hint("name a data folder (by default `.levada` in the project's folder) or its `log`")
    })
}

/// Takes the data folder's lock, as a server does; `None` where no server ever ran, as in a
/// copy of a log.
fn lock(data: &Path) -> Result<Option<File>, Failure> {
    let path = data.join(crate::DATA_LOCK);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unchecked(format!("cannot open {}: {error}", path.display()))),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(unchecked(format!("a server runs on {}", data.display())).hint(
            "stop it, or verify a copy; while it runs it checks its old messages by itself \
                 (metric levada_log_damaged_ranges_total)",
        )),
        Err(TryLockError::Error(error)) => Err(unchecked(format!("cannot lock {}: {error}", path.display()))),
    }
}
