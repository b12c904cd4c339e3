//! The projects under `solutions/` run, by the tests that they bring along.

use std::process::Command;

use anyhow::{Result, ensure};
use levada_testkit::program;

use crate::world;

#[test]
fn tenant_events_are_handled_once_by_the_right_worker() -> Result<()> {
    world::build()?;
    let script = program::workspace().join("solutions/tenant-events/test.sh");
    let output = Command::new(script).env("LEVADA", program::binary()?).output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}\n{err}");
    Ok(())
}
