//! Headers, lengths and words of the files themselves.

use super::{Findings, SourceText};

const LONG_LINES: usize = 500;
const TOO_LONG_LINES: usize = 800;

/// What no file of the repository holds, with the reason. Written in halves, so that this file
/// does not hold it either.
const FORBIDDEN: [(&str, &str, &str); 8] = [
    ("TO", "DO", "unfinished work belongs into an issue"),
    ("FIX", "ME", "unfinished work belongs into an issue"),
    ("todo", "!(", "unfinished code does not go in"),
    ("unimplemen", "ted!(", "unfinished code does not go in"),
    ("/wo", "rk/", "a path of one machine"),
    ("/ro", "ot/", "a path of one machine"),
    ("static.crates", ".io", "registries are reached through their clients"),
    ("index.crates", ".io", "registries are reached through their clients"),
];

pub fn check(files: &[SourceText], findings: &mut Findings) {
    for file in files {
        let name = file.path.display();
        if file.is_rust() {
            if !file.text.starts_with("//!") {
                findings.breach(format!("{name} does not open with `//!`: say what it is and why it is so"));
            }
            let lines = file.text.lines().count();
            if lines > TOO_LONG_LINES {
                findings.breach(format!("{name} has {lines} lines, more than {TOO_LONG_LINES}: split it"));
            } else if lines > LONG_LINES {
                findings.remark(format!("{name} has {lines} lines: a sign to split it"));
            }
        }
        if file.path.ends_with("Cargo.lock") {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            for (head, tail, reason) in FORBIDDEN {
                if line.match_indices(head).any(|(at, _)| line[at + head.len()..].starts_with(tail)) {
                    findings.breach(format!("{name}:{}: `{head}{tail}`: {reason}", number + 1));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(path: &str, text: &str) -> usize {
        let mut findings = Findings::default();
        check(&[SourceText { path: path.into(), text: text.to_owned() }], &mut findings);
        findings.breaches.len()
    }

    #[test]
    fn headers_lengths_and_words() {
        assert_eq!(breaches("a.rs", "//! What it is.\n"), 0);
        assert_eq!(breaches("a.rs", "fn main() {}\n"), 1);
        assert_eq!(breaches("a.rs", &format!("//! Long.\n{}", "\n".repeat(800))), 1);
        assert_eq!(breaches("a.md", &["# Notes\nTO", "DO more\n"].concat()), 1);
        assert_eq!(breaches("a.yaml", &["path: /wo", "rk/x\n"].concat()), 1);
        assert_eq!(breaches("Cargo.lock", &["index.crates", ".io"].concat()), 0);
    }
}
