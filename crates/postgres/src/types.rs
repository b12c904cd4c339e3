//! PostgreSQL types of Arrow columns, and how wide they are.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pgwire::api::Type;
use pgwire::messages::data::FieldDescription;

/// The type a column has on the wire. Lists are text in PostgreSQL's array notation, structures
/// are text holding JSON.
pub(crate) fn pg_type(data_type: &DataType) -> Type {
    match data_type {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => Type::INT2,
        DataType::UInt16 | DataType::Int32 => Type::INT4,
        DataType::UInt32 | DataType::Int64 => Type::INT8,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::UInt64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => Type::NUMERIC,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            Type::BYTEA
        }
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Time32(_) | DataType::Time64(_) => Type::TIME,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Dictionary(_, value) => pg_type(value),
        _ => Type::TEXT,
    }
}

/// `pg_type.typlen`: bytes, or -1 where values differ in length.
pub(crate) fn width(of: &Type) -> i16 {
    match *of {
        Type::BOOL => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE | Type::OID => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ => 8,
        Type::NAME => 64,
        _ => -1,
    }
}

/// The type of a column that the lake describes by its SQL name.
pub(crate) fn by_sql_name(name: &str) -> Type {
    let lower = name.to_ascii_lowercase();
    let base = lower.split('(').next().unwrap_or_default().trim();
    match base {
        _ if base.ends_with("[]") => Type::TEXT,
        "boolean" => Type::BOOL,
        "tinyint" | "smallint" | "tinyint unsigned" => Type::INT2,
        "integer" | "int" | "smallint unsigned" => Type::INT4,
        "bigint" | "integer unsigned" | "int unsigned" => Type::INT8,
        "real" => Type::FLOAT4,
        "double precision" | "double" => Type::FLOAT8,
        "numeric" | "decimal" | "bigint unsigned" => Type::NUMERIC,
        "bytea" | "binary" => Type::BYTEA,
        "date" => Type::DATE,
        "time" => Type::TIME,
        "timestamp" | "timestamp without time zone" if !lower.contains("with time zone") => Type::TIMESTAMP,
        _ if base.starts_with("timestamp") => Type::TIMESTAMPTZ,
        _ => Type::TEXT,
    }
}

/// `pg_attribute.atttypmod` of a decimal: its digits, and those after the point; -1 for other types.
fn modifier(of: &DataType) -> i32 {
    match of {
        DataType::Decimal128(precision, scale) => numeric_modifier(*precision, scale.unsigned_abs()),
        _ => -1,
    }
}

fn numeric_modifier(precision: u8, scale: u8) -> i32 {
    // Four bytes are the header of a variable-length value.
    ((i32::from(precision) << 16) | i32::from(scale)) + 4
}

/// The same of a column that the lake describes by its SQL name, such as `numeric(12,2)`.
pub(crate) fn modifier_by_name(name: &str) -> i32 {
    let digits = name.trim().strip_prefix("numeric(").and_then(|rest| rest.strip_suffix(')'));
    let parts = digits.and_then(|digits| digits.split_once(','));
    let read = |text: &str| text.trim().parse::<u8>().ok();
    match parts.and_then(|(precision, scale)| read(precision).zip(read(scale))) {
        Some((precision, scale)) => numeric_modifier(precision, scale),
        None => -1,
    }
}

/// A result's columns as far as a client is told of them: a column without a name of its own is
/// named by its whole expression, which may be as long as the statement.
pub(crate) fn told(schema: &Schema) -> SchemaRef {
    let told = |field: &Arc<Field>| {
        Field::new(shown_name(field.name()), field.data_type().clone(), field.is_nullable())
    };
    Arc::new(Schema::new(schema.fields().iter().map(told).collect::<Vec<_>>()))
}

/// The description of a result, with the format of each column (0 text, 1 binary).
pub(crate) fn describe(schema: &Schema, formats: &Formats) -> Vec<FieldDescription> {
    let field = |(i, field): (usize, &Arc<Field>)| {
        let of = pg_type(field.data_type());
        let format = i16::from(formats.is_binary(i));
        let modifier = modifier(field.data_type());
        FieldDescription::new(shown_name(field.name()), 0, 0, of.oid(), width(&of), modifier, format)
    };
    schema.fields().iter().enumerate().map(field).collect()
}

/// Text (0) or binary (1), by column or parameter: none, one for all, or one each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Formats(Vec<i16>);

impl Formats {
    pub fn new(codes: &[i16]) -> Self {
        Self(codes.to_vec())
    }

    pub fn is_binary(&self, index: usize) -> bool {
        match self.0.as_slice() {
            [one] => *one == 1,
            many => many.get(index) == Some(&1),
        }
    }
}

/// PostgreSQL's way of naming a column that the query gave no name: the function, or `?column?`.
fn shown_name(name: &str) -> String {
    const LITERALS: [&str; 12] = [
        "Int64(",
        "Int32(",
        "Float64(",
        "Utf8(",
        "Utf8View(",
        "Boolean(",
        "UInt64(",
        "Decimal128(",
        "Null(",
        "Some(",
        "LargeUtf8(",
        "IntervalMonthDayNano(",
    ];
    if name == "NULL" || LITERALS.iter().any(|l| name.starts_with(l)) {
        return "?column?".to_owned();
    }
    let Some((function, rest)) = name.split_once('(') else { return name.to_owned() };
    let is_call = !function.is_empty()
        && function.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && closes_at_end(rest);
    if is_call { function.to_ascii_lowercase() } else { name.to_owned() }
}

/// Whether the parenthesis opened before `rest` is closed by its last character.
fn closes_at_end(rest: &str) -> bool {
    let mut depth = 1;
    for (i, c) in rest.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1 == rest.len();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unnamed_columns_are_named_as_postgresql_does() {
        for (name, shown) in [
            ("count(*)", "count"),
            ("max(silver.orders.amount)", "max"),
            ("Int64(1)", "?column?"),
            ("Int64(1) + Int64(2)", "?column?"),
            ("a(b) + c(d)", "a(b) + c(d)"),
            ("plain", "plain"),
            ("my (column)", "my (column)"),
        ] {
            assert_eq!(shown_name(name), shown);
        }
    }

    #[test]
    fn types_by_name() {
        assert_eq!(by_sql_name("timestamp with time zone"), Type::TIMESTAMPTZ);
        assert_eq!(by_sql_name("TIMESTAMP"), Type::TIMESTAMP);
        assert_eq!(by_sql_name("numeric(10, 2)"), Type::NUMERIC);
        assert_eq!(by_sql_name("text"), Type::TEXT);
    }

    #[test]
    fn decimals_carry_their_digits() {
        // As `select atttypmod` answers for numeric(12,2) and numeric(38,9).
        assert_eq!(
            (modifier_by_name("numeric(12,2)"), modifier_by_name("numeric(38,9)")),
            (786_438, 2_490_381)
        );
        assert_eq!((modifier_by_name("numeric"), modifier_by_name("text")), (-1, -1));
        let schema = Schema::new(vec![Field::new("m", DataType::Decimal128(12, 2), true)]);
        assert_eq!(describe(&schema, &Formats::default())[0].type_modifier, 786_438);
    }
}
