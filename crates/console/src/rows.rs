//! The rows of a query as its page shows them: as many as fit, each value cut.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

use crate::shown::Shown;

/// Bytes of HTML that the rows of a page may have.
pub const PAGE_BYTES: usize = 2 << 20;
/// Columns of a page.
pub const PAGE_COLUMNS: usize = 1_000;
/// Characters of a column's name and of its type.
const HEAD_CHARS: usize = 200;
/// Bytes of HTML around a value, and around a row.
const CELL_BYTES: usize = 32;
const ROW_BYTES: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: Shown,
    /// Such as `bigint`.
    pub kind: Shown,
    /// Whether values are set flush right.
    pub numeric: bool,
}

impl Column {
    pub fn new(name: impl Display, kind: impl Display, numeric: bool) -> Self {
        Self { name: Shown::of(name, HEAD_CHARS), kind: Shown::of(kind, HEAD_CHARS), numeric }
    }
}

/// Rows, read until the page is full.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownRows {
    columns: Vec<Column>,
    /// Columns of the result that the page has no place for.
    more_columns: usize,
    rows: Vec<Vec<Option<Shown>>>,
    /// Bytes of HTML.
    bytes: usize,
    full: bool,
    any_cut: bool,
}

impl ShownRows {
    pub fn new(columns: impl ExactSizeIterator<Item = Column>) -> Self {
        let more_columns = columns.len().saturating_sub(PAGE_COLUMNS);
        let columns: Vec<Column> = columns.take(PAGE_COLUMNS).collect();
        let bytes = columns.iter().map(|c| c.name.html_bytes() + c.kind.html_bytes() + 2 * CELL_BYTES).sum();
        let any_cut = columns.iter().any(|c| c.name.is_cut() || c.kind.is_cut());
        Self { columns, more_columns, bytes, any_cut, ..Self::default() }
    }

    /// Takes one row, `None` is NULL; `false` where the page is full. The first row always has a
    /// place: once the page is full, only the lengths of its further values are shown.
    pub fn push<D: Display>(&mut self, cells: impl Iterator<Item = Option<D>>) -> bool {
        if self.full {
            return false;
        }
        let is_first = self.rows.is_empty();
        let (mut row, mut bytes, mut any_cut) = (Vec::with_capacity(self.columns.len()), ROW_BYTES, false);
        for cell in cells.take(PAGE_COLUMNS) {
            let has_room = self.bytes + bytes < PAGE_BYTES;
            let shown = cell.map(|cell| if has_room { Shown::cell(cell) } else { Shown::of(cell, 0) });
            bytes += CELL_BYTES + shown.as_ref().map_or(0, Shown::html_bytes);
            any_cut |= shown.as_ref().is_some_and(Shown::is_cut);
            if !is_first && self.bytes + bytes > PAGE_BYTES {
                self.full = true;
                return false;
            }
            row.push(shown);
        }
        self.bytes += bytes;
        self.any_cut |= any_cut;
        self.rows.push(row);
        true
    }

    /// Whether a row was left out because the page has no room for it.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whether any value, or a column's name, is not shown to its end.
    pub fn has_cut(&self) -> bool {
        self.any_cut
    }

    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub fn more_columns(&self) -> usize {
        self.more_columns
    }

    pub fn rows(&self) -> &[Vec<Option<Shown>>] {
        &self.rows
    }

    /// Bytes of HTML, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(rows: &ShownRows) -> Vec<Vec<String>> {
        let text = |cell: &Option<Shown>| cell.as_ref().map_or("null".to_owned(), Shown::to_string);
        rows.rows().iter().map(|row| row.iter().map(text).collect()).collect()
    }

    #[test]
    fn small_rows_stay_as_they_are() {
        let mut rows = ShownRows::new([Column::new("n", "int64", true)].into_iter());
        assert!(rows.push([Some("<b>")].into_iter()) && rows.push([None::<&str>].into_iter()));
        assert_eq!(texts(&rows), [["<b>"], ["null"]]);
        assert!(!rows.is_full() && !rows.has_cut() && rows.more_columns() == 0);
    }

    #[test]
    fn wide_values_are_cut_and_the_page_ends_at_its_bytes() {
        let wide = "\"".repeat(100_000);
        let mut rows = ShownRows::new([Column::new("text", "utf8", false)].into_iter());
        while rows.push([Some(&wide)].into_iter()) {}
        assert!(rows.is_full() && rows.has_cut());
        assert!(rows.bytes() <= PAGE_BYTES && rows.bytes() > PAGE_BYTES - 10_000, "{}", rows.bytes());
        assert!(texts(&rows)[0][0].ends_with("\"… (100,000 characters)"));
    }

    #[test]
    fn a_first_row_of_many_wide_columns_is_shown_within_the_bytes() {
        let column = |i: usize| Column::new(format!("c{i}"), "utf8", false);
        let mut rows = ShownRows::new((0..3_000).map(column));
        let wide = "<".repeat(5_000);
        assert!(rows.push((0..3_000).map(|_| Some(&wide))));
        assert!(!rows.push((0..3_000).map(|_| Some(&wide))) && rows.is_full());
        assert_eq!((rows.columns().len(), rows.more_columns()), (PAGE_COLUMNS, 2_000));
        let last = texts(&rows)[0][PAGE_COLUMNS - 1].clone();
        assert_eq!(last, "… (5,000 characters)");
        assert!(rows.bytes() < PAGE_BYTES + 200_000, "{}", rows.bytes());
    }
}
