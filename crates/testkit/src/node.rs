//! Google's Pub/Sub client for Node, installed once in a folder under the target directory.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::program::workspace;

const PACKAGE: &str = "@google-cloud/pubsub@5";

static MAKING: Mutex<()> = Mutex::new(());

/// The folder of modules, for `NODE_PATH`.
///
/// # Errors
/// When there is no npm, or the package cannot be installed; the message says what to do.
pub fn modules() -> Result<PathBuf> {
    let home = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => workspace().join("target"),
    }
    .join("node");
    let modules = home.join("node_modules");
    // Poisoning only means that another test failed to make it: try again.
    let _making = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if modules.join("@google-cloud/pubsub/package.json").is_file() {
        return Ok(modules);
    }
    std::fs::create_dir_all(&home)?;
    let made = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save", "--prefix"])
        .arg(&home)
        .arg(PACKAGE)
        .stdin(Stdio::null())
        .output()
        .context("npm is not installed: apt-get install nodejs npm")?;
    if !made.status.success() {
        bail!("npm install {PACKAGE}: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(modules)
}
