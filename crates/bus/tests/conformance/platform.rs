//! The embedded bus on both disks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::future::BoxFuture;
use levada_bus::port::BusPort;
use levada_bus::{Bus, BusConfig, EmbeddedBus};
use levada_core::{Clock, ManualClock, ProjectId, SystemClock};
use levada_disk::{Disk, RealDisk, SimDisk};
use levada_log::LogConfig;
use levada_testkit::bus_conformance::{Platform, Running, Traits};

const START_MS: i64 = 1_780_000_000_000;

/// The simulated disk and a clock that the cases move.
#[derive(Default)]
pub struct Simulated {
    /// Instead of the usual time to wait for a message.
    pub patience: Option<Duration>,
}

impl Platform for Simulated {
    fn traits(&self) -> Traits {
        let traits = Traits::simulated("embedded bus, simulated disk");
        Traits { patience: self.patience.unwrap_or(traits.patience), ..traits }
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Running>>> {
        Box::pin(async {
            let clock = Arc::new(ManualClock::new(START_MS));
            let embedded =
                Embedded::open(Arc::new(SimDisk::new(1)), clock.clone(), Some(clock), None).await?;
            Ok(Box::new(embedded) as Box<dyn Running>)
        })
    }
}

/// A folder of the machine and its clock.
pub struct Real;

impl Platform for Real {
    fn traits(&self) -> Traits {
        Traits::real("embedded bus, real disk")
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Running>>> {
        Box::pin(async {
            let folder = tempfile::tempdir()?;
            let disk = Arc::new(RealDisk::new(folder.path())?);
            let embedded = Embedded::open(disk, Arc::new(SystemClock::new()), None, Some(folder)).await?;
            Ok(Box::new(embedded) as Box<dyn Running>)
        })
    }
}

struct Embedded {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    manual: Option<Arc<ManualClock>>,
    /// `None` only while it restarts.
    open: Option<(Bus, EmbeddedBus)>,
    /// Removed at the end.
    _folder: Option<tempfile::TempDir>,
}

/// Files small enough that several are written.
fn config() -> BusConfig {
    let log = LogConfig {
        commit_file_bytes: 1 << 20,
        segment_bytes: 512 << 10,
        group_bytes: 256 << 10,
        ..LogConfig::default()
    };
    BusConfig { log, ..BusConfig::default() }
}

impl Embedded {
    async fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        manual: Option<Arc<ManualClock>>,
        folder: Option<tempfile::TempDir>,
    ) -> Result<Self> {
        let mut embedded = Self { disk, clock, manual, open: None, _folder: folder };
        embedded.start().await?;
        Ok(embedded)
    }

    async fn start(&mut self) -> Result<()> {
        let (disk, clock) = (self.disk.clone(), self.clock.clone());
        let opened = tokio::task::spawn_blocking(move || -> Result<(Bus, EmbeddedBus)> {
            let (bus, _) = Bus::open(disk, config(), clock)?;
            let port = EmbeddedBus::open(bus.clone(), ProjectId::new("home")?)?;
            Ok((bus, port))
        });
        self.open = Some(opened.await??);
        Ok(())
    }

    fn opened(&self) -> &(Bus, EmbeddedBus) {
        self.open.as_ref().expect("open but during a restart")
    }
}

impl Running for Embedded {
    fn port(&self) -> Arc<dyn BusPort> {
        Arc::new(self.opened().1.clone())
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn pass(&self, by: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match &self.manual {
                Some(clock) => clock.advance(by),
                None => tokio::time::sleep(by).await,
            }
        })
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if let Some((bus, _)) = self.open.take() {
                bus.close().await?;
            }
            self.start().await
        })
    }

    fn maintain(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { Ok(self.opened().0.maintain().await?) })
    }
}
