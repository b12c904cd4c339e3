//! Which queries the operating system lets go first.
//!
//! Short queries shall not feel long ones, whoever asks them. So a thread of a query is brisk or
//! calm, and a calm one gets the processor when no other thread of the process wants it much. An
//! owner's first query begins brisk and becomes calm once it has computed for [`BRISK`]; what an
//! owner asks beside it, and what is as long as a small program, is calm from the beginning. This
//! is the multi-level feedback queue of Corbató's CTSS (1962) with two levels.
//!
//! A thread may make itself calm and not brisk again: that takes a right which a server does not
//! have. A lane with calm threads therefore stays calm.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

/// How long a query may compute before it becomes calm.
pub(crate) const BRISK: Duration = Duration::from_millis(25);
/// On a scale from 0 to 99, where 50 is usual. With Linux it is a nice value of 10, which means a
/// tenth of the share of a usual thread.
const CALM: u8 = 22;

thread_local! {
    /// `None` on threads that belong to no lane, and on calm ones: these stay as they are.
    static BRISK_IN: RefCell<Option<Pace>> = const { RefCell::new(None) };
}

/// The pace of a lane. Cheap to clone; clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Pace(Arc<AtomicBool>);

impl Pace {
    pub fn brisk() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    pub fn calm() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    pub fn is_calm(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// A thread of the lane begins.
    pub fn begin(&self) {
        BRISK_IN.replace(Some(self.clone()));
        follow();
    }
}

/// Makes this thread calm, and its lane with it, where it belongs to one.
pub(crate) fn calm_down() {
    BRISK_IN.with_borrow_mut(|brisk| {
        let Some(lane) = brisk.take() else { return };
        lane.0.store(true, Ordering::Relaxed);
        lower();
    });
}

/// Makes this thread calm where its lane is.
pub(crate) fn follow() {
    BRISK_IN.with_borrow_mut(|brisk| {
        if brisk.as_ref().is_some_and(Pace::is_calm) {
            brisk.take();
            lower();
        }
    });
}

fn lower() {
    let calm = ThreadPriorityValue::try_from(CALM).map(ThreadPriority::Crossplatform);
    let lowered = calm.map(set_current_thread_priority);
    if !matches!(lowered, Ok(Ok(()))) {
        // The query is right at any pace.
        tracing::debug!(?lowered, "a thread of a long query keeps its priority");
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The nice value of this thread, as the system tells it.
    fn nice() -> i64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux tells it");
        // The name, which may hold spaces, ends with the last parenthesis; see proc(5).
        let rest = stat.rsplit_once(") ").expect("a name").1;
        rest.split(' ').nth(16).and_then(|value| value.parse().ok()).expect("a number")
    }

    #[test]
    fn a_lane_stays_calm_once_one_of_its_threads_is() {
        let usual = nice();
        let lane = Pace::brisk();
        let of_lane = |work: fn()| {
            let lane = lane.clone();
            let thread = move || {
                lane.begin();
                let before = nice();
                work();
                (before, nice())
            };
            thread::spawn(thread).join().expect("no panic")
        };
        assert_eq!(of_lane(follow), (usual, usual));
        assert_eq!(of_lane(calm_down), (usual, usual + 10));
        assert!(lane.is_calm());
        assert_eq!(of_lane(|| ()), (usual + 10, usual + 10));
        let elsewhere = thread::spawn(|| {
            calm_down();
            nice()
        });
        assert_eq!(elsewhere.join().expect("no panic"), usual, "it belongs to no lane");
    }
}
