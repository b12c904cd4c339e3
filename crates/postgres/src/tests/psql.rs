//! psql: the simple protocol, isolation, keys, errors.

use super::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type_are_shown_as_postgresql_shows_them() {
    let stage = Stage::new().await;
    let answer = stage
        .psql(
            "lvd_acme",
            "levada",
            "SELECT order_id, pieces, price, ratio, paid, day, placed, note FROM silver.orders ORDER BY order_id;",
        )
        .await;
    assert_eq!(
        answer.good().lines().collect::<Vec<_>>(),
        [
            "1|5|19.99|0.1|t|2024-10-04|2024-10-04 00:00:00.123456+00|plain",
            "2||0.05|1e+20|f|2024-10-05|1970-01-01 00:00:00+00|with 'quotes' and ünïcödé",
            "3|-7|1234567.89|-2.5||2024-10-06|1969-12-31 23:59:59.999999+00|",
        ]
    );
    let named = stage.psql_with(
        "lvd_acme",
        "levada",
        &["-A"],
        "SELECT count(*), 1, max(day) AS d FROM silver.orders;",
    );
    assert_eq!(named.await.good().lines().next(), Some("count|?column?|d"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_sees_its_own_tenants_and_the_zones_of_its_roles() {
    let stage = Stage::new().await;
    let count = "SELECT count(*) FROM silver.orders;";
    for (secret, database, rows) in [
        ("lvd_acme", "levada", "3"),
        ("lvd_acme", "anna", "3"),
        ("lvd_acme", "acme", "3"),
        ("lvd_bolt", "levada", "2"),
        ("lvd_admin", "levada", "5"),
        ("lvd_admin", "bolt", "2"),
    ] {
        assert_eq!(stage.psql(secret, database, count).await.good(), rows, "{secret} in {database}");
    }
    for (secret, database, sql) in [
        ("lvd_bolt", "levada", "SELECT * FROM gold.daily;"),
        ("lvd_bolt", "levada", "SELECT * FROM daily;"),
        ("lvd_bolt", "levada", "SELECT * FROM acme.gold.daily;"),
        ("lvd_admin", "bolt", "SELECT * FROM gold.daily;"),
        ("lvd_client", "levada", "SELECT * FROM silver.orders;"),
        ("lvd_acme", "levada", "SELECT * FROM gold.nothing;"),
    ] {
        let answer = stage.psql(secret, database, sql).await;
        assert!(answer.rows.is_empty(), "{secret}: {sql}: {}", answer.rows);
        assert!(answer.errors.contains("ERROR:  42P01"), "{secret}: {sql}: {}", answer.errors);
    }
    let foreign = stage.psql("lvd_acme", "bolt", count).await;
    assert!(foreign.errors.contains("database \"bolt\" does not exist"), "{}", foreign.errors);
    for sql in [
        "\\dt *.*",
        "\\d",
        "SELECT relname FROM pg_class;",
        "SELECT table_name FROM information_schema.tables;",
    ] {
        let answer = stage.psql("lvd_bolt", "levada", sql).await;
        assert!(!answer.rows.contains("daily"), "{sql}: {}", answer.rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_good_key_logs_in() {
    let stage = Stage::new().await;
    for secret in ["lvd_wrong", "' OR 1=1 --"] {
        let answer = stage.psql(secret, "levada", "SELECT 1;").await;
        assert!(answer.rows.is_empty());
        assert!(answer.errors.contains("unknown, expired or revoked"), "{}", answer.errors);
    }
    stage.keys.revoke("lvd_bolt");
    let answer = stage.psql("lvd_bolt", "levada", "SELECT 1;").await;
    assert!(answer.rows.is_empty() && answer.errors.contains("revoked"), "{}", answer.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_carry_their_state_and_a_hint() {
    let stage = Stage::new().await;
    for (sql, state, words) in [
        ("SELECT * FROM silver.order;", "42P01", "silver.orders"),
        ("SELECT prise FROM silver.orders;", "42703", "price"),
        ("SELEC 1;", "42601", ""),
        ("SELECT nothing_like_it(1);", "42883", ""),
        ("INSERT INTO silver.orders VALUES (1);", "25006", "read-only"),
        ("DROP TABLE silver.orders;", "25006", "read-only"),
        ("COPY silver.orders TO STDOUT;", "0A000", "text/csv"),
        ("SET ROLE postgres;", "0A000", "another key"),
        ("SHOW no_such_setting;", "42704", ""),
        ("SELECT 1/0;", "22012", ""),
        ("FETCH 1 FROM c;", "34000", ""),
        ("SELECT pg_read_file('/etc/passwd') FROM read_csv('/etc/passwd');", "25006", ""),
    ] {
        let answer = stage.psql("lvd_acme", "levada", sql).await;
        assert!(answer.errors.contains(&format!("ERROR:  {state}")), "{sql}: {}", answer.errors);
        assert!(answer.errors.contains(words), "{sql}: {}", answer.errors);
    }
    let after = stage.psql("lvd_acme", "levada", "SELEC 1; SELECT 2;").await;
    assert_eq!(after.rows, "2", "the session goes on after an error");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_about_the_session_are_answered() {
    let stage = Stage::new().await;
    let script = "
        SET application_name = 'tests'; SHOW application_name; SET TimeZone = 'Europe/Vienna'; SHOW timezone;
        BEGIN; SAVEPOINT a; SELECT 1; RELEASE a; COMMIT; START TRANSACTION; ROLLBACK;
        SELECT version() LIKE 'PostgreSQL 15%Levada%'; SELECT current_database(), current_schema(), current_user;
        SELECT pg_catalog.set_config('search_path', '', false); DISCARD ALL; DEALLOCATE ALL; RESET ALL;
        ; -- nothing
        SELECT ';' AS \"a;b\" /* ; */;";
    let answer = stage.psql("lvd_acme", "levada", script).await;
    assert_eq!(
        answer.good().lines().collect::<Vec<_>>(),
        ["tests", "Europe/Vienna", "1", "t", "levada|gold|anna", "", ";"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_transaction_waits_for_its_end() {
    let stage = Stage::new().await;
    let answer = stage.psql("lvd_acme", "levada", "BEGIN; SELEC 1; SELECT 2; COMMIT; SELECT 3;").await;
    assert_eq!(answer.rows, "3");
    assert!(answer.errors.contains("25P02"), "{}", answer.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_give_rows_in_portions() {
    let stage = Stage::new().await;
    let script = "
        BEGIN; DECLARE c CURSOR FOR SELECT n FROM silver.numbers ORDER BY n;
        FETCH 2 FROM c; MOVE 9000 FROM c; FETCH FORWARD 1 FROM c; CLOSE c; COMMIT;
        BEGIN; DECLARE d CURSOR FOR SELECT 1; COMMIT; FETCH 1 FROM d;";
    let answer = stage.psql("lvd_acme", "levada", script).await;
    assert_eq!(answer.rows.lines().collect::<Vec<_>>(), ["0", "1", "9002"]);
    assert!(answer.errors.contains("34000"), "a cursor ends with its transaction: {}", answer.errors);
    let fetched = stage.psql_with(
        "lvd_acme",
        "levada",
        &["-A", "-t", "-v", "FETCH_COUNT=100"],
        "SELECT n FROM silver.numbers ORDER BY n;",
    );
    let fetched = fetched.await;
    let numbers: Vec<u64> = fetched.good().lines().map(|l| l.parse().expect("a number")).collect();
    assert_eq!(numbers, (0..10_000).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn row_and_time_limits_hold() {
    let stage = Stage::with(|c| {
        c.limits.max_rows = 1000;
        c.limits.timeout = std::time::Duration::from_millis(1500);
    })
    .await;
    let answer = stage.psql("lvd_acme", "levada", "SELECT n FROM silver.numbers;").await;
    assert_eq!(answer.rows.lines().count(), 1000);
    assert!(
        answer.errors.contains("01000") && answer.errors.contains("cut after 1000 rows"),
        "{}",
        answer.errors
    );
    let endless = "SELECT sum(value % 7) FROM generate_series(1, 1000000000000);";
    let answer = stage.psql("lvd_acme", "levada", endless).await;
    assert!(answer.errors.contains("57014"), "{}", answer.errors);
    let sooner = format!("SET statement_timeout = '50ms'; {endless}");
    let answer = stage.psql("lvd_acme", "levada", &sooner).await;
    assert!(answer.errors.contains("57014") && answer.errors.contains("0.05 s"), "{}", answer.errors);
}
