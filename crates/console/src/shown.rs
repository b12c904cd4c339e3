//! How much of a value a page shows.
//!
//! Values come from callers and may be as long as a query or a message allows. A page takes the
//! beginning of each while it is read, says how long the whole is, and never holds the rest.

use std::fmt::{self, Display, Write};

use maud::{Markup, Render, html};
use serde::{Deserialize, Serialize};

use crate::format::count;

/// Characters of a value in a table.
pub const CELL_CHARS: usize = 1_000;
/// Characters of a name or an id in a table.
pub(crate) const NAME_CHARS: usize = 300;
/// Characters of a value on a page of its own, and of what is wrong with a request.
pub(crate) const DETAIL_CHARS: usize = 16 * 1024;

/// The beginning of a value, and how long it is where that is not all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    text: String,
    cut: Option<Cut>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Cut {
    /// The whole has so many characters.
    Of(u64),
    /// The whole was not read to its end; it has more than so many.
    MoreThan(u64),
}

impl Shown {
    /// At most `chars` characters. What comes in pieces is read as far as it is shown.
    pub fn of(value: impl Display, chars: usize) -> Self {
        let mut head = Head { shown: Self::default(), seen: 0, left: chars };
        // It only breaks off where the head is full, or where the value itself cannot be written.
        if write!(head, "{value}").is_err() && head.shown.cut.is_none() {
            head.shown.cut = Some(Cut::MoreThan(head.seen));
        }
        head.shown
    }

    /// A value in a table.
    pub fn cell(value: impl Display) -> Self {
        Self::of(value, CELL_CHARS)
    }

    pub fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// Bytes that it takes in a page.
    pub(crate) fn html_bytes(&self) -> usize {
        const MARK_BYTES: usize = 64;
        let escaped = |byte: u8| match byte {
            b'&' => 5,
            b'<' | b'>' => 4,
            b'"' => 6,
            _ => 1,
        };
        self.text.bytes().map(escaped).sum::<usize>() + if self.is_cut() { MARK_BYTES } else { 0 }
    }

    fn mark(&self) -> Option<String> {
        Some(match self.cut? {
            Cut::Of(chars) => format!("… ({} characters)", count(chars)),
            Cut::MoreThan(0) => "…".to_owned(),
            Cut::MoreThan(chars) => format!("… (more than {} characters)", count(chars)),
        })
    }
}

impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        f.write_str(&self.mark().unwrap_or_default())
    }
}

impl Render for Shown {
    fn render(&self) -> Markup {
        html! { (self.text) @if let Some(mark) = self.mark() { span.faint { (mark) } } }
    }
}

/// Keeps the beginning of what is written, and ends the writing soon after.
struct Head {
    shown: Shown,
    seen: u64,
    left: usize,
}

impl Write for Head {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if piece.is_empty() {
            return Ok(());
        }
        if self.shown.is_cut() {
            self.shown.cut = Some(Cut::MoreThan(self.seen));
            return Err(fmt::Error);
        }
        match piece.char_indices().nth(self.left) {
            None => {
                let chars = piece.chars().count();
                self.left -= chars;
                self.seen += chars as u64;
                self.shown.text.push_str(piece);
            }
            Some((end, _)) => {
                self.shown.text.push_str(&piece[..end]);
                self.shown.cut = Some(Cut::Of(self.seen + piece.chars().count() as u64));
                self.seen += self.left as u64;
                self.left = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_cut_between_characters_and_says_how_long_it_is() {
        for (text, chars, expected) in [
            ("", 3, ""),
            ("süß", 3, "süß"),
            ("süßer", 3, "süß… (5 characters)"),
            ("a", 0, "… (1 characters)"),
        ] {
            assert_eq!(Shown::of(text, chars).to_string(), expected);
        }
        let wide = Shown::cell("<".repeat(3_000_000));
        assert!(wide.to_string().ends_with("<… (3,000,000 characters)"));
        assert_eq!(wide.html_bytes(), 4_064);
        assert_eq!(wide.render().into_string().matches("&lt;").count(), 1_000);
    }

    #[test]
    fn what_comes_in_pieces_is_not_read_to_its_end() {
        struct Endless(std::cell::Cell<usize>);
        impl Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    self.0.set(self.0.get() + 1);
                    f.write_str("ab")?;
                }
            }
        }
        let endless = Endless(std::cell::Cell::new(0));
        assert_eq!(Shown::of(&endless, 5).to_string(), "ababa… (more than 5 characters)");
        assert_eq!(endless.0.get(), 4);
    }
}
