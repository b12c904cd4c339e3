//! What happens around every request, one concern a file.

pub mod context;
pub mod frame;
pub mod guard;
pub mod limit;
pub mod sign_ins;
pub mod site;
