//! Patterns of LIKE and of regular expressions, from PostgreSQL's spelling to the engine's.

/// A LIKE pattern with the escape character `\`, from one with another (or with none).
pub(super) fn with_backslash(pattern: &str, escape: Option<char>) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            out.push('\\');
            out.extend(chars.next());
        } else if c == '\\' {
            out.push_str("\\\\");
        } else {
            out.push(c);
        }
    }
    out
}

/// A regular expression in the engine's spelling: there the point passes over line breaks, and
/// the ends of words are written otherwise.
pub(super) fn regex(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 4);
    let mut chars = pattern.chars();
    let mut has_point = false;
    while let Some(c) = chars.next() {
        if c != '\\' {
            has_point |= c == '.';
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('m') => out.push_str("\\b{start}"),
            Some('M') => out.push_str("\\b{end}"),
            Some('y') => out.push_str("\\b"),
            Some('Y') => out.push_str("\\B"),
            Some('Z') => out.push_str("\\z"),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    if has_point { format!("(?s){out}") } else { out }
}

/// A time whose clock has hours and minutes only, with the seconds that the engine wants.
pub(super) fn with_seconds(text: &str) -> String {
    let Some(at) =
        text.trim_start().find([' ', 'T', 't']).map(|at| at + 1 + text.len() - text.trim_start().len())
    else {
        return text.to_owned();
    };
    let clock = &text[at..];
    let end = clock.find(|c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.'))).unwrap_or(clock.len());
    let (clock, rest) = clock.split_at(end);
    let is_short = clock.len() >= 4 && clock.matches(':').count() == 1 && !clock.ends_with(':');
    if is_short { format!("{}{clock}:00{rest}", &text[..at]) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_spelled_for_the_engine() {
        assert_eq!(with_backslash("a!%c\\", Some('!')), "a\\%c\\\\");
        assert_eq!(with_backslash("a\\_", None), "a\\\\_");
        assert_eq!(regex("\\mbar\\M"), "\\b{start}bar\\b{end}");
        assert_eq!(regex("^a.b$"), "(?s)^a.b$");
        assert_eq!(with_seconds("2024-01-15 10:30+02"), "2024-01-15 10:30:00+02");
        assert_eq!(with_seconds("2024-01-15T10:30:15.5Z"), "2024-01-15T10:30:15.5Z");
        assert_eq!(with_seconds("2024-01-15"), "2024-01-15");
        assert_eq!(regex("\\d+\\."), "\\d+\\.");
    }
}
