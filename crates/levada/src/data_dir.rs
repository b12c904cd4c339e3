//! The data directory: made private, locked by one server, with the files that tell others
//! where the server is.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

const LOCK: &str = levada_cli::DATA_LOCK;
const RUN: &str = "run.json";
const ADMIN_KEY: &str = "admin.key";
const PUSH_KEY: &str = "push.key";

/// An open data directory. Dropping it gives up the lock and removes `run.json`.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder (mode 0700) and takes its lock.
    ///
    /// # Errors
    /// When it cannot be made, or another server holds it.
    pub fn open(root: &Path) -> Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .with_context(|| format!("cannot make the data folder {}", root.display()))?;
        let root = root.canonicalize().with_context(|| format!("cannot resolve {}", root.display()))?;
        let path = root.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                bail!(
                    "another server runs on {}: stop it, or give this one a folder with --data",
                    root.display()
                )
            }
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        Ok(Self { root, _lock: lock })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the first admin key lies.
    pub fn admin_key_path(&self) -> PathBuf {
        self.root.join(ADMIN_KEY)
    }

    /// Keeps the first admin key, readable by this user alone.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_admin_key(&self, secret: &str) -> Result<()> {
        write_private(&self.admin_key_path(), secret.as_bytes())
    }

    /// The key that tokens of pushed messages are signed with (PKCS #8), made by the first start.
    ///
    /// # Errors
    /// When the file can be neither read nor written, or no key can be made.
    pub fn push_key(&self, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let path = self.root.join(PUSH_KEY);
        match std::fs::read(&path) {
            Ok(key) => Ok(key),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = make()?;
                write_private(&path, &key)?;
                Ok(key)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Says where the server listens, once it does.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_run(&self, url: &str, postgres: Option<&str>) -> Result<()> {
        let run = json!({ "url": url, "postgres": postgres, "pid": std::process::id() });
        write_private(&self.root.join(RUN), run.to_string().as_bytes())
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.root.join(RUN));
    }
}

/// Replaces a file atomically, mode 0600.
fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let _ = std::fs::remove_file(&temporary);
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_server_a_folder_and_secrets_for_this_user_only() {
        let temp = tempfile::tempdir().expect("temporary folder");
        let root = temp.path().join("data");
        let data = DataDir::open(&root).expect("opens");
        let second = DataDir::open(&root).expect_err("is held").to_string();
        assert!(second.contains("another server runs"), "{second}");
        data.write_admin_key("secret").expect("written");
        data.write_run("http://127.0.0.1:1", None).expect("written");
        let mode = |p: &Path| std::fs::metadata(p).expect("exists").permissions().mode() & 0o777;
        let key = data.push_key(|| Ok(vec![1, 2, 3])).expect("made");
        assert_eq!(data.push_key(|| bail!("there is one")).expect("kept"), key);
        assert_eq!(mode(&root.join(PUSH_KEY)), 0o600);
        assert_eq!(mode(&data.admin_key_path()), 0o600);
        assert_eq!(mode(&root), 0o700);
        drop(data);
        assert!(!root.join(RUN).exists(), "a stopped server is not announced");
        DataDir::open(&root).expect("free again");
    }
}
