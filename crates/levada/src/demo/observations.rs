//! The small weather service that the demo and the tests ask for observations.
//!
//! A real HTTP server on a free loopback port, fed from a CSV of hourly observations:
//! `GET /v1/observations/{station}/{time}` answers the observation of the hour that holds
//! the time, or 404.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde_json::{Map, Value, json};

/// Observations by station and hour.
#[derive(Debug, Default)]
pub struct Observations {
    by_hour: HashMap<(String, DateTime<Utc>), Value>,
    places: Vec<(String, DateTime<Utc>)>,
}

impl Observations {
    /// Reads the CSV; columns `origin` and `time_hour` name station and hour, `NA` is null.
    pub fn from_csv(input: impl Read) -> Result<Self> {
        let mut reader = csv::Reader::from_reader(input);
        let header = reader.headers().context("the weather CSV has no header")?.clone();
        let mut all = Self::default();
        for row in reader.records() {
            let row = row.context("the weather CSV is malformed")?;
            let field =
                |name: &str| header.iter().position(|h| h == name).and_then(|i| row.get(i)).unwrap_or("");
            let number = |name: &str| field(name).parse::<f64>().map_or(Value::Null, |n| json!(n));
            let hour: DateTime<Utc> =
                field("time_hour").parse().with_context(|| format!("`{}` is no time", field("time_hour")))?;
            let station = field("origin").to_owned();
            let mut answer = Map::new();
            answer.insert("station".into(), json!(station));
            answer.insert("time".into(), json!(hour));
            for name in ["temp", "humid", "wind_speed", "precip", "visib"] {
                answer.insert(name.into(), number(name));
            }
            let place = (station, hour);
            all.places.push(place.clone());
            all.by_hour.insert(place, Value::Object(answer));
        }
        anyhow::ensure!(!all.places.is_empty(), "the weather CSV holds no observation");
        Ok(all)
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Station and hour of an observation, in the order of the CSV.
    pub fn place(&self, index: usize) -> (&str, DateTime<Utc>) {
        let (station, hour) = &self.places[index];
        (station, *hour)
    }

    fn at(&self, station: &str, time: DateTime<Utc>) -> Option<&Value> {
        let hour = time.duration_trunc(TimeDelta::hours(1)).ok()?;
        self.by_hour.get(&(station.to_owned(), hour))
    }
}

async fn observation(
    State(all): State<Arc<Observations>>,
    Path((station, time)): Path<(String, String)>,
) -> impl IntoResponse {
    let Ok(time) = time.parse::<DateTime<Utc>>() else {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "time is not RFC 3339" })));
    };
    match all.at(&station, time) {
        Some(found) => (StatusCode::OK, Json(found.clone())),
        None => (StatusCode::NOT_FOUND, Json(json!({ "error": "no observation of that station and hour" }))),
    }
}

/// Serves observations on a free loopback port until the program ends; returns the base URL.
pub async fn serve(observations: Arc<Observations>) -> Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("no free loopback port")?;
    let url = format!("http://{}", listener.local_addr()?);
    let app =
        Router::new().route("/v1/observations/{station}/{time}", get(observation)).with_state(observations);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the weather service stopped");
        }
    });
    Ok(url)
}
