//! What the demo runs on: generated inputs, or real ones from a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::value::RawValue;

use super::generate::{self, Fate, Generated, Generator};
use super::observations::Observations;

/// Tenants of the starter project, in the order in which the demo uses them.
const TENANTS: [&str; 3] = ["default", "northwind", "lakeside"];
const WEBHOOK_SHARE: u64 = 5;

/// An event ready to send.
pub struct Event {
    /// The envelope as JSON text.
    pub text: String,
    /// What should become of it.
    pub fate: Fate,
}

/// Everything that one run sends.
pub struct Inputs {
    pub weather_csv: Vec<u8>,
    pub observations: Arc<Observations>,
    pub check_ins: Vec<Event>,
    pub webhooks: Vec<Event>,
}

impl Inputs {
    /// Draws all inputs from a seed: `events` in total, a fifth of them webhooks.
    ///
    /// # Errors
    /// Never for a CSV that this crate generates.
    pub fn generated(seed: u64, events: u64) -> Result<Self> {
        let weather_csv = generate::weather_csv(seed).into_bytes();
        let observations = Arc::new(Observations::from_csv(&weather_csv[..])?);
        let mut generator = Generator::new(seed, observations.clone(), TENANTS.to_vec());
        let webhooks = events / WEBHOOK_SHARE;
        let check_ins = (0..events - webhooks).map(|_| event(generator.check_in())).collect();
        let webhooks = (0..webhooks).map(|_| event(generator.webhook())).collect();
        Ok(Self { weather_csv, observations, check_ins, webhooks })
    }

    /// Reads `weather/*.csv` and `webhooks/*/*.json` below a folder; check-ins are drawn at
    /// the stations and hours of the CSV.
    ///
    /// # Errors
    /// When the folder lacks either, or a file is malformed.
    pub fn from_folder(folder: &Path, seed: u64, events: u64) -> Result<Self> {
        let weather = files(&folder.join("weather"), "csv")?;
        let [csv] = weather.as_slice() else {
            bail!("{}/weather must hold one CSV file, it holds {}", folder.display(), weather.len());
        };
        let weather_csv = std::fs::read(csv).with_context(|| format!("cannot read {}", csv.display()))?;
        let observations = Arc::new(Observations::from_csv(&weather_csv[..])?);
        let webhooks = webhooks(&folder.join("webhooks"))?;
        let mut generator = Generator::new(seed, observations.clone(), TENANTS.to_vec());
        let check_ins = (0..events).map(|_| event(generator.check_in())).collect();
        Ok(Self { weather_csv, observations, check_ins, webhooks })
    }

    /// How many events should end so.
    pub fn fated(&self, fate: Fate) -> u64 {
        self.check_ins.iter().chain(&self.webhooks).filter(|e| e.fate == fate).count() as u64
    }

    /// Rows of the CSV, its header aside.
    pub fn weather_rows(&self) -> u64 {
        self.observations.len() as u64
    }
}

fn event(generated: Generated) -> Event {
    Event { text: generated.envelope.to_string(), fate: generated.fate }
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// One event a file, of type `<folder>.<file name up to its first dot>`, the body verbatim.
fn webhooks(folder: &Path) -> Result<Vec<Event>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut folders: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir()).collect();
    folders.sort();
    let mut events = Vec::new();
    for provider in folders {
        let name = provider.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for file in files(&provider, "json")? {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let body: Box<RawValue> =
                serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
            let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let kind = stem.split('.').next().unwrap_or_default();
            let (kind, id) = (serde_json::json!(format!("{name}.{kind}")), serde_json::json!(stem));
            events.push(Event {
                text: format!(
                    r#"{{"event_type":{kind},"event_id":{id},"tenant_id":"default","payload":{}}}"#,
                    body.get()
                ),
                fate: Fate::Row,
            });
        }
    }
    if events.is_empty() {
        bail!(
            "{} holds no webhook bodies (expected {}/<provider>/*.json)",
            folder.display(),
            folder.display()
        );
    }
    Ok(events)
}
