//! A Python environment with what people really use: psycopg, Google's Pub/Sub client, and the
//! messages of OpenTelemetry.
//!
//! It is made once in a folder under the target directory and kept.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::program::workspace;

const PACKAGES: [&str; 9] = [
    "psycopg[binary]==3.3.*",
    "google-cloud-pubsub==2.*",
    "opentelemetry-proto==1.*",
    // What the system tests of Google's client are written with.
    "google-cloud-testutils==1.*",
    "pytest==9.*",
    "pytest-xdist==3.*",
    "flaky==3.*",
    "psutil==7.*",
    "mock==5.*",
];
const IMPORTS: &str = "import psycopg, google.cloud.pubsub_v1, opentelemetry.proto.trace.v1.trace_pb2
import test_utils, pytest, xdist, flaky, psutil, mock";

static MAKING: Mutex<()> = Mutex::new(());

/// The interpreter of the environment, made when it is not there.
///
/// # Errors
/// When Python or the packages cannot be had.
pub fn interpreter() -> Result<PathBuf> {
    let home = std::env::var_os("LEVADA_VENV").map_or_else(|| workspace().join("target/venv"), PathBuf::from);
    let python = home.join("bin/python");
    // Poisoning only means that another test failed to make it: try again.
    let _making = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if has_packages(&python) {
        return Ok(python);
    }
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(&home)
        .output()
        .context("python3 is not installed")?;
    if !made.status.success() {
        bail!("python3 -m venv: {}", String::from_utf8_lossy(&made.stderr));
    }
    let got = Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(PACKAGES)
        .output()?;
    if !got.status.success() {
        bail!("pip install: {}", String::from_utf8_lossy(&got.stderr));
    }
    Ok(python)
}

fn has_packages(python: &Path) -> bool {
    let found = Command::new(python).args(["-c", IMPORTS]).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// Runs a script; what it prints last, as JSON.
///
/// # Errors
/// When it fails; the message holds what it wrote to standard error.
pub fn run(script: &str, args: &[&str]) -> Result<Value> {
    let output =
        Command::new(interpreter()?).arg("-c").arg(script).args(args).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("the script failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout)?;
    let last = text.lines().last().unwrap_or("null");
    serde_json::from_str(last).with_context(|| format!("not JSON: {last}"))
}
