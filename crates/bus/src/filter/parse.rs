//! From the text of a filter to its tree, by recursive descent. The text's bound of 256
//! bytes bounds the depth.

use super::{FilterError, MAX_FILTER_BYTES, Node};

const CONDITION: &str = "write a condition, as in attributes:key, attributes.key = \"value\" \
                         or hasPrefix(attributes.key, \"prefix\")";

pub(super) fn parse(text: &str) -> Result<Option<Node>, FilterError> {
    let mut parser = Parser { text, at: 0 };
    if text.len() > MAX_FILTER_BYTES {
        let end = text.floor_char_boundary(MAX_FILTER_BYTES);
        return Err(parser.error(
            end,
            format!("it has {} bytes of at most {MAX_FILTER_BYTES}", text.len()),
            "shorten it, or filter on an attribute that sums the conditions up",
        ));
    }
    parser.space();
    if parser.rest().is_empty() {
        return Ok(None);
    }
    let root = parser.expression()?;
    match parser.peek() {
        None => Ok(Some(root)),
        Some(')') => Err(parser.error(parser.at, "this `)` closes nothing", "remove it, or open it before")),
        Some(_) => {
            let word = parser.word();
            let mend = match word.to_ascii_uppercase().as_str() {
                "AND" | "OR" => "write the operator in capitals",
                _ => "join conditions with AND or OR",
            };
            Err(parser.error(parser.at, format!("`{word}` does not continue a filter"), mend))
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Byte position, always at a character's begin.
    at: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Join {
    And,
    Or,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, at: usize, problem: impl Into<String>, mend: impl Into<String>) -> FilterError {
        let column = self.text[..at].chars().count() + 1;
        FilterError { column, problem: problem.into(), mend: mend.into() }
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn peek(&mut self) -> Option<char> {
        self.space();
        self.rest().chars().next()
    }

    /// The letters, digits, `-` and `_` that stand here; any other single character where none does.
    fn word(&self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !is_key_char(c)).unwrap_or(rest.len());
        if end > 0 { &rest[..end] } else { &rest[..rest.chars().next().map_or(0, char::len_utf8)] }
    }

    /// Consumes a keyword that stands alone.
    fn keyword(&mut self, keyword: &str) -> bool {
        self.space();
        let found = self.rest().strip_prefix(keyword).is_some_and(|r| !r.starts_with(is_key_char));
        if found {
            self.at += keyword.len();
        }
        found
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len();
        }
        found
    }

    fn expect(&mut self, symbol: &str, mend: &str) -> Result<(), FilterError> {
        if self.symbol(symbol) {
            return Ok(());
        }
        Err(self.error(self.at, format!("`{symbol}` is missing"), mend))
    }

    fn expression(&mut self) -> Result<Node, FilterError> {
        let mut nodes = vec![self.term()?];
        let mut joined = None;
        loop {
            self.space();
            let at = self.at;
            let join = if self.keyword("AND") {
                Join::And
            } else if self.keyword("OR") {
                Join::Or
            } else {
                break;
            };
            if joined.is_some_and(|j| j != join) {
                return Err(self.error(
                    at,
                    "AND and OR stand beside each other",
                    "say with parentheses which comes first",
                ));
            }
            joined = Some(join);
            nodes.push(self.term()?);
        }
        Ok(match joined {
            None => nodes.swap_remove(0),
            Some(Join::And) => Node::All(nodes),
            Some(Join::Or) => Node::Any(nodes),
        })
    }

    fn term(&mut self) -> Result<Node, FilterError> {
        if self.keyword("NOT") || self.symbol("-") {
            return Ok(Node::Not(Box::new(self.term()?)));
        }
        self.space();
        let opened = self.at;
        if !self.symbol("(") {
            return self.condition();
        }
        let node = self.expression()?;
        if self.symbol(")") {
            return Ok(node);
        }
        if self.rest().is_empty() {
            return Err(self.error(opened, "this `(` is never closed", "close it with `)`"));
        }
        let word = self.word();
        Err(self.error(self.at, format!("`{word}` stands before the `)`"), "join conditions with AND or OR"))
    }

    fn condition(&mut self) -> Result<Node, FilterError> {
        if self.keyword("hasPrefix") {
            return self.has_prefix();
        }
        if !self.keyword("attributes") {
            let problem = match self.word() {
                "" => "the filter ends where a condition should be".to_owned(),
                word if word.eq_ignore_ascii_case("not") => format!("`{word}` is no operator"),
                word => format!("`{word}` begins no condition"),
            };
            let mend =
                if self.word().eq_ignore_ascii_case("not") { "write NOT in capitals" } else { CONDITION };
            return Err(self.error(self.at, problem, mend));
        }
        if self.symbol(":") {
            return Ok(Node::Has(self.key()?));
        }
        self.expect(".", "write attributes:key or attributes.key = \"value\"")?;
        let key = self.key()?;
        let negated = self.symbol("!=");
        if !negated && !self.symbol("=") {
            let mend = if self.rest().starts_with('.') {
                "put a key that has dots in double quotes"
            } else {
                "compare it with = or != to a text in double quotes, or write attributes:key"
            };
            return Err(self.error(self.at, "an operator should follow the key", mend));
        }
        let node = Node::Equals(key, self.string("a value")?);
        Ok(if negated { Node::Not(Box::new(node)) } else { node })
    }

    fn has_prefix(&mut self) -> Result<Node, FilterError> {
        const FORM: &str = "write hasPrefix(attributes.key, \"prefix\")";
        self.expect("(", FORM)?;
        if !self.keyword("attributes") {
            return Err(self.error(self.at, "hasPrefix looks at attributes only", FORM));
        }
        self.expect(".", FORM)?;
        let key = self.key()?;
        self.expect(",", FORM)?;
        let prefix = self.string("a prefix")?;
        self.expect(")", FORM)?;
        Ok(Node::Prefix(key, prefix))
    }

    fn key(&mut self) -> Result<Box<str>, FilterError> {
        match self.peek() {
            Some('"') => self.string("a key"),
            Some(c) if is_key_char(c) => {
                let word = self.word();
                self.at += word.len();
                Ok(word.into())
            }
            _ => Err(self.error(
                self.at,
                "a key is missing",
                "write letters, digits, - and _, or any key in double quotes",
            )),
        }
    }

    fn string(&mut self, what: &str) -> Result<Box<str>, FilterError> {
        let c = self.peek();
        let opened = self.at;
        if c != Some('"') {
            return Err(self.error(opened, format!("{what} should follow"), "write it in double quotes"));
        }
        self.at += 1;
        let mut text = String::new();
        loop {
            let at = self.at;
            let Some(c) = self.rest().chars().next() else {
                return Err(self.error(opened, "this text is never closed", "close it with a double quote"));
            };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(text.into()),
                '\\' => text.push(self.escape(at)?),
                c if c.is_control() => {
                    return Err(self.error(
                        at,
                        "a control character stands in a text",
                        "write it as \\n or \\u000a",
                    ));
                }
                c => text.push(c),
            }
        }
    }

    /// The character that an escape stands for; `at` is its backslash, already consumed.
    fn escape(&mut self, at: usize) -> Result<char, FilterError> {
        let unknown = |p: &Self| {
            p.error(
                at,
                "this escape is unknown",
                "use \\\\ \\\" \\n \\t \\r \\xhh \\ooo \\uhhhh or \\Uhhhhhhhh",
            )
        };
        let c = self.rest().chars().next().ok_or_else(|| unknown(self))?;
        let (skip, digits, radix) = match c {
            'x' | 'X' => (1, 2, 16),
            'u' => (1, 4, 16),
            'U' => (1, 8, 16),
            '0'..='3' => (0, 3, 8),
            _ => {
                self.at += c.len_utf8();
                return match c {
                    '\\' | '"' | '\'' | '`' | '?' => Ok(c),
                    'a' => Ok('\u{7}'),
                    'b' => Ok('\u{8}'),
                    't' => Ok('\t'),
                    'n' => Ok('\n'),
                    'v' => Ok('\u{b}'),
                    'f' => Ok('\u{c}'),
                    'r' => Ok('\r'),
                    _ => Err(unknown(self)),
                };
            }
        };
        let number = self.rest().get(skip..skip + digits);
        let number = number.filter(|d| d.chars().all(|c| c.is_digit(radix)));
        let point = number.and_then(|d| u32::from_str_radix(d, radix).ok()).ok_or_else(|| unknown(self))?;
        self.at += skip + digits;
        char::from_u32(point).ok_or_else(|| {
            self.error(
                at,
                "this escape names no character",
                "use a Unicode scalar value, up to 10ffff and no surrogate",
            )
        })
    }
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}
