//! Many pipelines together: failures stay with the one that has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use levada_config::model::{FileFolder, FileFormat, FileSource, Pipeline, Source, Step};
use levada_core::{Attributes, ReadError, Record, RecordBatchIn, RecordReader, Reject};
use levada_disk::{Fault, FaultError, OpKind, SimDisk};

use super::{World, by_id, name, pipeline, tenant, topic, until};
use crate::{FileReaders, Pipelines, RunState};

fn files(mut pipeline: Pipeline) -> Pipeline {
    pipeline.name = name("landed");
    pipeline.sink = "silver.landed".parse().expect("a table");
    pipeline.source = Source::Files(FileSource {
        location: "landing".into(),
        folder: FileFolder::Local("landing".into()),
        pattern: "*".into(),
        format: FileFormat::Csv,
        gzip: None,
        delimiter: levada_config::model::Delimiter::Comma,
        settle: FileSource::SETTLE,
        settle_end: FileSource::SETTLE_END,
        null_values: vec!["-".into()],
        schedule: None,
        tenant: tenant("a"),
    });
    pipeline
}

/// Two files of two rows each, the second with a bad row; then nothing.
struct TwoFiles {
    line: u64,
    panics: Arc<AtomicUsize>,
}

fn row(line: u64, body: &str) -> Record {
    Record {
        tenant: tenant("a"),
        offset: line,
        published_at_ms: 1_700_000_000_000,
        attributes: Attributes::new(),
        body: body.to_owned().into(),
        original: Some("x,1".into()),
    }
}

#[async_trait]
impl RecordReader for TwoFiles {
    async fn seek(&mut self, position: Option<&serde_json::Value>) -> Result<(), ReadError> {
        self.line = position.and_then(serde_json::Value::as_u64).unwrap_or(0);
        Ok(())
    }

