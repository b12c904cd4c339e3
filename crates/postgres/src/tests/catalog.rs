//! What psql's commands and the catalogue queries of drivers get.

use super::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn psql_lists_schemas_tables_and_databases() {
    let stage = Stage::new().await;
    let tables = stage.psql("lvd_acme", "levada", "\\dt *.*").await;
    let lines: Vec<&str> = tables.good().lines().collect();
    assert_eq!(
        lines,
        ["gold|daily|table|anna", "silver|numbers|table|anna", "silver|orders|table|anna"],
        "{lines:?}"
    );
    assert_eq!(stage.psql("lvd_acme", "levada", "\\dt silver.o*").await.good(), "silver|orders|table|anna");
    let schemas = stage.psql("lvd_acme", "levada", "\\dn").await;
    assert_eq!(schemas.good().lines().collect::<Vec<_>>(), ["gold|anna", "silver|anna"]);
    assert!(stage.psql("lvd_acme", "levada", "\\l").await.good().starts_with("levada|anna|UTF8"));
    assert!(stage.psql("lvd_acme", "levada", "\\du").await.good().starts_with("anna"));
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_describes_a_table() {
    let stage = Stage::new().await;
    let answer = stage.psql("lvd_acme", "levada", "\\d silver.orders").await;
    let lines: Vec<&str> = answer.good().lines().collect();
    assert_eq!(lines.len(), 9, "{lines:?}");
    assert_eq!(lines[0], "tenant_id|text||not null|");
    assert_eq!(lines[1], "order_id|bigint|||");
    assert_eq!(lines[3], "price|numeric|||");
    assert_eq!(lines[7], "placed|timestamp with time zone|||");
    let all = stage.psql("lvd_acme", "levada", "\\d+ gold.daily").await;
    assert!(all.good().contains("orders|bigint"), "{}", all.rows);
    assert!(stage.psql("lvd_acme", "levada", "\\d").await.errors.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_drivers_ask_for_is_answered() {
    let stage = Stage::new().await;
    for (sql, rows) in [
        (
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema = 'silver' ORDER BY 2",
            "silver|numbers\nsilver|orders",
        ),
        (
            "SELECT n.nspname, c.relname, a.attname, a.atttypid, t.typname, a.attnotnull \
             FROM pg_catalog.pg_namespace n \
             JOIN pg_catalog.pg_class c ON (c.relnamespace = n.oid) \
             JOIN pg_catalog.pg_attribute a ON (a.attrelid = c.oid) \
             JOIN pg_catalog.pg_type t ON (a.atttypid = t.oid) \
             WHERE c.relkind IN ('r','p','v','f','m') AND a.attnum > 0 AND NOT a.attisdropped \
             AND n.nspname LIKE 'gold' AND c.relname LIKE 'daily' ORDER BY n.nspname, c.relname, a.attnum",
            "gold|daily|day|1082|date|f\ngold|daily|orders|20|int8|f",
        ),
        ("SELECT relname FROM pg_class WHERE oid = 'silver.orders'::regclass", "orders"),
        ("SELECT typname, oid FROM pg_type WHERE oid IN (20, 25) ORDER BY oid", "int8|20\ntext|25"),
        ("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate", "levada"),
        ("SELECT setting FROM pg_settings WHERE name = 'server_encoding'", "UTF8"),
        ("SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid", "0"),
        ("SELECT has_table_privilege('silver.orders', 'SELECT')", "t"),
        ("SELECT current_setting('server_version_num')::int > 100000", "t"),
    ] {
        let answer = stage.psql("lvd_acme", "levada", &format!("{sql};")).await;
        assert_eq!(answer.good(), rows, "{sql}");
    }
}
