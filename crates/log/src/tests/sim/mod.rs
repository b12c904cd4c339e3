//! A seeded life of a log on the simulated disk: appends, checkpoints and faults, then a
//! crash, again and again; after each start the log must hold what it confirmed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use levada_core::{ManualClock, TenantId, TopicName};
use levada_disk::{Disk, Fault, FaultError, OpKind, SimDisk, SimRng, SyncKind};
use levada_log::{Append, Engine, LogConfig, LogError, Stored, TopicId, VerifyReport, verify};

/// What a record holds, as the model keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    lane: u32,
    timestamp_ms: i64,
    body: Bytes,
}

/// Which faults a life may have besides crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faults {
    None,
    DiskFullAndSyncErrors,
}

#[derive(Debug)]
pub struct Case {
    seed: u64,
    rng: SimRng,
    disk: SimDisk,
    config: LogConfig,
    skip: Option<(SyncKind, &'static str)>,
    faults: Faults,
    skipped_syncs: u64,
    /// Confirmed records by topic, index = offset.
    held: BTreeMap<u32, Vec<Held>>,
    /// The records of the append that was under way, by topic.
    in_flight: BTreeMap<u32, Vec<Held>>,
    topics: BTreeMap<String, u32>,
    lanes: BTreeMap<String, u32>,
    counter: u64,
}

/// Runs one seed; the error says what was lost or found wrong.
pub fn run(seed: u64, skip: Option<(SyncKind, &'static str)>, faults: Faults) -> Result<u64, String> {
    let mut rng = SimRng::new(seed);
    let config = LogConfig {
        commit_file_bytes: 64 << 10,
        checkpoint_files: 1 + rng.below(2),
        segment_bytes: 1 << (10 + rng.below(4)),
        queue_bytes: 1 << 20,
        index_interval_bytes: 256,
        open_files: 2,
        sync_each_limit: if rng.one_in(2) { 100 } else { 1 },
        min_free_bytes: 0,
        ..LogConfig::default()
    };
    let mut case = Case {
        seed,
        disk: SimDisk::new(rng.next_u64()),
        rng,
        config,
        skip,
        faults,
        skipped_syncs: 0,
        held: BTreeMap::new(),
        in_flight: BTreeMap::new(),
        topics: BTreeMap::new(),
        lanes: BTreeMap::new(),
        counter: 0,
    };
    let lives = 1 + case.rng.below(5);
    for _ in 0..lives {
        case.live()?;
    }
    case.last_look()?;
    Ok(case.skipped_syncs)
}

impl Case {
    fn open(&self) -> Result<Engine, LogError> {
        let clock = Arc::new(ManualClock::new(1_000_000 + self.counter.cast_signed()));
        let disk = Arc::new(self.disk.clone());
        let (engine, recovery) = Engine::open(disk, "log", self.config.clone(), clock)?;
        if recovery.quarantined.is_empty() {
            Ok(engine)
        } else {
            Err(LogError::CorruptFile { file: "log".into(), reason: format!("{recovery:?}") })
        }
    }

    fn fail(&self, what: impl std::fmt::Display) -> String {
        format!("seed {}: {what}", self.seed)
    }

    /// A verification before the start: whatever the crash left, it is no damage. `None`
    /// where a sync was left out: then there may be damage, and the start has to notice it.
    fn verify(&self) -> Result<Option<VerifyReport>, String> {
        if self.skip.is_some() || self.disk.metadata("log/checkpoint").is_err() {
            return Ok(None);
        }
        let report = verify(&self.disk, "log", &mut |_| {}).map_err(|e| self.fail(e))?;
        if report.is_clean() { Ok(Some(report)) } else { Err(self.fail(format!("{report:#?}"))) }
    }

    /// The verification must have told what the start has now found.
    fn check_foreseen(&self, engine: &Engine, foreseen: Option<VerifyReport>) -> Result<(), String> {
        for topic in foreseen.iter().flat_map(|report| &report.topics) {
            let Ok(bounds) = engine.bounds(topic.id) else { continue };
            let found = (bounds.first, bounds.next, bounds.next - bounds.first);
            if found != (topic.first, topic.next, topic.records) {
                return Err(self.fail(format!("a verification told {topic:?}, a start found {bounds:?}")));
            }
        }
        Ok(())
    }

    /// One process: opens, checks, works, dies.
    fn live(&mut self) -> Result<(), String> {
        let foreseen = self.verify()?;
        if let Some((kind, pattern)) = self.skip {
            self.disk.skip_syncs(kind, pattern);
        }
        if self.rng.one_in(4) {
            self.disk.crash_after(self.rng.below(40));
        } else if self.rng.one_in(2) {
            self.disk.crash_after(self.rng.below(400));
        }
        match self.open() {
            Ok(mut engine) => {
                self.check(&engine)?;
                self.check_foreseen(&engine, foreseen)?;
                if self.disk.has_crashed() { Ok(()) } else { self.work(&mut engine) }
            }
            Err(_) if self.disk.has_crashed() => Ok(()),
            Err(error) => Err(self.fail(format!("cannot open: {error}"))),
        }?;
        self.die();
        Ok(())
    }

    /// Power loss, or a kill that leaves the page cache.
    fn die(&mut self) {
        self.skipped_syncs += self.disk.skipped_syncs();
        self.disk = if self.rng.one_in(4) { self.disk.restart() } else { self.disk.crash() };
    }

    fn work(&mut self, engine: &mut Engine) -> Result<(), String> {
        for _ in 0..self.rng.below(40) {
            self.maybe_plan_a_fault();
            let done = match self.rng.below(12) {
                0 => engine.checkpoint(),
                _ => self.append(engine)?,
            };
            match done {
                Ok(()) | Err(LogError::Full) => {}
                Err(_) if self.disk.has_crashed() => return Ok(()),
                Err(LogError::Poisoned { .. }) if self.faults == Faults::DiskFullAndSyncErrors => {
                    return Ok(());
                }
                Err(error) => return Err(self.fail(format!("unexpected: {error}"))),
            }
        }
        Ok(())
    }

    fn maybe_plan_a_fault(&mut self) {
        if self.faults == Faults::None || !self.rng.one_in(12) {
            return;
        }
        let nth = 1 + self.rng.below(4);
        let (kind, error) = match self.rng.below(8) {
            0 => (OpKind::SyncData, FaultError::Io),
            1 => (OpKind::SyncDir, FaultError::Io),
            2 => (OpKind::Open, FaultError::DiskFull),
            3 => (OpKind::SetLen, FaultError::DiskFull),
            _ => (OpKind::Write, FaultError::DiskFull),
        };
        self.disk.fail(Fault { kind, path: "log*".into(), nth, error });
    }

    /// One append of records to one to three topics. The outer error is a wrong behaviour.
    fn append(&mut self, engine: &mut Engine) -> Result<Result<(), LogError>, String> {
        let mut records = Vec::new();
        let mut expected: BTreeMap<u32, Vec<Held>> = BTreeMap::new();
        for _ in 0..=self.rng.below(3) {
            let (topic, lane) = match self.name_topic_and_lane(engine)? {
                Ok(found) => found,
                Err(error) => return Ok(Err(error)),
            };
            for _ in 0..=self.rng.below(3) {
                let record = self.record(topic, lane);
                let held = Held { lane, timestamp_ms: record.timestamp_ms, body: record.body.clone() };
                expected.entry(topic.0).or_default().push(held);
                records.push(record);
            }
        }
        match engine.append(&records) {
            Ok(offsets) => {
                self.confirm(&records, &offsets, expected)?;
                Ok(Ok(()))
            }
            Err(LogError::Full) => Ok(Err(LogError::Full)),
            Err(error) => {
                self.in_flight = expected;
                Ok(Err(error))
            }
        }
    }

    fn record(&mut self, topic: TopicId, lane: u32) -> Append {
        self.counter += 1;
        let filler = match self.rng.below(8) {
            0 => self.rng.below(1_500),
            _ => self.rng.below(300),
        };
        let mut body = format!("{} {} ", self.seed, self.counter).into_bytes();
        body.extend((0..filler).map(|_| self.rng.next_u64() as u8));
        Append {
            topic,
            lane,
            key_id: 0,
            timestamp_ms: self.counter.cast_signed(),
            head: Bytes::from_static(b"h"),
            body: body.into(),
        }
    }

    /// A topic and a lane, known or new; their numbers must never change.
    fn name_topic_and_lane(&mut self, engine: &Engine) -> Result<Result<(TopicId, u32), LogError>, String> {
        let topic = format!("topic-{}", self.rng.below(4));
        let tenant = format!("tenant-{}", self.rng.below(6));
        let id = match engine.topic(&TopicName::new(&topic).expect("valid")) {
            Ok(id) => id,
            Err(error) => return Ok(Err(error)),
        };
        let lane = match engine.lane(&TenantId::new(&tenant).expect("valid")) {
            Ok(lane) => lane,
            Err(error) => return Ok(Err(error)),
        };
        if *self.topics.entry(topic.clone()).or_insert(id.0) != id.0 {
            return Err(self.fail(format!("{topic} has changed its number")));
        }
        if *self.lanes.entry(tenant.clone()).or_insert(lane) != lane {
            return Err(self.fail(format!("{tenant} has changed its number")));
        }
        Ok(Ok((id, lane)))
    }

    fn confirm(
        &mut self,
        records: &[Append],
        offsets: &[u64],
        expected: BTreeMap<u32, Vec<Held>>,
    ) -> Result<(), String> {
        let mut next: BTreeMap<u32, u64> = BTreeMap::new();
        for (record, offset) in records.iter().zip(offsets) {
            let held = self.held.get(&record.topic.0).map_or(0, |h| h.len() as u64);
            let next = next.entry(record.topic.0).or_insert(held);
            if offset != next {
                return Err(self.fail(format!("offset {offset} given, {next} expected")));
            }
            *next += 1;
        }
        for (topic, records) in expected {
            self.held.entry(topic).or_default().extend(records);
        }
        Ok(())
    }

    /// Compares the log with the model. The append that was under way is in it as a whole
    /// or not at all; from here on it counts as what it was found to be.
    fn check(&mut self, engine: &Engine) -> Result<(), String> {
        let mut found: Option<bool> = None;
        for (name, id) in &self.topics {
            if engine.topic(&TopicName::new(name).expect("valid")).ok() != Some(TopicId(*id)) {
                if self.disk.has_crashed() {
                    return Ok(());
                }
                return Err(self.fail(format!("{name} has another number than {id}")));
            }
        }
        for (name, lane) in &self.lanes {
            if engine.lane_name(*lane).is_none_or(|tenant| tenant.as_str() != name) {
                return Err(self.fail(format!("lane {lane} is not {name}")));
            }
        }
        for topic in self.topics.values() {
            let held = self.held.get(topic).map_or(&[][..], Vec::as_slice);
            let in_flight = self.in_flight.get(topic).map_or(&[][..], Vec::as_slice);
            let records = match read_all(engine, TopicId(*topic)) {
                Ok(records) => records,
                Err(_) if self.disk.has_crashed() => return Ok(()),
                Err(error) => return Err(self.fail(error)),
            };
            let (old, new) = records.split_at(held.len().min(records.len()));
            let same = |stored: &[Stored], held: &[Held], base: usize| {
                stored.len() == held.len()
                    && stored.iter().zip(held).enumerate().all(|(i, (s, h))| {
                        s.offset == (base + i) as u64
                            && (s.lane, s.timestamp_ms, &s.body) == (h.lane, h.timestamp_ms, &h.body)
                    })
            };
            if !same(old, held, 0) {
                let (got, want) = (old.len(), held.len());
                return Err(self.fail(format!("topic {topic}: {want} confirmed, {got} found or wrong")));
            }
            if in_flight.is_empty() && new.is_empty() {
                continue;
            }
            let is_there = !new.is_empty();
            if is_there && !same(new, in_flight, held.len()) {
                return Err(self.fail(format!("topic {topic}: records that nobody appended")));
            }
            if *found.get_or_insert(is_there) != is_there {
                return Err(self.fail("a part of an append is there and a part is not"));
            }
        }
        let in_flight = std::mem::take(&mut self.in_flight);
        if found == Some(true) {
            for (topic, records) in in_flight {
                self.held.entry(topic).or_default().extend(records);
            }
        }
        Ok(())
    }

    /// Single reads at any offset find the record by the index.
    fn read_at_random(&mut self, engine: &Engine) -> Result<(), String> {
        let sizes: Vec<(u32, u64)> =
            self.held.iter().map(|(topic, held)| (*topic, held.len() as u64)).collect();
        for (topic, len) in sizes {
            for _ in 0..8 {
                let offset = self.rng.below(len);
                let found = engine.read(TopicId(topic), offset, 1, 1).map_err(|e| self.fail(e))?;
                let want = &self.held[&topic][usize::try_from(offset).expect("small")].body;
                if found.first().map(|r| (r.offset, &r.body)) != Some((offset, want)) {
                    return Err(self.fail(format!("topic {topic} offset {offset}: {found:?}")));
                }
            }
        }
        Ok(())
    }

    fn last_look(&mut self) -> Result<(), String> {
        self.disk = self.disk.crash();
        let mut engine = self.open().map_err(|e| self.fail(format!("cannot open at the end: {e}")))?;
        self.read_at_random(&engine)?;
        self.check(&engine)?;
        let appended = self.append(&mut engine)?;
        appended.map_err(|e| self.fail(format!("no append at the end: {e}")))?;
        self.check(&engine)?;
        if engine.stats().index_rebuilds > 0 {
            return Err(self.fail("an index had to be rebuilt"));
        }
        Ok(())
    }
}

/// All records of a topic, read in pieces of changing size.
fn read_all(engine: &Engine, topic: TopicId) -> Result<Vec<Stored>, String> {
    let mut out: Vec<Stored> = Vec::new();
    let mut step = 1;
    loop {
        let from = out.last().map_or(0, |r| r.offset + 1);
        let records = engine.read(topic, from, step, step * 200).map_err(|e| e.to_string())?;
        if records.is_empty() {
            let bounds = engine.bounds(topic).map_err(|e| e.to_string())?;
            if bounds.next != from {
                return Err(format!("topic {topic}: the end is {}, records end at {from}", bounds.next));
            }
            return Ok(out);
        }
        out.extend(records);
        step = step % 7 + 1;
    }
}

/// A number from the environment, so that a failure can be run again.
fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seeds to run: `LEVADA_SEED` alone, or `LEVADA_CASES` of them.
pub fn seeds(default_cases: u64) -> std::ops::Range<u64> {
    match env("LEVADA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..env("LEVADA_CASES").unwrap_or(default_cases),
    }
}

/// Whether leaving a sync out is noticed within some seeds; also that it was left out.
pub fn is_noticed(kind: SyncKind, pattern: &'static str) -> bool {
    let mut skipped = 0;
    for seed in 0..1_000 {
        match run(seed, Some((kind, pattern)), Faults::None) {
            Ok(n) => skipped += n,
            Err(error) => {
                assert_eq!(run(seed, None, Faults::None).err(), None, "it must be the sync that is missing");
                println!("without the sync of {pattern:?}: {error}");
                return true;
            }
        }
    }
    assert!(skipped > 0, "no sync matches {pattern:?}");
    false
}
