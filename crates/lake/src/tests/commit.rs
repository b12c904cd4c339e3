//! Epochs, versions and growing schemas.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::{LakeError, Param};

const APP: &str = "test/orders";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_is_applied_once_and_staged_rows_stay_unseen() {
    let (lake, _dir) = real_lake();
    let key = shared("silver.orders");
    lake.ensure_table(&order_spec(&key)).await.unwrap();
    let session = session(&lake, &["a", "b"]);
    assert_eq!(one(&session, "select count(*) from silver.orders").await, "0", "a table without commits");

    let staged = lake.stage(&key, vec![orders(&["a", "b"], 0, 10, 1)]).await.unwrap();
    assert_eq!(one(&session, "select count(*) from silver.orders").await, "0");
    assert_eq!(lake.epoch(&key, APP).await.unwrap(), None);

    let done = lake.commit(&key, APP, 1, staged.clone()).await.unwrap();
    assert!(done.applied && done.rows == 20);
    let again = lake.commit(&key, APP, 1, staged.clone()).await.unwrap();
    assert!(!again.applied && again.version == done.version);
    assert!(!lake.commit(&key, APP, 0, staged.clone()).await.unwrap().applied, "an older epoch");
    assert_eq!(lake.epoch(&key, APP).await.unwrap(), Some(1));
    assert_eq!(one(&session, "select count(*) from silver.orders").await, "20");

    let other = lake.stage(&key, vec![orders(&["a"], 100, 1, 9)]).await.unwrap();
    assert!(lake.commit(&key, "other/orders", 1, other).await.unwrap().applied, "epochs are per writer");
    assert_eq!(one(&session, "select count(*) from silver.orders").await, "21");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reopened_lake_knows_tables_epochs_and_rows() {
    let dir = TempDir::new().unwrap();
    let disk = || Arc::new(RealDisk::new(dir.path()).unwrap());
    let key = shared("silver.orders");
    {
        let lake = open(disk(), LakeConfig { checkpoint_commits: 4, ..LakeConfig::default() });
        for epoch in 1..=11 {
            fill(&lake, &key, epoch, orders(&["a", "b"], epoch * 10, 10, epoch)).await;
        }
    }
    let lake = open(disk(), LakeConfig::default());
    assert_eq!(lake.epoch(&key, APP).await.unwrap(), Some(11));
    let session = session(&lake, &["a"]);
    assert_eq!(one(&session, "select count(*) from silver.orders").await, "110");
    assert_eq!(one(&session, "select count(distinct epoch) from silver.orders").await, "11");
    let stats = lake.table_stats(&key).await.unwrap();
    assert_eq!((stats.rows, stats.files), (220, 11));

    let log = dir.path().join("lake/tenant=_shared/silver/dataset=main/table=orders/_delta_log");
    let entries = std::fs::read_dir(log).unwrap().count();
    assert!(entries < 12, "two checkpoints make older entries superfluous, but {entries} lie there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_entry_survives_its_json() {
    let (lake, _dir) = real_lake();
    let key = shared("silver.orders");
    lake.ensure_table(&order_spec(&key)).await.unwrap();
    let staged = lake.stage(&key, vec![orders(&["a"], 0, 3, 1)]).await.unwrap();
    let text = serde_json::to_string(&staged).unwrap();
    let back: Vec<crate::StagedFile> = serde_json::from_str(&text).unwrap();
    assert_eq!(back, staged);
    lake.commit(&key, APP, 1, back).await.unwrap();
    assert_eq!(one(&session(&lake, &["a"]), "select max(id) from silver.orders").await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_gains_columns_while_old_rows_stay() {
    let (lake, dir) = real_lake();
    let key = shared("silver.orders");
    fill(&lake, &key, 1, orders(&["a"], 0, 5, 1)).await;
    let mut fields: Vec<Field> = order_schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.push(Field::new("note", DataType::Utf8, false));
    let wide = Arc::new(Schema::new(fields));
    let spec = TableSpec { schema: Arc::clone(&wide), ..order_spec(&key) };
    lake.ensure_table(&spec).await.unwrap();
    let session = session(&lake, &["a"]);
    assert_eq!(one(&session, "select count(note) from silver.orders").await, "0", "before any new row");

    let mut columns = orders(&["a"], 5, 2, 2).columns().to_vec();
    columns.push(Arc::new(StringArray::from(vec!["x", "y"])));
    let staged = lake.stage(&key, vec![RecordBatch::try_new(wide, columns).unwrap()]).await.unwrap();
    lake.commit(&key, APP, 2, staged).await.unwrap();
    // A pipeline that does not know the new column goes on.
    fill(&lake, &key, 3, orders(&["a"], 7, 1, 3)).await;
    let found = rows(&session, "select id, note from silver.orders order by id").await.unwrap();
    assert_eq!(found.len(), 8);
    assert_eq!(found[4..7], [["4", "NULL"], ["5", "x"], ["6", "y"]].map(|r| r.map(String::from).to_vec()));

    drop(lake);
    let lake = open(Arc::new(RealDisk::new(dir.path()).unwrap()), LakeConfig::default());
    let session = super::session(&lake, &["a"]);
    assert_eq!(one(&session, "select count(note) from silver.orders").await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incompatible_declarations_are_refused() {
    let (lake, _dir) = real_lake();
    let key = shared("silver.orders");
    lake.ensure_table(&order_spec(&key)).await.unwrap();
    let text_id = Arc::new(Schema::new(vec![
        Field::new("tenant_id", DataType::Utf8, false),
        Field::new("id", DataType::Utf8, false),
    ]));
    let bad = [
        TableSpec { schema: text_id, cluster_by: vec![], ..order_spec(&key) },
        TableSpec { tenant_column: None, ..order_spec(&shared("silver.other")) },
        TableSpec { tenant_column: Some("nope".into()), ..order_spec(&shared("silver.other")) },
        TableSpec { tenant_column: Some("id".into()), ..order_spec(&shared("silver.other")) },
        TableSpec { cluster_by: vec!["nope".into()], ..order_spec(&shared("silver.other")) },
        order_spec(&shared("bronze.orders")),
    ];
    for spec in bad {
        let refused = lake.ensure_table(&spec).await;
        assert!(matches!(refused, Err(LakeError::Incompatible { .. })), "{spec:?}");
    }
    assert!(matches!(lake.stage(&shared("silver.nope"), vec![]).await, Err(LakeError::UnknownTable(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_table_holds_the_new_rows_only() {
    let (lake, _dir) = real_lake();
    let key = owned("a", "gold.totals");
    let spec = TableSpec { tenant_column: None, cluster_by: vec![], ..order_spec(&key) };
    lake.ensure_table(&spec).await.unwrap();
    let session = session(&lake, &["a"]);
    for epoch in 1..=3 {
        let done =
            lake.replace(&key, "model", epoch, vec![orders(&["a"], 0, 10 * epoch, epoch)]).await.unwrap();
        assert!(done.applied);
        assert_eq!(one(&session, "select count(*) from gold.totals").await, (10 * epoch).to_string());
        assert_eq!(one(&session, "select min(epoch) from gold.totals").await, epoch.to_string());
    }
    assert!(!lake.replace(&key, "model", 3, vec![]).await.unwrap().applied);
    assert_eq!(one(&session, "select count(*) from gold.totals").await, "30");
    assert!(lake.replace(&key, "model", 4, vec![]).await.unwrap().applied);
    assert_eq!(one(&session, "select count(*) from gold.totals").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_become_directories_and_prune() {
    let (lake, dir) = real_lake();
    let key = shared("silver.orders");
    let spec = TableSpec { partition_by: vec!["city".into()], ..order_spec(&key) };
    lake.ensure_table(&spec).await.unwrap();
    let staged = lake.stage(&key, vec![orders(&["a"], 0, 70, 1)]).await.unwrap();
    assert_eq!(staged.len(), 7, "one file a city");
    lake.commit(&key, APP, 1, staged).await.unwrap();
    let session = session(&lake, &["a"]);
    assert_eq!(one(&session, "select count(*) from silver.orders where city = 'a-city-3'").await, "10");
    assert_eq!(one(&session, "select count(distinct city) from silver.orders").await, "7");
    let table = dir.path().join("lake/tenant=_shared/silver/dataset=main/table=orders");
    assert!(table.join("city=a-city-3").is_dir());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_query_sees_one_version_while_commits_go_on() {
    let (lake, _dir) = real_lake();
    let key = shared("silver.orders");
    fill(&lake, &key, 1, orders(&["a"], 0, 100, 1)).await;
    let writer = {
        let (lake, key) = (lake.clone(), key.clone());
        tokio::spawn(async move {
            for epoch in 2..=40 {
                let files = lake.stage(&key, vec![orders(&["a"], 0, 100, epoch)]).await.unwrap();
                lake.commit(&key, APP, epoch, files).await.unwrap();
            }
        })
    };
    let session = session(&lake, &["a"]);
    let mut seen = 0;
    while !writer.is_finished() {
        let sql =
            "select (select count(*) from silver.orders) as a, (select count(*) from silver.orders x) as b,
                   count(*), max(epoch) * 100 from silver.orders";
        let output = session.query(sql, vec![], QueryLimits::default()).await.unwrap();
        let epoch = output.as_of[0].epochs[APP];
        assert_eq!(output.as_of.len(), 1);
        let row = cells(&output.collect().await.unwrap()).remove(0);
        assert_eq!(row, vec![(epoch * 100).to_string(); 4], "one version, and the one it says");
        seen += 1;
    }
    writer.await.unwrap();
    assert!(seen > 3, "queries ran beside the commits");
    let limits = QueryLimits::default();
    let output =
        session.query("select max(epoch) from silver.orders where id = $1", vec![Param::Int(5)], limits);
    assert_eq!(cells(&output.await.unwrap().collect().await.unwrap())[0], ["40"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_beyond_the_limit_are_let_go_and_come_back() {
    let dir = TempDir::new().unwrap();
    let config = LakeConfig { loaded_tables: 3, ..LakeConfig::default() };
    let lake = open(Arc::new(RealDisk::new(dir.path()).unwrap()), config);
    for i in 0..8 {
        fill(&lake, &shared(&format!("silver.t{i}")), 1, orders(&["a"], 0, i + 1, 1)).await;
    }
    let lake = open(
        Arc::new(RealDisk::new(dir.path()).unwrap()),
        LakeConfig { loaded_tables: 3, ..LakeConfig::default() },
    );
    let session = session(&lake, &["a"]);
    for round in 0..2 {
        for i in 0..8 {
            let count = one(&session, &format!("select count(*) from silver.t{i}")).await;
            assert_eq!(count, (i + 1).to_string(), "round {round}");
        }
        assert!(lake.loaded() <= 3, "{} tables are loaded", lake.loaded());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_file_are_sorted_by_tenant_and_cluster() {
    let (lake, dir) = real_lake();
    let key = shared("silver.orders");
    lake.ensure_table(&order_spec(&key)).await.unwrap();
    let batches = vec![orders(&["c", "a"], 50, 20, 1), orders(&["b", "a"], 0, 20, 1)];
    let staged = lake.stage(&key, batches).await.unwrap();
    assert_eq!(staged.len(), 1);
    let path = dir.path().join("lake/tenant=_shared/silver/dataset=main/table=orders").join(&staged[0].path);
    let file = std::fs::File::open(path).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let mut pairs = Vec::new();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let ids = batch.column(1).as_any().downcast_ref::<Int64Array>().unwrap().clone();
        let names = batch.column(0).as_any().downcast_ref::<StringArray>().unwrap().clone();
        pairs.extend((0..batch.num_rows()).map(|i| (names.value(i).to_owned(), ids.value(i))));
    }
    assert_eq!(pairs.len(), 80);
    assert!(pairs.is_sorted());
}
