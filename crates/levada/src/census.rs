//! What lies in bronze: how many objects, and how large, by tenant and source.
//!
//! Bronze has no log that could be asked, so its folders are counted, in the background. A folder
//! of a day whose time has not changed since it was counted is not read again, and counting takes
//! a small share of the time however many objects there are. Objects lie where the lake says, for
//! good: `tenant=<t>/bronze/source=<s>/date=<d>/<object>`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use levada_core::{Clock, SourceName, TenantId, TenantSet};
use levada_disk::{Disk, Entry};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const EVERY: Duration = Duration::from_secs(5);
/// Counting may take this share of the time (one part in so many).
const SHARE: u32 = 20;
/// A folder's time has a grain: one that changed just now may change again within it.
const GRAIN_MS: i64 = 2_000;

/// Objects of one tenant in one source, or of several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub objects: u64,
    pub bytes: u64,
}

impl std::ops::AddAssign for Held {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

type Counts = BTreeMap<(SourceName, TenantId), Held>;

/// The last count. Cheap to clone.
#[derive(Clone, Default)]
pub struct Census(Arc<Mutex<Arc<Counts>>>);

impl Census {
    /// Counts until the server stops.
    pub fn start(
        disk: Arc<dyn Disk>,
        lake_dir: &'static str,
        clock: Arc<dyn Clock>,
        mut stopped: watch::Receiver<bool>,
    ) -> (Self, JoinHandle<()>) {
        let census = Self::default();
        let kept = census.clone();
        let task = tokio::spawn(async move {
            let mut counter = Counter { disk, lake_dir, clock, days: BTreeMap::new() };
            loop {
                let began = Instant::now();
                let counted = tokio::task::spawn_blocking(move || {
                    let counts = counter.count();
                    (counter, counts)
                });
                let Ok((back, counts)) = counted.await else { return };
                counter = back;
                match counts {
                    Ok(counts) => *kept.0.lock() = Arc::new(counts),
                    Err(error) => tracing::warn!(%error, "bronze cannot be counted; it is tried again"),
                }
                let pause = EVERY.max(began.elapsed() * SHARE);
                if tokio::time::timeout(pause, stopped.wait_for(|stop| *stop)).await.is_ok() {
                    return;
                }
            }
        });
        (census, task)
    }

    /// What some tenants have in each source.
    pub fn of(&self, tenants: &TenantSet) -> BTreeMap<SourceName, Held> {
        let counts = Arc::clone(&*self.0.lock());
        let mut found: BTreeMap<SourceName, Held> = BTreeMap::new();
        for ((source, tenant), held) in counts.iter() {
            if tenants.contains(tenant) {
                *found.entry(source.clone()).or_default() += *held;
            }
        }
        found
    }
}

/// The folder of one day as it was when it was counted.
struct Day {
    modified_ms: i64,
    held: Held,
}

struct Counter {
    disk: Arc<dyn Disk>,
    lake_dir: &'static str,
    clock: Arc<dyn Clock>,
    days: BTreeMap<String, Day>,
}

impl Counter {
    fn count(&mut self) -> io::Result<Counts> {
        let mut counts = Counts::new();
        for (tenant, dir) in self.below(self.lake_dir, "tenant=")? {
            let Ok(tenant) = TenantId::new(&tenant) else { continue };
            for (source, dir) in self.below(&format!("{dir}/bronze"), "source=")? {
                let Ok(source) = SourceName::new(&source) else { continue };
                let held = self.days(&dir)?;
                if held.objects > 0 {
                    counts.insert((source, tenant.clone()), held);
                }
            }
        }
        Ok(counts)
    }

    /// Folders whose name begins so, by the rest of their name.
    fn below(&self, dir: &str, prefix: &str) -> io::Result<Vec<(String, String)>> {
        let named = |entry: &Entry| Some((entry.name.strip_prefix(prefix)?.to_owned(), entry.name.clone()));
        let found = self.list(dir)?;
        let dirs = found.iter().filter(|entry| entry.is_dir).filter_map(named);
        Ok(dirs.map(|(rest, name)| (rest, format!("{dir}/{name}"))).collect())
    }

