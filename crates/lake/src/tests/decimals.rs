//! Decimals in a table: what is stored, pruned by and answered keeps every digit.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::{cells, real_lake, rows, session, shared};
use crate::{Param, QueryLimits, TableSpec};

fn batch(values: &[i128]) -> RecordBatch {
    let amounts = Decimal128Array::from(values.to_vec()).with_precision_and_scale(38, 9).expect("fits");
    let tenants = StringArray::from(vec!["a"; values.len()]);
    let columns: [(&str, ArrayRef); 2] = [("tenant_id", Arc::new(tenants)), ("m", Arc::new(amounts))];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .expect("rows")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_that_a_double_would_move_prune_nothing_wrong() {
    let (lake, _dir) = real_lake();
    let schema = Arc::new(Schema::new(vec![
        Field::new("tenant_id", DataType::Utf8, true),
        Field::new("m", DataType::Decimal128(38, 9), true),
    ]));
    let key = shared("silver.amounts");
    let spec = TableSpec::new(key.owner.clone(), key.name.clone(), schema);
    lake.ensure_table(&spec).await.expect("a table");
    // One file each; neighbours that are one double.
    let base = 12_345_678_901_234_567_890_000_000_000;
    for epoch in 0..4 {
        let staged = lake.stage(&key, vec![batch(&[base + i128::from(epoch)])]).await.expect("staged");
        lake.commit(&key, "p", epoch + 1, staged).await.expect("committed");
    }
    let session = session(&lake, &["a"]);
    for (filter, count) in [
        ("m = 12345678901234567890.000000001", 1),
        ("m > 12345678901234567890.000000001", 2),
        ("m <= 12345678901234567890.000000002", 3),
        ("m = 12345678901234567890.000000004", 0),
    ] {
        let found = rows(&session, &format!("select count(*) from silver.amounts where {filter}")).await;
        assert_eq!(found.expect("an answer"), [[count.to_string()]], "{filter}");
    }
    let sql = "select sum(m), min(m), max(m) from silver.amounts";
    let want = [[
        "49382715604938271560.000000006",
        "12345678901234567890.000000000",
        "12345678901234567890.000000003",
    ]];
    assert_eq!(rows(&session, sql).await.expect("an answer"), want);
    let ask = async |text: &str| {
        let params = vec![Param::Decimal(text.to_owned())];
        let sql = "select count(*) from silver.amounts where m = $1";
        cells(
            &session
                .query(sql, params, QueryLimits::default())
                .await
                .expect("runs")
                .collect()
                .await
                .expect("rows"),
        )
    };
    assert_eq!(ask("12345678901234567890.000000002").await, [["1"]]);
    assert_eq!(ask("12345678901234567890.0000000021").await, [["0"]], "not rounded to one that is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sum_beyond_38_digits_is_an_error() {
    let (lake, _dir) = real_lake();
    let schema = batch(&[0]).schema();
    let key = shared("silver.amounts");
    lake.ensure_table(&TableSpec::new(key.owner.clone(), key.name.clone(), schema)).await.expect("a table");
    let most = 10i128.pow(38) - 1;
    let staged = lake.stage(&key, vec![batch(&[most, most, most])]).await.expect("staged");
    lake.commit(&key, "p", 1, staged).await.expect("committed");
    let session = session(&lake, &["a"]);
    for sql in ["select sum(m) from silver.amounts", "select sum(m) from silver.amounts group by tenant_id"] {
        assert_eq!(rows(&session, sql).await.expect_err("too large").code, "sql-execution", "{sql}");
    }
    let one = rows(&session, "select min(m), max(m), count(*) from silver.amounts").await.expect("an answer");
    let shown = "99999999999999999999999999999.999999999";
    assert_eq!(one, [[shown, shown, "3"]]);
}
