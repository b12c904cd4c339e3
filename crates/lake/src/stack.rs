//! Stacks that are large enough for any statement that passes `shape`.
//!
//! The memory of a stack is taken when it is touched, so a large one costs addresses only. What
//! a deep statement touched stays with its thread, which is why such a thread ends with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, scope};

use futures::FutureExt;
use levada_core::Problem;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::answer;
use crate::shape::Weight;

/// Bytes of a stack for statements of each weight. A plain one has 400 words at most: 160 KiB for
/// each, were each a level. A heavy one has 16 KiB for each word while it is parsed, and 2 MiB for
/// each of the levels that are planned.
pub(crate) fn bytes(weight: Weight) -> usize {
    match weight {
        Weight::Plain => 64 << 20,
        Weight::Heavy => 512 << 20,
    }
}

fn thread(weight: Weight) -> Builder {
    Builder::new().name("levada-plan".to_owned()).stack_size(bytes(weight))
}

/// Runs `work` on a large stack while the caller's thread waits.
///
/// # Errors
/// What the work answers, `sql-internal` if it panics, `overloaded` if there is no thread.
pub(crate) fn on_large_stack<T: Send>(
    weight: Weight,
    work: impl FnOnce() -> Result<T, Problem> + Send,
) -> Result<T, Problem> {
    scope(|threads| {
        let started = thread(weight).spawn_scoped(threads, work).map_err(|e| answer::no_thread(&e))?;
        started.join().unwrap_or_else(|panic| Err(answer::broken_off(&panic_text(&*panic))))
    })
}

/// Runs `work` to its end on a large stack, while the caller's runtime goes on.
///
/// # Errors
/// As [`on_large_stack`].
pub(crate) async fn finish_on_large_stack<T, F>(weight: Weight, work: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Problem>> + Send + 'static,
{
    let (done, result) = oneshot::channel();
    let runtime = Handle::current();
    let run = move || {
        let _runtime = runtime.enter();
        let ended = catch_unwind(AssertUnwindSafe(|| futures::executor::block_on(work)));
        // Nobody to tell: the caller has gone.
        let _ = done.send(ended.unwrap_or_else(|panic| Err(answer::broken_off(&panic_text(&*panic)))));
    };
    thread(weight).spawn(run).map_err(|e| answer::no_thread(&e))?;
    result.await.unwrap_or_else(|_| Err(answer::broken_off("its thread ended")))
}

/// Drops a value that may be deep where there is room for it.
pub(crate) fn drop_on_large_stack<T: Send + 'static>(weight: Weight, value: T) {
    // Without a thread it is dropped here, as what cannot be started is.
    drop(thread(weight).spawn(move || drop(value)));
}

/// Runs `work` where the caller is; a panic is an answer.
///
/// # Errors
/// What the work answers, or `sql-internal`.
pub(crate) async fn unbroken<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.unwrap_or_else(|panic| Err(answer::broken_off(&panic_text(&*panic))))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}
