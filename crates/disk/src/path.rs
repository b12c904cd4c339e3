//! The rule for paths, in one place, so that no caller can reach outside a disk's root.

use std::io;

/// Checks that a path is relative and cannot climb.
///
/// # Errors
/// `InvalidInput` when a part is empty, `.` or `..`, or holds a NUL or a backslash.
pub fn check_path(path: &str) -> io::Result<()> {
    let bad = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(['\0', '\\']);
    if !path.is_empty() && path.split('/').any(bad) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{path}` is not a relative path without empty, '.' or '..' parts"),
        ));
    }
    Ok(())
}
