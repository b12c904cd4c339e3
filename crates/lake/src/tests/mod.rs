//! The lake as its users see it: real and simulated disks, crashes, tenants, limits.

mod amplifiers;
mod bronze;
mod commit;
mod crash;
mod decimals;
mod deep;
mod fair;
mod isolation;
mod limits;
mod maintain;
mod program;
mod rot;
mod scale;
mod sql;
mod stopping;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::array_value_to_string;
use levada_core::{ManualClock, Principal, Problem, Role, TableName, TenantId, TenantSet};
use levada_disk::{Disk, RealDisk};
use tempfile::TempDir;

use crate::{Lake, LakeConfig, Owner, QueryLimits, SqlSession, TableKey, TableSpec};

/// Held by tests that look at the memory of the process, or need much of it.
static HEAVY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// 2026-11-20T00:00:00Z.
pub(crate) const NOW_MS: i64 = 1_795_132_800_000;

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(NOW_MS))
}

pub(crate) fn open(disk: Arc<dyn Disk>, config: LakeConfig) -> Lake {
    Lake::open(disk, "lake", config, clock()).expect("opening the lake")
}

/// A lake on a real disk, with the directory that keeps it.
pub(crate) fn real_lake() -> (Lake, TempDir) {
    let dir = TempDir::new().expect("a temporary directory");
    let disk = Arc::new(RealDisk::new(dir.path()).expect("a disk"));
    (open(disk, LakeConfig::default()), dir)
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a tenant")
}

pub(crate) fn table(name: &str) -> TableName {
    name.parse().expect("a table name")
}

pub(crate) fn shared(name: &str) -> TableKey {
    TableKey::new(Owner::Shared, table(name))
}

pub(crate) fn owned(owner: &str, name: &str) -> TableKey {
    TableKey::new(Owner::Tenant(tenant(owner)), table(name))
}

pub(crate) fn order_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("tenant_id", DataType::Utf8, false),
        Field::new("id", DataType::Int64, false),
        Field::new("epoch", DataType::Int64, true),
        Field::new("city", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ]))
}

pub(crate) fn order_spec(key: &TableKey) -> TableSpec {
    let mut spec = TableSpec::new(key.owner.clone(), key.name.clone(), order_schema());
    spec.cluster_by = vec!["id".to_owned()];
    spec
}

/// `rows` orders of each tenant, numbered from `first`.
pub(crate) fn orders(tenants: &[&str], first: i64, rows: i64, epoch: i64) -> RecordBatch {
    let names: Vec<&str> = (0..rows).flat_map(|_| tenants.iter().copied()).collect();
    let n = i64::try_from(names.len()).unwrap();
    let ids: Vec<i64> = (0..n).map(|i| first + i / tenants.len() as i64).collect();
    let cities: Vec<String> = names.iter().zip(&ids).map(|(t, id)| format!("{t}-city-{}", id % 7)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(names)),
        Arc::new(Int64Array::from(ids.clone())),
        Arc::new(Int64Array::from(vec![epoch; ids.len()])),
        Arc::new(StringArray::from(cities)),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(ids.iter().map(|id| (NOW_MS + id) * 1000))
                .with_timezone("UTC"),
        ),
    ];
    RecordBatch::try_new(order_schema(), columns).expect("orders")
}

pub(crate) fn principal(tenants: &[&str], roles: &[Role]) -> Principal {
    Principal {
        id: "key-1".into(),
        name: "test".into(),
        tenants: TenantSet::Only(tenants.iter().map(|t| tenant(t)).collect()),
        roles: roles.iter().copied().collect::<BTreeSet<_>>(),
    }
}

pub(crate) fn platform() -> Principal {
    Principal { id: "root".into(), name: "root".into(), tenants: TenantSet::All, roles: [Role::Admin].into() }
}

pub(crate) fn session(lake: &Lake, tenants: &[&str]) -> SqlSession {
    lake.session(&principal(tenants, &[Role::Engineer]), None).expect("a session")
}

/// The cells of a result as text, row by row; null is `NULL`.
pub(crate) async fn rows(session: &SqlSession, sql: &str) -> Result<Vec<Vec<String>>, Problem> {
    let batches = session.query(sql, Vec::new(), QueryLimits::default()).await?.collect().await?;
    Ok(cells(&batches))
}

pub(crate) fn cells(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            all.push(
                batch
                    .columns()
                    .iter()
                    .map(|column| match column.is_null(row) {
                        true => "NULL".to_owned(),
                        false => array_value_to_string(column, row).expect("a printable cell"),
                    })
                    .collect(),
            );
        }
    }
    all
}

/// The only cell of a result.
pub(crate) async fn one(session: &SqlSession, sql: &str) -> String {
    let rows = rows(session, sql).await.unwrap_or_else(|problem| panic!("{sql}: {problem}"));
    assert_eq!((rows.len(), rows.first().map(Vec::len)), (1, Some(1)), "{sql}: {rows:?}");
    rows[0][0].clone()
}

/// Declares the table and commits one epoch of rows to it.
pub(crate) async fn fill(lake: &Lake, key: &TableKey, epoch: i64, rows: RecordBatch) {
    lake.ensure_table(&order_spec(key)).await.expect("a table");
    let files = lake.stage(key, vec![rows]).await.expect("staged rows");
    assert!(lake.commit(key, "test/orders", epoch, files).await.expect("a commit").applied);
}