    fn days(&mut self, source: &str) -> io::Result<Held> {
        let mut sum = Held::default();
        for entry in self.list(source)?.into_iter().filter(|e| e.is_dir && e.name.starts_with("date=")) {
            let path = format!("{source}/{}", entry.name);
            let known = self.days.get(&path).filter(|day| day.modified_ms == entry.modified_ms);
            if let Some(day) = known {
                sum += day.held;
                continue;
            }
            let now_ms = self.clock.now_ms();
            let objects = self.list(&path)?;
            let objects: Vec<_> = objects.iter().filter(|object| !object.is_dir).collect();
            let bytes = objects.iter().map(|object| object.len).sum();
            let held = Held { objects: objects.len() as u64, bytes };
            sum += held;
            if now_ms - entry.modified_ms > GRAIN_MS {
                self.days.insert(path, Day { modified_ms: entry.modified_ms, held });
            }
        }
        Ok(sum)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        match self.disk.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed,
        }
    }
}

#[cfg(test)]
mod tests {
    use levada_core::ManualClock;
    use levada_disk::{OpenMode, RealDisk};

    use super::*;

    fn put(disk: &RealDisk, path: &str, bytes: usize) {
        let (dir, _) = path.rsplit_once('/').expect("a folder");
        disk.create_dir_all(dir).expect("a folder");
        let file = disk.open(path, OpenMode::CreateNew).expect("a file");
        file.write_at(0, &vec![7; bytes]).expect("written");
    }

    fn shown(census: &Census, tenants: &TenantSet) -> Vec<String> {
        let found = census.of(tenants);
        found.iter().map(|(s, held)| format!("{s} {} {}", held.objects, held.bytes)).collect()
    }

    #[test]
    fn objects_are_counted_by_tenant_and_source_and_new_ones_are_seen() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = Arc::new(RealDisk::new(dir.path()).expect("a disk"));
        let clock = Arc::new(ManualClock::new(0));
        let (own, days) = (clock.clone(), BTreeMap::new());
        let mut counter = Counter { disk: disk.clone(), lake_dir: "lake", clock: own, days };
        assert_eq!(counter.count().expect("counts"), Counts::new(), "before there is a lake");
        put(&disk, "lake/tenant=a/bronze/source=orders/date=2026-01-01/1.zst", 10);
        put(&disk, "lake/tenant=a/bronze/source=orders/date=2026-01-02/2.zst", 20);
        put(&disk, "lake/tenant=a/bronze/source=users/date=2026-01-01/1.zst", 5);
        put(&disk, "lake/tenant=b/bronze/source=orders/date=2026-01-01/1.zst", 100);
        put(&disk, "lake/tenant=a/silver/orders/part-1.parquet", 999);
        put(&disk, "lake/owner=_shared/silver/orders/part-1.parquet", 999);
        let census = Census::default();
        let mut count = || {
            *census.0.lock() = Arc::new(counter.count().expect("counts"));
            counter.days.len()
        };
        assert_eq!(count(), 0, "the clock stands before the folders' time: all are read again");
        assert_eq!(shown(&census, &TenantSet::All), ["orders 3 130", "users 1 5"]);
        let only_a = TenantSet::Only([TenantId::new("a").expect("a tenant")].into());
        assert_eq!(shown(&census, &only_a), ["orders 2 30", "users 1 5"]);
        clock.advance(Duration::from_secs(100 * 365 * 86_400));
        assert_eq!(count(), 4);
        assert_eq!(shown(&census, &TenantSet::All), ["orders 3 130", "users 1 5"]);
        // More than the grain of the file system.
        std::thread::sleep(Duration::from_millis(20));
        put(&disk, "lake/tenant=a/bronze/source=orders/date=2026-01-01/9.zst", 1);
        put(&disk, "lake/tenant=c/bronze/source=orders/date=2026-01-03/1.zst", 1);
        assert_eq!(count(), 5);
        assert_eq!(shown(&census, &only_a), ["orders 3 31", "users 1 5"]);
        assert_eq!(shown(&census, &TenantSet::All), ["orders 5 132", "users 1 5"]);
    }
}
