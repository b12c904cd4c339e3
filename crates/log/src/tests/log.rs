//! The log with its threads, on a simulated and on the real disk.

use std::sync::Arc;

use bytes::Bytes;
use levada_core::{ManualClock, SystemClock, TenantId, TopicName};
use levada_disk::{Disk, RealDisk, SimDisk};
use levada_log::{Append, Log, LogConfig, LogError, TopicId};

fn small() -> LogConfig {
    LogConfig {
        commit_file_bytes: 64 << 10,
        segment_bytes: 16 << 10,
        group_bytes: 16 << 10,
        queue_bytes: 64 << 10,
        index_interval_bytes: 1 << 10,
        min_free_bytes: 0,
        ..LogConfig::default()
    }
}

fn name(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

fn record(topic: TopicId, lane: u32, body: &str) -> Append {
    Append {
        topic,
        lane,
        key_id: 7,
        timestamp_ms: 1_000,
        head: Bytes::from_static(b"head"),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn open(disk: &Arc<dyn Disk>, config: LogConfig) -> Log {
    Log::open(disk.clone(), "log", config, Arc::new(SystemClock::new())).unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_back_in_order_with_dense_offsets_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(folder.path()).unwrap());
    let log = open(&disk, small());
    let (a, b) = (log.topic(&name("topic-a")).unwrap(), log.topic(&name("topic-b")).unwrap());
    let lane = log.lane(&TenantId::new("acme").unwrap()).unwrap();
    let mut tasks = Vec::new();
    for task in 0..8 {
        let log = log.clone();
        tasks.push(tokio::spawn(async move {
            for i in 0..50 {
                let text = format!("{task} {i} {}", "x".repeat(i * 7));
                let offsets = log.append(vec![record(a, lane, &text), record(b, lane, &text)]).await.unwrap();
                assert_eq!(offsets.len(), 2);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let mut end = log.watch(a);
    end.wait_for(|end| *end == 400).await.unwrap();
    assert!(log.stats().groups >= 1 && log.stats().records == 800);
    log.close().unwrap();
    assert!(matches!(log.append(vec![record(a, 0, "late")]).await, Err(LogError::Closed)));
    drop(log);

    let log = open(&disk, small());
    assert_eq!(log.topics().len(), 2);
    assert_eq!(log.lane_name(lane).unwrap().as_str(), "acme");
    for topic in [a, b] {
        let bounds = log.bounds(topic);
        assert_eq!((bounds.first, bounds.next), (0, 400));
        let mut seen = Vec::new();
        while seen.len() < 400 {
            let records = log.read(topic, seen.len() as u64, 33, 4_000).unwrap();
            assert!(!records.is_empty() && records.len() <= 33);
            seen.extend(records);
        }
        assert!(seen.iter().enumerate().all(|(i, r)| r.offset == i as u64 && r.key_id == 7));
        let mut last = [-1i64; 8];
        for record in &seen {
            let text = std::str::from_utf8(&record.body).unwrap();
            let mut parts = text.split(' ');
            let task: usize = parts.next().unwrap().parse().unwrap();
            let i: i64 = parts.next().unwrap().parse().unwrap();
            assert_eq!(i, last[task] + 1, "appends of one caller stay in order");
            last[task] = i;
        }
        assert_eq!(last, [49; 8]);
    }
    assert!(log.read(a, 400, 10, 1_000).unwrap().is_empty());
}

#[test]
fn an_append_that_is_too_large_or_to_an_unknown_topic_is_refused_and_nothing_else() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let config = LogConfig { max_record_bytes: 100, ..small() };
    let log = Log::open(disk, "log", config, Arc::new(ManualClock::new(0))).unwrap().0;
    let topic = log.topic(&name("topic-a")).unwrap();
    let too_large = log.append_blocking(vec![record(topic, 0, &"x".repeat(97))]);
    assert!(matches!(too_large, Err(LogError::TooLarge { bytes: 101, limit: 100 })), "{too_large:?}");
    let too_many = log.append_blocking((0..600).map(|_| record(topic, 0, "0123456789")).collect());
    assert!(matches!(too_many, Err(LogError::TooLarge { .. })), "{too_many:?}");
    let unknown = log.append_blocking(vec![record(TopicId(9), 0, "x")]);
    assert!(matches!(unknown, Err(LogError::UnknownTopic(TopicId(9)))), "{unknown:?}");
    assert_eq!(log.append_blocking(vec![record(topic, 0, "x")]).unwrap(), [0]);
    assert_eq!(log.append_blocking(Vec::new()).unwrap(), [0u64; 0]);
}
