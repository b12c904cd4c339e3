//! The commands, one module each.

pub mod deadletters;
pub mod keys;
pub mod log;
pub mod project;
pub mod publish;
pub mod quotas;
pub mod sql;
pub mod subscriptions;
pub mod tail;
pub mod topics;
pub mod work;

use clap::CommandFactory;

/// Prints a completion script.
pub fn completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut crate::args::Cli::command(), "levada", &mut std::io::stdout());
}

/// A field of a JSON object as text for a table: strings bare, the rest as JSON.
pub fn text(value: &serde_json::Value, field: &str) -> String {
    match value.get(field) {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Array(items)) => items
            .iter()
            .map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(", "),
        Some(other) => other.to_string(),
    }
}
