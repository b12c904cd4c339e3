//! One version each of what must agree across the workspace.

use std::path::Path;

use anyhow::{Context, Result};

use super::Findings;

const ONE_VERSION: [&str; 6] = ["arrow", "axum", "datafusion", "deltalake", "parquet", "tokio"];

pub fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    let text = std::fs::read_to_string(root.join("Cargo.lock")).context("no Cargo.lock")?;
    check_text(&text, findings);
    Ok(())
}

fn check_text(lock: &str, findings: &mut Findings) {
    for name in ONE_VERSION {
        let line = format!("name = \"{name}\"");
        let count = lock.lines().filter(|l| *l == line).count();
        if count > 1 {
            findings.breach(format!("Cargo.lock holds {count} versions of {name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_version_is_a_breach() {
        let mut findings = Findings::default();
        check_text("name = \"arrow\"\nname = \"arrow-array\"\nname = \"tokio\"\n", &mut findings);
        assert!(findings.breaches.is_empty());
        check_text("name = \"arrow\"\nname = \"arrow\"\n", &mut findings);
        assert_eq!(findings.breaches.len(), 1);
    }
}
