//! Google's emulator of Pub/Sub, as its package installs it: a jar that Java runs.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use levada_testkit::{Connection, Request};

const FOLDER: &str = "/usr/lib/google-cloud-sdk/platform/pubsub-emulator/lib";
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The jar of the package; `None`: it is not installed.
pub fn installed() -> Option<PathBuf> {
    let files = std::fs::read_dir(FOLDER).ok()?;
    let mut jars: Vec<PathBuf> = files.filter_map(|file| Some(file.ok()?.path())).collect();
    jars.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("cloud-pubsub-emulator") && name.ends_with(".jar")
    });
    jars.sort();
    jars.pop()
}

/// A running emulator. Dropping it kills it.
pub struct Emulator {
    child: Child,
    pub address: String,
}

impl Emulator {
    /// Starts it on a free port and waits until it answers.
    ///
    /// # Errors
    /// When there is no Java, or it does not answer in time.
    pub fn start(jar: &Path, folder: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = File::create(folder.join("emulator.log"))?;
        let child = Command::new("java")
            .arg("-jar")
            .arg(jar)
            .args(["--host=127.0.0.1", &format!("--port={port}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("the emulator needs Java (package default-jre-headless)")?;
        let mut emulator = Self { child, address: format!("127.0.0.1:{port}") };
        emulator.await_ready()?;
        Ok(emulator)
    }

    fn await_ready(&mut self) -> Result<()> {
        let until = Instant::now() + READY_WITHIN;
        let ask = Request::get("/v1/projects/compare/topics");
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                bail!("the emulator ended: {status}");
            }
            let second = Duration::from_secs(1);
            let answer = Connection::open_within(&self.address, second).and_then(|mut it| it.send(&ask));
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the emulator did not answer within {} s", READY_WITHIN.as_secs())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
