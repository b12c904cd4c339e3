//! System parameters: what every Google API takes in the query beside the fields of the request.
//!
//! `alt` and `fields` say how an answer is written. Credentials in a query are not read: they
//! would end up in the logs of whatever stands between. They are taken without a word, as are
//! the parameters of quota and tracing, because clients send them.

use http::HeaderMap;
use serde_json::Value;

use super::fields::Selection;
use super::schema::Shape;
use crate::error::ApiError;
use crate::names::shown;

/// Without effect. None of their values is written anywhere.
const IGNORED: [&str; 12] = [
    "$.xgafv",
    "access_token",
    "key",
    "oauth_token",
    "quotaUser",
    "userIp",
    "uploadType",
    "upload_protocol",
    "userProject",
    "trace",
    "unique",
    "apiVersion",
];

/// How enums are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Enums {
    #[default]
    Names,
    Numbers,
}

/// How an answer is written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct System {
    pub fields: Selection,
    pub enums: Enums,
    pub pretty: bool,
}

impl System {
    /// What the headers ask for: `x-goog-fieldmask` is `fields`.
    ///
    /// # Errors
    /// As of [`Self::take`].
    pub(super) fn of(headers: &HeaderMap, answer: &'static Shape) -> Result<Self, ApiError> {
        let mut system = Self::default();
        if let Some(mask) = headers.get("x-goog-fieldmask") {
            let text = mask.to_str().unwrap_or("?");
            system.fields = Selection::parse(text, answer)?;
        }
        Ok(system)
    }

    /// Takes a parameter; `false`: it is none of these.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for an answer in another format than JSON, and for a selection that does
    /// not fit.
    pub(super) fn take(&mut self, name: &str, value: &str, answer: &'static Shape) -> Result<bool, ApiError> {
        let bare = name.strip_prefix('$').unwrap_or(name);
        match bare {
            "alt" => self.enums = alt(name, value)?,
            // An empty selection is none, as with Google.
            "fields" if value.is_empty() => {}
            "fields" => self.fields = Selection::parse(value, answer)?,
            "prettyPrint" => self.pretty = value == "true" || value == "1",
            "callback" if !value.is_empty() => {
                return Err(ApiError::invalid_field(name, "JSONP is not supported: leave `callback` out."));
            }
            "callback" => {}
            _ => return Ok(IGNORED.contains(&bare) || IGNORED.contains(&name)),
        }
        Ok(true)
    }

    /// The text of an answer.
    pub(super) fn write(&self, mut answer: Value) -> String {
        self.fields.apply(&mut answer);
        // A value of ours can always be written.
        if self.pretty { format!("{answer:#}") } else { answer.to_string() }
    }
}

/// `json`, with parameters after semicolons.
fn alt(name: &str, value: &str) -> Result<Enums, ApiError> {
    let mut parts = value.split(';');
    let format = parts.next().unwrap_or_default();
    let mut enums = Enums::Names;
    let mut known = format.is_empty() || format.eq_ignore_ascii_case("json");
    for parameter in parts {
        match parameter {
            "enum-encoding=int" => enums = Enums::Numbers,
            "" | "enum-encoding=string" => {}
            _ => known = false,
        }
    }
    if known {
        return Ok(enums);
    }
    Err(ApiError::invalid_field(
        name,
        format!("Invalid value at '{}' (alt), \"{}\": answers are JSON.", shown(name), shown(value)),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::schema;
    use super::*;

    fn taken(pairs: &[(&str, &str)]) -> Result<System, String> {
        let mut system = System::default();
        for (name, value) in pairs {
            let known = system.take(name, value, &schema::TOPIC).map_err(|error| error.message)?;
            assert!(known, "{name}");
        }
        Ok(system)
    }

    #[test]
    fn formats_of_answers() {
        let enums = |name, value| taken(&[(name, value)]).map(|system| system.enums);
        for value in ["json", "", "JSON", "json;enum-encoding=string"] {
            assert_eq!(enums("alt", value), Ok(Enums::Names), "{value}");
            assert_eq!(enums("$alt", value), Ok(Enums::Names), "{value}");
        }
        assert_eq!(enums("$alt", "json;enum-encoding=int"), Ok(Enums::Numbers));
        for value in ["proto", "media", "sse", "json;enum-encoding=float", "xml"] {
            assert!(enums("$alt", value).is_err_and(|text| text.contains("answers are JSON")), "{value}");
        }
        assert!(taken(&[("callback", "f")]).is_err());
    }

    #[test]
    fn what_clients_send_beside_is_taken_and_what_is_no_parameter_is_not() {
        let pairs = [
            ("key", "secret"),
            ("access_token", "secret"),
            ("$.xgafv", "2"),
            ("$userProject", "p"),
            ("quotaUser", "u"),
            ("prettyPrint", "false"),
        ];
        assert_eq!(taken(&pairs), Ok(System::default()));
        let mut system = System::default();
        for name in ["view", "pageSize", "name", "Alt", "$$alt", "secret"] {
            assert_eq!(system.take(name, "x", &schema::TOPIC).ok(), Some(false), "{name}");
        }
    }

    #[test]
    fn an_answer_is_written_as_it_was_asked_for() {
        let answer = json!({"name": "n", "state": "ACTIVE"});
        let write = |pairs: &[(&str, &str)]| taken(pairs).map(|system| system.write(answer.clone()));
        assert_eq!(write(&[]).as_deref(), Ok(r#"{"name":"n","state":"ACTIVE"}"#));
        assert_eq!(write(&[("$fields", "name")]).as_deref(), Ok(r#"{"name":"n"}"#));
        assert_eq!(write(&[("fields", "")]).as_deref(), Ok(r#"{"name":"n","state":"ACTIVE"}"#));
        assert_eq!(
            write(&[("fields", "name"), ("prettyPrint", "true")]).as_deref(),
            Ok("{\n  \"name\": \"n\"\n}")
        );
        let mut headers = HeaderMap::new();
        headers.insert("x-goog-fieldmask", "state".parse().expect("a value"));
        let system = System::of(&headers, &schema::TOPIC).expect("a selection");
        assert_eq!(system.write(answer), r#"{"state":"ACTIVE"}"#);
    }
}
