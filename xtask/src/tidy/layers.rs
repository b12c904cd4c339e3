//! Crates depend only on rows above their own, and only the lake names its engines.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Findings;

/// Each row may use the rows before it, never its own.
const ROWS: [&[&str]; 7] = [
    &["allocator", "core"],
    &["config", "disk"],
    &["log", "store", "lake"],
    &["access", "bus", "outbound", "schema"],
    &["connect", "flow", "telemetry"],
    &["http", "postgres", "pubsub", "console", "cli"],
    &["levada"],
];
/// For development only: products must not use them outside their tests.
const DEVELOPMENT: [&str; 3] = ["levada-testkit", "levada-tests", "xtask"];
/// Only the lake names its engines; only these see Arrow.
const ENGINES: [&str; 3] = ["datafusion", "deltalake", "object_store"];
const ARROW: [&str; 2] = ["arrow", "parquet"];
const SEE_ARROW: [&str; 5] = ["lake", "schema", "flow", "postgres", "http"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

pub fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version=1", "--no-deps"])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)))?;
    for package in &metadata.packages {
        check_package(package, findings);
    }
    Ok(())
}

fn check_package(package: &Package, findings: &mut Findings) {
    if DEVELOPMENT.contains(&package.name.as_str()) {
        return;
    }
    let name = short(&package.name);
    let Some(row) = row(name) else {
        findings
            .breach(format!("crate `{}` stands in no row of the layers: add it to xtask tidy", package.name));
        return;
    };
    for dependency in &package.dependencies {
        let of_tests = dependency.kind.as_deref() == Some("dev");
        if DEVELOPMENT.contains(&dependency.name.as_str()) && !of_tests {
            findings.breach(format!("`{}` uses `{}` outside its tests", package.name, dependency.name));
        }
        if let Some(other) = dependency.name.strip_prefix("levada-").and_then(self::row)
            && other >= row
        {
            findings
                .breach(format!("`{}` may not depend on `{}`: not above it", package.name, dependency.name));
        }
        if ENGINES.contains(&dependency.name.as_str()) && name != "lake" {
            findings.breach(format!("`{}` names `{}`: only the lake does", package.name, dependency.name));
        }
        if ARROW.contains(&dependency.name.as_str()) && !SEE_ARROW.contains(&name) {
            findings.breach(format!("`{}` names `{}`: only {SEE_ARROW:?} do", package.name, dependency.name));
        }
    }
}

fn short(package: &str) -> &str {
    package.strip_prefix("levada-").unwrap_or(package)
}

fn row(name: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(package: &str, dependencies: &[(&str, Option<&str>)]) -> usize {
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned) })
            .collect();
        let mut findings = Findings::default();
        check_package(&Package { name: package.to_owned(), dependencies }, &mut findings);
        findings.breaches.len()
    }

    #[test]
    fn edges_go_up_only() {
        assert_eq!(breaches("levada-log", &[("levada-core", None), ("levada-disk", None)]), 0);
        assert_eq!(breaches("levada-log", &[("levada-store", None)]), 1, "its own row");
        assert_eq!(breaches("levada-log", &[("levada-bus", None)]), 1, "a row below");
        assert_eq!(breaches("levada-log", &[("levada-testkit", Some("dev"))]), 0);
        assert_eq!(breaches("levada-log", &[("levada-testkit", None)]), 1);
        assert_eq!(breaches("levada-flow", &[("datafusion", None), ("arrow", None)]), 1);
        assert_eq!(breaches("levada-bus", &[("arrow", None)]), 1);
        assert_eq!(breaches("levada-lake", &[("datafusion", None), ("deltalake", None)]), 0);
        assert_eq!(breaches("levada-new", &[]), 1, "every crate has a row");
        assert_eq!(breaches("levada", &[("levada-http", None)]), 0);
    }
}
