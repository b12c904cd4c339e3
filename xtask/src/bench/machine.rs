//! What the figures depend on: the machine and its disk.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};

const SYNCS: usize = 400;

/// A figure of durable writes means nothing on a disk that is memory.
pub fn refuse_memory_disk(folder: &Path) -> Result<()> {
    let folder = folder.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let mut parts = line.split(' ').skip(1);
            Some((parts.next()?, parts.next()?))
        })
        .filter(|(at, _)| folder.starts_with(at))
        .max_by_key(|(at, _)| at.len());
    match mount {
        Some((at, kind @ ("tmpfs" | "ramfs"))) => {
            bail!("{} lies on {kind} ({at}): name a folder on a real disk with --dir", folder.display())
        }
        _ => Ok(()),
    }
}

/// Median time in microseconds of appending 4 KiB and making it durable.
pub fn fdatasync_p50(folder: &Path) -> Result<f64> {
    let path = folder.join("fdatasync.probe");
    let file = File::options().create_new(true).write(true).open(&path)?;
    let block = [0x5A; 4096];
    let mut times = Vec::with_capacity(SYNCS);
    for i in 0..SYNCS {
        let start = Instant::now();
        file.write_all_at(&block, (i * block.len()) as u64)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times[SYNCS / 2].as_secs_f64() * 1e6)
}

/// Processor, cores, memory and kernel in one line.
pub fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field(&read("/proc/cpuinfo"), "model name");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model}, {cores} cores, {memory}, Linux {}", kernel.trim())
}
