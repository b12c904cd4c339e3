//! How bytes are shown: text as text, JSON in lines, anything else as hexadecimal.

use maud::{Markup, html};

use crate::format::bytes;
use crate::message::PREVIEW_BYTES;

/// Bytes of a body that a page shows; the rest is a download away.
const SHOWN_BYTES: usize = 64 * 1024;
/// Bytes shown as hexadecimal where a body is no text.
const SHOWN_HEX_BYTES: usize = 4 * 1024;

/// Text as it came; anything else as hexadecimal beside its printable characters.
pub(crate) fn original(body: &[u8]) -> Markup {
    let (text, shown) = match beginning(body, SHOWN_BYTES) {
        Some(text) => (text.to_owned(), text.len()),
        None => {
            let end = body.len().min(SHOWN_HEX_BYTES);
            (hex_dump(&body[..end]), end)
        }
    };
    html! {
        pre.bytes tabindex="0" { (text) }
        @if shown < body.len() { p.faint { "The first " (bytes(shown as u64)) "; the download has all." } }
    }
}

/// The text that bytes begin with, `None` where they are no text. What follows is not looked at.
fn beginning(body: &[u8], most_bytes: usize) -> Option<&str> {
    let is_cut = body.len() >= most_bytes;
    let head = &body[..body.len().min(most_bytes)];
    match std::str::from_utf8(head) {
        Ok(text) => Some(text),
        // The last character goes on beyond the bytes.
        Err(error) if is_cut && error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
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

/// Longer texts, and those that would be longer in lines, are shown as they came.
pub(crate) const LAID_OUT_BYTES: usize = 256 * 1024;

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
        if out.len() > LAID_OUT_BYTES {
            return text.to_owned();
        }
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
    let Some(text) = beginning(body, PREVIEW_BYTES) else {
        let shown: Vec<String> = body.iter().take(HEX_BYTES).map(|b| format!("{b:02x}")).collect();
        let more = if body.len() > HEX_BYTES { " …" } else { "" };
        return ("hex", shown.join(" ") + more);
    };
    let is_json = match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => true,
        // JSON as far as it was looked at.
        Err(error) => error.is_eof() && body.len() >= PREVIEW_BYTES,
    };
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
        let long = format!("{{\"a\":[{}]}}", "\"ü\",".repeat(1 << 20));
        assert_eq!(preview(long.as_bytes()).0, "json", "as far as it was looked at");
        assert_eq!(preview(&long.as_bytes()[..PREVIEW_BYTES]).0, "json");
        assert_eq!(preview("ü".repeat(1 << 20).as_bytes()).0, "text");
    }

    #[test]
    fn a_long_body_is_shown_by_its_beginning() {
        let text = original("<ü".repeat(1 << 20).as_bytes()).into_string();
        assert!(text.contains("The first 64.0 KiB") && text.len() < 200_000, "{}", text.len());
        let binary = original(&[0xff; 1 << 20]).into_string();
        assert!(binary.contains("The first 4.00 KiB") && binary.len() < 30_000, "{}", binary.len());
    }

    #[test]
    fn json_that_would_grow_in_lines_stays_in_one() {
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        let wide = format!("[{}0]", format!("{deep},").repeat(500));
        assert_eq!(laid_out(&wide), wide);
        assert!(laid_out(&deep).contains('\n'));
    }
}
