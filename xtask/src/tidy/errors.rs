//! Every stable code that an API or a dead letter can carry has a page in `docs/errors`.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Findings, SourceText};

/// Calls that take a code, with the place of that argument.
const CALLS: [(&str, usize); 3] = [("Problem::new(", 1), ("BadRow::new(", 1), (".reject_line(", 0)];

pub fn check(root: &Path, files: &[SourceText], findings: &mut Findings) {
    let mut codes = BTreeMap::new();
    for file in files.iter().filter(|file| file.is_rust() && is_product(&file.path)) {
        for code in codes_of(product_part(&file.text)) {
            codes.entry(code).or_insert_with(|| file.path.clone());
        }
    }
    for (code, used) in codes {
        if !root.join("docs/errors").join(format!("{code}.md")).is_file() {
            findings.breach(format!("docs/errors/{code}.md is missing; {} uses the code", used.display()));
        }
    }
}

fn is_product(path: &Path) -> bool {
    path.starts_with("crates") && !path.components().any(|part| part.as_os_str() == "tests")
}

/// The text before the unit tests.
fn product_part(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn codes_of(text: &str) -> Vec<&str> {
    let mut codes = Vec::new();
    for (call, place) in CALLS {
        for (at, _) in text.match_indices(call) {
            let arguments = &text[at + call.len()..];
            codes.extend(argument(arguments, place).and_then(literal));
        }
    }
    codes
}

/// The text from the n-th argument on.
fn argument(mut text: &str, place: usize) -> Option<&str> {
    for _ in 0..place {
        text = text.split_once(',')?.1;
    }
    Some(text.trim_start())
}

fn literal(text: &str) -> Option<&str> {
    let code = text.strip_prefix('"')?.split_once('"')?.0;
    code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-').then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_where_they_are_made() {
        let text = r#"
            Problem::new(404, "topic-unknown", "x");
            Problem::new(
                status,
                "rate-limited",
                "y",
            );
            Problem::new(500, code, "z");
            BadRow::new(line, "csv-header", reason, b"");
        "#;
        assert_eq!(codes_of(text), ["topic-unknown", "rate-limited", "csv-header"]);
    }
}
