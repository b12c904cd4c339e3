//! Any content, written in any pieces with any pauses, looked at at any time, with power failing
//! now and then: the rows are those of the finished file, each once.

use std::io::Write;

use levada_disk::{SimDisk, SimRng};

use super::*;

/// A file as a writer makes it: its bytes, and the rows that it holds.
struct Content {
    bytes: Vec<u8>,
    format: FileFormat,
    /// `line body`
    rows: Vec<String>,
}

const TEXTS: [&str; 7] = ["x", "", "é", "a b", "12345", "[1,{", "Straße 7, Hof"];

fn pick<'a>(rng: &mut SimRng, all: &[&'a str]) -> &'a str {
    all[rng.below(all.len() as u64) as usize]
}

fn csv(rng: &mut SimRng) -> Content {
    let end = pick(rng, &["\n", "\r\n"]);
    let mut text = format!("{}id,text{end}", pick(rng, &["", "\u{feff}"]));
    let mut rows = Vec::new();
    for id in 0..rng.below(30) {
        let line = 1 + text.matches('\n').count();
        let mut cell = pick(rng, &TEXTS).to_owned();
        if rng.one_in(4) {
            cell.push_str("\nand \"more\"");
        }
        rows.push(format!("{line} {{\"id\":\"{id}\",\"text\":{}}}", Value::from(cell.clone())));
        let quoted = if cell.contains(['"', '\n', ',']) || rng.one_in(3) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell
        };
        text.push_str(&format!("{id},{quoted}{}", pick(rng, &[end, end, "\n\n"])));
    }
    ended(rng, text, FileFormat::Csv, rows)
}

fn json(rng: &mut SimRng) -> Content {
    let array = rng.one_in(3);
    let mut text = String::from(if array { pick(rng, &["[", " [\n"]) } else { "" });
    let mut rows = Vec::new();
    let count = rng.below(30);
    for id in 0..count {
        let value = serde_json::json!({"id": id, "t": pick(rng, &TEXTS), "in": [{"id": -1}, {}]});
        let body =
            if rng.one_in(2) { value.to_string() } else { serde_json::to_string_pretty(&value).unwrap() };
        rows.push(format!("{} {body}", 1 + text.matches('\n').count()));
        text.push_str(&body);
        let between = if array { &[",", ",\n"][..] } else { &["\n", "\n", "\r\n", "\n\n"] };
        if !array || id + 1 < count {
            text.push_str(pick(rng, between));
        }
    }
    if array {
        text.push_str(pick(rng, &["]", "\n]\n"]));
        return Content { bytes: text.into(), format: FileFormat::Json, rows };
    }
    ended(rng, text, FileFormat::Json, rows)
}

/// With or without its last line end.
fn ended(rng: &mut SimRng, mut text: String, format: FileFormat, rows: Vec<String>) -> Content {
    if rng.one_in(3) && !rows.is_empty() {
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
    }
    Content { bytes: text.into(), format, rows }
}

/// As one gzip stream, or as one of several members that are cut anywhere.
fn packed(rng: &mut SimRng, content: Content) -> Content {
    let members = 1 + rng.below(3) as usize;
    let mut bytes = Vec::new();
    let mut rest = &content.bytes[..];
    for left in (0..members).rev() {
        let n = if left == 0 { rest.len() } else { rng.below(rest.len() as u64 + 1) as usize };
        bytes.extend(gzip(&rest[..n]));
        rest = &rest[n..];
    }
    Content { bytes, ..content }
}

/// A reader that is killed now and then, with what its epochs committed.
struct Life {
    bench: Bench,
    disk: SimDisk,
    reader: FileReader,
    position: Option<Value>,
    committed: Vec<String>,
    pending: Vec<String>,
}

impl Life {
    fn new(mut bench: Bench, seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        bench.disk = Arc::new(disk.clone());
        let reader = bench.reader();
        Self { bench, disk, reader, position: None, committed: vec![], pending: vec![] }
    }

