//! A lake with a few rows of two tenants, keys that can be revoked, and a running server.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use levada_core::{Authenticator, Principal, Problem, Role, SystemClock, TenantId, TenantSet};
use levada_disk::RealDisk;
use levada_lake::{Lake, LakeConfig, Owner, TableSpec};
use levada_postgres::{PostgresConfig, PostgresServer};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub struct Keys(Mutex<HashMap<String, Arc<Principal>>>);

impl Keys {
    fn new() -> Self {
        let only = |tenant: &str| TenantSet::Only([TenantId::new(tenant).expect("a tenant")].into());
        let key = |secret: &str, tenants, role| {
            let principal =
                Principal { id: secret.into(), name: secret.into(), tenants, roles: BTreeSet::from([role]) };
            (secret.to_owned(), Arc::new(principal))
        };
        Self(Mutex::new(HashMap::from([
            key("lvd_admin", TenantSet::All, Role::Admin),
            key("lvd_acme", only("acme"), Role::Analyst),
            key("lvd_bolt", only("bolt"), Role::Analyst),
            key("lvd_client", only("acme"), Role::Client),
        ])))
    }

    pub fn revoke(&self, secret: &str) {
        self.0.lock().expect("no panic before").remove(secret);
    }
}

impl Authenticator for Keys {
    fn is_valid(&self, principal: &Principal) -> bool {
        self.0.lock().expect("no panic before").contains_key(&principal.id)
    }

    fn authenticate(&self, secret: &str) -> Result<Arc<Principal>, Problem> {
        let found = self.0.lock().expect("no panic before").get(secret).cloned();
        found.ok_or_else(|| Problem::new(401, "unauthenticated", "this key is unknown, expired or revoked"))
    }
}

