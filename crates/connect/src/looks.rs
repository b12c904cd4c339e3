//! Which files are complete, judged from one look to the next.
//!
//! A rename proves it at once. So do times that were set by hand at the end, as `cp -p`,
//! `rsync -t` and `scp -p` do: the file was changed after its last write, and not by a write.
//! Everything else must rest: a short time before its finished rows are read, and a longer one
//! before what has no end counts as the end.

use std::collections::HashMap;
use std::time::Duration;

use crate::arrivals::{self, Moved};
use crate::listing::Found;

/// How long a file must rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settle {
    pub rest: Duration,
    pub end: Duration,
}

/// One moment, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub monotonic: Duration,
    pub ms: i64,
}

/// A file that may be read.
#[derive(Debug, Clone)]
pub(crate) struct Ripe {
    pub found: Found,
    /// Its end is an end: what has none there counts as finished.
    pub complete: bool,
}

#[derive(Debug, Clone)]
struct Look {
    found: Found,
    since: Duration,
    whole: bool,
    unfinished: bool,
}

/// Remembers the last look at each file that is still to be read.
#[derive(Debug, Default)]
pub(crate) struct Looks(HashMap<String, Look>);

impl Looks {
    /// Splits one look into files that are ripe, oldest first, and a count of the others.
    pub fn settle(
        &mut self,
        found: Vec<Found>,
        moved: &Moved,
        now: Now,
        settle: Settle,
    ) -> (Vec<Ripe>, usize) {
        let mut looks = HashMap::with_capacity(found.len());
        let mut ripe = Vec::new();
        for file in found {
            let mut look = match self.0.remove(&file.name) {
                Some(before) if before.found.is_same(&file) => before,
                before => Look::new(file.clone(), before, now),
            };
            look.whole |= arrivals::was_moved(moved, &file.name);
            let age = look.age(now);
            let complete = look.whole || age >= settle.end;
            if complete || (age >= settle.rest && !look.unfinished) {
                ripe.push(Ripe { found: file.clone(), complete });
            }
            looks.insert(file.name, look);
        }
        let waiting = looks.len() - ripe.len();
        self.0 = looks;
        ripe.sort_by(|a, b| (a.found.modified_ns, &a.found.name).cmp(&(b.found.modified_ns, &b.found.name)));
        (ripe, waiting)
    }

    /// The file's end is none: it must change, or rest for the longer time.
    pub fn unfinished(&mut self, name: &str) {
        if let Some(look) = self.0.get_mut(name) {
            look.unfinished = true;
        }
    }
}

impl Look {
    /// The first look at this content. A file that was seen while it was written here proves
    /// nothing by its change time, since a `chmod` sets it too, unless its time went back.
    fn new(found: Found, before: Option<Look>, now: Now) -> Self {
        let came_new = before.is_none_or(|before| {
            before.found.inode != found.inode || found.modified_ns < before.found.modified_ns
        });
        let whole = came_new && found.was_set_after_writing();
        Self { found, since: now.monotonic, whole, unfinished: false }
    }

    /// For how long nothing has changed: as we saw it, or as the file's times say.
    fn age(&self, now: Now) -> Duration {
        let seen = now.monotonic.saturating_sub(self.since);
        let touched_ms = self.found.modified_ns.max(self.found.changed_ns) / 1_000_000;
        let told = u64::try_from(now.ms.saturating_sub(touched_ms)).unwrap_or(0);
        seen.max(Duration::from_millis(told))
    }
}
