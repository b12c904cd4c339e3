//! The little that the project check knows about SQL: its tokens, whether a text is one
//! SELECT, and which tables it reads. Everything else is the query engine's to say.

use crate::source::Span;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    QuotedWord,
    Literal,
    Punct,
}

#[derive(Debug, Clone)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    span: Span,
}

impl Token<'_> {
    fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    fn punct(&self, c: &str) -> bool {
        self.kind == Kind::Punct && self.text == c
    }

    /// As an identifier: unquoted ones are lower case, as the engine reads them.
    fn identifier(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_ascii_lowercase()),
            Kind::QuotedWord => Some(self.text[1..self.text.len() - 1].replace("\"\"", "\"")),
            _ => None,
        }
    }
}

/// A table that a query reads, as the parts of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub parts: Vec<String>,
    pub span: Span,
}

/// A query, tokenized.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    tokens: Vec<Token<'a>>,
}

/// Why a text is not a query, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotSelect {
    pub span: Span,
    pub why: &'static str,
}

impl<'a> Query<'a> {
    /// # Errors
    /// When the text is not one SELECT, so far as tokens tell.
    pub fn parse(text: &'a str) -> Result<Self, NotSelect> {
        let tokens = tokenize(text)?;
        let Some(first) = tokens.iter().find(|t| !t.punct("(")) else {
            return Err(NotSelect { span: 0..text.len(), why: "there is no query" });
        };
        if !(first.is("select") || first.is("with")) {
            return Err(NotSelect { span: first.span.clone(), why: "a query begins with SELECT or WITH" });
        }
        if let Some(end) = tokens.iter().position(|t| t.punct(";"))
            && let Some(next) = tokens[end..].iter().find(|t| !t.punct(";"))
        {
            return Err(NotSelect { span: next.span.clone(), why: "a second statement follows" });
        }
        let query = Self { tokens };
        query.balanced()?;
        Ok(query)
    }

    fn balanced(&self) -> Result<(), NotSelect> {
        let mut open: Vec<&Span> = Vec::new();
        for token in &self.tokens {
            if token.punct("(") {
                open.push(&token.span);
            } else if token.punct(")") && open.pop().is_none() {
                return Err(NotSelect { span: token.span.clone(), why: "this parenthesis was never opened" });
            }
        }
        match open.pop() {
            Some(span) => Err(NotSelect { span: span.clone(), why: "this parenthesis is never closed" }),
            None => Ok(()),
        }
    }

    /// Whether the word occurs as an identifier.
    pub fn mentions(&self, word: &str) -> bool {
        self.tokens.iter().any(|t| t.identifier().is_some_and(|i| i == word))
    }

    /// The tables after FROM and JOIN, without the names that WITH defines and without
    /// table functions.
    pub fn references(&self) -> Vec<Reference> {
        let defined = self.with_names();
        let mut walk =
            Walk { tokens: &self.tokens, at: 0, scopes: vec![Scope::default()], found: Vec::new() };
        while walk.at < self.tokens.len() {
            walk.step();
        }
        walk.found.retain(|r| !(r.parts.len() == 1 && defined.contains(&r.parts[0])));
        walk.found
    }

    /// Names defined by `name as (` or `name (columns) as (`.
    fn with_names(&self) -> Vec<String> {
        let tokens = &self.tokens;
        let mut names = Vec::new();
        for at in 0..tokens.len() {
            if !tokens[at].is("as") || at == 0 {
                continue;
            }
            let next = tokens[at + 1..].iter().find(|t| !t.is("not") && !t.is("materialized"));
            if !next.is_some_and(|t| t.punct("(")) {
                continue;
            }
            let mut before = at - 1;
            if tokens[before].punct(")") {
                match self.opening(before) {
                    Some(open) if open > 0 => before = open - 1,
                    _ => continue,
                }
            }
            names.extend(tokens[before].identifier());
        }
        names
    }

    fn opening(&self, close: usize) -> Option<usize> {
        let mut depth = 0usize;
        for at in (0..=close).rev() {
            if self.tokens[at].punct(")") {
                depth += 1;
            } else if self.tokens[at].punct("(") {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        None
    }
}

/// What one pair of parentheses is about.
#[derive(Debug, Default, Clone, Copy)]
struct Scope {
    /// A table name comes next.
    expecting: bool,
    /// Within a FROM clause: a comma leads to another table.
    in_from: bool,
    /// `extract(year from x)` and its like: FROM names no table.
    function: bool,
}

struct Walk<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
    scopes: Vec<Scope>,
    found: Vec<Reference>,
}

const ENDS_FROM: [&str; 12] = [
    "where",
    "group",
    "order",
    "having",
    "limit",
    "offset",
    "union",
    "intersect",
    "except",
    "window",
    "qualify",
    "select",
];
const FROM_FUNCTIONS: [&str; 6] = ["extract", "substring", "trim", "overlay", "position", "substr"];

impl Walk<'_, '_> {
    fn step(&mut self) {
        let token = &self.tokens[self.at];
        let before = self.at.checked_sub(1).map(|i| &self.tokens[i]);
        let scope = self.scopes.last().copied().unwrap_or_default();
        let mut now = scope;
        if token.punct("(") {
            let function = before.is_some_and(|t| FROM_FUNCTIONS.iter().any(|f| t.is(f)));
            now.expecting = false;
            self.set(now);
            self.scopes.push(Scope { expecting: scope.expecting, in_from: scope.expecting, function });
        } else if token.punct(")") {
            if self.scopes.len() > 1 {
                self.scopes.pop();
            }
        } else if token.punct(",") {
            now.expecting = scope.in_from;
            self.set(now);
        } else if token.is("from") && !scope.function && !before.is_some_and(|t| t.is("distinct"))
            || token.is("join")
        {
            self.set(Scope { expecting: true, in_from: true, ..now });
        } else if ENDS_FROM.iter().any(|w| token.is(w))
            || scope.expecting && (token.is("values") || token.is("with"))
        {
            self.set(Scope { expecting: false, in_from: false, ..now });
        } else if scope.expecting && !token.is("lateral") {
            self.set(Scope { expecting: false, ..now });
            self.table();
            return;
        }
        self.at += 1;
    }

