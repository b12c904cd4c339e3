//! Logs to standard error: text for a person, JSON lines for a machine.

use std::io::IsTerminal;

use levada_cli::LogFormat;
use tracing_subscriber::EnvFilter;

/// Installs the subscriber. `LEVADA_LOG` filters, as in `info,levada_flow=debug`.
pub fn init(format: LogFormat, default_filter: &str) {
    let filter = EnvFilter::try_from_env("LEVADA_LOG").unwrap_or_else(|_| EnvFilter::new(default_filter));
    let terminal = std::io::stderr().is_terminal();
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = if json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        builder.with_ansi(terminal && !no_color).with_target(false).try_init()
    };
    if let Err(error) = installed {
        eprintln!("cannot install the log: {error}");
    }
}
