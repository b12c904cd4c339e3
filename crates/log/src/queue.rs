//! The queue before the commit thread, bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::LogError;
use crate::{Append, Durability};

pub(crate) type Answer = Result<Vec<u64>, LogError>;

/// An append that waits for its group.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) records: Vec<Append>,
    /// Encoded length.
    pub(crate) bytes: usize,
    pub(crate) durability: Durability,
    pub(crate) answer: oneshot::Sender<Answer>,
    /// Its share of the queue, given back once it has been committed.
    permit: OwnedSemaphorePermit,
}

impl Waiting {
    /// Gives back the share of the queue and answers.
    pub(crate) fn finish(self, answer: Answer) {
        drop(self.permit);
        // The caller may have gone.
        drop(self.answer.send(answer));
    }
}

/// What a wait brought.
#[derive(Debug)]
pub(crate) enum Taken {
    Appends(Vec<Waiting>),
    /// Nothing came in time.
    Due,
    /// The queue is closed and empty.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Queue {
    limit: usize,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(limit: usize) -> Self {
        let permits = Arc::new(Semaphore::new(limit));
        Self { limit, permits, state: Mutex::default(), arrived: Condvar::new() }
    }

    pub(crate) fn queued_bytes(&self) -> u64 {
        (self.limit - self.permits.available_permits().min(self.limit)) as u64
    }

    /// Queues an append, after waiting for room, and gives where its answer will come.
    pub(crate) async fn push(
        &self,
        records: Vec<Append>,
        bytes: usize,
        durability: Durability,
    ) -> Result<oneshot::Receiver<Answer>, LogError> {
        let share = u32::try_from(bytes).map_err(|_| LogError::TooLarge { bytes, limit: self.limit })?;
        let permit = self.permits.clone().acquire_many_owned(share).await.map_err(|_| LogError::Closed)?;
        let (answer, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if state.closed {
            return Err(LogError::Closed);
        }
        state.waiting.push_back(Waiting { records, bytes, durability, answer, permit });
        self.arrived.notify_one();
        Ok(receiver)
    }

    /// Waits for appends, until `due` where that is given, and takes as many as fit a group,
    /// at least one.
    pub(crate) fn take(&self, group_bytes: usize, due: Option<Instant>) -> Taken {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            match due {
                None => self.arrived.wait(&mut state),
                Some(due) => {
                    if self.arrived.wait_until(&mut state, due).timed_out() && state.waiting.is_empty() {
                        return Taken::Due;
                    }
                }
            }
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(first) = state.waiting.front() {
            if !taken.is_empty() && bytes + first.bytes > group_bytes {
                break;
            }
            bytes += first.bytes;
            taken.extend(state.waiting.pop_front());
        }
        Taken::Appends(taken)
    }

    /// Takes no more appends; those that are queued are still committed.
    pub(crate) fn close(&self) {
        self.permits.close();
        self.state.lock().closed = true;
        self.arrived.notify_all();
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future in this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
