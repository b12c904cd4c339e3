//! Comparisons that say what is wrong instead of ending the process.

use std::fmt::Debug;

use anyhow::{Result, ensure};
use levada_bus::port::PortError;

/// Fails unless both are equal; `what` says what they are.
pub(super) fn same<T: PartialEq + Debug>(what: &str, got: T, wanted: T) -> Result<()> {
    ensure!(got == wanted, "{what}: {got:?}, not {wanted:?}");
    Ok(())
}

/// The kinds of errors that edges turn into status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NotFound(&'static str),
    AlreadyExists(&'static str),
    InvalidArgument,
    FailedPrecondition,
    Other,
}

fn kind(error: &PortError) -> Kind {
    match error {
        PortError::NotFound { what, .. } => Kind::NotFound(what),
        PortError::AlreadyExists { what, .. } => Kind::AlreadyExists(what),
        PortError::InvalidArgument(_) | PortError::TooLarge(_) => Kind::InvalidArgument,
        PortError::FailedPrecondition(_) => Kind::FailedPrecondition,
        PortError::PermissionDenied(_)
        | PortError::ResourceExhausted(_)
        | PortError::Unavailable(_)
        | PortError::Internal(_) => Kind::Other,
    }
}

/// Fails unless the call was refused in this way, with a text for its caller.
pub(super) fn refused<T>(what: &str, result: Result<T, PortError>, wanted: Kind) -> Result<()> {
    let error = match result {
        Ok(_) => anyhow::bail!("{what}: accepted, not refused as {wanted:?}"),
        Err(error) => error,
    };
    ensure!(kind(&error) == wanted, "{what}: refused with {error:?}, not as {wanted:?}");
    ensure!(!error.to_string().is_empty(), "{what}: refused without a word");
    Ok(())
}
