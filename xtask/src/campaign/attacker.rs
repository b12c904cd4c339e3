//! The process of the attacker.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::attacks::{self, Answers, Order};

/// An attacker at work. Killed when it is dropped.
pub struct Attacker(Child);

impl Attacker {
    /// # Errors
    /// When there is no `nice`, or the process does not start.
    pub fn start(order: &Order) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut child = Command::new("nice")
            .args(["-n", "19"])
            .arg(program)
            .args(["campaign", "attacks", "--attack"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the attacker by `nice`")?;
        let mut orders = child.stdin.take().context("no standard input")?;
        orders.write_all(&serde_json::to_vec(order)?)?;
        Ok(Self(child))
    }

    /// Waits for its end. What it was answered.
    ///
    /// # Errors
    /// When it failed.
    pub fn said(mut self) -> Result<Answers> {
        let out = self.0.stdout.take().context("no standard output")?;
        let said = io::read_to_string(out)?;
        let status = self.0.wait()?;
        ensure!(status.success(), "the attacker ended with {status}");
        Ok(serde_json::from_str(&said)?)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the process of an attacker does.
pub fn obey() -> Result<()> {
    let order: Order = serde_json::from_str(&io::read_to_string(io::stdin())?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let said = runtime.block_on(attacks::carry_out(order))?;
    println!("{}", serde_json::to_string(&said)?);
    // What it holds open is cut with the process.
    std::process::exit(0)
}
