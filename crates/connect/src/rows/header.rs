//! Whether a CSV header can be the header of this schema. A header that merely looks foreign to
//! the schema would make rows of nulls without a word, so it is refused with both sides named.

use levada_config::model::Delimiter;

/// A column of the schema that a CSV file may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name that the header must have.
    pub name: String,
    pub required: bool,
}

/// Names in a message, at most.
const SHOWN_NAMES: usize = 12;
const SHOWN_CHARS: usize = 40;

/// Why these names are no header for the schema.
///
/// # Errors
/// One sentence that names both sides and, where one is likely, what to change.
pub(super) fn judge(
    names: &[String],
    line: &str,
    delimiter: Delimiter,
    columns: &[Column],
) -> Result<(), String> {
    let has = |name: &str| names.iter().any(|n| n == name);
    let missing: Vec<&Column> = columns.iter().filter(|c| !has(&c.name)).collect();
    let foreign: Vec<&str> =
        names.iter().map(String::as_str).filter(|n| !columns.iter().any(|c| c.name == *n)).collect();
    let both = || format!("the header names {}, the schema reads {}", list(names), list_columns(columns));
    if !missing.is_empty() {
        if let Some(other) = delimited_by(line, delimiter, &missing, names.len()) {
            return Err(format!(
                "{}: the file is delimited by {}: set `delimiter: {}`",
                both(),
                called(other),
                other.written()
            ));
        }
        if let Some((found, wanted)) = alike(&foreign, &missing) {
            return Err(format!(
                "{}: `{}` is not `{}`: correct the header, or give the column `path: [\"{}\"]` in the schema",
                both(),
                short(found),
                wanted,
                short(found)
            ));
        }
    }
    if !columns.is_empty() && missing.len() == columns.len() {
        return Err(format!("{}: {}", both(), no_match(names)));
    }
    if let Some(lacked) = missing.iter().find(|c| c.required) {
        return Err(format!("{}: `{}` is required and the file does not have it", both(), lacked.name));
    }
    repeated(names)
}

/// The delimiter that would make sense of the line: one whose cells name columns that are
/// missing, or, where the whole line is one cell, one that stands in it.
fn delimited_by(line: &str, now: Delimiter, missing: &[&Column], cells: usize) -> Option<Delimiter> {
    let others = || Delimiter::ALL.into_iter().filter(move |d| *d != now);
    let matches = |other: Delimiter| {
        let cells = line.split(char::from(other.byte())).map(|cell| plain(unquoted(cell)));
        cells.filter(|cell| !cell.is_empty() && missing.iter().any(|c| plain(&c.name) == *cell)).count()
    };
    let likely =
        others().map(|d| (matches(d), d)).filter(|(n, d)| *n > 0 && line.contains(char::from(d.byte())));
    if let Some((_, other)) = likely.max_by_key(|(n, _)| *n) {
        return Some(other);
    }
    let alone = cells == 1;
    others()
        .filter(|_| alone)
        .max_by_key(|d| line.matches(char::from(d.byte())).count())
        .filter(|d| line.contains(char::from(d.byte())))
}

fn unquoted(cell: &str) -> &str {
    cell.trim().trim_matches('"')
}

/// A foreign name and the column that it probably means.
fn alike<'a>(foreign: &[&'a str], missing: &[&'a Column]) -> Option<(&'a str, &'a str)> {
    missing.iter().find_map(|column| {
        let wanted = plain(&column.name);
        let found = foreign.iter().find(|name| !wanted.is_empty() && plain(name) == wanted)?;
        Some((*found, column.name.as_str()))
    })
}

/// A name without case, blanks and punctuation.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn no_match(names: &[String]) -> &'static str {
    let is_value = |name: &String| {
        name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+')
    };
    if names.iter().any(is_value) {
        "the first line looks like a row: a CSV file begins with a line that names its columns"
    } else {
        "none of them is the same"
    }
}

/// # Errors
/// A name that stands in the header twice.
fn repeated(names: &[String]) -> Result<(), String> {
    let mut places = std::collections::HashMap::new();
    for (i, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
        if let Some(first) = places.insert(name, i + 1) {
            let name = short(name);
            return Err(format!("the header names `{name}` twice, as columns {first} and {}", i + 1));
        }
    }
    Ok(())
}

fn called(delimiter: Delimiter) -> &'static str {
    match delimiter {
        Delimiter::Comma => "`,`",
        Delimiter::Semicolon => "`;`",
        Delimiter::Tab => "tabs",
        Delimiter::Pipe => "`|`",
    }
}

fn list(names: &[String]) -> String {
    let shown: Vec<String> =
        names.iter().take(SHOWN_NAMES).map(|n| format!("`{}`", short(n).replace('\t', "\\t"))).collect();
    let more = if names.len() > SHOWN_NAMES { " and more" } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn list_columns(columns: &[Column]) -> String {
    list(&columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>())
}

fn short(name: &str) -> String {
    match name.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name.to_owned(),
    }
}