    fn set(&mut self, scope: Scope) {
        if let Some(top) = self.scopes.last_mut() {
            *top = scope;
        }
    }

    fn table(&mut self) {
        let start = self.at;
        let mut parts = Vec::new();
        while let Some(part) = self.tokens.get(self.at).and_then(Token::identifier) {
            parts.push(part);
            self.at += 1;
            if !self.tokens.get(self.at).is_some_and(|t| t.punct(".")) {
                break;
            }
            self.at += 1;
        }
        if parts.is_empty() {
            self.at += 1;
            return;
        }
        let call = self.tokens.get(self.at).is_some_and(|t| t.punct("("));
        if !call {
            let span = self.tokens[start].span.start..self.tokens[self.at - 1].span.end;
            self.found.push(Reference { parts, span });
        }
    }
}

fn tokenize(text: &str) -> Result<Vec<Token<'_>>, NotSelect> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let rest = &text[at..];
        let kind = match bytes[at] {
            b if b.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'-' if rest.starts_with("--") => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            b'/' if rest.starts_with("/*") => {
                at += comment(rest)
                    .ok_or(NotSelect { span: at..at + 2, why: "this comment is never closed" })?;
                continue;
            }
            quote @ (b'\'' | b'"') => {
                at += quoted(rest, quote)
                    .ok_or(NotSelect { span: at..at + 1, why: "this quote is never closed" })?;
                if quote == b'"' { Kind::QuotedWord } else { Kind::Literal }
            }
            b if b.is_ascii_alphabetic() || b == b'_' || !b.is_ascii() => {
                at += rest
                    .find(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_' && c != '$')
                    .unwrap_or(rest.len());
                Kind::Word
            }
            b if b.is_ascii_digit() => {
                at += rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
                Kind::Literal
            }
            _ => {
                at += 1;
                Kind::Punct
            }
        };
        tokens.push(Token { kind, text: &text[start..at], span: start..at });
    }
    Ok(tokens)
}

/// Length of a comment with its nested ones.
fn comment(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0usize, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
    None
}

/// Length of a quoted text; a doubled quote stands for itself.
fn quoted(text: &str, quote: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        if bytes[at] == quote {
            if bytes.get(at + 1) != Some(&quote) {
                return Some(at + 1);
            }
            at += 1;
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(sql: &str) -> Vec<String> {
        let query = Query::parse(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        query.references().into_iter().map(|r| r.parts.join(".")).collect()
    }

    #[test]
    fn tables_are_found_and_look_alikes_are_not() {
        for (sql, expected) in [
            ("select * from silver.a", vec!["silver.a"]),
            (
                "SELECT 1 FROM Silver.A AS x JOIN gold.b y ON x.i = y.i, silver.c",
                vec!["silver.a", "gold.b", "silver.c"],
            ),
            (
                "select * from (silver.a join silver.b using (i)) where z in (select q from gold.c)",
                vec!["silver.a", "silver.b", "gold.c"],
            ),
            (
                "with w as (select * from silver.a), v (x, y) as (select 1, 2) select * from w, v",
                vec!["silver.a"],
            ),
            (
                "select extract(year from t.at), a is distinct from b, trim(both from c) from silver.t t",
                vec!["silver.t"],
            ),
            (
                "select 'from silver.x' /* from /* nested */ silver.y */ from silver.z -- from silver.q",
                vec!["silver.z"],
            ),
            (
                "select * from \"silver\".\"a\" cross join unnest(s.list), lateral (select 1 from gold.k)",
                vec!["silver.a", "gold.k"],
            ),
            ("select a, b from silver.a group by a, b order by a, b", vec!["silver.a"]),
            ("select * from (values (1, 2)) as v (a, b)", vec![]),
            ("select (select max(x) from gold.m), y from input;", vec!["gold.m", "input"]),
        ] {
            assert_eq!(tables(sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_is_not_one_select_is_refused_where_it_is() {
        for (sql, at) in [
            ("", 0),
            ("-- nothing", 0),
            ("drop table silver.a", 0),
            ("select 1; select 2", 10),
            ("select (1", 7),
            ("select 1)", 8),
            ("select 'a", 7),
            ("select 1 /* a", 9),
        ] {
            assert_eq!(Query::parse(sql).map(|_| ()).map_err(|e| e.span.start), Err(at), "{sql}");
        }
    }
}
