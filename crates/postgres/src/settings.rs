//! The session's settings: what `SET` stores and `SHOW` tells.
//!
//! A setting that would change answers is followed (the time zone, the search path, the digits
//! of floats, the timeout) or refused; one that changes none is remembered. What `SHOW` tells is
//! what holds. `SET LOCAL`, and what a rolled-back transaction set, ends with the transaction.

mod known;

use std::collections::BTreeMap;
use std::time::Duration;

use levada_lake::TimeZone;

use crate::error::{Outcome, refuse, refuse_with};
use crate::tokens::{Kind, significant};

const MAX_SETTINGS: usize = 256;
const MAX_VALUE_BYTES: usize = 1024;
const MAX_NAME_BYTES: usize = 128;

/// What cannot change.
const FIXED: [(&str, &str); 9] = [
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("is_superuser", "off"),
    ("lc_collate", "C.UTF-8"),
    ("lc_ctype", "C.UTF-8"),
    ("max_identifier_length", "63"),
    ("server_encoding", "UTF8"),
    ("server_version_num", "150000"),
    ("block_size", "8192"),
];

/// What a session starts with.
const INITIAL: [(&str, &str); 19] = [
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, MDY"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_read_only", "on"),
    ("extra_float_digits", "1"),
    ("intervalstyle", "postgres"),
    ("lc_messages", "C.UTF-8"),
    ("lc_monetary", "C.UTF-8"),
    ("lc_numeric", "C.UTF-8"),
    ("lc_time", "C.UTF-8"),
    ("search_path", "gold"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("timezone", "UTC"),
    ("transaction_isolation", "repeatable read"),
    ("transaction_read_only", "on"),
];

/// The names under which clients are told at login and when a value changes, with their spelling.
const REPORTED: [(&str, &str); 13] = [
    ("application_name", "application_name"),
    ("client_encoding", "client_encoding"),
    ("datestyle", "DateStyle"),
    ("default_transaction_read_only", "default_transaction_read_only"),
    ("in_hot_standby", "in_hot_standby"),
    ("integer_datetimes", "integer_datetimes"),
    ("intervalstyle", "IntervalStyle"),
    ("is_superuser", "is_superuser"),
    ("server_encoding", "server_encoding"),
    ("server_version", "server_version"),
    ("session_authorization", "session_authorization"),
    ("standard_conforming_strings", "standard_conforming_strings"),
    ("timezone", "TimeZone"),
];

/// How long a value holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The end of the session; or of a transaction that is rolled back.
    Session,
    /// The end of the transaction.
    Transaction,
}

type Values = BTreeMap<String, String>;

#[derive(Debug)]
pub(crate) struct Settings {
    version: String,
    user: String,
    /// What the client asked for at login; `RESET` goes back to it.
    at_login: Values,
    set: Values,
    /// What holds for this transaction alone.
    local: Values,
    /// What was set before the transaction began.
    before: Option<Values>,
}

impl Settings {
    pub fn new(version: String, user: &str) -> Self {
        let empty = Values::new;
        Self { version, user: user.to_owned(), at_login: empty(), set: empty(), local: empty(), before: None }
    }

    /// What a client is told at login.
    pub fn reported(&self) -> Vec<(String, String)> {
        let known = REPORTED.iter();
        known.filter_map(|(name, spelling)| Some(((*spelling).to_owned(), self.get(name)?))).collect()
    }