    async fn look(&mut self, rng: &mut SimRng) {
        for _ in 0..1 + rng.below(4) {
            let batch =
                self.reader.read(1 + rng.below(4) as usize, usize::MAX, Duration::ZERO).await.unwrap();
            self.pending.extend(told(&[batch]));
            if rng.one_in(3) {
                self.commit();
            }
        }
    }

    fn commit(&mut self) {
        self.committed.append(&mut self.pending);
        self.position = Some(stored(&self.reader.position()));
    }

    async fn power_fails(&mut self) {
        self.pending.clear();
        self.disk = self.disk.crash();
        self.bench.disk = Arc::new(self.disk.clone());
        self.reader = self.bench.reader();
        self.reader.seek(self.position.as_ref()).await.unwrap();
    }

    /// Until nothing more can come.
    async fn finish(mut self) -> Vec<String> {
        for _ in 0..4 {
            self.bench.clock.advance(Duration::from_secs(61));
            let rest = drain(&mut self.reader, 7).await.unwrap();
            self.pending.extend(told(&rest));
        }
        self.commit();
        self.committed
    }
}

/// Never as long as what counts as an end: 60 s.
const SHORT_MS: [u64; 8] = [0, 10, 400, 1000, 2900, 3100, 12_000, 40_000];
/// Longer ones too.
const LONG_MS: [u64; 6] = [0, 3100, 12_000, 61_000, 100_000, 200_000];

async fn write_slowly(seed: u64, pauses_ms: &[u64]) -> (Vec<String>, Content) {
    let mut rng = SimRng::new(seed);
    let plain = if rng.one_in(2) { csv(&mut rng) } else { json(&mut rng) };
    let content = if rng.one_in(3) { packed(&mut rng, plain) } else { plain };
    let mut life = Life::new(Bench::new(content.format), seed);
    let path = life.bench.landing.join("a.dat");
    let pieces = 1 + rng.below(8) as usize;
    let mut rest = &content.bytes[..];
    for left in (0..pieces).rev() {
        let n = if left == 0 { rest.len() } else { rng.below(rest.len() as u64 + 1) as usize };
        let mut file = fs::File::options().append(true).create(true).open(&path).unwrap();
        file.write_all(&rest[..n]).unwrap();
        rest = &rest[n..];
        let pause = pauses_ms[rng.below(pauses_ms.len() as u64) as usize];
        let looks = rng.below(6);
        for _ in 0..looks {
            life.look(&mut rng).await;
            life.bench.clock.advance(Duration::from_millis(pause / (looks + 1)));
            if rng.one_in(9) {
                life.power_fails().await;
            }
        }
        life.look(&mut rng).await;
    }
    (life.finish().await, content)
}

fn seeds() -> u64 {
    std::env::var("LEVADA_SLOW_WRITERS").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

#[tokio::test]
async fn a_slow_writer_loses_nothing_and_no_row_is_cut() {
    for seed in 0..seeds() {
        let (mut stored, mut content) = write_slowly(seed, &SHORT_MS).await;
        stored.sort();
        content.rows.sort();
        assert_eq!(stored, content.rows, "seed {seed}: {:?}", String::from_utf8_lossy(&content.bytes));
    }
}

/// A pause that counts as the end may cut a row. Then a dead letter names its line.
#[tokio::test]
async fn what_a_long_pause_cuts_is_told() {
    for seed in 0..seeds() {
        let (told, content) = write_slowly(seed, &LONG_MS).await;
        let place = format!("seed {seed}: {told:?}\n{:?}", String::from_utf8_lossy(&content.bytes));
        let line = |text: &str| text.split_once(' ').unwrap().0.to_owned();
        let (bad, stored): (Vec<&String>, Vec<&String>) =
            told.iter().partition(|text| text.split_once(' ').unwrap().1.starts_with('!'));
        for row in &content.rows {
            let times = stored.iter().filter(|text| *text == &row).count();
            let is_told = bad.iter().any(|text| line(text) == line(row));
            assert!(times == 1 || (times == 0 && is_told), "{row:?} {times} times, {place}");
        }
        for row in stored.iter().filter(|row| !content.rows.contains(row)) {
            assert!(bad.contains(&&format!("{} !row-grew", line(row))), "{row:?} is stored wrong, {place}");
        }
    }
}
