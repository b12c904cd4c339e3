//! How fast a pipeline turns a topic into rows: 12 columns, 1 KiB events, 100 tenants of skewed
//! size, strict validation and deduplication, silver and bronze, on a real disk.
//!
//! `cargo run --release -p levada-flow --example throughput -- [EVENTS] [FOLDER]`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use levada_bus::{Bus, BusConfig, Publish, TopicConfig};
use levada_config::model::{
    Deduplicate, Field, FieldType, Owner, Pipeline, Schema, Source, Step, Validation,
};
use levada_core::{
    Attributes, Backoff, Clock, Message, ReadError, SourceName, SystemClock, TenantContext, TenantId,
    TopicName, attr,
};
use levada_disk::{Disk, RealDisk};
use levada_flow::{Breakers, EnrichContext, Parts, Pipelines};
use levada_lake::{Lake, LakeConfig};

fn pipeline() -> Pipeline {
    use FieldType::*;
    let columns = [
        ("id", String),
        ("customer", String),
        ("status", String),
        ("city", String),
        ("note", String),
        ("quantity", Int64),
        ("version", Int64),
        ("price", Float64),
        ("discount", Float64),
        ("paid", Bool),
        ("ordered_at", Timestamp),
        ("due", Date),
    ];
    let field = |(name, kind): (&str, FieldType)| Field {
        name: SourceName::new(name).expect("a name"),
        path: vec![name.to_owned()],
        kind,
        required: true,
        description: None,
    };
    let key = vec![SourceName::new("id").expect("a name")];
    Pipeline {
        name: SourceName::new("orders").expect("a name"),
        owner: Owner::Shared,
        display_name: None,
        description: None,
        file: PathBuf::from("connectors/orders.yaml"),
        source: Source::Events { topic: TopicName::new("orders").expect("a topic"), event_types: Vec::new() },
        schema: Some(Schema {
            file: PathBuf::from("schemas/orders.json"),
            version: "1".into(),
            fields: columns.map(field).to_vec(),
            json_schema: None,
        }),
        validation: Validation::Strict,
        steps: vec![Step::Deduplicate(Deduplicate {
            key,
            window: Duration::from_secs(600),
            max_keys: 2_000_000,
        })],
        waiting: Vec::new(),
        sink: "silver.orders".parse().expect("a table"),
        epoch: Duration::from_secs(1),
        epoch_bytes: 64 << 20,
        retention: None,
        sla: None,
    }
}

fn event(n: u64, tenants: &[TenantId]) -> Publish {
    // Tenant k has a share like 1/(k+1).
    let roll = (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11) as f64 / (1u64 << 53) as f64;
    let tenant = tenants[((100f64.powf(roll)) as usize - 1).min(99)].clone();
    let body = format!(
        r#"{{"id":"order-{n:012}","customer":"customer-{:06}","status":"{}","city":"city-{}","note":"{}","quantity":{},"version":{},"price":{}.99,"discount":0.{},"paid":{},"ordered_at":"2026-11-20T{:02}:{:02}:{:02}Z","due":"2026-12-{:02}"}}"#,
        n % 50_000,
        ["new", "paid", "sent", "returned"][(n % 4) as usize],
        n % 300,
        "lorem ipsum dolor sit amet consectetur ".repeat(18),
        n % 40,
        n % 7,
        n % 5000,
        n % 10,
        n % 2 == 0,
        n % 24,
        n % 60,
        n % 59,
        n % 28 + 1
    );
    let id = format!("{n:032x}");
    let attributes: Attributes = [
        (attr::EVENT_ID, id.as_str()),
        (attr::EVENT_TYPE, "order.placed"),
        (attr::SCHEMA_VERSION, "1"),
        (attr::TIMESTAMP, "2026-11-20T10:00:00Z"),
        (attr::SOURCE_SERVICE, "bench"),
    ]
    .into_iter()
    .collect();
    let message = Message { tenant: tenant.clone(), attributes, ordering_key: None, body: Bytes::from(body) };
    Publish { context: TenantContext::system(tenant, "bench"), message, idempotency_key: None }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut args = std::env::args().skip(1);
    let events: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(500_000);
    let folder = args.next().map_or_else(|| PathBuf::from("target/throughput"), PathBuf::from);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&folder).expect("a disk"));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (bus, _) = Bus::open(disk.clone(), BusConfig::default(), clock.clone()).expect("a bus");
    let topic = TopicName::new("orders").expect("a topic");
    bus.ensure_topic(&topic, TopicConfig::default()).expect("a topic");
    let tenants: Vec<_> = (0..100).map(|t| TenantId::new(&format!("t{t}")).expect("a tenant")).collect();
    let began = Instant::now();
    for first in (0..events).step_by(1000) {
        let items = (first..(first + 1000).min(events)).map(|n| event(n, &tenants)).collect();
        let results = bus.publish(&topic, items).await.expect("publishes");
        assert!(results.iter().all(Result::is_ok));
    }
    report("publish", events, began.elapsed());
    let lake = Lake::open(disk.clone(), "lake", LakeConfig::default(), clock.clone()).expect("a lake");
    let enrich = EnrichContext {
        clock: clock.clone(),
        jitter: Arc::new(|| 0.5),
        secrets: Arc::new(|_| None),
        backoff: Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(5) },
        breakers: Breakers::default(),
        cache_entries: 1000,
        answer_bytes: 1 << 20,
    };
    let parts = Parts { bus: bus.clone(), lake: lake.clone(), disk, clock, jitter: Arc::new(|| 0.5), enrich };
    let began = Instant::now();
    let no_files = Arc::new(|_: &Pipeline, _: &levada_config::model::FileSource| {
        Err(ReadError { message: "no files here".into(), retryable: false })
    });
    let pipelines = Pipelines::start(&[pipeline()], parts, no_files).await.expect("starts");
    let mut changes = pipelines.changes();
    while pipelines.status()[0].totals.records_in < events {
        changes.changed().await.expect("pipelines live");
    }
    report("topic to queryable silver", events, began.elapsed());
    let status = pipelines.status().remove(0);
    assert_eq!((status.totals.rows_out, status.totals.dead_letters), (events, 0));
    pipelines.stop(Duration::from_secs(600)).await;
    report("bronze as well", events, began.elapsed());
    bus.close().await.expect("closes");
    let _ = std::fs::remove_dir_all(&folder);
}

fn report(what: &str, events: u64, took: Duration) {
    println!("{what}: {events} events in {took:?}, {:.0} events/s", events as f64 / took.as_secs_f64());
}
