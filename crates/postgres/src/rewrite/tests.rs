//! Catalogue queries as tools write them, and what becomes of them.

use super::*;

fn rewritten(sql: &str) -> Rewritten {
    let facts = Facts {
        user: "o'neil",
        database: "levada",
        number: 7,
        setting: &|name| match name {
            "server_version" => Some("15.0 (Levada)".to_owned()),
            "search_path" => Some("gold".to_owned()),
            _ => None,
        },
        oid_of: &|name| if name == "silver.orders" { 16_400 } else { 0 },
    };
    rewrite(sql, &facts)
}

#[test]
fn statements_about_data_are_not_touched() {
    for sql in [
        "select a, array(select 1) from silver.orders where b collate \"C\" = 'pg_class'",
        "select \"version\" from gold.a -- pg_class",
        "select user, x::text from gold.a",
    ] {
        let after = rewritten(sql);
        assert_eq!(after.sql, sql);
        assert!(!after.needs_catalog);
    }
}

#[test]
fn what_tools_write_becomes_plain() {
    for (sql, plain) in [
        ("select version()", "select 'PostgreSQL 15.0 (Levada)' AS \"version\""),
        (
            "SELECT current_schema(), current_user",
            "SELECT 'gold' AS \"current_schema\", 'o''neil' AS \"current_user\"",
        ),
        ("select pg_catalog.current_database() as db", "select 'levada' as db"),
        ("select upper(current_database())", "select upper('levada')"),
        ("select 'silver.orders'::regclass", "select 16400"),
        ("select 'silver.orders'::pg_catalog.regclass::oid", "select 16400::bigint"),
        ("select c.relkind::\"char\" from pg_class c", "select c.relkind::text from pg_catalog.pg_class c"),
        (
            "select a from pg_catalog.pg_class where n OPERATOR(pg_catalog.~) '^x$' COLLATE pg_catalog.default and pg_catalog.pg_table_is_visible(c.oid)",
            "select a from pg_catalog.pg_class where n  ~  '^x$'  and true",
        ),
        (
            "select x, (select collname from pg_catalog.pg_collation c where c.oid = a.b) from pg_type a",
            "select x, CAST(NULL AS text) AS \"?column?\" from pg_catalog.pg_type a",
        ),
        (
            "select pg_catalog.pg_get_expr(d.adbin, d.adrelid) from pg_class d",
            "select CAST(NULL AS text) AS \"pg_get_expr\" from pg_catalog.pg_class d",
        ),
        (
            "select CAST(x AS pg_catalog.text), version()",
            "select CAST(x AS text), 'PostgreSQL 15.0 (Levada)' AS \"version\"",
        ),
    ] {
        assert_eq!(rewritten(sql).sql, plain, "{sql}");
    }
    assert!(rewritten("select 1 from pg_class").needs_catalog);
    assert!(!rewritten("select version()").needs_catalog);
}

#[test]
fn queries_of_what_is_always_empty_have_their_columns_and_no_rows() {
    let sql = "SELECT pol.polname, array_to_string(array(select 1), ',') AS a, 'd' = any(x), y::text \
        FROM pg_catalog.pg_policy pol LEFT JOIN pg_class c ON true ORDER BY 1";
    let names = ["polname", "a", "?column?", "text"];
    let columns: Vec<String> = names.iter().map(|n| format!("CAST(NULL AS text) AS \"{n}\"")).collect();
    assert_eq!(rewritten(sql).sql, format!("SELECT {} WHERE false", columns.join(", ")));
    for other in [
        "SELECT count(*) FROM pg_index",
        "SELECT a FROM pg_policy UNION SELECT b FROM pg_class",
        "SELECT a FROM pg_class JOIN pg_policy ON true",
    ] {
        assert!(!rewritten(other).sql.contains("WHERE false"), "{other}");
    }
    let union = "SELECT a, (SELECT count(*) FROM x) FROM pg_policy UNION ALL SELECT b, c FROM pg_trigger";
    assert!(rewritten(union).sql.ends_with("WHERE false"));
}

#[test]
fn broken_texts_do_no_harm() {
    for sql in [
        "select version(",
        "pg_catalog.",
        "pg_catalog",
        "select 'a'::",
        "operator(",
        "collate pg_x",
        "pg_x)))",
    ] {
        drop(rewritten(sql));
    }
}
