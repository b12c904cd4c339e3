//! Every dependency's licence is one that `deny.toml` allows.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Findings;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    license: Option<String>,
}

pub fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    let allowed = allowed(&std::fs::read_to_string(root.join("deny.toml")).context("no deny.toml")?);
    let output = Command::new("cargo").args(["metadata", "--format-version=1"]).current_dir(root).output()?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)))?;
    for package in metadata.packages {
        let licence = package.license.unwrap_or_default();
        if !is_allowed(&licence, &allowed) {
            findings.breach(format!(
                "{} has the licence `{licence}`, which deny.toml does not allow",
                package.name
            ));
        }
    }
    Ok(())
}

/// The texts of the list `allow` of the section `licenses`.
fn allowed(deny: &str) -> Vec<String> {
    let list = deny.split("allow = [").nth(1).and_then(|rest| rest.split("\n]").next()).unwrap_or_default();
    list.lines()
        .filter_map(|line| Some(line.trim().strip_prefix('"')?.split_once('"')?.0.to_owned()))
        .collect()
}

/// Evaluates an SPDX expression: one side of each OR, both sides of each AND. `/` is an old OR.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let text =
        expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ").replace(" WITH ", "+WITH+");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut at = 0;
    let good = either(&words, &mut at, allowed);
    good && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut good = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        good |= both(words, at, allowed);
    }
    good
}

fn both(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut good = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        good &= one(words, at, allowed);
    }
    good
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let good = either(words, at, allowed);
        *at += 1;
        return good;
    }
    let name = word.replace("+WITH+", " WITH ");
    allowed.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_judged_by_their_parts() {
        let list = "[licenses]\nallow = [\n  \"MIT\", # why\n  \"Apache-2.0 WITH LLVM-exception\",\n]\nother = [\"GPL-3.0\"\n]";
        let allowed = allowed(list);
        assert_eq!(allowed, ["MIT", "Apache-2.0 WITH LLVM-exception"]);
        for (expression, good) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND GPL-3.0", false),
            ("(GPL-3.0 OR MIT) AND (MIT OR X)", true),
            ("Apache-2.0 WITH LLVM-exception OR X", true),
            ("", false),
        ] {
            assert_eq!(is_allowed(expression, &allowed), good, "{expression}");
        }
    }
}
