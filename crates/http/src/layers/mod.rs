//! What happens around every request, one concern a file.

pub mod context;
pub mod frame;
pub mod guard;
pub mod limit;
