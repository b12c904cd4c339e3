//! `cargo run` and `cargo test --workspace` must ask the same features of every outside crate:
//! else the test command would compile DataFusion a second time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::Findings;

/// Package and version, to the feature lists it is compiled with.
type Features = BTreeMap<String, BTreeSet<String>>;

pub fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    let run = features(root, &["--package", "levada", "--edges", "normal,build"])?;
    let test = features(root, &["--workspace", "--edges", "normal,build,dev"])?;
    for (package, lists) in &run {
        let with_tests = test.get(package);
        if with_tests.is_none_or(|other| other != lists) {
            findings.breach(format!(
                "{package} is compiled with [{}] by `cargo run` and with [{}] by `cargo test`: align the features",
                join(lists),
                with_tests.map(join).unwrap_or_default()
            ));
        }
    }
    Ok(())
}

fn join(lists: &BTreeSet<String>) -> String {
    lists.iter().cloned().collect::<Vec<_>>().join("] and [")
}

fn features(root: &Path, selection: &[&str]) -> Result<Features> {
    let output = Command::new("cargo")
        .args(["tree", "--prefix", "none", "--format", "{p}|{f}"])
        .args(selection)
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(parse(std::str::from_utf8(&output.stdout)?))
}

/// Crates of the workspace carry their path and do not count.
fn parse(tree: &str) -> Features {
    let mut features = Features::new();
    for line in tree.lines() {
        let Some((package, list)) = line.split_once('|') else { continue };
        if package.contains(" (/") {
            continue;
        }
        let list = list.trim_end_matches(" (*)").to_owned();
        features.entry(package.replace(" (proc-macro)", "")).or_default().insert(list);
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_told_by_package() {
        let tree = "levada v0.1.0 (/x)|\ntokio v1.0.0|net,rt\nserde v1.0.0|std\ntokio v1.0.0|net,rt (*)\n";
        let features = parse(tree);
        assert_eq!(features.len(), 2);
        assert_eq!(join(&features["tokio v1.0.0"]), "net,rt");
    }
}
