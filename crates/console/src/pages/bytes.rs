//! How bytes are shown: text as text, JSON in lines, anything else as hexadecimal.

use maud::{Markup, html};

use crate::format::bytes;

/// Bytes of a body that a page shows; the rest is a download away.
const SHOWN_BYTES: usize = 64 * 1024;
/// Bytes shown as hexadecimal where a body is no text.
const SHOWN_HEX_BYTES: usize = 4 * 1024;

/// Text as it came; anything else as hexadecimal beside its printable characters.
pub(crate) fn original(body: &[u8]) -> Markup {
    let (text, shown) = match std::str::from_utf8(body) {
        Ok(text) => {
            let end = text.floor_char_boundary(SHOWN_BYTES);
            (text[..end].to_owned(), end)
        }
        Err(_) => {
            let end = body.len().min(SHOWN_HEX_BYTES);
            (hex_dump(&body[..end]), end)
        }
    };
    html! {
        pre.bytes tabindex="0" { (text) }
        @if shown < body.len() { p.faint { "The first " (bytes(shown as u64)) "; the download has all." } }
    }
}

fn hex_dump(body: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(body.len() * 5);
    for (row, chunk) in body.chunks(16).enumerate() {
        let hex: Vec<String> = chunk.iter().map(|b| format!("{b:02x}")).collect();
        let text: String =
            chunk.iter().map(|b| if (0x20..0x7f).contains(b) { char::from(*b) } else { '·' }).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{:06x}  {:<47}  {text}", row * 16, hex.join(" "));
    }
    out
}

/// Longer texts are shown as they came.
const LAID_OUT_BYTES: usize = 256 * 1024;

/// JSON of one line in lines, its members in their order; anything else as it came.
pub(crate) fn laid_out(text: &str) -> String {
    let text = text.trim();
    if text.len() > LAID_OUT_BYTES
        || text.contains('\n')
        || serde_json::from_str::<serde::de::IgnoredAny>(text).is_err()
    {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if quoted {
            out.push(c);
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        let line = |out: &mut String, depth: usize| {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth.min(32)));
        };
        match c {
            '{' | '[' => {
                out.push(c);
                while characters.next_if(|next| next.is_whitespace()).is_some() {}
                if characters.peek().is_none_or(|next| !matches!(next, '}' | ']')) {
                    depth += 1;
                    line(&mut out, depth);
                } else if let Some(end) = characters.next() {
                    out.push(end);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_whitespace() => {}
            c => {
                quoted = c == '"';
                out.push(c);
            }
        }
    }
    out
}

/// The beginning of a body on one line, and what it is: `json`, `text` or `hex`.
pub(crate) fn preview(body: &[u8]) -> (&'static str, String) {
    const SHOWN_CHARS: usize = 160;
    const HEX_BYTES: usize = 24;
    let Ok(text) = std::str::from_utf8(body) else {
        let shown: Vec<String> = body.iter().take(HEX_BYTES).map(|b| format!("{b:02x}")).collect();
        let more = if body.len() > HEX_BYTES { " …" } else { "" };
        return ("hex", shown.join(" ") + more);
    };
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    let mut shown: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = shown.char_indices().nth(SHOWN_CHARS) {
        shown.truncate(end);
        shown.push('…');
    }
    (if is_json { "json" } else { "text" }, shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_in_its_order_and_text_is_left_alone() {
        let laid = laid_out(r#"{"b":[1,{}, []],"a":"x,{\"}: y","c":null}"#);
        let lines = [
            "{",
            "  \"b\": [",
            "    1,",
            "    {},",
            "    []",
            "  ],",
            "  \"a\": \"x,{\\\"}: y\",",
            "  \"c\": null",
            "}",
        ];
        assert_eq!(laid.lines().collect::<Vec<_>>(), lines);
        let again: String = laid.split_whitespace().collect();
        assert!(again.starts_with("{\"b\":[1,{},[]]"));
        assert_eq!(laid_out("{not json"), "{not json");
        assert_eq!(laid_out("{\n \"a\":1}"), "{\n \"a\":1}", "its own lines stay");
        assert_eq!(laid_out(&"[".repeat(100_000)), "[".repeat(100_000));
    }

    #[test]
    fn a_preview_is_one_line() {
        assert_eq!(preview(b"{\"a\":\n 1}"), ("json", "{\"a\": 1}".to_owned()));
        assert_eq!(preview(b"a\nb"), ("text", "a b".to_owned()));
        assert_eq!(preview(b"\xff\x00"), ("hex", "ff 00".to_owned()));
        assert_eq!(preview("ü".repeat(500).as_bytes()).1.chars().count(), 161);
        assert!(preview(&[0xff; 100]).1.ends_with(" …"));
    }
}
