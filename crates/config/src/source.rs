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
}

impl SourceFile {
    pub fn new(path: PathBuf, text: String) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { path, text, line_starts }
    }

    /// Line and column of a byte, both from 1, the column in characters.
    pub fn position(&self, byte: usize) -> (u32, u32) {
        let byte = self.floor(byte);
        let line = self.line_starts.partition_point(|&start| start <= byte) - 1;
        let column = self.text[self.line_starts[line]..byte].chars().count() + 1;
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
