//! `SIMILAR TO`: PostgreSQL's own way, a function that turns the pattern into a regular
//! expression, which the engine then matches.

use std::sync::Arc;

use arrow::array::StringBuilder;
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::logical_expr::ScalarUDF;

use super::function::{Function, all_text, by_rows, texts};

/// `similar_to_escape(pattern [, escape])`
pub(super) fn similar_to_escape() -> Arc<ScalarUDF> {
    Function::udf(
        "similar_to_escape",
        all_text,
        |_| Ok(DataType::Utf8),
        |args| {
            by_rows(args, |arrays| {
                let columns = arrays.iter().map(texts).collect::<Result<Vec<_>, _>>()?;
                let mut out = StringBuilder::new();
                let rows = columns.first().map_or(0, arrow::array::Array::len);
                for row in 0..rows {
                    if columns.iter().any(|column| arrow::array::Array::is_null(column, row)) {
                        out.append_null();
                        continue;
                    }
                    let escape = match columns.get(1).map(|column| column.value(row)) {
                        None => Some('\\'),
                        Some("") => None,
                        Some(escape) => {
                            let mut chars = escape.chars();
                            match (chars.next(), chars.next()) {
                                (Some(escape), None) => Some(escape),
                                _ => {
                                    return exec_err!(
                                        "invalid escape string: it must be empty or one character"
                                    );
                                }
                            }
                        }
                    };
                    out.append_value(regex(columns[0].value(row), escape));
                }
                Ok(Arc::new(out.finish()))
            })
        },
    )
}

/// The regular expression of a SIMILAR pattern.
fn regex(pattern: &str, escape: Option<char>) -> String {
    let mut out = String::from("(?s)^(?:");
    let mut chars = pattern.chars();
    let mut in_set = false;
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            match chars.next() {
                Some(literal) => push_literal(&mut out, literal),
                None => push_literal(&mut out, c),
            }
            continue;
        }
        match c {
            ']' if in_set => {
                in_set = false;
                out.push(c);
            }
            '\\' => out.push_str("\\\\"),
            '[' if in_set => out.push_str("\\["),
            c if in_set => out.push(c),
            '[' => {
                in_set = true;
                out.push(c);
                // A bracket right after the beginning is a member of the set.
                let rest = chars.as_str();
                let (negated, after) = match rest.strip_prefix('^') {
                    Some(after) => ("^", after),
                    None => ("", rest),
                };
                if let Some(after) = after.strip_prefix(']') {
                    out.push_str(negated);
                    out.push_str("\\]");
                    chars = after.chars();
                }
            }
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '(' => out.push_str("(?:"),
            '.' | '^' | '$' => push_literal(&mut out, c),
            c => out.push(c),
        }
    }
    out.push_str(")$");
    out
}

fn push_literal(out: &mut String, c: char) {
    if !c.is_alphanumeric() && c.is_ascii() && !c.is_ascii_whitespace() {
        out.push('\\');
    }
    out.push(c);
}

#[cfg(test)]
mod tests {
    use super::regex;

    #[test]
    fn patterns_become_regular_expressions() {
        for (pattern, expected) in [
            ("a%", "(?s)^(?:a.*)$"),
            ("(a|b)_+", "(?s)^(?:(?:a|b).+)$"),
            ("a.b$", "(?s)^(?:a\\.b\\$)$"),
            ("[a-c]{2}", "(?s)^(?:[a-c]{2})$"),
            ("a\\%", "(?s)^(?:a\\%)$"),
            ("[^]x]", "(?s)^(?:[^\\]x])$"),
        ] {
            assert_eq!(regex(pattern, Some('\\')), expected, "{pattern}");
        }
        assert_eq!(regex("a#%\\", Some('#')), "(?s)^(?:a\\%\\\\)$");
    }
}
