//! Real servers from the system's packages, each on a free port and in a folder of its own,
//! stopped when dropped.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait::{Look, eventually};

const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// The servers that can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Redis,
    Nats,
    Sftp,
    Chromium,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Postgres, Kind::Redis, Kind::Nats, Kind::Sftp, Kind::Chromium];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Postgres => "postgres",
            Kind::Redis => "redis",
            Kind::Nats => "nats",
            Kind::Sftp => "sftp",
            Kind::Chromium => "chromium",
        }
    }

    /// The Debian package that holds it.
    pub fn package(self) -> &'static str {
        match self {
            Kind::Postgres => "postgresql",
            Kind::Redis => "redis-server",
            Kind::Nats => "nats-server",
            Kind::Sftp => "openssh-server",
            Kind::Chromium => "chromium",
        }
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Kind::Postgres => &["postgres"],
            Kind::Redis => &["valkey-server", "redis-server"],
            Kind::Nats => &["nats-server"],
            Kind::Sftp => &["sshd"],
            Kind::Chromium => &["chromium", "chromium-browser", "google-chrome"],
        }
    }

    /// The program on this machine, if it is installed.
    pub fn program(self) -> Option<PathBuf> {
        let mut folders: Vec<PathBuf> =
            std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
        folders.push("/usr/sbin".into());
        if self == Kind::Postgres {
            let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
            folders.extend(versions.map(|version| version.path().join("bin")));
        }
        let names = self.programs().iter();
        names.flat_map(|name| folders.iter().map(move |dir| dir.join(name))).find(|path| path.is_file())
    }
}

/// A running server.
#[derive(Debug)]
pub struct Service {
    pub kind: Kind,
    pub port: u16,
    /// How a client reaches it.
    pub url: String,
    pub folder: PathBuf,
    child: Child,
}

impl Service {
    /// Starts a server in a folder that must be its own.
    ///
    /// # Errors
    /// When it is not installed or does not start; the message says which package to install.
    pub fn start(kind: Kind, folder: &Path) -> Result<Self> {
        let program = kind.program().with_context(|| {
            format!("{} is not installed: apt-get install {}", kind.name(), kind.package())
        })?;
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let port = free_port()?;
        let (command, url) = match kind {
            Kind::Postgres => postgres(&program, &folder, port)?,
            Kind::Redis => redis(&program, &folder, port),
            Kind::Nats => nats(&program, &folder, port),
            Kind::Sftp => sftp(&program, &folder, port)?,
            Kind::Chromium => chromium(&program, &folder, port),
        };
        Self::spawn(kind, command, url, folder, port)
    }

    fn spawn(kind: Kind, mut command: Command, url: String, folder: PathBuf, port: u16) -> Result<Self> {
        let log = fs::File::create(folder.join("log.txt"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {}", kind.name()))?;
        let mut service = Self { kind, port, url, folder, child };
        eventually(&format!("{} accepts connections", kind.name()), STARTS_WITHIN, || {
            if let Some(status) = service.child.try_wait()? {
                let log = fs::read_to_string(service.folder.join("log.txt")).unwrap_or_default();
                bail!("{} ended with {status}: {log}", kind.name());
            }
            Ok(match TcpStream::connect(("127.0.0.1", port)) {
                Ok(_) => Look::Done(()),
                Err(error) => Look::NotYet(error.to_string()),
            })
        })?;
        Ok(service)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Whether this user is root, whom `initdb` refuses.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

fn postgres(program: &Path, folder: &Path, port: u16) -> Result<(Command, String)> {
    let data = folder.join("data");
    let as_owner = |program: &Path| {
        if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--clear-groups", "--regid=nogroup", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        }
    };
    if is_root() {
        let owned = Command::new("chown").arg("nobody:nogroup").arg(folder).status()?;
        if !owned.success() {
            bail!("cannot give {} to the user nobody", folder.display());
        }
    }
    if !data.exists() {
        let program = program.canonicalize()?;
        let output = as_owner(&program.with_file_name("initdb"))
            .args(["--auth=trust", "--username=levada", "--encoding=UTF8", "--no-sync", "-D"])
            .arg(&data)
            .current_dir(folder)
            .output()?;
        if !output.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let mut command = as_owner(program);
    command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    command.arg("-k").arg(folder).current_dir(folder);
    Ok((command, format!("postgres://levada@127.0.0.1:{port}/postgres")))
}

fn redis(program: &Path, folder: &Path, port: u16) -> (Command, String) {
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"]).arg(folder);
    (command, format!("redis://127.0.0.1:{port}"))
}

fn nats(program: &Path, folder: &Path, port: u16) -> (Command, String) {
    let mut command = Command::new(program);
    command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(folder);
    (command, format!("nats://127.0.0.1:{port}"))
}

fn sftp(program: &Path, folder: &Path, port: u16) -> Result<(Command, String)> {
    let key = folder.join("host_key");
    if !key.exists() {
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status()?;
        if !made.success() {
            bail!("ssh-keygen failed");
        }
    }
    let config = folder.join("sshd_config");
    let text = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nStrictModes no\n\
         PasswordAuthentication no\nAuthorizedKeysFile {}\nSubsystem sftp internal-sftp\n",
        key.display(),
        folder.join("authorized_keys").display()
    );
    fs::write(&config, text)?;
    let mut command = Command::new(program);
    command.args(["-D", "-e", "-f"]).arg(&config);
    Ok((command, format!("sftp://127.0.0.1:{port}")))
}

fn chromium(program: &Path, folder: &Path, port: u16) -> (Command, String) {
    let mut command = Command::new(program);
    command.args([
        "--headless=new",
        "--disable-gpu",
        "--no-first-run",
        "--no-sandbox",
        "--disable-dev-shm-usage",
    ]);
    command
        .arg(format!("--remote-debugging-port={port}"))
        .arg(format!("--user-data-dir={}", folder.display()));
    command.arg("about:blank");
    (command, format!("http://127.0.0.1:{port}"))
}