    pub fn get(&self, name: &str) -> Option<String> {
        let name = name.to_ascii_lowercase();
        if let Some((_, value)) = FIXED.iter().find(|(n, _)| *n == name) {
            return Some((*value).to_owned());
        }
        match name.as_str() {
            "server_version" => return Some(self.version.clone()),
            "session_authorization" => return Some(self.user.clone()),
            "role" => return Some("none".to_owned()),
            _ => {}
        }
        let set = [&self.local, &self.set, &self.at_login].into_iter().find_map(|values| values.get(&name));
        set.cloned().or_else(|| INITIAL.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    /// # Errors
    /// 22023 for a value that is none, 0A000 for one that answers could not follow, 42704 for a
    /// name that PostgreSQL does not know, 55P02 for what cannot change, 54000 for too much.
    pub fn set(&mut self, name: &str, value: &str, until: Until) -> Outcome<()> {
        if name.len() > MAX_NAME_BYTES {
            return Err(refuse("54000", format!("the name of a setting has at most {MAX_NAME_BYTES} bytes")));
        }
        let name = name.to_ascii_lowercase();
        if value.eq_ignore_ascii_case("default") {
            self.values(until).remove(&name);
            if until == Until::Session {
                self.local.remove(&name);
            }
            return Ok(());
        }
        let Some(value) = self.accepted(&name, value)? else { return Ok(()) };
        let is_new = !self.set.contains_key(&name) && !self.local.contains_key(&name);
        if value.len() > MAX_VALUE_BYTES || (is_new && self.set.len() + self.local.len() >= MAX_SETTINGS) {
            return Err(refuse("54000", "the session has too many settings"));
        }
        if until == Until::Session {
            self.local.remove(&name);
        }
        self.values(until).insert(name, value);
        Ok(())
    }

    fn values(&mut self, until: Until) -> &mut Values {
        match until {
            Until::Session => &mut self.set,
            Until::Transaction => &mut self.local,
        }
    }

    /// The value as it is kept; nothing where the one value that holds was asked for.
    fn accepted(&self, name: &str, value: &str) -> Outcome<Option<String>> {
        let is = |words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
        let invalid = || refuse("22023", format!("invalid value for parameter \"{name}\": \"{value}\""));
        if FIXED.iter().any(|(fixed, _)| *fixed == name) || name == "server_version" {
            return Err(refuse("55P02", format!("parameter \"{name}\" cannot be changed")));
        }
        match name {
            "client_encoding" if matches!(plain(value).as_str(), "utf8" | "unicode" | "auto") => Ok(None),
            "client_encoding" => Err(unfollowed(name, value, "clients speak UTF8 here")),
            "timezone" => zone(value).map(|zone| Some(zone.name())).ok_or_else(invalid),
            "search_path" => Ok(Some(value.to_owned())),
            "datestyle" => {
                date_style(value).ok_or_else(|| unfollowed(name, value, "dates are written as ISO 8601"))
            }
            "intervalstyle" if is(&["postgres"]) => Ok(None),
            "intervalstyle" => Err(unfollowed(name, value, "intervals are written as `1 day 02:00:00`")),
            "extra_float_digits" => match value.parse::<i32>() {
                Ok(digits) if (-15..=3).contains(&digits) => Ok(Some(value.to_owned())),
                _ => Err(invalid()),
            },
            "bytea_output" if is(&["hex"]) => Ok(None),
            "bytea_output" => Err(unfollowed(name, value, "bytes are written as \\x and hexadecimal digits")),
            "standard_conforming_strings" | "array_nulls" if is(&["on", "true", "yes", "1"]) => Ok(None),
            "transform_null_equals" | "default_with_oids" if is(&["off", "false", "no", "0"]) => Ok(None),
            "backslash_quote" if is(&["safe_encoding", "on", "true", "off", "false"]) => {
                Ok(Some(value.to_owned()))
            }
            "lc_monetary" | "lc_numeric" | "lc_time" if is(&["", "C", "POSIX", "C.UTF-8", "C.utf8"]) => {
                Ok(None)
            }
            "role" if is(&["none"]) || value == self.user => Ok(None),
            "session_authorization" if value == self.user => Ok(None),
            "role" | "session_authorization" => {
                Err(unfollowed(name, value, "a key's roles are fixed: log in with another key"))
            }
            "standard_conforming_strings"
            | "array_nulls"
            | "transform_null_equals"
            | "default_with_oids"
            | "lc_monetary"
            | "lc_numeric"
            | "lc_time"
            | "backslash_quote" => Err(unfollowed(name, value, "leave it at its default")),
            "statement_timeout" if duration(value).is_none() => Err(invalid()),
            "statement_timeout" => Ok(Some(value.to_owned())),
            _ if name.contains('.') || known::is_harmless(name) => Ok(Some(value.to_owned())),
            _ => Err(refuse("42704", format!("unrecognized configuration parameter \"{name}\""))),
        }
    }

    /// What was set so far is what the client asked for at login.
    pub fn end_login(&mut self) {
        self.at_login = std::mem::take(&mut self.set);
    }

    /// Back to how it was at login; `None` resets all.
    pub fn reset(&mut self, name: Option<&str>) {
        for values in [&mut self.set, &mut self.local] {
            match name {
                Some(name) => drop(values.remove(&name.to_ascii_lowercase())),
                None => values.clear(),
            }
        }
    }

    /// A transaction begins.
    pub fn begin(&mut self) {
        self.before = Some(self.set.clone());
    }

    /// A transaction ends.
    pub fn end(&mut self, commits: bool) {
        self.local.clear();
        if let Some(before) = self.before.take().filter(|_| !commits) {
            self.set = before;
        }
    }

    /// All settings, in the order of their names.
    pub fn all(&self) -> Vec<(String, String)> {
        let mut names: Vec<&str> = FIXED.iter().chain(&INITIAL).map(|(n, _)| *n).collect();
        names.extend(["server_version", "session_authorization"]);
        for values in [&self.at_login, &self.set, &self.local] {
            names.extend(values.keys().map(String::as_str));
        }
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter_map(|n| Some((n.to_owned(), self.get(n)?))).collect()
    }

    /// The limit that the client asked for, if any.
    pub fn statement_timeout(&self) -> Option<Duration> {
        duration(&self.get("statement_timeout")?).filter(|d| !d.is_zero())
    }

    /// The zone that instants are read and shown in.
    pub fn time_zone(&self) -> TimeZone {
        self.get("timezone").map_or(TimeZone::UTC, |name| TimeZone::of_name(&name))
    }

    /// Digits of a float beyond 15 (or 6 for one of 32 bits); above zero, as many as it takes.
    pub fn extra_float_digits(&self) -> i32 {
        self.get("extra_float_digits").and_then(|value| value.parse().ok()).unwrap_or(1)
    }

    /// The schemas that a bare name of a table is looked up in.
    pub fn search_path(&self) -> Vec<String> {
        let path = self.get("search_path").unwrap_or_default();
        significant(&path).iter().filter(|t| t.kind != Kind::Mark).map(|t| t.value()).collect()
    }
}

/// The settings that a statement sets with `set_config(name, value, is_local)`.
pub(crate) fn settings_of(sql: &str) -> Vec<(String, String, Until)> {
    if !sql.to_ascii_lowercase().contains("set_config") {
        return Vec::new();
    }
    let all = significant(sql);
    let calls = all.windows(8).filter(|part| part[0].is("set_config") && part[1].is_mark("("));
    calls
        .filter(|part| part[2].kind == Kind::Text && part[4].kind == Kind::Text)
        .map(|part| {
            let until = if part[6].is("true") { Until::Transaction } else { Until::Session };
            (part[2].value(), part[4].value(), until)
        })
        .collect()
}

fn unfollowed(name: &str, value: &str, mend: &str) -> crate::error::Failure {
    refuse_with("0A000", format!("{name} = \"{value}\" is not offered here"), mend)
}

/// A zone as `SET` names it: beside names, hours east of UTC as a mere number.
fn zone(value: &str) -> Option<TimeZone> {
    let value = value.trim();
    if value.eq_ignore_ascii_case("local") {
        return Some(TimeZone::UTC);
    }
    if let Ok(hours) = value.parse::<f64>() {
        let seconds = (hours * 3600.0).round();
        return (seconds.abs() < 16.0 * 3600.0).then(|| TimeZone::fixed(seconds as i32)).flatten();
    }
    TimeZone::parse(value)
}

/// `ISO`, with the order of day and month that ISO dates do not depend on.
fn date_style(value: &str) -> Option<Option<String>> {
    let mut order = "MDY";
    for word in value.split([',', ' ']).filter(|word| !word.is_empty()) {
        match word.to_ascii_lowercase().as_str() {
            "iso" => {}
            "mdy" | "us" | "noneuro" | "noneuropean" => order = "MDY",
            "dmy" | "euro" | "european" => order = "DMY",
            "ymd" => order = "YMD",
            _ => return None,
        }
    }
    Some(Some(format!("ISO, {order}")))
}

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

/// Milliseconds, or a number with a unit.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
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

    fn settings() -> Settings {
        Settings::new("15.0 (Levada)".to_owned(), "anna")
    }

    #[test]
    fn what_changes_answers_is_followed_or_refused() {
        let mut settings = settings();
        let mut set = |name: &str, value: &str| settings.set(name, value, Until::Session).is_ok();
        for (name, value) in [
            ("TimeZone", "Europe/Vienna"),
            ("datestyle", "ISO, DMY"),
            ("extra_float_digits", "-3"),
            ("client_encoding", "UTF-8"),
            ("intervalstyle", "postgres"),
            ("role", "none"),
            ("statement_timeout", "2s"),
            ("application_name", "x"),
            ("jit", "off"),
            ("myapp.tenant", "7"),
            ("search_path", "silver, \"Odd\", gold"),
        ] {
            assert!(set(name, value), "{name}");
        }
        for (name, value) in [
            ("timezone", "Mars/Olympus"),
            ("datestyle", "German"),
            ("intervalstyle", "iso_8601"),
            ("extra_float_digits", "99"),
            ("bytea_output", "escape"),
            ("standard_conforming_strings", "off"),
            ("client_encoding", "LATIN1"),
            ("role", "admin"),
            ("server_version", "9.6"),
            ("statement_timeout", "soon"),
            ("nonsense", "1"),
        ] {
            assert!(!set(name, value), "{name}");
        }
        assert_eq!(settings.time_zone(), TimeZone::parse("Europe/Vienna").expect("a zone"));
        assert_eq!(settings.search_path(), ["silver", "Odd", "gold"]);
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(2)));
        assert_eq!(settings.get("DateStyle").as_deref(), Some("ISO, DMY"));
        settings.reset(None);
        assert_eq!(settings.get("TimeZone").as_deref(), Some("UTC"));
        for i in 0..MAX_SETTINGS * 2 {
            drop(settings.set(&format!("x.{i}"), "1", Until::Session));
        }
        assert!(settings.set.len() <= MAX_SETTINGS);
    }

    #[test]
    fn a_transaction_takes_its_settings_with_it() {
        let mut settings = settings();
        let zone = |settings: &Settings| settings.get("timezone").expect("always there");
        settings.begin();
        settings.set("timezone", "Asia/Tokyo", Until::Transaction).expect("a zone");
        assert_eq!(zone(&settings), "Asia/Tokyo");
        settings.end(true);
        assert_eq!(zone(&settings), "UTC");
        settings.begin();
        settings.set("timezone", "Asia/Tokyo", Until::Session).expect("a zone");
        settings.end(false);
        assert_eq!(zone(&settings), "UTC");
        settings.set("timezone", "-7", Until::Session).expect("hours east");
        assert_eq!(settings.time_zone().name(), "-07:00");
        settings.end_login();
        settings.set("timezone", "UTC", Until::Session).expect("a zone");
        settings.reset(Some("TimeZone"));
        assert_eq!(zone(&settings), "-07:00");
    }
}
