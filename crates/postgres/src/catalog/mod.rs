//! `pg_catalog` as small tables in memory: what psql's commands, drivers and BI tools read
//! to find schemas, tables and columns. It holds what the session may see, and is made for
//! the statement that asks for it.
//!
//! Tables that several tenants have (`tenant.zone.name`) do not appear: PostgreSQL has no
//! names of three parts. `information_schema` is the lake's own.

mod empty;
mod rows;

use std::hash::{DefaultHasher, Hash, Hasher};

use arrow::record_batch::RecordBatch;
use levada_lake::TableInfo;
use pgwire::api::Type;

use crate::catalog::rows::{Cell, Column, batch};
use crate::settings::Settings;
use crate::types::{by_sql_name, modifier_by_name, width};

/// Numbers below are PostgreSQL's own.
const FIRST_OID: i64 = 16_384;
const OWNER: i64 = 10;
const DATABASE: i64 = 5;
const PG_CATALOG: i64 = 11;

/// The relations that have rows.
const FILLED: [&str; 10] = [
    "pg_attribute",
    "pg_class",
    "pg_database",
    "pg_description",
    "pg_namespace",
    "pg_roles",
    "pg_settings",
    "pg_tables",
    "pg_type",
    "pg_user",
];

/// The types that columns of the lake have, with their category.
const TYPES: [(Type, &str); 18] = [
    (Type::BOOL, "B"),
    (Type::BYTEA, "U"),
    (Type::NAME, "S"),
    (Type::INT8, "N"),
    (Type::INT2, "N"),
    (Type::INT4, "N"),
    (Type::TEXT, "S"),
    (Type::OID, "N"),
    (Type::JSON, "U"),
    (Type::FLOAT4, "N"),
    (Type::FLOAT8, "N"),
    (Type::VARCHAR, "S"),
    (Type::DATE, "D"),
    (Type::TIME, "D"),
    (Type::TIMESTAMP, "D"),
    (Type::TIMESTAMPTZ, "D"),
    (Type::NUMERIC, "N"),
    (Type::UUID, "U"),
];

/// Whether `pg_catalog` has a relation of this name here.
pub(crate) fn is_relation(name: &str) -> bool {
    FILLED.contains(&name) || is_empty_relation(name)
}

/// Whether it is one that never has rows.
pub(crate) fn is_empty_relation(name: &str) -> bool {
    empty::RELATIONS.iter().any(|(known, _)| *known == name)
}

/// The number of a table, stable over sessions; a bare name is one of gold.
pub(crate) fn oid_of(name: &str) -> i64 {
    let plain = name.replace('"', "");
    number(if plain.contains('.') { plain } else { format!("gold.{plain}") }.as_str())
}

fn number(of: &str) -> i64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    FIRST_OID + (hasher.finish() % (1 << 30)) as i64
}

/// SQL for the name of the type whose number `oid` is an expression for.
pub(crate) fn format_type(oid: &str) -> String {
    let cases: Vec<String> =
        TYPES.iter().map(|(of, _)| format!("WHEN {} THEN '{}'", of.oid(), sql_name(of))).collect();
    format!("(CASE {oid} {} ELSE '???' END)", cases.join(" "))
}

fn sql_name(of: &Type) -> &str {
    match *of {
        Type::BOOL => "boolean",
        Type::INT2 => "smallint",
        Type::INT4 => "integer",
        Type::INT8 => "bigint",
        Type::FLOAT4 => "real",
        Type::FLOAT8 => "double precision",
        Type::VARCHAR => "character varying",
        Type::TIME => "time without time zone",
        Type::TIMESTAMP => "timestamp without time zone",
        Type::TIMESTAMPTZ => "timestamp with time zone",
        _ => of.name(),
    }
}

/// All relations, for a session that sees these tables.
pub(crate) fn relations(
    tables: &[TableInfo],
    user: &str,
    database: &str,
    settings: &Settings,
) -> Vec<(&'static str, RecordBatch)> {
    let tables: Vec<&TableInfo> =
        tables.iter().filter(|t| t.name == format!("{}.{}", t.zone, t.table)).collect();
    let mut schemas: Vec<&str> = tables.iter().map(|t| t.zone.as_str()).collect();
    schemas.extend(["gold"]);
    schemas.sort_unstable();
    schemas.dedup();
    let mut all = vec![
        ("pg_namespace", namespaces(&schemas)),
        ("pg_class", classes(&tables)),
        ("pg_attribute", attributes(&tables)),
        ("pg_type", types()),
        ("pg_database", databases(database)),
        ("pg_roles", roles(user)),
        ("pg_user", users(user)),
        ("pg_tables", listed(&tables, user)),
        ("pg_settings", setting_rows(settings)),
        ("pg_description", descriptions(&tables)),
    ];
    all.extend(
        empty::RELATIONS.iter().map(|(name, columns)| (*name, batch(&rows::parse(columns), Vec::new()))),
    );
    all
}

fn text(value: &str) -> Cell {
    Cell::Text(value.to_owned())
}

