//! The session's settings: what `SET` stores and `SHOW` tells.
//!
//! Few matter here. `statement_timeout` shortens the server's own limit. Encoding, time
//! zone and date style are fixed; setting them is accepted, and `SHOW` tells the truth.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Outcome, refuse};

const MAX_SETTINGS: usize = 256;
const MAX_VALUE_BYTES: usize = 1024;

/// Settings that a session starts with, and those that cannot change.
const FIXED: [(&str, &str); 17] = [
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, MDY"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_read_only", "on"),
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "off"),
    ("lc_collate", "C.UTF-8"),
    ("lc_ctype", "C.UTF-8"),
    ("max_identifier_length", "63"),
    ("server_encoding", "UTF8"),
    ("server_version_num", "150000"),
    ("standard_conforming_strings", "on"),
    ("timezone", "UTC"),
    ("transaction_isolation", "repeatable read"),
    ("transaction_read_only", "on"),
];

const INITIAL: [(&str, &str); 4] = [
    ("application_name", ""),
    ("extra_float_digits", "1"),
    ("search_path", "gold"),
    ("statement_timeout", "0"),
];

/// The names under which clients are told at login, with their spelling.
const REPORTED: [(&str, &str); 9] = [
    ("client_encoding", "client_encoding"),
    ("datestyle", "DateStyle"),
    ("default_transaction_read_only", "default_transaction_read_only"),
    ("in_hot_standby", "in_hot_standby"),
    ("integer_datetimes", "integer_datetimes"),
    ("intervalstyle", "IntervalStyle"),
    ("server_encoding", "server_encoding"),
    ("standard_conforming_strings", "standard_conforming_strings"),
    ("timezone", "TimeZone"),
];

#[derive(Debug)]
pub(crate) struct Settings {
    version: String,
    user: String,
    set: BTreeMap<String, String>,
}

impl Settings {
    pub fn new(version: String, user: &str) -> Self {
        Self { version, user: user.to_owned(), set: BTreeMap::new() }
    }

    /// What a client is told at login.
    pub fn reported(&self) -> Vec<(String, String)> {
        let mut out: Vec<(String, String)> = REPORTED
            .iter()
            .filter_map(|(name, spelling)| Some(((*spelling).to_owned(), self.get(name)?)))
            .collect();
        for name in ["server_version", "session_authorization", "application_name", "is_superuser"] {
            out.extend(self.get(name).map(|value| (name.to_owned(), value)));
        }
        out
    }

    pub fn get(&self, name: &str) -> Option<String> {
        let name = name.to_ascii_lowercase();
        if let Some((_, value)) = FIXED.iter().find(|(n, _)| *n == name) {
            return Some((*value).to_owned());
        }
        match name.as_str() {
            "server_version" => return Some(self.version.clone()),
            "session_authorization" | "role" => return Some(self.user.clone()),
            _ => {}
        }
        let initial = || INITIAL.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        self.set.get(&name).cloned().or_else(initial)
    }

    /// # Errors
    /// 22023 for another encoding than UTF-8 or a timeout that is none; 54000 for too much.
    pub fn set(&mut self, name: &str, value: &str) -> Outcome<()> {
        if name == "client_encoding"
            && !matches!(plain(value).as_str(), "utf8" | "unicode" | "default" | "auto")
        {
            return Err(refuse("22023", format!("this server speaks UTF8 only, not `{value}`")));
        }
        if name == "statement_timeout" && duration(value).is_none() {
            return Err(refuse("22023", format!("`{value}` is no statement_timeout")));
        }
        if FIXED.iter().any(|(fixed, _)| *fixed == name) {
            return Ok(());
        }
        if value.eq_ignore_ascii_case("default") {
            self.set.remove(name);
            return Ok(());
        }
        if value.len() > MAX_VALUE_BYTES || (self.set.len() >= MAX_SETTINGS && !self.set.contains_key(name)) {
            return Err(refuse("54000", "the session has too many settings"));
        }
        self.set.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Back to how it was; `None` resets all.
    pub fn reset(&mut self, name: Option<&str>) {
        match name {
            Some(name) => drop(self.set.remove(name)),
            None => self.set.clear(),
        }
    }

    /// All settings, in the order of their names.
    pub fn all(&self) -> Vec<(String, String)> {
        let mut names: Vec<&str> = FIXED.iter().chain(&INITIAL).map(|(n, _)| *n).collect();
        names.extend(["server_version", "session_authorization"]);
        names.extend(self.set.keys().map(String::as_str));
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter_map(|n| Some((n.to_owned(), self.get(n)?))).collect()
    }

    /// The limit that the client asked for, if any.
    pub fn statement_timeout(&self) -> Option<Duration> {
        duration(&self.get("statement_timeout")?).filter(|d| !d.is_zero())
    }
}

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

/// Milliseconds, or a number with a unit.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("default") {
        return Some(Duration::ZERO);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let millis = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fixed_stays_true_and_the_rest_is_remembered() {
        let mut settings = Settings::new("15.0 (Levada)".to_owned(), "anna");
        settings.set("timezone", "Europe/Vienna").expect("accepted");
        assert_eq!(settings.get("TimeZone").as_deref(), Some("UTC"));
        settings.set("application_name", "x").expect("accepted");
        assert_eq!(settings.get("application_name").as_deref(), Some("x"));
        settings.reset(None);
        assert_eq!(settings.get("application_name").as_deref(), Some(""));
        assert!(settings.set("client_encoding", "LATIN1").is_err());
        assert!(settings.set("client_encoding", "UTF-8").is_ok());
        assert!(settings.set("statement_timeout", "soon").is_err());
        settings.set("statement_timeout", "2s").expect("a duration");
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(2)));
        assert_eq!(settings.get("nonsense"), None);
        for i in 0..MAX_SETTINGS * 2 {
            drop(settings.set(&format!("x.{i}"), "1"));
        }
        assert!(settings.set.len() <= MAX_SETTINGS);
    }
}
