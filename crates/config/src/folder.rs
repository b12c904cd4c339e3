//! Which files a project folder holds, and which of them nobody will read.

use std::fs;
use std::path::{Path, PathBuf};

use levada_core::TenantId;

use crate::codes;
use crate::diagnostic::{Diagnostic, Sink};
use crate::suggest;
use crate::world::Base;

const PARTS: [&str; 4] = ["connectors", "pipelines", "schemas", "models"];
/// More files than this are not a project folder but a mistake.
const MAX_FILES: usize = 50_000;

/// The files of one base, each relative to the root and sorted.
pub(crate) struct Files {
    pub base: Base,
    /// Connectors and pipelines: each file says itself which it is.
    pub sources: Vec<PathBuf>,
    pub schemas: Vec<PathBuf>,
    pub models: Vec<PathBuf>,
}

/// Lists the project's files: those of the root first, then those of each tenant.
pub(crate) fn scan(root: &Path, tenants: &[TenantId], sink: &mut Sink) -> Vec<Files> {
    let mut left = MAX_FILES;
    let mut all = vec![scan_base(root, Base { tenant: None }, &mut left, sink)];
    for name in names(&root.join("tenants"), Path::new("tenants"), sink) {
        let path = Path::new("tenants").join(&name);
        if !root.join(&path).is_dir() {
            not_read(&path, sink, "only folders named like tenants belong here");
            continue;
        }
        match tenants.iter().find(|t| t.as_str() == name) {
            Some(tenant) => all.push(scan_base(root, Base { tenant: Some(tenant.clone()) }, &mut left, sink)),
            None => {
                let hint = suggest::hint(&name, tenants.iter().map(TenantId::as_str), "tenants");
                let message =
                    format!("levada.yaml declares no tenant `{name}`, so its folder cannot be used");
                sink.push(Diagnostic::about(path, codes::UNKNOWN_TENANT, message)).hint(hint);
            }
        }
    }
    all
}

fn scan_base(root: &Path, base: Base, left: &mut usize, sink: &mut Sink) -> Files {
    let here = base.path();
    for name in names(&root.join(&here), &here, sink) {
        let is_dir = root.join(&here).join(&name).is_dir();
        let near = suggest::nearest(&name, PARTS.into_iter().chain(["tenants"]));
        match near {
            Some(near) if is_dir && near != name => {
                not_read(&here.join(&name), sink, &format!("did you mean `{near}/`?"));
            }
            _ => {}
        }
    }
    let mut sources = walk(root, &here.join("connectors"), &["yaml", "yml"], left, sink);
    sources.extend(walk(root, &here.join("pipelines"), &["yaml", "yml"], left, sink));
    let schemas = walk(root, &here.join("schemas"), &["json"], left, sink);
    let models = walk(root, &here.join("models"), &["sql"], left, sink);
    Files { base, sources, schemas, models }
}

/// Files with one of the endings, in folders below too; any other is reported.
fn walk(root: &Path, folder: &Path, endings: &[&str], left: &mut usize, sink: &mut Sink) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names(&root.join(folder), folder, sink) {
        let path = folder.join(&name);
        if *left == 0 {
            return found;
        }
        *left -= 1;
        if *left == 0 {
            sink.push(Diagnostic::about(
                path,
                codes::UNREADABLE,
                format!("the project has more than {MAX_FILES} files"),
            ));
            return found;
        }
        if root.join(&path).is_dir() {
            if folder.components().count() < 16 {
                found.extend(walk(root, &path, endings, left, sink));
            }
        } else if path.extension().and_then(|e| e.to_str()).is_some_and(|e| endings.contains(&e)) {
            found.push(path);
        } else if !is_prose(&name) {
            not_read(&path, sink, &format!("files here end in .{}", endings.join(" or .")));
        }
    }
    found
}

fn is_prose(name: &str) -> bool {
    name.ends_with(".md") || name.ends_with(".txt")
}

fn not_read(path: &Path, sink: &mut Sink, hint: &str) {
    sink.push(Diagnostic::about(path.to_owned(), codes::NOT_READ, "Levada does not read this")).hint(hint);
}

/// Names in a folder, sorted, without hidden ones; none where there is no such folder.
fn names(folder: &Path, shown: &Path, sink: &mut Sink) -> Vec<String> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                sink.push(Diagnostic::about(
                    shown.to_owned(),
                    codes::UNREADABLE,
                    format!("cannot list the folder: {error}"),
                ));
            }
            return Vec::new();
        }
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}
