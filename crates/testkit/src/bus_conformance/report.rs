//! Running cases, and what came of them.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures::{FutureExt, StreamExt, stream};

use super::{Case, Need, Platform, World};

/// A case that takes longer hangs.
const CASE_TIMEOUT: Duration = Duration::from_secs(120);

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Green,
    /// With what is wrong.
    Red(String),
    /// The platform does not offer these.
    Skipped(Vec<Need>),
}

/// One case of a report.
#[derive(Debug, Clone)]
pub struct Tried {
    pub name: &'static str,
    pub verdict: Verdict,
    pub took: Duration,
}

/// What came of all cases, in their order.
#[derive(Debug, Clone)]
pub struct Report {
    pub platform: String,
    pub tried: Vec<Tried>,
}

/// Runs every case on a bus of its own, [`at_once`](super::Traits::at_once) of them at a time; one that fails
/// stops no other.
pub async fn run(platform: &dyn Platform, cases: &[Case]) -> Report {
    let traits = platform.traits();
    let tried = stream::iter(cases.to_vec()).map(|case| try_case(platform, case));
    let tried = tried.buffered(traits.at_once.max(1)).collect().await;
    Report { platform: traits.name, tried }
}

async fn try_case(platform: &dyn Platform, case: Case) -> Tried {
    let (began, offers) = (Instant::now(), platform.traits().offers);
    let missing: Vec<Need> = case.needs.iter().copied().filter(|need| !offers.contains(need)).collect();
    let verdict = if !missing.is_empty() {
        Verdict::Skipped(missing)
    } else {
        match run_one(platform, case).await {
            Ok(()) => Verdict::Green,
            Err(error) => Verdict::Red(format!("{error:#}")),
        }
    };
    Tried { name: case.name, verdict, took: began.elapsed() }
}

async fn run_one(platform: &dyn Platform, case: Case) -> Result<()> {
    let running = platform.open().await.map_err(|error| error.context("the platform does not open"))?;
    let mut world = World::new(running, platform.traits());
    let done = AssertUnwindSafe((case.run)(&mut world)).catch_unwind();
    match tokio::time::timeout(CASE_TIMEOUT, done).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(anyhow!("panicked: {}", text(&*panic))),
        Err(_) => Err(anyhow!("not done within {CASE_TIMEOUT:?}")),
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let plain = panic.downcast_ref::<&str>().copied();
    plain.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}

impl Report {
    /// Names of the cases that failed.
    pub fn red(&self) -> Vec<&'static str> {
        let red = self.tried.iter().filter(|tried| matches!(tried.verdict, Verdict::Red(_)));
        red.map(|tried| tried.name).collect()
    }

    pub fn green(&self) -> usize {
        self.tried.iter().filter(|tried| tried.verdict == Verdict::Green).count()
    }

    /// Panics with every failure unless there is none.
    pub fn expect_green(&self) {
        let red = self.red();
        assert!(red.is_empty(), "{} of {} cases failed\n{self}", red.len(), self.tried.len());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Tried { name, verdict, .. } in &self.tried {
            match verdict {
                Verdict::Green => {}
                Verdict::Red(wrong) => writeln!(f, "RED  {name}: {wrong}")?,
                Verdict::Skipped(missing) => writeln!(f, "skip {name}: the platform lacks {missing:?}")?,
            }
        }
        let (all, red, green) = (self.tried.len(), self.red().len(), self.green());
        let skipped = all - red - green;
        let took: Duration = self.tried.iter().map(|tried| tried.took).sum();
        write!(f, "{}: {green} green, {red} red, {skipped} skipped, {took:.1?} in all", self.platform)?;
        if let Some(slowest) = self.tried.iter().max_by_key(|tried| tried.took) {
            write!(f, ", longest {} with {:.1?}", slowest.name, slowest.took)?;
        }
        Ok(())
    }
}
