//! A lexer for SQL text: enough to split statements, to recognise the few that are about
//! the session, and to rewrite what tools ask of PostgreSQL's catalogue. It never fails; an
//! unfinished literal reaches to the end, and the query engine says what is wrong.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An unquoted identifier or keyword.
    Word,
    /// An identifier in double quotes.
    Quoted,
    /// A string literal of any kind.
    Text,
    Number,
    /// `$1`
    Param,
    /// Punctuation: one character, except `::`.
    Mark,
    /// White space or a comment.
    Space,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// Byte offset.
    pub at: usize,
}

impl Token<'_> {
    /// Whether this is the given keyword or unquoted name, in any case.
    pub fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    pub fn is_mark(&self, mark: &str) -> bool {
        self.kind == Kind::Mark && self.text == mark
    }

    /// The name that an identifier or a string literal stands for.
    pub fn value(&self) -> String {
        match self.kind {
            Kind::Quoted => self.text.trim_matches('"').replace("\"\"", "\""),
            Kind::Text => {
                let inner = self.text.strip_prefix(['E', 'e']).unwrap_or(self.text);
                let inner = inner.strip_prefix('\'').unwrap_or(inner);
                inner.strip_suffix('\'').unwrap_or(inner).replace("''", "'")
            }
            Kind::Word => self.text.to_ascii_lowercase(),
            _ => self.text.to_owned(),
        }
    }
}

/// All tokens, white space included: joined they are the text again.
pub(crate) fn tokens(sql: &str) -> Vec<Token<'_>> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < sql.len() {
        let (kind, len) = next(&sql[at..]);
        out.push(Token { kind, text: &sql[at..at + len], at });
        at += len;
    }
    out
}

/// The tokens that mean something.
pub(crate) fn significant(sql: &str) -> Vec<Token<'_>> {
    tokens(sql).into_iter().filter(|t| t.kind != Kind::Space).collect()
}

/// How deep the parentheses of a text nest.
pub(crate) fn nesting(tokens: &[Token<'_>]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for token in tokens {
        if token.is_mark("(") {
            depth += 1;
            deepest = deepest.max(depth);
        } else if token.is_mark(")") {
            depth = depth.saturating_sub(1);
        }
    }
    deepest
}

/// The statements of a text, without their semicolons; empty ones are left out.
pub(crate) fn split(sql: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut any) = (0, false);
    for token in tokens(sql) {
        if token.is_mark(";") {
            if any {
                out.push(sql[start..token.at].trim());
            }
            (start, any) = (token.at + 1, false);
        } else if token.kind != Kind::Space {
            any = true;
        }
    }
    if any {
        out.push(sql[start..].trim());
    }
    out
}

/// Kind and byte length of the token that `rest` (not empty) begins with.
fn next(rest: &str) -> (Kind, usize) {
    let bytes = rest.as_bytes();
    let first = rest.chars().next().unwrap_or(' ');
    match first {
        c if c.is_whitespace() => {
            (Kind::Space, rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len()))
        }
        '-' if rest.starts_with("--") => (Kind::Space, rest.find('\n').map_or(rest.len(), |i| i + 1)),
        '/' if rest.starts_with("/*") => (Kind::Space, block_comment(bytes)),
        '\'' => (Kind::Text, quoted(bytes, 0, b'\'', Backslash::Plain)),
        'e' | 'E' if bytes.get(1) == Some(&b'\'') => {
            (Kind::Text, quoted(bytes, 1, b'\'', Backslash::Escapes))
        }
        '"' => (Kind::Quoted, quoted(bytes, 0, b'"', Backslash::Plain)),
        '$' => dollar(rest),
        c if c.is_ascii_digit() => (Kind::Number, number(bytes)),
        c if c.is_alphabetic() || c == '_' => {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'));
            (Kind::Word, end.unwrap_or(rest.len()))
        }
        ':' if rest.starts_with("::") => (Kind::Mark, 2),
        c => (Kind::Mark, c.len_utf8()),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Backslash {
    Plain,
    Escapes,
}

/// Length of a quoted token whose quote is at `open`; a doubled quote stands for itself.
fn quoted(bytes: &[u8], open: usize, quote: u8, backslash: Backslash) -> usize {
    let mut i = open + 1;
    while i < bytes.len() {
        if backslash == Backslash::Escapes && bytes[i] == b'\\' {
            i += 2;
        } else if bytes[i] == quote {
            if bytes.get(i + 1) != Some(&quote) {
                return i + 1;
            }
            i += 2;
        } else {
            i += 1;
        }
    }
    bytes.len()
}

/// Block comments nest.
fn block_comment(bytes: &[u8]) -> usize {
    let (mut i, mut depth) = (2, 1);
    while i < bytes.len() && depth > 0 {
        match (bytes[i], bytes.get(i + 1)) {
            (b'/', Some(b'*')) => (i, depth) = (i + 2, depth + 1),
            (b'*', Some(b'/')) => (i, depth) = (i + 2, depth - 1),
            _ => i += 1,
        }
    }
    i.min(bytes.len())
}

/// `$1`, `$$ text $$` or `$tag$ text $tag$`.
fn dollar(rest: &str) -> (Kind, usize) {
    let after = &rest[1..];
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    if digits > 0 {
        return (Kind::Param, 1 + digits);
    }
    let tag = after.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(after.len());
    if after[tag..].starts_with('$') {
        let fence = &rest[..tag + 2];
        let end = rest[fence.len()..].find(fence).map_or(rest.len(), |i| i + 2 * fence.len());
        return (Kind::Text, end);
    }
    (Kind::Mark, 1)
}

fn number(bytes: &[u8]) -> usize {
    let mut i = 0;
    while i < bytes.len() {
        let exponent_sign = matches!(bytes[i], b'+' | b'-') && matches!(bytes[i - 1], b'e' | b'E');
        if bytes[i].is_ascii_alphanumeric() || bytes[i] == b'.' || bytes[i] == b'_' || exponent_sign {
            i += 1;
        } else {
            break;
        }
    }
    i
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost() {
        for sql in [
            "select 'a''b', E'c\\'d', \"e\"\"f\" -- g\n from h /* i /* j */ k */ where l = $1 and m::int > 1.5e-3;",
            "select $$ a ; b $$, $t$ c $$ d $t$",
            "'unfinished",
            "\"unfinished",
            "/* unfinished",
            "E'\\",
            "$t$ unfinished",
            "sélect ünïcode ← $",
            "1e",
        ] {
            let joined: String = tokens(sql).iter().map(|t| t.text).collect();
            assert_eq!(joined, sql);
        }
    }

    #[test]
    fn splits_at_semicolons_that_are_not_quoted() {
        let sql = "select ';' ; -- ; \n ;; select \";\", $$;$$, E'\\';' /* ; */; ";
        assert_eq!(split(sql), ["select ';'", "select \";\", $$;$$, E'\\';' /* ; */"]);
        assert!(split(" ;; -- only\n").is_empty());
    }
}