fn schema_number(name: &str) -> i64 {
    match name {
        "pg_catalog" => PG_CATALOG,
        "information_schema" => 12,
        zone => number(&format!("schema {zone}")),
    }
}

fn table_number(table: &TableInfo) -> i64 {
    number(&format!("{}.{}", table.zone, table.table))
}

fn namespaces(zones: &[&str]) -> RecordBatch {
    let names = zones.iter().copied().chain(["pg_catalog", "information_schema"]);
    let rows = names.map(|n| vec![Cell::Int(schema_number(n)), text(n), Cell::Int(OWNER), Cell::Null]);
    batch(&rows::parse("oid:i nspname:t nspowner:i nspacl:t"), rows.collect())
}

/// Columns of `pg_class` that are the same for every table, after those that differ.
const CLASS: &str = "oid:i relname:t relnamespace:i relnatts:i reltype:i reloftype:i relowner:i relam:i \
    relfilenode:i reltablespace:i relpages:i reltuples:f relallvisible:i reltoastrelid:i relhasindex:b \
    relisshared:b relpersistence:t relkind:t relchecks:i relhasrules:b relhastriggers:b relhassubclass:b \
    relrowsecurity:b relforcerowsecurity:b relispopulated:b relreplident:t relispartition:b relrewrite:i \
    relfrozenxid:i relminmxid:i relhasoids:b relacl:t reloptions:t relpartbound:t";

fn classes(tables: &[&TableInfo]) -> RecordBatch {
    let columns = rows::parse(CLASS);
    let rows = tables.iter().map(|table| {
        let own = [
            Cell::Int(table_number(table)),
            text(&table.table),
            Cell::Int(schema_number(&table.zone)),
            Cell::Int(table.columns.len() as i64),
        ];
        let same = columns[own.len()..].iter().map(|column| match column.name {
            "relowner" => Cell::Int(OWNER),
            "reltuples" => Cell::Float(-1.0),
            "relpersistence" => text("p"),
            "relkind" => text("r"),
            "relreplident" => text("d"),
            "relispopulated" => Cell::Bool(true),
            "relacl" | "reloptions" | "relpartbound" => Cell::Null,
            _ => column.zero(),
        });
        own.into_iter().chain(same).collect()
    });
    batch(&columns, rows.collect())
}

const ATTRIBUTE: &str = "attrelid:i attname:t atttypid:i attlen:i attnum:i attnotnull:b attstattarget:i \
    attndims:i attcacheoff:i atttypmod:i attbyval:b attalign:t attstorage:t attcompression:t atthasdef:b \
    atthasmissing:b attidentity:t attgenerated:t attisdropped:b attislocal:b attinhcount:i attcollation:i \
    attacl:t attoptions:t attfdwoptions:t attmissingval:t";

fn attributes(tables: &[&TableInfo]) -> RecordBatch {
    let columns = rows::parse(ATTRIBUTE);
    let mut out = Vec::new();
    for table in tables {
        for (i, column) in table.columns.iter().enumerate() {
            let of = by_sql_name(&column.data_type);
            let column_type = column.data_type.as_str();
            let own = [
                Cell::Int(table_number(table)),
                text(&column.name),
                Cell::Int(of.oid().into()),
                Cell::Int(width(&of).into()),
                Cell::Int(i as i64 + 1),
                Cell::Bool(!column.nullable),
            ];
            let same = columns[own.len()..].iter().map(|column| match column.name {
                "atttypmod" => Cell::Int(modifier_by_name(column_type).into()),
                "attstattarget" | "attcacheoff" => Cell::Int(-1),
                "attalign" => text("i"),
                "attstorage" => text("p"),
                "attislocal" => Cell::Bool(true),
                "attacl" | "attoptions" | "attfdwoptions" | "attmissingval" => Cell::Null,
                _ => column.zero(),
            });
            out.push(own.into_iter().chain(same).collect());
        }
    }
    batch(&columns, out)
}

const TYPE: &str = "oid:i typname:t typlen:i typcategory:t typnamespace:i typowner:i typbyval:b typtype:t \
    typispreferred:b typisdefined:b typdelim:t typrelid:i typelem:i typarray:i typinput:t typoutput:t \
    typreceive:t typsend:t typnotnull:b typbasetype:i typtypmod:i typndims:i typcollation:i typdefault:t";

fn types() -> RecordBatch {
    let columns = rows::parse(TYPE);
    let rows = TYPES.iter().map(|(of, category)| {
        let own = [Cell::Int(of.oid().into()), text(of.name()), Cell::Int(width(of).into()), text(category)];
        let same = columns[own.len()..].iter().map(|column| match column.name {
            "typnamespace" => Cell::Int(PG_CATALOG),
            "typowner" => Cell::Int(OWNER),
            "typtype" => text("b"),
            "typisdefined" => Cell::Bool(true),
            "typdelim" => text(","),
            "typinput" => text(&format!("{}in", of.name())),
            "typoutput" => text(&format!("{}out", of.name())),
            "typtypmod" => Cell::Int(-1),
            "typdefault" => Cell::Null,
            _ => column.zero(),
        });
        own.into_iter().chain(same).collect()
    });
    batch(&columns, rows.collect())
}

