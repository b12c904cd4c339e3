//! One run of the user's program: messages in, verdicts out, never longer than its time.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio::sync::watch;

use super::verdict::{End, Finished, Verdict, parse};

/// Bytes of a line of output; the rest of a longer one is dropped.
const LINE_BYTES: usize = 64 << 10;

/// Between asking a program to end and ending it.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// How long output is read after the program has ended, while a process that it left behind
/// still holds the pipe.
const AFTER_END: Duration = Duration::from_secs(1);

/// How far the worker has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Running,
    /// Nothing new is pulled; what runs may finish.
    Draining,
    /// What runs is ended.
    Stopping,
}

/// The command that is run for each batch.
#[derive(Debug, Clone)]
pub struct Program {
    pub command: Vec<OsString>,
    pub timeout: Duration,
    pub environment: Vec<(&'static str, String)>,
}

#[derive(Default)]
struct Heard {
    verdicts: HashMap<String, Verdict>,
    last_error: Option<String>,
}

impl Program {
    /// Runs the program on `input`. `ids` are the messages that it may judge; `talk` gets the
    /// lines that are no verdicts. Ends the program, and what it started, when its time is
    /// over or when the stage becomes [`Stage::Stopping`].
    pub async fn run(
        &self,
        input: Vec<u8>,
        ids: &HashSet<String>,
        mut stage: watch::Receiver<Stage>,
        talk: &(dyn Fn(&str) + Send + Sync),
    ) -> Finished {
        let mut child = match self.spawn() {
            Ok(child) => child,
            Err(error) => {
                let end = End::NotStarted(error.to_string());
                return Finished { end, verdicts: HashMap::new(), last_error: None };
            }
        };
        let heard = Mutex::new(Heard::default());
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A program need not read; what it says counts, not what it read.
                let _ = stdin.write_all(&input).await;
                let _ = stdin.shutdown().await;
            }
        };
        let out = lines(stdout, |line| match parse(line) {
            Some((id, verdict)) if ids.contains(&id) => {
                lock(&heard).verdicts.insert(id, verdict);
            }
            Some((id, _)) => {
                talk(&format!("the program judged message {}, which it was not given", short(&id)))
            }
            None => talk(&String::from_utf8_lossy(line)),
        });
        let err = lines(stderr, |line| {
            let line = String::from_utf8_lossy(line);
            talk(&line);
            if !line.trim().is_empty() {
                lock(&heard).last_error = Some(line.trim().to_owned());
            }
        });
        let io = async {
            tokio::join!(feed, out, err);
        };
        tokio::pin!(io);
        let mut io_is_over = false;
        let deadline = tokio::time::sleep(self.timeout);
        tokio::pin!(deadline);
        let end = loop {
            tokio::select! {
                status = child.wait() => break ended(status),
                () = &mut io, if !io_is_over => io_is_over = true,
                () = &mut deadline => break End::TimedOut,
                _ = stage.wait_for(|stage| *stage >= Stage::Stopping) => break End::Stopped,
            }
        };
        if matches!(end, End::TimedOut | End::Stopped) {
            let over = terminate(&mut child);
            tokio::pin!(over);
            loop {
                tokio::select! {
                    () = &mut over => break,
                    () = &mut io, if !io_is_over => io_is_over = true,
                }
            }
        }
        if !io_is_over {
            let _ = tokio::time::timeout(AFTER_END, io).await;
        }
        let Heard { verdicts, last_error } = std::mem::take(&mut *lock(&heard));
        Finished { end, verdicts, last_error }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let [program, args @ ..] = self.command.as_slice() else {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "no command is given"));
        };
        let mut command = std::process::Command::new(program);
        command
            .args(args)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C at the terminal is for the worker, which lets the
            // program finish; and what the program started can be ended with it.
            .process_group(0);
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true).spawn()
    }

    /// Whether the command can be found, so that a typing error does not cost deliveries.
    pub fn find(&self) -> Result<(), String> {
        let Some(program) = self.command.first() else { return Err("no command is given".to_owned()) };
        let path = Path::new(program);
        let found = if path.components().count() > 1 {
            path.is_file()
        } else {
            let paths = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&paths).any(|dir| dir.join(path).is_file())
        };
        if found { Ok(()) } else { Err(format!("there is no program `{}`", path.display())) }
    }
}

fn lock(heard: &Mutex<Heard>) -> std::sync::MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

fn ended(status: std::io::Result<ExitStatus>) -> End {
    match status {
        Ok(status) => match status.code() {
            Some(code) => End::Code(code),
            None => End::Signal(status.signal().unwrap_or(0)),
        },
        Err(error) => End::NotStarted(error.to_string()),
    }
}

/// Ends a program and its group: asks first, then insists.
async fn terminate(child: &mut Child) {
    let group = child.id();
    signal(group, "TERM").await;
    if tokio::time::timeout(TERM_GRACE, child.wait()).await.is_err() {
        signal(group, "KILL").await;
        // Also when there is no shell to send the signal: at least the program itself ends.
        let _ = child.kill().await;
    }
}

/// Sends a signal to a process group. The standard library has no safe call for that; a
/// shell has.
async fn signal(group: Option<u32>, name: &str) {
    let Some(group) = group else { return };
    let mut command = tokio::process::Command::new("/bin/sh");
    command.args(["-c", "kill -s \"$1\" -- \"-$2\"", "sh", name, &group.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    if let Ok(mut sender) = command.spawn() {
        let _ = tokio::time::timeout(TERM_GRACE, sender.wait()).await;
    }
}

/// Calls `each` with every line until the end.
async fn lines(reader: Option<impl AsyncRead + Unpin>, mut each: impl FnMut(&[u8])) {
    let Some(reader) = reader else { return };
    let mut reader = BufReader::with_capacity(16 << 10, reader);
    let mut line = Vec::new();
    loop {
        let (consumed, is_whole) = match reader.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(chunk) => {
                let end = chunk.iter().position(|byte| *byte == b'\n');
                let part = &chunk[..end.unwrap_or(chunk.len())];
                line.extend_from_slice(&part[..part.len().min(LINE_BYTES - line.len())]);
                (part.len() + usize::from(end.is_some()), end.is_some())
            }
        };
        reader.consume(consumed);
        if is_whole {
            each(&line);
            line.clear();
        }
    }
    if !line.is_empty() {
        each(&line);
    }
}
