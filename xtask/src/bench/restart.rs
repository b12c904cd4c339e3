//! Time until ready after a kill, by the size of the log: it must not grow with it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::load::{self, Feed, Until};
use super::template::{ID, Template};
use super::{Bench, figure, note, project};

const CONNECTIONS: u64 = 8;
const EVENT_BYTES: usize = 1024;

pub fn run(bench: &Bench) -> Result<()> {
    let sizes: [u64; 2] = bench.pick([200 << 20, 2_000 << 20], [2 << 30, 20 << 30]);
    let project = project::empty(&bench.fresh("project")?)?;
    let data = bench.fresh("data")?;
    let mut first = (CONNECTIONS + 1) << 40;
    let mut written = 0;
    for size in sizes {
        let events = size.saturating_sub(written) / EVENT_BYTES as u64;
        let mut levada = project::start(&project, &data)?;
        let key = project::key(&levada, &["service"])?;
        let until = Until { time: Duration::from_secs(3600), events };
        let sent = load::run(&levada.http, feeds(&key, &mut first), until, |id| id)?;
        levada.kill();
        written += sent.total() * EVENT_BYTES as u64;
        let bytes = folder_bytes(&data)?;
        note(format_args!("{} events written, {} MiB in the data folder", sent.total(), bytes >> 20));
        let start = Instant::now();
        let levada = project::start(&project, &data)?;
        figure(&format!("ready_after_kill_{}mib", size >> 20), start.elapsed().as_secs_f64(), "s");
        drop(levada);
    }
    Ok(())
}

fn feeds(key: &str, first: &mut u64) -> Vec<Feed> {
    let head = format!(
        "{{\"tenant_id\":\"default\",\"event_id\":\"{ID}\",\"event_type\":\"bench.tick\",\"payload\":\""
    );
    let event = format!("{head}{}\"}}", "x".repeat(EVENT_BYTES - head.len() - 2));
    let template = Template::new("/v1/events", key, &vec![event; 100]);
    (0..CONNECTIONS)
        .map(|_| {
            *first += 1 << 40;
            Feed { templates: vec![template.clone()], first: *first }
        })
        .collect()
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { folder_bytes(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}
