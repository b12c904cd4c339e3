//! What every bus promises: the conformance suite of [`BusPort`](levada_bus::port::BusPort).
//!
//! An adapter says how it is opened, restarted and how time passes ([`Platform`]), and runs
//! all [`cases`] against itself. Each case opens a bus of its own and tests one promise of
//! the port, in the words of its documentation or of Google's of Pub/Sub. A case asks for no
//! more than is promised: without ordering keys it accepts any order, and it waits for a
//! message as long as the platform asks it to.
//!
//! ```text
//! let report = bus_conformance::run(&platform, &bus_conformance::cases()).await;
//! report.expect_green();
//! ```

mod cases;
mod check;
mod report;
mod world;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::future::BoxFuture;
use levada_bus::port::BusPort;

pub use report::{Report, Tried, Verdict, run};
pub use world::World;

/// A kind of bus: how one is opened, and what can be asked of it.
pub trait Platform: Send + Sync {
    fn traits(&self) -> Traits;

    /// Opens a bus that holds nothing, apart from all that were opened before.
    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Running>>>;
}

/// A bus at work. Dropping it ends it.
pub trait Running: Send + Sync {
    fn port(&self) -> Arc<dyn BusPort>;

    /// The bus's wall clock, in milliseconds since the epoch.
    fn now_ms(&self) -> i64;

    /// Lets time pass for the bus: moves its clock, or waits.
    fn pass(&self, by: Duration) -> BoxFuture<'_, ()>;

    /// Ends the bus cleanly and opens it again with what it kept. Handles of before are of no
    /// use afterwards. Called only where [`Need::Restart`] is offered.
    fn restart(&mut self) -> BoxFuture<'_, Result<()>>;

    /// Does at once what the bus otherwise does every few seconds: retention and expiry.
    fn maintain(&self) -> BoxFuture<'_, Result<()>>;
}

/// What a case needs of a platform beyond what every bus has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// [`Running::restart`] works.
    Restart,
    /// [`Running::pass`] moves a clock: days pass at once, and nothing happens meanwhile.
    ManualTime,
    /// Delivery is fair among tenants, by weights, and has figures of each.
    Tenants,
    /// `levada.deliver_at` and `levada.delay_ms` are followed.
    Schedules,
    /// Blocked ordering keys can be looked at, skipped and parked.
    Operators,
    /// [`stats`](levada_bus::port::SubscriptionPort::stats) are exact and of this moment.
    Stats,
}

impl Need {
    /// All of them.
    pub const ALL: [Need; 6] =
        [Need::Restart, Need::ManualTime, Need::Tenants, Need::Schedules, Need::Operators, Need::Stats];
}

/// What can be asked of a platform.
#[derive(Debug, Clone)]
pub struct Traits {
    /// As reports call it.
    pub name: String,
    pub offers: Vec<Need>,
    /// The shortest ack deadline and backoff that cases use. They let it run out, so it should
    /// be short where time is real, and long enough for the platform to notice it.
    pub unit: Duration,
    /// How long to wait for a message that must come, before the case fails.
    pub patience: Duration,
    /// How long to look for a message that must not come; zero where a pull that does not
    /// wait sees everything published before it.
    pub quiet: Duration,
    /// How many cases run at a time, each on its own bus.
    pub at_once: usize,
}

impl Traits {
    /// Of a bus whose clock the tests move and that offers everything.
    pub fn simulated(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            offers: Need::ALL.to_vec(),
            unit: Duration::from_secs(10),
            patience: Duration::from_secs(10),
            quiet: Duration::ZERO,
            at_once: 8,
        }
    }

    /// Of a bus on the machine's clock that offers everything else.
    pub fn real(name: &str) -> Self {
        let offers = Need::ALL.into_iter().filter(|need| *need != Need::ManualTime).collect();
        Self { offers, unit: Duration::from_millis(200), ..Self::simulated(name) }
    }
}

/// A promise and how it is tested.
#[derive(Clone, Copy)]
pub struct Case {
    /// `group/promise`, unique.
    pub name: &'static str,
    pub needs: &'static [Need],
    run: for<'a> fn(&'a mut World) -> BoxFuture<'a, Result<()>>,
}

impl Case {
    /// Whether a platform that offers all but [`Need::ManualTime`] can run it.
    pub fn runs_in_real_time(&self) -> bool {
        !self.needs.contains(&Need::ManualTime)
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("needs", &self.needs).finish_non_exhaustive()
    }
}

/// The whole suite.
pub fn cases() -> Vec<Case> {
    cases::all()
}
