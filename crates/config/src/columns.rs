//! The columns that flow from step to step, so that a step's field names can be checked.

use levada_core::SourceName;

use crate::model::{Field, FieldType};
use crate::suggest;

/// A column that every row of a shared table carries without being declared.
pub(crate) const TENANT_COLUMN: &str = "tenant_id";

#[derive(Debug, Clone, Default)]
pub(crate) struct Columns {
    fields: Vec<Column>,
    /// What flows is not known: the schema is missing, or a SQL step made the rows.
    pub open: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub name: SourceName,
    /// The name in the record, where it differs: `customerId`.
    written: Option<String>,
    pub kind: FieldType,
}

/// What a name means here.
pub(crate) enum Lookup<'a> {
    Column(&'a Column),
    /// Possibly there: the columns are open.
    Unsure,
    Missing,
}

impl Columns {
    pub fn of(fields: &[Field]) -> Self {
        let mut columns = Self::default();
        fields.iter().for_each(|f| columns.push(f));
        columns
    }

    pub fn open() -> Self {
        Self { fields: Vec::new(), open: true }
    }

    pub fn push(&mut self, field: &Field) {
        let written = match field.path.as_slice() {
            [only] if only != field.name.as_str() => Some(only.clone()),
            _ => None,
        };
        self.fields.push(Column { name: field.name.clone(), written, kind: field.kind });
    }

    pub fn find(&self, name: &str) -> Lookup<'_> {
        let by_name = self.fields.iter().find(|c| c.name.as_str() == name);
        match by_name.or_else(|| self.fields.iter().find(|c| c.written.as_deref() == Some(name))) {
            Some(column) => Lookup::Column(column),
            None if self.open => Lookup::Unsure,
            None => Lookup::Missing,
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|c| c.name.as_str() == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Column> {
        self.fields.iter()
    }

    pub fn hint(&self, name: &str) -> String {
        let names: Vec<&str> = self.fields.iter().map(|c| c.name.as_str()).collect();
        suggest::hint(name, names, "fields here")
    }
}

/// A column name for a name of any spelling: `customerId` and `Customer ID` become
/// `customer_id`. `None` when nothing usable is left.
pub(crate) fn column_name(written: &str) -> Option<SourceName> {
    if let Ok(name) = SourceName::new(written) {
        return Some(name);
    }
    let mut out = String::new();
    let mut lower_before = false;
    for c in written.chars() {
        if c.is_ascii_alphanumeric() {
            if c.is_ascii_uppercase() && lower_before {
                out.push('_');
            }
            lower_before = !c.is_ascii_uppercase();
            out.push(c.to_ascii_lowercase());
        } else {
            if !out.is_empty() && !out.ends_with('_') {
                out.push('_');
            }
            lower_before = false;
        }
    }
    SourceName::new(out.trim_end_matches('_')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_spelling_becomes_a_column() {
        for (written, column) in [
            ("id", Some("id")),
            ("customerId", Some("customer_id")),
            ("Order ID", Some("order_id")),
            ("a-b.c", Some("a_b_c")),
            ("é", None),
            ("1", None),
        ] {
            assert_eq!(column_name(written).as_ref().map(SourceName::as_str), column, "{written}");
        }
    }
}
