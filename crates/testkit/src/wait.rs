//! Waiting for something that another process does: look, and look again, until a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls `look` until it yields a value. An error of `look` ends the wait at once.
///
/// # Errors
/// What `look` returned, or that the time is over, with the last thing it said about the state.
pub fn eventually<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let state = match look()? {
            Look::Done(value) => return Ok(value),
            Look::NotYet(state) => state,
        };
        if Instant::now() >= deadline {
            bail!("not within {timeout:?}: {what}; last seen: {state}");
        }
        std::thread::sleep(PAUSE);
    }
}

/// What one look found.
#[derive(Debug)]
pub enum Look<T> {
    Done(T),
    /// Not yet; the text says what is instead.
    NotYet(String),
}
