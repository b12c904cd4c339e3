//! `levada init`, and what `levada check` prints: the project folder, without a server.

use std::path::Path;

use levada_config::{Loaded, Report, Style, render_all, starter};
use serde_json::json;

use crate::args::InitArgs;
use crate::output::{Failure, Output, exit};

pub fn init(output: &Output, args: &InitArgs) -> Result<(), Failure> {
    let dir = &args.dir;
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::new(exit::FAILED, format!("{} is not empty", dir.display()))
            .hint("name a new or empty folder"));
    }
    let name = args.name.clone().unwrap_or_else(|| folder_name(dir));
    for (path, text) in starter(&name) {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| cannot("make", parent, &e))?;
        }
        std::fs::write(&path, text).map_err(|e| cannot("write", &path, &e))?;
    }
    output.say(&format!("wrote a starter project to {}", dir.display()));
    output.say(&format!("next: levada check {0} && levada up {0}", dir.display()));
    Ok(())
}

fn folder_name(dir: &Path) -> String {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    absolute.file_name().map_or_else(|| "levada".to_owned(), |n| n.to_string_lossy().into_owned())
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(exit::FAILED, format!("cannot {what} {}: {error}", path.display()))
}

/// Prints what a check found, and what of the project runs.
///
/// # Errors
/// `PROJECT` with everything already printed, when a finding is an error.
pub fn report_check(output: &Output, loaded: &Loaded) -> Result<(), Failure> {
    let style = if output.color { Style::Colour } else { Style::Plain };
    let diagnostics = &loaded.diagnostics;
    let errors = diagnostics.iter().filter(|d| d.is_error()).count();
    let report = loaded.project.as_ref().map(Report::of);
    if output.json {
        output.value(&json!({ "errors": errors, "diagnostics": diagnostics, "report": report }));
    } else {
        if !diagnostics.is_empty() {
            output.say(&render_all(diagnostics, style));
        }
        if let Some(report) = report {
            output.line(report.to_string().trim_end());
        }
    }
    if errors > 0 { Err(Failure::silent(exit::PROJECT)) } else { Ok(()) }
}
