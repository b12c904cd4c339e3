//! The built `levada` binary, run as a user runs it: a process with a project and a data folder.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::{Answer, Connection, Request};
use crate::wait::{Look, eventually};

/// How to run it.
#[derive(Debug, Clone)]
pub struct Options {
    pub project: PathBuf,
    pub data: PathBuf,
    /// The PostgreSQL door on a free port, or off.
    pub postgres: bool,
    /// More arguments for `up`.
    pub args: Vec<OsString>,
    pub env: Vec<(String, String)>,
    /// It must be ready within this time.
    pub ready_within: Duration,
}

impl Options {
    pub fn new(project: &Path, data: &Path) -> Self {
        Self {
            project: project.to_owned(),
            data: data.to_owned(),
            postgres: true,
            args: Vec::new(),
            env: Vec::new(),
            ready_within: Duration::from_secs(60),
        }
    }
}

/// Where the binary lies: `LEVADA_BIN`, or beside the running executable's folder.
///
/// # Errors
/// When it has not been built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LEVADA_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).map(|dir| dir.join("levada")).find(|path| path.is_file());
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).unwrap_or_else(workspace_target);
    let built =
        [target.join("release/levada"), target.join("debug/levada")].into_iter().find(|path| path.is_file());
    built.or(beside).context("the levada binary is not built: run `cargo build --release`")
}

fn workspace_target() -> PathBuf {
    workspace().join("target")
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs the binary to its end, as for `levada check`.
///
/// # Errors
/// When it cannot be started.
pub fn run(args: &[&str]) -> Result<std::process::Output> {
    let output = Command::new(binary()?).args(args).env("NO_COLOR", "1").stdin(Stdio::null()).output()?;
    Ok(output)
}

/// A running server. Dropping it kills its whole process group.
#[derive(Debug)]
pub struct Levada {
    child: Child,
    ended: Option<ExitStatus>,
    pub data: PathBuf,
    /// `host:port` of the gateway.
    pub http: String,
    /// `host:port` of the PostgreSQL door.
    pub postgres: Option<String>,
    log: PathBuf,
}

impl Levada {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time; the message holds the end of its log.
    pub fn start(options: &Options) -> Result<Self> {
        let mut levada = Self::spawn(options)?;
        match levada.await_ready(options.ready_within) {
            Ok(()) => Ok(levada),
            Err(error) => {
                let log = levada.log_tail();
                Err(error.context(format!("levada did not become ready; the end of its log:\n{log}")))
            }
        }
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn spawn(options: &Options) -> Result<Self> {
        fs::create_dir_all(&options.data)?;
        // What an earlier life left behind must not be taken for this one's.
        let _ = fs::remove_file(options.data.join("run.json"));
        let log = options.data.with_extension("levada.log");
        let out = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(binary()?);
        command
            .arg("up")
            .arg(&options.project)
            .arg("--data")
            .arg(&options.data)
            .args([
                "--listen",
                "127.0.0.1:0",
                "--postgres",
                if options.postgres { "127.0.0.1:0" } else { "off" },
            ])
            .args(&options.args)
            .envs(options.env.iter().map(|(k, v)| (k, v)))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0);
        let child = command.spawn().context("cannot start levada")?;
        Ok(Self { child, ended: None, data: options.data.clone(), http: String::new(), postgres: None, log })
    }

    /// Waits until it says where it listens and `/readyz` answers 200.
    ///
    /// # Errors
    /// When it ends or the time is over.
    pub fn await_ready(&mut self, within: Duration) -> Result<()> {
        let run = self.data.join("run.json");
        let run: Value = eventually("run.json", within, || {
            self.check_alive()?;
            let text = fs::read(&run).unwrap_or_default();
            Ok(match serde_json::from_slice(&text) {
                Ok(value) => Look::Done(value),
                Err(_) => Look::NotYet("no run.json".to_owned()),
            })
        })?;
        let url = run["url"].as_str().context("run.json has no url")?;
        self.http = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        self.postgres = run["postgres"].as_str().map(str::to_owned);
        eventually("/readyz answers 200", within, || {
            self.check_alive()?;
            Ok(match Connection::open(&self.http).and_then(|mut c| c.send(&Request::get("/readyz"))) {
                Ok(answer) if answer.status == 200 => Look::Done(()),
                Ok(answer) => Look::NotYet(format!("{} {}", answer.status, answer.text())),
                Err(error) => Look::NotYet(error.to_string()),
            })
        })
    }

    fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            self.ended = Some(status);
            bail!("levada ended with {status}");
        }
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first admin key, which the server laid down once.
    ///
    /// # Errors
    /// When the file is not there.
    pub fn admin_key(&self) -> Result<String> {
        let path = self.data.join("admin.key");
        let text =
            fs::read_to_string(&path).with_context(|| format!("no admin key at {}", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// Sends one request on a fresh connection.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn send(&self, request: &Request) -> Result<Answer> {
        Connection::open(&self.http)?.send(request)
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// Processor time that it took so far, to a hundredth of a second.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name, in parentheses, may hold spaces. What follows it begins with field 3.
        let (_, fields) = stat.rsplit_once(") ").context("no fields")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// SIGKILL to the whole group, as a crash of the process would be.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            self.signal("KILL");
            self.ended = self.child.wait().ok();
        }
    }

    /// SIGTERM, then waits for the drain to end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal("TERM");
        let status = eventually("levada ends after SIGTERM", within, || {
            Ok(match self.child.try_wait()? {
                Some(status) => Look::Done(status),
                None => Look::NotYet("still running".to_owned()),
            })
        })?;
        self.ended = Some(status);
        Ok(status)
    }

    fn signal(&self, name: &str) {
        // The group has the child's id, which stays taken until the child is waited for.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-s", name, "--", &group]).stderr(Stdio::null()).status();
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Levada {
    fn drop(&mut self) {
        self.kill();
    }
}
