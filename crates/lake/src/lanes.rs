//! Threads for queries: each running query has some of its own.
//!
//! A query computes for as long as it likes between two pauses, and there is no taking a thread
//! away from it. On threads of its own it only keeps itself waiting; between the threads of many
//! queries the operating system shares the processors, so a short query of one caller does not
//! wait for the long ones of another. A lane goes to the next query when nothing of the last one
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
use crate::shape::Weight;
use crate::stack;
use crate::turns::Place;

/// Lanes that are kept for later queries.
const MAX_IDLE: usize = 8;
/// Reads of files that one query waits for at the same time.
const BLOCKING_THREADS: usize = 8;
/// The longest pause between two looks at whether a lane is free.
const LOOK: Duration = Duration::from_millis(50);

/// Cheap to clone; clones are one.
#[derive(Clone)]
pub(crate) struct Lanes(Arc<Inner>);

struct Inner {
    threads: usize,
    idle: Mutex<Vec<Lane>>,
}

impl Lanes {
    /// Lanes of so many threads each.
    pub fn new(threads: usize) -> Self {
        Self(Arc::new(Inner { threads: threads.max(1), idle: Mutex::default() }))
    }

    /// A lane of its own for a statement of this weight.
    ///
    /// # Errors
    /// `overloaded` when the system gives no threads.
    pub fn take(&self, weight: Weight) -> Result<Lane, Problem> {
        let idle = match weight {
            Weight::Plain => self.0.idle.lock().pop(),
            Weight::Heavy => None,
        };
        match idle {
            Some(lane) => Ok(lane),
            None => Lane::new(self.0.threads, weight).map_err(|e| answer::no_thread(&e)),
        }
    }

    fn put_back(&self, lane: Lane) {
        let mut idle = self.0.idle.lock();
        // The stack of a heavy statement goes back to the system with its thread.
        if lane.weight == Weight::Plain && idle.len() < MAX_IDLE {
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
}

impl Lane {
    /// # Errors
    /// When the system gives no threads.
    pub fn new(threads: usize, weight: Weight) -> io::Result<Self> {
        let threads = match weight {
            Weight::Plain => threads,
            Weight::Heavy => 1,
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_stack_size(stack::bytes(weight))
            .thread_name("levada-query")
            .enable_time()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle, weight })
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
