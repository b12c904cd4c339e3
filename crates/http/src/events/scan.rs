//! A JSON scanner that checks a text and cuts it into raw slices without copying.
//!
//! Ingestion needs the handful of envelope fields and the payload as it came, so building
//! a tree of every payload would be work thrown away. The scanner walks each text once:
//! the grammar (RFC 8259) is checked everywhere, nesting is bounded, and values come back
//! as slices of the request body. Tests compare its verdict with `serde_json`'s.

use std::borrow::Cow;
use std::fmt;

/// Deeper nesting is refused, so that no later reader can be driven out of its stack.
/// (It equals the depth at which `serde_json` gives up.)
pub const MAX_DEPTH: u32 = 127;

/// Why a text is not the JSON that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntaxError {
    pub kind: SyntaxKind,
    /// Byte offset in the text.
    pub at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyntaxKind {
    /// The text ends inside a value.
    Truncated,
    Expected(&'static str),
    TooDeep,
    TooMany,
}

impl fmt::Display for SyntaxKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyntaxKind::Truncated => f.write_str("the text ends in the middle of a value"),
            SyntaxKind::Expected(what) => write!(f, "expected {what}"),
            SyntaxKind::TooDeep => write!(f, "nesting is deeper than {MAX_DEPTH} levels"),
            SyntaxKind::TooMany => f.write_str("the list is too long"),
        }
    }
}

impl SyntaxError {
    /// Line and column, both from 1, the column in characters.
    pub fn place(&self, text: &str) -> (usize, usize) {
        let before = text.get(..self.at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// A string as it stands in the text, without its quotes.
#[derive(Debug, Clone, Copy)]
pub struct RawStr<'a> {
    inner: &'a str,
    escaped: bool,
}

impl<'a> RawStr<'a> {
    /// The text it stands for; `None` when an escape names half a surrogate pair.
    pub fn decode(self) -> Option<Cow<'a, str>> {
        if !self.escaped {
            return Some(Cow::Borrowed(self.inner));
        }
        serde_json::from_str(&format!("\"{}\"", self.inner)).ok().map(Cow::Owned)
    }
}

/// Walks one text. Values are consumed in order.
pub struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

type Scan<T> = Result<T, SyntaxError>;

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0 }
    }

    pub fn error(&self, kind: SyntaxKind) -> SyntaxError {
        SyntaxError { kind, at: self.at }
    }

    fn expected(&self, what: &'static str) -> SyntaxError {
        let kind =
            if self.at >= self.bytes.len() { SyntaxKind::Truncated } else { SyntaxKind::Expected(what) };
        self.error(kind)
    }

    /// The next byte that is not white space, not consumed.
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(b) = self.bytes.get(self.at) {
            if !matches!(b, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*b);
            }
            self.at += 1;
        }
        None
    }

    /// Consumes the byte where it comes next.
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn require(&mut self, byte: u8, what: &'static str) -> Scan<()> {
        if self.take(byte) { Ok(()) } else { Err(self.expected(what)) }
    }

    /// Only white space may remain.
    pub fn end(&mut self) -> Scan<()> {
        if self.peek().is_none() { Ok(()) } else { Err(self.expected("the end of the text")) }
    }

    /// A string that must come next.
    pub fn string(&mut self) -> Scan<RawStr<'a>> {
        self.require(b'"', "a string")?;
        let start = self.at;
        let escaped = self.skip_string_rest()?;
        Ok(RawStr { inner: &self.text[start..self.at - 1], escaped })
    }

    /// A key and its colon.
    pub fn key(&mut self) -> Scan<RawStr<'a>> {
        let key = self.string()?;
        self.require(b':', "`:`")?;
        Ok(key)
    }

    /// Any value, checked, as the slice it takes.
    pub fn value(&mut self) -> Scan<&'a str> {
        self.peek();
        let start = self.at;
        self.skip_value()?;
        Ok(&self.text[start..self.at])
    }

    /// After an element: true when another follows, false at the closing byte.
    pub fn more(&mut self, close: u8) -> Scan<bool> {
        if self.take(b',') {
            return Ok(true);
        }
        self.require(close, if close == b'}' { "`,` or `}`" } else { "`,` or `]`" })?;
        Ok(false)
    }

    /// Checks and passes one value. Nested containers cost no stack: their kinds are the
    /// bits of one integer.
    fn skip_value(&mut self) -> Scan<()> {
        let mut depth = 0;
        let mut objects: u128 = 0;
        loop {
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    depth += 1;
                    if depth > MAX_DEPTH {
                        return Err(self.error(SyntaxKind::TooDeep));
                    }
                    self.at += 1;
                    objects = objects << 1 | u128::from(open == b'{');
                    if self.take(if open == b'{' { b'}' } else { b']' }) {
                        depth -= 1;
                        objects >>= 1;
                    } else {
                        if open == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => {
                    self.at += 1;
                    self.skip_string_rest()?;
                }
                Some(b'-' | b'0'..=b'9') => self.skip_number()?,
                Some(b't') => self.skip_word("true")?,
                Some(b'f') => self.skip_word("false")?,
                Some(b'n') => self.skip_word("null")?,
                _ => return Err(self.expected("a value")),
            }
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let object = objects & 1 == 1;
                if self.more(if object { b'}' } else { b']' })? {
                    if object {
                        self.key()?;
                    }
                    break;
                }
                depth -= 1;
                objects >>= 1;
            }
        }
    }

    /// From after the opening quote to after the closing one; true when it holds escapes.
    fn skip_string_rest(&mut self) -> Scan<bool> {
        let mut escaped = false;
        loop {
            self.at += plain_prefix(&self.bytes[self.at..]);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    self.skip_escape()?;
                }
                _ => return Err(self.expected("a string without control characters")),
            }
        }
    }

    fn skip_escape(&mut self) -> Scan<()> {
        match self.bytes.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.bytes.get(self.at).is_some_and(u8::is_ascii_hexdigit) {
                        return Err(self.expected("four hexadecimal digits"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.expected("a valid escape")),
        }
        Ok(())
    }

    fn skip_number(&mut self) -> Scan<()> {
        self.at += usize::from(self.bytes.get(self.at) == Some(&b'-'));
        if self.bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.skip_digits()?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.skip_digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            self.skip_digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'0'..=b'9')) {
            return Err(self.expected("a number without leading zeros"));
        }
        Ok(())
    }

    fn skip_digits(&mut self) -> Scan<()> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn skip_word(&mut self, word: &'static str) -> Scan<()> {
        for expected in word.bytes() {
            if self.bytes.get(self.at) != Some(&expected) {
                return Err(self.expected(word));
            }
            self.at += 1;
        }
        Ok(())
    }
}

