//! Rules of the workspace that the compiler does not hold. All breaches are told in one run.

mod errors;
mod features;
mod files;
mod layers;
mod licences;
mod lock;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Breaches fail the run, remarks do not.
#[derive(Default)]
pub struct Findings {
    breaches: Vec<String>,
    remarks: Vec<String>,
}

impl Findings {
    fn breach(&mut self, text: impl Into<String>) {
        self.breaches.push(text.into());
    }

    fn remark(&mut self, text: impl Into<String>) {
        self.remarks.push(text.into());
    }
}

/// A text file of the repository.
pub struct SourceText {
    /// Relative to the root.
    path: PathBuf,
    text: String,
}

impl SourceText {
    fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|e| e == "rs")
    }
}

pub fn run() -> Result<()> {
    let root = root()?;
    let files = sources(&root)?;
    let mut findings = Findings::default();
    layers::check(&root, &mut findings)?;
    licences::check(&root, &mut findings)?;
    lock::check(&root, &mut findings)?;
    features::check(&root, &mut findings)?;
    files::check(&files, &mut findings);
    errors::check(&root, &files, &mut findings);
    for remark in &findings.remarks {
        println!("remark: {remark}");
    }
    for breach in &findings.breaches {
        println!("breach: {breach}");
    }
    if !findings.breaches.is_empty() {
        bail!("tidy found {} breaches", findings.breaches.len());
    }
    println!("tidy: {} files are in order", files.len());
    Ok(())
}

fn root() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().context("the workspace has moved")
}

/// Text files that git tracks or would track.
fn sources(root: &Path) -> Result<Vec<SourceText>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git is needed to list the files")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut paths: Vec<&str> =
        std::str::from_utf8(&output.stdout)?.split('\0').filter(|p| !p.is_empty()).collect();
    paths.sort_unstable();
    paths.dedup();
    let text = |path: &&str| std::fs::read_to_string(root.join(path)).ok();
    Ok(paths.iter().filter_map(|p| Some(SourceText { path: p.into(), text: text(p)? })).collect())
}
