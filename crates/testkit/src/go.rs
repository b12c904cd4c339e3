//! Programs in Go with Google's Pub/Sub client, as Debian packages both.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::program::workspace;

/// Where Debian puts the sources of Go libraries.
const SOURCES: &str = "/usr/share/gocode";
const CLIENT: &str = "src/cloud.google.com/go/pubsub";

static BUILDING: Mutex<()> = Mutex::new(());

/// Builds a program of one file; where the binary lies.
///
/// # Errors
/// When Go or the client is not installed, or the program does not compile; the message says what
/// to do.
pub fn build(source: &Path) -> Result<PathBuf> {
    if !Path::new(SOURCES).join(CLIENT).is_dir() {
        bail!("Google's client for Go is not installed: apt-get install golang-go golang-google-cloud-dev");
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let home = std::path::absolute(target.join("go"))?;
    let program = home.join(source.file_stem().context("a program has a name")?);
    // Poisoned only means that another test failed to build it: try again.
    let _building = BUILDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(source)
        .envs([("GO111MODULE", "off"), ("GOFLAGS", ""), ("GOPATH", SOURCES)])
        .env("GOCACHE", home.join("cache"))
        .stdin(Stdio::null())
        .output()
        .context("go is not installed: apt-get install golang-go")?;
    if !built.status.success() {
        bail!("go build {}: {}", source.display(), String::from_utf8_lossy(&built.stderr));
    }
    Ok(program)
}
