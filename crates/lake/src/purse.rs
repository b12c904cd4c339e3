//! What the functions of a query take from its memory.
//!
//! Operators ask before they keep rows. A function is evaluated within an operator and asks for
//! nothing, however large its result is. So functions take the size of their results here
//! (`guarded`), and give it back when an operator asks for more rows or hands some on: what lives
//! on is in rows by then. Results that the optimiser computes stay in the plan, so
//! they are kept until the query ends, and only small ones are computed there.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{ThreadId, current};

use datafusion::common::config::{ConfigEntry, ExtensionOptions};
use datafusion::common::{plan_err, resources_datafusion_err};
use datafusion::config::{ConfigExtension, ConfigOptions};
use datafusion::error::Result;
use parking_lot::Mutex;

use crate::limits::QueryPool;
use crate::watch::Watch;

/// A text, a binary or a list has at most so many bytes.
const MAX_VALUE_BYTES: u64 = 64 << 20;
/// Larger results are computed when the query runs, not while it is planned: a constant becomes a
/// part of the names that the planner makes over and over.
const MAX_CONSTANT_BYTES: u64 = 1 << 10;

/// One query's. Cheap to clone; clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Purse(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Arc<QueryPool>,
    planning: AtomicBool,
    comparing: AtomicBool,
    held: Mutex<Held>,
    /// Looked at with each call of a function, of which one may take long.
    watch: OnceLock<Watch>,
}

#[derive(Debug, Default)]
struct Held {
    /// What the plan keeps.
    kept: usize,
    /// What functions took on each thread since an operator was last asked for rows there.
    taken: HashMap<ThreadId, usize>,
}

impl Purse {
    /// A purse for a query that is yet to be planned.
    pub fn new(pool: Arc<QueryPool>) -> Self {
        Self(Arc::new(Inner {
            pool,
            planning: AtomicBool::new(true),
            comparing: AtomicBool::new(false),
            held: Mutex::default(),
            watch: OnceLock::new(),
        }))
    }

    /// The purse of the query whose settings these are.
    pub fn of(config: &ConfigOptions) -> Option<Self> {
        config.extensions.get::<Self>().cloned()
    }

    /// What it takes from.
    pub fn pool(&self) -> &Arc<QueryPool> {
        &self.0.pool
    }

    /// From now on functions end with the watch.
    pub fn watch(&self, watch: &Watch) {
        // The first one stays: a query has one.
        let _ = self.0.watch.set(watch.clone());
    }

    /// To be asked before each call of a function.
    ///
    /// # Errors
    /// `sql-timeout` when the query has to end.
    pub fn check(&self) -> Result<()> {
        self.0.watch.get().map_or(Ok(()), Watch::check)
    }

    /// Planning is over: from now on results come and go.
    pub fn planned(&self) {
        self.0.planning.store(false, Ordering::Relaxed);
    }

    /// From now on results are compared with the limit and not kept in account: for plans whose
    /// operators tell nothing.
    pub fn only_compare(&self) {
        self.planned();
        self.0.comparing.store(true, Ordering::Relaxed);
    }

    /// Bytes that the query may hold at all.
    pub fn limit(&self) -> usize {
        self.0.pool.limit()
    }

    /// Asks for room before a result is computed.
    ///
    /// # Errors
    /// Resources exhausted.
    pub fn expect(&self, function: &str, bytes: u64, largest: u64) -> Result<()> {
        if largest > MAX_VALUE_BYTES {
            return Err(resources_datafusion_err!(
                "a value of {function} may have {largest} bytes, and {MAX_VALUE_BYTES} are allowed"
            ));
        }
        self.plannable(bytes)?;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.0.pool.take(bytes)?;
        self.0.pool.give_back(bytes);
        Ok(())
    }

    /// Takes the bytes of a result that was computed.
    ///
    /// # Errors
    /// Resources exhausted.
    pub fn charge(&self, bytes: usize) -> Result<()> {
        self.plannable(bytes as u64)?;
        self.0.pool.take(bytes)?;
        if self.0.comparing.load(Ordering::Relaxed) {
            self.0.pool.give_back(bytes);
            return Ok(());
        }
        let mut held = self.0.held.lock();
        if self.0.planning.load(Ordering::Relaxed) {
            held.kept += bytes;
        } else {
            *held.taken.entry(current().id()).or_default() += bytes;
        }
        Ok(())
    }

    /// Gives back the bytes of results that were taken on this thread and are gone.
    pub fn refund(&self, bytes: usize) {
        if self.0.comparing.load(Ordering::Relaxed) {
            return;
        }
        let mut held = self.0.held.lock();
        let taken = match self.0.planning.load(Ordering::Relaxed) {
            true => &mut held.kept,
            false => held.taken.entry(current().id()).or_default(),
        };
        let bytes = bytes.min(*taken);
        *taken -= bytes;
        self.0.pool.give_back(bytes);
    }

    fn plannable(&self, bytes: u64) -> Result<()> {
        if bytes > MAX_CONSTANT_BYTES && self.0.planning.load(Ordering::Relaxed) {
            return Err(resources_datafusion_err!("a constant of {bytes} bytes is not computed in advance"));
        }
        Ok(())
    }

    /// An operator is asked for rows on this thread, or hands some on: what was computed before
    /// lives in rows by now, or nowhere.
    pub fn pass(&self) {
        let taken = self.0.held.lock().taken.remove(&current().id());
        if let Some(bytes) = taken {
            self.0.pool.give_back(bytes);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let held = self.held.get_mut();
        let bytes = held.kept + held.taken.values().sum::<usize>();
        self.pool.give_back(bytes);
    }
}

/// A purse is equal to itself only: what carries one belongs to one query.
impl PartialEq for Purse {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Purse {}

impl std::hash::Hash for Purse {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// The purse travels with the settings of its query, but is none that a statement can name.
impl ConfigExtension for Purse {
    const PREFIX: &'static str = "levada_purse";
}

impl ExtensionOptions for Purse {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _: &str) -> Result<()> {
        plan_err!("there is no setting {key}")
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}