pub struct Stage {
    pub address: SocketAddr,
    pub keys: Arc<Keys>,
    pub lake: Lake,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
    _dir: TempDir,
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut PostgresConfig)) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let disk = Arc::new(RealDisk::new(dir.path()).expect("a disk"));
        let lake =
            Lake::open(disk, "lake", LakeConfig::default(), Arc::new(SystemClock::new())).expect("a lake");
        fill(&lake).await;
        let keys = Arc::new(Keys::new());
        let mut config = PostgresConfig { address: "127.0.0.1:0".to_owned(), ..PostgresConfig::default() };
        change(&mut config);
        let server = PostgresServer::bind(config, lake.clone(), keys.clone()).await.expect("a listener");
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            let until = async {
                drop(stopped.await);
            };
            server.run(until).await.expect("the listener goes on");
        });
        Self { address, keys, lake, stop: Some(stop), running: Some(running), _dir: dir }
    }

    /// Stops the server and waits until it has drained.
    pub async fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take() {
            running.await.expect("the server ends without a panic");
        }
    }

    /// Runs psql on a script; unaligned rows without headers.
    pub async fn psql(&self, secret: &str, database: &str, script: &str) -> Answer {
        self.psql_with(secret, database, &["-A", "-t"], script).await
    }

    pub async fn psql_with(&self, secret: &str, database: &str, options: &[&str], script: &str) -> Answer {
        let mut psql = std::process::Command::new("psql");
        psql.args(["-X", "-q", "-v", "VERBOSITY=verbose", "-h", "127.0.0.1", "-U", "anna", "-d", database])
            .args(["-p", &self.address.port().to_string()])
            .args(options)
            .args(["-f", "-"])
            .env("PGPASSWORD", secret)
            .env("PGCONNECT_TIMEOUT", "20")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let script = script.to_owned();
        let output = tokio::task::spawn_blocking(move || {
            use std::io::Write;
            let mut child = psql.spawn().expect("psql is installed (package postgresql-client)");
            child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("psql reads");
            child.wait_with_output().expect("psql ends")
        });
        let output = output.await.expect("no panic");
        Answer {
            rows: String::from_utf8_lossy(&output.stdout).trim_end().to_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

pub struct Answer {
    pub rows: String,
    pub errors: String,
}

impl Answer {
    /// The rows, where nothing went wrong.
    #[track_caller]
    pub fn good(&self) -> &str {
        assert!(self.errors.is_empty(), "{}\n{}", self.rows, self.errors);
        &self.rows
    }
}

/// `silver.orders` (3 rows of acme, 2 of bolt), `gold.daily` of acme, `silver.numbers` (10,000).
async fn fill(lake: &Lake) {
    let utc = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let rows: Vec<(&str, DataType, ArrayRef)> = vec![
        (
            "tenant_id",
            DataType::Utf8,
            strings(&[Some("acme"), Some("acme"), Some("acme"), Some("bolt"), Some("bolt")]),
        ),
        ("order_id", DataType::Int64, Arc::new(Int64Array::from(vec![1, 2, 3, 10, 11]))),
        (
            "pieces",
            DataType::Int32,
            Arc::new(Int32Array::from(vec![Some(5), None, Some(-7), Some(1), Some(2)])),
        ),
        ("price", DataType::Decimal128(12, 2), Arc::new(decimals(&[1999, 5, 123_456_789, 100, 200]))),
        ("ratio", DataType::Float64, Arc::new(Float64Array::from(vec![0.1, 1e20, -2.5, 0.0, 1.0]))),
        (
            "paid",
            DataType::Boolean,
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, None, None])),
        ),
        ("day", DataType::Date32, Arc::new(Date32Array::from(vec![20_000, 20_001, 20_002, 20_003, 20_004]))),
        ("placed", utc(), Arc::new(times().with_timezone("UTC"))),
        (
            "note",
            DataType::Utf8,
            strings(&[Some("plain"), Some("with 'quotes' and ünïcödé"), None, Some("b"), Some("c")]),
        ),
    ];
    write(lake, Owner::Shared, "silver.orders", rows).await;
    let acme = Owner::Tenant(TenantId::new("acme").expect("a tenant"));
    let daily: Vec<(&str, DataType, ArrayRef)> = vec![
        ("day", DataType::Date32, Arc::new(Date32Array::from(vec![20_000, 20_001]))),
        ("orders", DataType::Int64, Arc::new(Int64Array::from(vec![2, 1]))),
    ];
    write(lake, acme, "gold.daily", daily).await;
    let many = 10_000;
    let numbers: Vec<(&str, DataType, ArrayRef)> = vec![
        ("tenant_id", DataType::Utf8, strings(&vec![Some("acme"); many])),
        ("n", DataType::Int64, Arc::new(Int64Array::from_iter_values(0..many as i64))),
    ];
    write(lake, Owner::Shared, "silver.numbers", numbers).await;
}

fn strings(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn decimals(cents: &[i128]) -> Decimal128Array {
    Decimal128Array::from(cents.to_vec()).with_precision_and_scale(12, 2).expect("they fit")
}

fn times() -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::from(vec![1_728_000_000_123_456, 0, -1, 1, 2])
}

async fn write(lake: &Lake, owner: Owner, name: &str, columns: Vec<(&str, DataType, ArrayRef)>) {
    let fields: Vec<Field> =
        columns.iter().map(|(n, of, _)| Field::new(*n, of.clone(), *n != "tenant_id")).collect();
    let schema = Arc::new(Schema::new(fields));
    let mut spec = TableSpec::new(owner, name.parse().expect("a table name"), schema.clone());
    spec.description = Some(format!("{name}, for tests"));
    lake.ensure_table(&spec).await.expect("a table");
    let batch = RecordBatch::try_new(schema, columns.into_iter().map(|(_, _, array)| array).collect())
        .expect("a batch");
    let files = lake.stage(&spec.key(), vec![batch]).await.expect("staged");
    lake.commit(&spec.key(), "tests", 1, files).await.expect("committed");
}
