//! Threads for queries: each running query has some of its own.
//!
//! A query computes for as long as it likes between two pauses, and there is no taking a thread
//! away from it. On threads of its own it only keeps itself waiting; between the threads of many
//! queries the operating system shares the processors, so a short query of one caller does not
//! wait for the long ones of another; `pace` tells which of them go first. A lane goes to the next query when nothing of the last one
//! runs on it any more, and so does the place that the query had among its owner's.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use levada_core::Problem;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::answer;
use crate::pace::{self, Pace};
use crate::shape::Weight;
use crate::stack;
use crate::turns::Place;

/// Lanes that are kept for later queries. Calm ones had long queries, after which their threads keep
/// memory that nobody uses, so few of them are kept.
const MAX_IDLE: usize = 8;
const MAX_IDLE_CALM: usize = 1;
/// Reads of files that one query waits for at the same time.
const BLOCKING_THREADS: usize = 8;
/// The longest pause between two looks at whether a lane is free.
const LOOK: Duration = Duration::from_millis(50);

/// Cheap to clone; clones are one.
#[derive(Clone)]
pub(crate) struct Lanes(Arc<Inner>);

struct Inner {
    threads: usize,
    idle: Mutex<Idle>,
}

/// Lanes that wait for a query.
#[derive(Default)]
struct Idle {
    brisk: Vec<Lane>,
    calm: Vec<Lane>,
}

impl Idle {
    fn of(&mut self, is_calm: bool) -> &mut Vec<Lane> {
        if is_calm { &mut self.calm } else { &mut self.brisk }
    }
}

impl Lanes {
    /// Lanes of so many threads each.
    pub fn new(threads: usize) -> Self {
        Self(Arc::new(Inner { threads: threads.max(1), idle: Mutex::default() }))
    }

    /// A lane of its own for a statement of this weight, calm or brisk (see `pace`).
    ///
    /// # Errors
    /// `overloaded` when the system gives no threads.
    pub fn take(&self, weight: Weight, is_calm: bool) -> Result<Lane, Problem> {
        let idle = match weight {
            Weight::Plain => self.0.idle.lock().of(is_calm).pop(),
            Weight::Heavy => None,
        };
        let pace = if is_calm { Pace::calm() } else { Pace::brisk() };
        match idle {
            Some(lane) => Ok(lane),
            None => Lane::at(pace, self.0.threads, weight).map_err(|e| answer::no_thread(&e)),
        }
    }

    fn put_back(&self, lane: Lane) {
        let mut idle = self.0.idle.lock();
        let is_calm = lane.pace.is_calm();
        let (idle, most) = (idle.of(is_calm), if is_calm { MAX_IDLE_CALM } else { MAX_IDLE });
        // The stack of a heavy statement goes back to the system with its thread.
        if lane.weight == Weight::Plain && idle.len() < most {
            idle.push(lane);
        }
    }
}

/// Some threads and what runs on them.
pub(crate) struct Lane {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
    weight: Weight,
    pace: Pace,
}

impl Lane {
    /// # Errors
    /// When the system gives no threads.
    pub fn new(threads: usize, weight: Weight) -> io::Result<Self> {
        Self::at(Pace::brisk(), threads, weight)
    }

    fn at(pace: Pace, threads: usize, weight: Weight) -> io::Result<Self> {
        let threads = match weight {
            Weight::Plain => threads,
            Weight::Heavy => 1,
        };
        let its_pace = pace.clone();
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_stack_size(stack::bytes(weight))
            .thread_name("levada-query")
            .on_thread_start(move || its_pace.begin())
            .enable_time()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle, weight, pace })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // It may be dropped on one of its own threads, where waiting for what runs would be
            // waiting for oneself.
            runtime.shutdown_background();
        }
    }
}

/// The turn of one query: a lane and, where an owner pays for it, a place among the owner's.
pub(crate) struct Turn {
    /// `None`: it runs where its caller runs.
    lane: Option<(Lane, Lanes)>,
    place: Option<Place>,
}

impl Turn {
    pub fn new(lane: Option<(Lane, Lanes)>, place: Option<Place>) -> Self {
        Self { lane, place }
    }

    /// Begins the query's work. It ends when what is returned is dropped, at its next pause.
    pub fn spawn<F>(self, work: F) -> AbortOnDropHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let handle = match &self.lane {
            Some((lane, _)) => lane.handle().clone(),
            None => Handle::current(),
        };
        let work = work.in_current_span();
        AbortOnDropHandle::new(handle.spawn(async move {
            let turn = self;
            pace::follow();
            let done = work.await;
            drop(turn);
            done
        }))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (lane, place) = (self.lane.take(), self.place.take());
        let Some((lane, lanes)) = lane else { return };
        let handle = lane.handle().clone();
        handle.spawn(async move {
            let mut pause = Duration::from_millis(1);
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            // One is this task.
            while lane.handle().metrics().num_alive_tasks() > 1 {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOK);
            }
            lanes.put_back(lane);
            drop(place);
        });
    }
}