    async fn read(&mut self, _: usize, _: usize, wait: Duration) -> Result<RecordBatchIn, ReadError> {
        if self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            panic!("a defect in a reader");
        }
        self.line += 1;
        let mut batch = RecordBatchIn { textual: true, ..RecordBatchIn::default() };
        match self.line {
            1 => batch.records = vec![row(1, r#"{"id":"r1","n":"7"}"#), row(2, r#"{"id":"r2","n":"-"}"#)],
            2 => {
                batch.records = vec![row(1, r#"{"id":"r3","n":"NA"}"#)];
                let reason = "3 fields where 2 are due".to_owned();
                batch.rejects = vec![Reject { record: row(2, "{}"), code: "csv-ragged-row", reason }];
            }
            _ => {
                self.line = 2;
                tokio::time::sleep(wait).await;
                return Ok(RecordBatchIn::default());
            }
        }
        batch.object = Some(format!("f{}.csv", self.line));
        Ok(batch)
    }

    fn position(&self) -> serde_json::Value {
        self.line.into()
    }

    fn backlog(&self) -> u64 {
        0
    }
}

fn two_files(panics: usize) -> FileReaders {
    let panics = Arc::new(AtomicUsize::new(panics));
    Arc::new(move |_, _| Ok(Box::new(TwoFiles { line: 0, panics: Arc::clone(&panics) })))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_files_keep_their_file_and_line_and_survive_a_panic() {
    let world = World::fresh();
    let project = [files(pipeline(vec![])), pipeline(vec![])];
    let pipelines = Pipelines::start(&project, world.parts.clone(), two_files(2)).await.expect("starts");
    assert!(world.publish("events", &[("a", "1", r#"{"id":"x"}"#)]).await);
    until(&pipelines, |s| s.totals.records_in == 4).await;
    let rows = world.query("select id, n, _source_offset from silver.landed").await;
    assert_eq!(rows, Ok(vec!["r1 7 1".into(), "r2  2".into()]), "`-` is null here and `NA` is not");
    let mut dead = world.dead_codes("landed", 2).await;
    dead.sort();
    assert_eq!(dead, ["csv-ragged-row read f2.csv:2", "schema-type validate f2.csv:1"]);
    assert_eq!(&world.dead("landed", 2).await[0].message.body[..], b"x,1");
    assert_eq!(world.query("select id from silver.events").await, Ok(vec!["x".into()]), "the other one ran");
    pipelines.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_cannot_be_built_fails_its_pipeline_with_the_reason() {
    let world = World::fresh();
    let bad = pipeline(vec![Step::Sql { query: "select nowhere from input".into() }]);
    let mut good = pipeline(vec![]);
    good.name = name("good");
    good.sink = "silver.good".parse().expect("a table");
    let pipelines = world.start(&[bad, good]).await;
    let failed = until(&pipelines, |s| matches!(s.state, RunState::Failed { .. })).await;
    assert!(matches!(&failed.state, RunState::Failed { reason } if reason.contains("nowhere")), "{failed:?}");
    assert!(world.publish("events", &[("a", "1", r#"{"id":"x"}"#)]).await);
    let mut changes = pipelines.changes();
    while pipelines.status()[1].totals.rows_out == 0 {
        changes.changed().await.expect("pipelines live");
    }
    pipelines.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_waited_out_and_nothing_is_skipped() {
    let disk = SimDisk::new(7);
    let world = World::open(Arc::new(disk.clone())).expect("opens");
    for nth in 1..=3 {
        let path = "*/silver/m-*".to_owned();
        disk.fail(Fault { kind: OpKind::Write, path, nth, error: FaultError::DiskFull });
    }
    let pipelines = world.start(&[pipeline(vec![by_id()])]).await;
    assert!(world.publish("events", &[("a", "1", r#"{"id":"x"}"#), ("a", "2", "{")]).await);
    let status = until(&pipelines, |s| s.totals.records_in == 2).await;
    assert_eq!((status.totals.rows_out, status.totals.dead_letters, status.epoch), (1, 1, 1));
    assert_eq!(status.state, RunState::Running, "it says so when it is over");
    assert_eq!(world.query("select id from silver.events").await, Ok(vec!["x".into()]));
    assert_eq!(world.dead_codes("events", 1).await.len(), 1);
    pipelines.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_ahead_of_its_manifests_is_not_written_to() {
    let world = World::fresh();
    let pipelines = world.start(&[pipeline(vec![by_id()])]).await;
    assert!(world.publish("events", &[("a", "1", r#"{"id":"x"}"#)]).await);
    until(&pipelines, |s| s.epoch == 1).await;
    pipelines.stop(Duration::from_secs(10)).await;
    for entry in world.disk.list("flow/_shared/events/silver").expect("lists") {
        world.disk.remove(&format!("flow/_shared/events/silver/{}", entry.name)).expect("removes");
    }
    let again = world.start(&[pipeline(vec![by_id()])]).await;
    let status = until(&again, |s| matches!(s.state, RunState::Failed { .. })).await;
    assert!(
        matches!(&status.state, RunState::Failed { reason } if reason.contains("was lost")),
        "{status:?}"
    );
    assert_eq!(world.query("select id from silver.events").await, Ok(vec!["x".into()]));
    again.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_pipelines_start_within_seconds() {
    let world = World::fresh();
    let many: Vec<Pipeline> = (0..500)
        .map(|i| {
            let mut p = pipeline(vec![by_id()]);
            p.name = name(&format!("p{i}"));
            p.sink = format!("silver.p{i}").parse().expect("a table");
            p.source = Source::Events { topic: topic(&format!("topic-{i}")), event_types: Vec::new() };
            p
        })
        .collect();
    let began = Instant::now();
    let pipelines = world.start(&many).await;
    let mut changes = pipelines.changes();
    while pipelines.status().iter().any(|s| s.state != RunState::Running) {
        changes.changed().await.expect("pipelines live");
    }
    println!("500 pipelines ran after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(world.publish("topic-499", &[("a", "1", r#"{"id":"x"}"#)]).await);
    while pipelines.status()[499].totals.rows_out == 0 {
        changes.changed().await.expect("pipelines live");
    }
    pipelines.stop(Duration::from_secs(20)).await;
}