const DATABASES: &str = "oid:i datname:t datdba:i encoding:i datlocprovider:t datistemplate:b datallowconn:b \
    datconnlimit:i dattablespace:i datcollate:t datctype:t daticulocale:t datcollversion:t datacl:t";

fn databases(name: &str) -> RecordBatch {
    let row = vec![
        Cell::Int(DATABASE),
        text(name),
        Cell::Int(OWNER),
        Cell::Int(6),
        text("c"),
        Cell::Bool(false),
        Cell::Bool(true),
        Cell::Int(-1),
        Cell::Int(0),
        text("C.UTF-8"),
        text("C.UTF-8"),
        Cell::Null,
        Cell::Null,
        Cell::Null,
    ];
    batch(&rows::parse(DATABASES), vec![row])
}

const ROLES: &str = "oid:i rolname:t rolcanlogin:b rolconnlimit:i rolsuper:b rolinherit:b rolcreaterole:b \
    rolcreatedb:b rolreplication:b rolbypassrls:b rolpassword:t rolvaliduntil:t rolconfig:t";

fn roles(user: &str) -> RecordBatch {
    let columns = rows::parse(ROLES);
    let own = [Cell::Int(OWNER), text(user), Cell::Bool(true), Cell::Int(-1)];
    let same = columns[own.len()..].iter().map(Column::zero_or_null);
    let row = own.into_iter().chain(same).collect();
    batch(&columns, vec![row])
}

fn users(user: &str) -> RecordBatch {
    let columns = rows::parse("usename:t usesysid:i usecreatedb:b usesuper:b userepl:b usebypassrls:b");
    let own = [text(user), Cell::Int(OWNER)];
    let same = columns[own.len()..].iter().map(Column::zero_or_null);
    let row = own.into_iter().chain(same).collect();
    batch(&columns, vec![row])
}

fn listed(tables: &[&TableInfo], user: &str) -> RecordBatch {
    let columns = rows::parse(
        "schemaname:t tablename:t tableowner:t tablespace:t hasindexes:b hasrules:b hastriggers:b rowsecurity:b",
    );
    let rows = tables.iter().map(|table| {
        let own = [text(&table.zone), text(&table.table), text(user), Cell::Null];
        let same = columns[own.len()..].iter().map(Column::zero_or_null);
        own.into_iter().chain(same).collect()
    });
    batch(&columns, rows.collect())
}

fn setting_rows(settings: &Settings) -> RecordBatch {
    let columns = rows::parse("name:t setting:t unit:t category:t short_desc:t context:t vartype:t source:t");
    let rows = settings.all().into_iter().map(|(name, value)| {
        let own = [Cell::Text(name), Cell::Text(value), Cell::Null];
        let same = columns[own.len()..].iter().map(Column::zero_or_null);
        own.into_iter().chain(same).collect()
    });
    batch(&columns, rows.collect())
}

fn descriptions(tables: &[&TableInfo]) -> RecordBatch {
    let rows = tables.iter().filter_map(|table| {
        let words = table.description.as_deref()?;
        Some(vec![Cell::Int(table_number(table)), Cell::Int(1259), Cell::Int(0), text(words)])
    });
    batch(&rows::parse("objoid:i classoid:i objsubid:i description:t"), rows.collect())
}

#[cfg(test)]
mod tests {
    use levada_lake::ColumnInfo;

    use super::*;

    #[test]
    fn every_relation_can_be_made_and_tables_of_one_name_are_told_by_number() {
        let column = ColumnInfo { name: "a".into(), data_type: "bigint".into(), nullable: false };
        let table = |name: &str, zone: &str| TableInfo {
            name: name.into(),
            zone: zone.into(),
            table: "orders".into(),
            tenant: None,
            description: Some("all of them".into()),
            columns: vec![column.clone()],
        };
        let tables = [
            table("silver.orders", "silver"),
            table("gold.orders", "gold"),
            table("acme.gold.orders", "gold"),
        ];
        let settings = Settings::new("15.0".to_owned(), "anna");
        let all = relations(&tables, "anna", "levada", &settings);
        let rows = |name: &str| all.iter().find(|(n, _)| *n == name).map(|(_, b)| b.num_rows());
        assert_eq!(rows("pg_class"), Some(2), "a name of three parts is left out");
        assert_eq!(rows("pg_attribute"), Some(2));
        assert_eq!(rows("pg_namespace"), Some(4));
        assert_eq!(rows("pg_index"), Some(0));
        assert!(FILLED.iter().all(|name| rows(name).is_some_and(|n| n > 0)));
        assert_eq!(oid_of("silver.orders"), table_number(&tables[0]));
        assert_eq!(oid_of("orders"), table_number(&tables[1]));
        assert_ne!(oid_of("silver.orders"), oid_of("gold.orders"));
    }
}
