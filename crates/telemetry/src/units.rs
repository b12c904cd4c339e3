//! A recorder around the process's own that remembers the unit of every metric.
//!
//! The Prometheus text has names, types and descriptions, but no units, which OTLP has a place
//! for. Counting is not touched: what is registered comes from the recorder inside.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::RwLock;

/// Units by the metric's name. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Units(Arc<RwLock<HashMap<String, Unit>>>);

impl Units {
    /// The unit by UCUM; empty where none was given.
    pub fn of(&self, name: &str) -> &'static str {
        match self.0.read().get(name) {
            // A share; by the unit `1` collectors call it a ratio, which a count is not.
            Some(Unit::Count) if name.ends_with("_ratio") => "1",
            Some(Unit::Count) => "{item}",
            Some(Unit::Percent) => "%",
            Some(Unit::Seconds) => "s",
            Some(Unit::Milliseconds) => "ms",
            Some(Unit::Microseconds) => "us",
            Some(Unit::Nanoseconds) => "ns",
            Some(Unit::Bytes) => "By",
            Some(Unit::Kibibytes) => "KiBy",
            Some(Unit::Mebibytes) => "MiBy",
            Some(Unit::Gibibytes) => "GiBy",
            Some(Unit::Tebibytes) => "TiBy",
            Some(Unit::BitsPerSecond) => "bit/s",
            Some(Unit::KilobitsPerSecond) => "kbit/s",
            Some(Unit::MegabitsPerSecond) => "Mbit/s",
            Some(Unit::GigabitsPerSecond) => "Gbit/s",
            Some(Unit::TerabitsPerSecond) => "Tbit/s",
            Some(Unit::CountPerSecond) => "{item}/s",
            None => "",
        }
    }

    fn keep(&self, name: &KeyName, unit: Option<Unit>) {
        if let Some(unit) = unit {
            self.0.write().insert(name.as_str().to_owned(), unit);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct KeepUnits<R> {
    inner: R,
    units: Units,
}

impl<R: Recorder> KeepUnits<R> {
    pub fn new(inner: R, units: Units) -> Self {
        Self { inner, units }
    }

    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Recorder> Recorder for KeepUnits<R> {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.units.keep(&key, unit);
        self.inner.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.units.keep(&key, unit);
        self.inner.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.units.keep(&key, unit);
        self.inner.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.inner.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.inner.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.inner.register_histogram(key, metadata)
    }
}

#[cfg(test)]
mod tests {
    use metrics::{NoopRecorder, describe_counter, describe_gauge, with_local_recorder};

    use super::*;

    #[test]
    fn units_are_kept_as_they_are_described() {
        let units = Units::default();
        with_local_recorder(&KeepUnits::new(NoopRecorder, units.clone()), || {
            describe_counter!("a_bytes_total", Unit::Bytes, "bytes");
            describe_gauge!("a_share_ratio", Unit::Count, "share");
            describe_gauge!("an_age_seconds", Unit::Seconds, "age");
        });
        let of = ["a_bytes_total", "a_share_ratio", "an_age_seconds", "unknown"].map(|name| units.of(name));
        assert_eq!(of, ["By", "1", "s", ""]);
    }
}
