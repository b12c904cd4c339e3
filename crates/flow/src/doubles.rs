//! Tables that are older than exact decimals.
//!
//! A schema may say DECIMAL where its table already holds doubles. Such a column stays as it is: what
//! was rounded when it was written does not become exact, and a column has one type. The schema is
//! then read as it was before, so that steps and rows agree with the table. Where a query makes the
//! columns, the lake casts what it makes.

use arrow::datatypes::{DataType, Schema as ArrowSchema};
use levada_config::model::{FieldType, Pipeline, Schema, Step};
use levada_lake::{Lake, TableSpec};
use levada_schema::table_schema;

use crate::engine::table_key;
use crate::names;

/// The columns that are wanted as decimals and that the table holds as doubles.
pub fn stay_double(wanted: &ArrowSchema, table: &ArrowSchema) -> Vec<String> {
    let double = |name: &str| table.field_with_name(name).is_ok_and(|c| *c.data_type() == DataType::Float64);
    let stays = |column: &&std::sync::Arc<arrow::datatypes::Field>| {
        column.data_type().is_decimal() && double(column.name())
    };
    wanted.fields().iter().filter(stays).map(|column| column.name().clone()).collect()
}

/// The schema by which a pipeline decodes: doubles where its table has them.
pub(crate) fn as_table(lake: &Lake, pipeline: &Pipeline, schema: &Schema) -> Schema {
    let mut schema = schema.clone();
    let Some(table) = lake.spec(&table_key(pipeline)).filter(|_| !has_query(pipeline)) else { return schema };
    let stay = stay_double(&table_schema(&schema.fields), &table.schema);
    for field in schema.fields.iter_mut().filter(|field| stay.iter().any(|s| s == field.name.as_str())) {
        field.kind = FieldType::Float64;
    }
    schema
}

/// Says in the log which columns of a pipeline stay doubles, before its table is asked for.
pub(crate) fn report(lake: &Lake, pipeline: &Pipeline, target: &TableSpec) {
    let Some(table) = lake.spec(&target.key()) else { return };
    let schema = pipeline.schema.iter().filter(|_| !has_query(pipeline));
    let declared = schema.flat_map(|schema| stay_double(&table_schema(&schema.fields), &table.schema));
    let mut columns: Vec<String> = declared.chain(stay_double(&target.schema, &table.schema)).collect();
    columns.sort();
    columns.dedup();
    if !columns.is_empty() {
        tracing::warn!(
            pipeline = names::full(pipeline),
            table = %pipeline.sink,
            columns = columns.join(", "),
            "the schema asks for decimals and the table holds doubles, which stay; a column of another name is exact"
        );
    }
}

/// Whether a query makes the columns.
fn has_query(pipeline: &Pipeline) -> bool {
    pipeline.steps.iter().any(|step| matches!(step, Step::Sql { .. }))
}
