//! Ends of lines on their way through a form. Pages hold no CR, and what a browser sends back has
//! CR LF at the end of each line, whatever stood there: a text that nobody touched comes back
//! changed, and has to be known again.

/// Whether a browser would send both texts as the same one.
pub(crate) fn same(a: &str, b: &str) -> bool {
    parts(a).map(|(text, _)| text).eq(parts(b).map(|(text, _)| text))
}

/// Whether a text has more than one line to a browser.
pub(crate) fn has_breaks(text: &str) -> bool {
    text.contains(['\r', '\n'])
}

/// A text that a form brought, with the ends of lines of the one it was made from: lines that stayed
/// have theirs, new ones that of the first line before, or LF.
pub(crate) fn restored(given: &str, before: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (parts(before).collect(), parts(given).collect());
    let usual = old.first().map(|(_, end)| *end).filter(|end| !end.is_empty()).unwrap_or("\n");
    let shorter = old.len().min(new.len());
    let equal = |(a, b): &(&(&str, &str), &(&str, &str))| a.0 == b.0;
    let head = old.iter().zip(&new).take_while(equal).count();
    let tail = old.iter().rev().zip(new.iter().rev()).take(shorter - head).take_while(equal).count();
    let mut out = String::with_capacity(given.len());
    for (at, (text, _)) in new.iter().enumerate() {
        out.push_str(text);
        if at + 1 == new.len() {
            break;
        }
        let line = if at + tail >= new.len() {
            old.get(at + old.len() - new.len())
        } else {
            // Of those between, the first for the first, as far as there are any.
            old[..old.len() - tail].get(at)
        };
        out.push_str(line.map(|(_, end)| *end).filter(|end| !end.is_empty()).unwrap_or(usual));
    }
    out
}

/// The lines, each with its end; the last has none.
fn parts(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(at) = text.find(['\r', '\n']) else {
            rest = None;
            return Some((text, ""));
        };
        let len = if text[at..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[at + len..]);
        Some((&text[..at], &text[at..at + len]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_lines_make_no_difference_and_everything_else_does() {
        for (a, b) in [("a\nb", "a\r\nb"), ("a\rb", "a\nb"), ("\r\r\n\n", "\n\n\n"), ("", "")] {
            assert!(same(a, b), "{a:?} {b:?}");
        }
        for (a, b) in [("a\n", "a"), ("a\n\nb", "a\r\nb"), (" a", "a"), ("a b", "a\nb")] {
            assert!(!same(a, b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn lines_that_stayed_keep_their_ends() {
        let before = "a\rb\nc\r\nd\ne";
        for (given, expected) in [
            ("a\r\nb\r\nc\r\nd\r\ne", before),
            ("a\r\nB\r\nc\r\nd\r\ne", "a\rB\nc\r\nd\ne"),
            ("a\r\nb\r\nnew\r\nc\r\nd\r\ne", "a\rb\nnew\rc\r\nd\ne"),
            ("a\r\nd\r\ne", "a\rd\ne"),
            ("e", "e"),
            ("", ""),
            ("a\r\nb\r\nc\r\nd\r\ne\r\n", "a\rb\nc\r\nd\ne\r"),
            ("x\r\na\r\nb\r\nc\r\nd\r\ne", "x\ra\rb\nc\r\nd\ne"),
        ] {
            assert_eq!(restored(given, before), expected, "{given:?}");
        }
        assert_eq!(restored("a\r\nb", "a"), "a\nb");
        assert_eq!(restored("a\r\nb\r\n", "a\r\n"), "a\r\nb\r\n");
        assert_eq!(restored("a\r\na\r\na", "a\na"), "a\na\na");
    }
}
