//! A text file of the project with its lines, so that a byte range becomes line and column.

use std::ops::Range;
use std::path::PathBuf;

/// A byte range of a file.
pub(crate) type Span = Range<usize>;

#[derive(Debug)]
pub(crate) struct SourceFile {
    /// Relative to the project root.
    pub path: PathBuf,
    pub text: String,
    line_starts: Vec<usize>,
    /// Characters before each block of the text, so that a column far into a long line is found
    /// without counting from the line's start.
    counts: Vec<usize>,
}

/// Bytes of a block whose characters are counted once.
const BLOCK_BYTES: usize = 1024;

/// The characters that begin in these bytes.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| (**byte).cast_signed() >= -0x40).count()
}

impl SourceFile {
    pub fn new(path: PathBuf, text: String) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        let mut before = 0;
        let count = |block: &[u8]| {
            let begin = before;
            before += characters(block);
            begin
        };
        let mut counts: Vec<usize> = text.as_bytes().chunks(BLOCK_BYTES).map(count).collect();
        // For a place at the very end of a text of whole blocks.
        counts.push(before);
        Self { path, text, line_starts, counts }
    }

    /// Characters before a byte.
    fn count_before(&self, byte: usize) -> usize {
        let block = byte / BLOCK_BYTES;
        self.counts[block] + characters(&self.text.as_bytes()[block * BLOCK_BYTES..byte])
    }

    /// Line and column of a byte, both from 1, the column in characters.
    pub fn position(&self, byte: usize) -> (u32, u32) {
        let byte = self.floor(byte);
        let line = self.line_starts.partition_point(|&start| start <= byte) - 1;
        let column = self.count_before(byte) - self.count_before(self.line_starts[line]) + 1;
        (to_u32(line + 1), to_u32(column))
    }

    pub fn line_of(&self, byte: usize) -> u32 {
        self.position(byte).0
    }

    /// The line that holds a byte, without its end, and the span within it (cut at the line's end).
    pub fn line_around(&self, span: &Span) -> (&str, Span) {
        let start = self.floor(span.start);
        let line = self.line_starts.partition_point(|&s| s <= start) - 1;
        let from = self.line_starts[line];
        let to = self.line_starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        let text = self.text[from..to].trim_end_matches('\r');
        let begin = (start - from).min(text.len());
        let end = (self.floor(span.end.max(start)) - from).clamp(begin, text.len());
        let trimmed = begin + text[begin..end].trim_end().len();
        (text, begin..trimmed)
    }

    /// The place of `needle` within a span, or the whole span.
    pub fn find_within(&self, span: &Span, needle: &str) -> Span {
        let range = self.floor(span.start)..self.floor(span.end.max(span.start));
        match self.text[range.clone()].find(needle) {
            Some(at) => range.start + at..range.start + at + needle.len(),
            None => span.clone(),
        }
    }

    fn floor(&self, byte: usize) -> usize {
        self.text.floor_char_boundary(byte.min(self.text.len()))
    }
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_counts_characters_in_lines_of_any_length() {
        let long = "é🦀a".repeat(700);
        for text in [String::new(), "a".repeat(2 * BLOCK_BYTES), format!("x\n{long}\ny{long}")] {
            let file = SourceFile::new(PathBuf::from("f"), text.clone());
            for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
                let before = &text[..at];
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                assert_eq!(file.position(at), (to_u32(line), to_u32(column)), "byte {at}");
            }
        }
    }
}
