//! Differences that are known, each with its reason.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::answer::Difference;
use super::calls::Call;

const FILE: &str = include_str!("known.json");

/// One kind of difference. What is absent fits everything.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The name of the call.
    call: Option<String>,
    /// All of these are traits of the call; one that ends in `*` is the beginning of a trait.
    #[serde(default)]
    traits: Vec<String>,
    /// Outcomes, where they differ; or values, where `field` is named.
    levada: Option<String>,
    emulator: Option<String>,
    /// The path of a field of the answers; `*` before a dot stands for any number of parts, and alone
    /// for any path.
    field: Option<String>,
    reason: String,
}

/// The list of them.
#[derive(Debug)]
pub struct Known(Vec<Entry>);

impl Known {
    /// # Errors
    /// When the file is not of its form.
    pub fn read() -> Result<Self> {
        Ok(Self(serde_json::from_str(FILE).context("xtask/src/compare/known.json")?))
    }

    pub fn count(&self) -> Vec<usize> {
        vec![0; self.0.len()]
    }

    pub fn reasons(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|entry| entry.reason.as_str())
    }

    /// The first entry that a difference fits.
    pub fn reason(&self, call: &Call, difference: &Difference) -> Option<usize> {
        self.0.iter().position(|entry| entry.fits(call, difference))
    }
}

impl Entry {
    fn fits(&self, call: &Call, difference: &Difference) -> bool {
        // `*part*` is whatever has the part.
        let is = |wanted: &Option<String>, value: &str| {
            wanted.as_deref().is_none_or(|wanted| {
                let part = wanted.strip_prefix('*').and_then(|rest| rest.strip_suffix('*'));
                part.map_or(wanted == value, |part| value.contains(part))
            })
        };
        let has = |wanted: &String| {
            call.traits.iter().any(|known| match wanted.strip_suffix('*') {
                Some(start) => known.starts_with(start),
                None => known == wanted,
            })
        };
        let part = match (difference, &self.field) {
            (Difference::Outcome { ours, theirs }, None) => {
                is(&self.levada, ours) && is(&self.emulator, theirs)
            }
            (Difference::Field { path, ours, theirs }, Some(field)) => {
                let names = match field.strip_prefix("*.") {
                    Some(end) => path == end || path.ends_with(&format!(".{end}")),
                    None => field == "*" || path == field,
                };
                names && is(&self.levada, ours) && is(&self.emulator, theirs)
            }
            _ => false,
        };
        part && is(&self.call, call.name) && self.traits.iter().all(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_and_every_entry_says_why() {
        let known = Known::read().expect("the file");
        assert!(known.reasons().all(|reason| reason.len() > 20 && reason.ends_with('.')));
        let narrow =
            |entry: &Entry| entry.call.is_some() || entry.field.is_some() || !entry.traits.is_empty();
        assert!(known.0.iter().all(narrow), "an entry that fits everything hides everything");
    }

    #[test]
    fn an_entry_fits_what_it_names() {
        let entry: Entry = serde_json::from_str(
            r#"{"call": "Publish", "traits": ["messages=long*"], "emulator": "OK", "reason": "Because it is."}"#,
        )
        .expect("an entry");
        let call = |what: &str| Call::new("Publish", "POST", "x").with(Some(what.to_owned()));
        let outcome = |theirs: &str| Difference::Outcome { ours: "X".into(), theirs: theirs.into() };
        assert!(entry.fits(&call("messages=long key"), &outcome("OK")));
        assert!(!entry.fits(&call("messages=short"), &outcome("OK")));
        assert!(!entry.fits(&call("messages=long key"), &outcome("NOT_FOUND")));
        let field: Entry =
            serde_json::from_str(r#"{"field": "*.state", "reason": "Because it is."}"#).expect("an entry");
        let of = |path: &str| Difference::Field { path: path.into(), ours: "1".into(), theirs: "2".into() };
        assert!(field.fits(&call(""), &of("topics.*.state")) && field.fits(&call(""), &of("state")));
        assert!(!field.fits(&call(""), &of("estate")) && !field.fits(&call(""), &outcome("OK")));
    }
}
