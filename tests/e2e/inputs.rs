//! The real inputs, read by simple means of the tests' own: no code is shared with the product.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use levada_testkit::{program, skipping_is_failure};
use serde_json::Value;

/// The folder of the real inputs; `None` where there is none and nobody insists.
pub fn folder() -> Result<Option<PathBuf>> {
    let folder = std::env::var_os("LEVADA_REAL_INPUTS")
        .map_or_else(|| program::workspace().join("../shared/data"), PathBuf::from);
    if folder.join("weather/nyc-2013-hourly.csv").is_file() {
        return Ok(Some(folder.canonicalize()?));
    }
    if skipping_is_failure() {
        bail!("the real inputs are not in {}", folder.display());
    }
    println!("skipped: the real inputs are not in {}", folder.display());
    Ok(None)
}

/// One hour at one station; missing values are `None`.
#[derive(Debug, Clone)]
pub struct Observation {
    pub origin: String,
    /// `2013-01-01T06:00:00Z`
    pub time: String,
    pub values: HashMap<String, Option<f64>>,
}

/// The weather file: its bytes and its rows. It quotes nothing.
pub fn weather(folder: &std::path::Path) -> Result<(Vec<u8>, Vec<Observation>)> {
    let bytes = fs::read(folder.join("weather/nyc-2013-hourly.csv"))?;
    let text = std::str::from_utf8(&bytes)?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().context("no header")?.split(',').collect();
    let at = |name: &str| header.iter().position(|h| *h == name).context("a column is missing");
    let (origin, time) = (at("origin")?, at("time_hour")?);
    let rows = lines.map(|line| {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |i: usize| (header[i].to_owned(), cells[i].parse().ok());
        let values = (0..header.len()).filter(|i| *i != origin && *i != time).map(number).collect();
        Observation { origin: cells[origin].to_owned(), time: cells[time].to_owned(), values }
    });
    let rows = rows.collect();
    Ok((bytes, rows))
}

/// The GitHub bodies: file name and text.
pub fn webhooks(folder: &std::path::Path) -> Result<Vec<(String, String, Value)>> {
    let mut bodies = Vec::new();
    for entry in fs::read_dir(folder.join("webhooks/github"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path())?;
        let value = serde_json::from_str(&text)?;
        bodies.push((name, text, value));
    }
    bodies.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(bodies)
}
