//! The demo's events: seeded, so that two runs with one seed send the same.
//!
//! Three kinds: hourly weather as a CSV file, check-ins that are enriched from it, and
//! webhooks. A few are wrong on purpose, each in a way that a real client gets wrong, so that
//! duplicates and dead letters have something to show.

use chrono::{DateTime, Duration, SecondsFormat, TimeZone, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::observations::Observations;

const STATIONS: [(&str, f64); 3] = [("EWR", 1.5), ("JFK", -0.5), ("LGA", 0.5)];
const DAYS: i64 = 30;
const HEADER: &str = "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour";

/// One event as the demo sends it, with what should become of it.
#[derive(Debug, Clone)]
pub struct Generated {
    pub envelope: Value,
    pub fate: Fate,
}

/// What should become of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Row,
    /// Sent before under the same id: the gateway answers with the first.
    Duplicate,
    Dead,
}

/// A month of hourly observations as CSV, shaped like the public NOAA extracts.
pub fn weather_csv(seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x57ea);
    let start = first_hour();
    let mut csv = format!("{HEADER}\n");
    for (station, warmer) in STATIONS {
        let mut drift = 0.0;
        for hour in 0..DAYS * 24 {
            let time = start + Duration::hours(hour);
            drift = 0.97 * drift + rng.random_range(-1.5..1.5);
            csv.push_str(&weather_row(&mut rng, station, time, warmer + drift));
        }
    }
    csv
}

fn first_hour() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 3, 1, 0, 0, 0).single().unwrap_or_default()
}

fn weather_row(rng: &mut StdRng, station: &str, time: DateTime<Utc>, offset: f64) -> String {
    let hour_of_day = (time.timestamp() / 3600 % 24) as f64;
    let temp = 48.0 + 9.0 * ((hour_of_day - 15.0) / 24.0 * std::f64::consts::TAU).cos() + offset;
    let dew = temp - rng.random_range(4.0..16.0);
    let humid = (100.0 - 3.1 * (temp - dew)).clamp(15.0, 100.0);
    let wind = rng.random_range(0.0..22.0_f64);
    let pressure = rng.random_range(998.0..1032.0_f64);
    let direction = rng.random_range(0..36) * 10;
    let mut maybe = |share: f64, text: String| if rng.random_bool(share) { text } else { "NA".into() };
    let gust = maybe(0.15, format!("{:.2}", wind * 1.5));
    let pressure = maybe(0.9, format!("{pressure:.1}"));
    let direction = maybe(0.98, direction.to_string());
    let rain = if rng.random_bool(0.06) { rng.random_range(0.01..0.4) } else { 0.0 };
    let date = time.format("%Y,%-m,%-d,%-H");
    let stamp = time.to_rfc3339_opts(SecondsFormat::Secs, true);
    format!(
        "{station},{date},{temp:.2},{dew:.2},{humid:.2},{direction},{wind:.2},{gust},{rain:.2},{pressure},10,{stamp}\n"
    )
}

/// Draws events. `observations` gives the stations and times at which users check in.
pub struct Generator {
    rng: StdRng,
    observations: std::sync::Arc<Observations>,
    tenants: Vec<&'static str>,
    sent: u64,
    last: Option<Generated>,
}

impl Generator {
    pub fn new(seed: u64, observations: std::sync::Arc<Observations>, tenants: Vec<&'static str>) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), observations, tenants, sent: 0, last: None }
    }

    /// The next check-in: about 4 % repeat the one before, about 2 % are wrong.
    pub fn check_in(&mut self) -> Generated {
        if let Some(last) = self.last.take()
            && self.rng.random_bool(0.04)
        {
            return Generated { fate: Fate::Duplicate, ..last };
        }
        self.sent += 1;
        let at = self.rng.random_range(0..self.observations.len());
        let (station, hour) = self.observations.place(at);
        let time = hour + Duration::seconds(self.rng.random_range(0..3600));
        let tenant = self.tenants[self.rng.random_range(0..self.tenants.len())];
        let stamp = time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let user = format!("user-{:04}", self.rng.random_range(0..2_000));
        let mut payload = json!({ "user_id": user, "station": station, "time": stamp });
        let mut fate = Fate::Row;
        if self.rng.random_bool(0.02) {
            fate = Fate::Dead;
            match self.rng.random_range(0..5) {
                // A well-formed event whose weather nobody has: only the enrichment finds out.
                4 => {
                    payload["time"] =
                        json!((hour - Duration::days(4_000)).to_rfc3339_opts(SecondsFormat::Secs, true))
                }
                0 => payload["station"] = json!("XXX"),
                1 => payload["user_id"] = Value::Null,
                2 => payload["time"] = json!("yesterday"),
                _ => payload["time"] = json!("2099-01-01T00:00:00Z"),
            }
        }
        let envelope = json!({
            "event_type": "user.checked_in",
            "event_id": format!("checkin-{:08}", self.sent),
            "tenant_id": tenant,
            "schema_version": "1.0",
            "source_service": "demo",
            "timestamp": stamp,
            "payload": payload,
        });
        let generated = Generated { envelope, fate };
        if fate == Fate::Row {
            self.last = Some(generated.clone());
        }
        generated
    }

    /// The next webhook: a small GitHub-like body.
    pub fn webhook(&mut self) -> Generated {
        self.sent += 1;
        let kinds = [
            ("push", None),
            ("issues", Some("opened")),
            ("issues", Some("closed")),
            ("star", Some("created")),
        ];
        let (kind, action) = kinds[self.rng.random_range(0..kinds.len())];
        let repository =
            ["levada/canal", "levada/sluice", "acme/web", "acme/api"][self.rng.random_range(0..4)];
        let sender = ["ada", "grace", "edsger", "barbara", "leslie"][self.rng.random_range(0..5)];
        let mut payload = json!({
            "repository": { "id": self.rng.random_range(1..10_000), "full_name": repository },
            "sender": { "login": sender, "type": "User" },
        });
        if let Some(action) = action {
            payload["action"] = json!(action);
        }
        let tenant = self.tenants[0];
        let envelope = json!({
            "event_type": format!("github.{kind}"),
            "event_id": format!("delivery-{:08}", self.sent),
            "tenant_id": tenant,
            "payload": payload,
        });
        Generated { envelope, fate: Fate::Row }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn one_seed_sends_the_same_events_and_some_of_every_fate() {
        let csv = weather_csv(7);
        assert_eq!(csv.lines().count() as i64, 1 + 3 * DAYS * 24);
        let observations = Arc::new(Observations::from_csv(csv.as_bytes()).expect("generated CSV"));
        let draw = || {
            let mut generator = Generator::new(7, observations.clone(), vec!["default", "acme"]);
            (0..5_000).map(|_| generator.check_in()).collect::<Vec<_>>()
        };
        let (a, b) = (draw(), draw());
        assert!(a.iter().zip(&b).all(|(a, b)| a.envelope == b.envelope && a.fate == b.fate));
        for fate in [Fate::Row, Fate::Duplicate, Fate::Dead] {
            assert!(a.iter().filter(|g| g.fate == fate).count() > 20, "{fate:?}");
        }
    }
}
