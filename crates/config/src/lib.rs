//! The project folder: parsed to a tree with positions, cross-checked, diagnosed.
//!
//! [`load`] reads a folder and gives the checked [`model::Project`] that every engine runs
//! from, and all findings of the folder at once. Two dialects are read:
//!
//! - **Levada's own files** (`levada.yaml`, pipelines that begin with `pipeline:`, models):
//!   an unknown field, a wrong type or a dangling reference is an error.
//! - **Connectors** (files with `source_id:`), written as the platform document prints
//!   them: an unknown field is a warning with a "did you mean", and a step that needs
//!   something the project lacks waits while the rest runs.
//!
//! A file's first-level fields tell its dialect, not its folder. Start reading at `load`;
//! `fields` is how every file is read, `cross` what is checked between files.

mod claims;
mod codes;
mod columns;
mod connector;
mod cross;
mod diagnostic;
mod draft;
mod enrich;
mod field_types;
mod fields;
mod folder;
mod gold;
mod load;
pub mod model;
mod model_file;
mod parsed_only;
mod pipeline;
mod places;
mod quantity;
mod report;
mod schema;
mod secrets;
mod server;
mod source;
mod sql;
mod starter;
mod steps;
mod suggest;
#[cfg(test)]
mod tests;
mod tree;
mod url;
mod world;

pub use codes::{ALL as CODES, Code};
pub use diagnostic::{Diagnostic, Severity, Style, render_all};
pub use load::{Loaded, data_dir, load, load_with};
pub use model::Project;
pub use places::{Place, Places, Refused};
pub use report::{Part, Report};
pub use secrets::{SECRETS_FILE, SecretValue, Secrets, SecretsError};
pub use starter::starter;
pub use url::Environment;