/// How many bytes from the start are neither a quote, a backslash nor a control character.
/// Eight at a time; the trick of finding a zero byte in a word is from Mycroft (1987).
fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let zero_in = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (words, _) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = zero_in(word ^ (ONES * u64::from(b'"')));
        let backslash = zero_in(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let hit = quote | backslash | control;
        if hit != 0 {
            return n * 8 + (hit.trailing_zeros() / 8) as usize;
        }
    }
    let done = words.len() * 8;
    done + bytes[done..].iter().take_while(|b| !matches!(b, b'"' | b'\\' | 0..=0x1f)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Scan<&str> {
        let mut scanner = Scanner::new(text);
        let value = scanner.value()?;
        scanner.end()?;
        Ok(value)
    }

    #[test]
    fn agrees_with_serde_json_on_mutated_texts() {
        let seeds = [
            r#"{"a":[1,-0.5e+10,true,false,null,"x\"\\\/\b\u00e9é😀"],"b":{"c":{}},"":[]}"#,
            r#"  [ { "k" : "0123456789abcdef\n0123456789" } , [ ] , [[[1]]] , 0 , -0 , 1E5 ]  "#,
            r#""only a string that is longer than a word""#,
        ];
        let alphabet = br#"{}[]",:\truefalsn0129-+.eE u"#;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % n as u64) as usize
        };
        let mut valid = 0;
        for round in 0..60_000 {
            let mut text = seeds[round % seeds.len()].as_bytes().to_vec();
            for _ in 0..=random(2) {
                let at = random(text.len());
                match random(4) {
                    0 => text[at] = alphabet[random(alphabet.len())],
                    1 => text.insert(at, alphabet[random(alphabet.len())]),
                    2 => drop(text.remove(at)),
                    _ => text.truncate(at.max(1)),
                }
            }
            let Ok(text) = std::str::from_utf8(&text) else { continue };
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(text);
            let ours = check(text);
            assert_eq!(ours.is_ok(), theirs.is_ok(), "{text}: {ours:?} but {theirs:?}");
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                valid += 1;
                assert_eq!(ours, theirs.get().trim());
            }
        }
        assert!(valid > 5_000, "the mutations leave enough valid texts: {valid}");
    }

    #[test]
    fn finds_every_special_byte_at_every_place_of_a_word() {
        for special in (0..0x20).chain([b'"', b'\\']) {
            for at in 0..24 {
                let mut bytes = vec![0xc3; 24];
                bytes[at] = special;
                assert_eq!(plain_prefix(&bytes), at, "{special:#x}");
            }
        }
        for plain in (0x20..=0xff).filter(|b| !matches!(b, b'"' | b'\\')) {
            assert_eq!(plain_prefix(&[plain; 19]), 19, "{plain:#x}");
        }
    }

    #[test]
    fn nesting_is_bounded_without_using_the_stack() {
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(check(&deep(MAX_DEPTH as usize)).is_ok());
        let error = check(&deep(MAX_DEPTH as usize + 1)).expect_err("one too deep");
        assert_eq!(error.kind, SyntaxKind::TooDeep);
        let bomb = "[{\"a\":".repeat(1_000_000);
        assert_eq!(check(&bomb).expect_err("a bomb").kind, SyntaxKind::TooDeep);
        assert!(serde_json::from_str::<serde_json::Value>(&deep(MAX_DEPTH as usize)).is_ok());
    }

    #[test]
    fn says_where_and_why() {
        let text = "{\n  \"é\": [1,\n";
        let error = check(text).expect_err("truncated");
        assert_eq!(error.kind, SyntaxKind::Truncated);
        assert_eq!(error.place(text), (3, 1));
        let text = "{\"é\" 1}";
        let error = check(text).expect_err("no colon");
        assert_eq!((error.kind, error.place(text)), (SyntaxKind::Expected("`:`"), (1, 6)));
    }

    #[test]
    fn half_a_surrogate_pair_passes_the_grammar_and_fails_decoding() {
        let mut scanner = Scanner::new(r#""\ud800""#);
        assert!(scanner.string().expect("grammatical").decode().is_none());
        let mut scanner = Scanner::new(r#""\ud83d\ude00""#);
        assert_eq!(scanner.string().expect("grammatical").decode().as_deref(), Some("😀"));
    }
}
