//! Answers, with what cannot be the same made the same, and where two of them differ.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

/// Values that each server chooses; only whether they are there is compared.
const CHOSEN: [&str; 7] =
    ["ackId", "messageId", "publishTime", "expireTime", "revisionId", "revisionCreateTime", "nextPageToken"];

#[derive(Debug, Clone)]
pub struct Answer {
    /// `OK`, the status of an error, or `HTTP 502` where the body says none.
    pub outcome: String,
    body: Value,
    leased: Option<Vec<String>>,
}

impl Answer {
    pub fn none() -> Self {
        Self { outcome: "NO ANSWER".to_owned(), body: Value::Null, leased: None }
    }

    pub fn read(answer: &levada_testkit::Answer) -> Self {
        let body = answer.json().unwrap_or(Value::Null);
        let status = body["error"]["status"].as_str();
        let outcome = match (answer.status, status) {
            (200, _) => "OK".to_owned(),
            (_, Some(status)) => status.to_owned(),
            // Where no call is, the emulator has no status to tell.
            (404, None) => "NOT_FOUND".to_owned(),
            (http, None) => format!("HTTP {http}"),
        };
        let received = body["receivedMessages"].as_array();
        let leased = received.map(|messages| {
            messages.iter().filter_map(|message| Some(message["ackId"].as_str()?.to_owned())).collect()
        });
        Self { outcome, body: normal(body), leased }
    }

    pub fn is_error(&self) -> bool {
        self.outcome != "OK"
    }

    pub fn has_messages(&self) -> bool {
        self.leased.as_ref().is_some_and(|leased| !leased.is_empty())
    }

    pub fn leased(&self) -> Option<Vec<String>> {
        self.leased.clone()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body.to_string();
        write!(f, "{} {}", self.outcome, body.chars().take(600).collect::<String>())
    }
}

fn normal(value: Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(object.into_iter().filter_map(field).collect()),
        Value::Array(items) => Value::Array(items.into_iter().map(normal).collect()),
        other => other,
    }
}

fn field((name, value): (String, Value)) -> Option<(String, Value)> {
    if CHOSEN.contains(&name.as_str()) {
        return Some((name, Value::from("(chosen)")));
    }
    if name == "messageIds" {
        let count = value.as_array().map_or(0, Vec::len);
        return Some((name, Value::from(format!("{count} ids"))));
    }
    let value = normal(value);
    let is_empty =
        value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
    // Empty and absent say the same.
    (!is_empty).then_some((name, value))
}

/// One way in which two answers differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    Outcome {
        ours: String,
        theirs: String,
    },
    /// Both succeeded, and this part of the answers is not the same.
    Field {
        path: String,
        ours: String,
        theirs: String,
    },
}

impl Difference {
    /// Whether the two servers may hold something else from now on.
    pub fn parts_state(&self) -> bool {
        matches!(self, Self::Outcome { ours, theirs } if ours == "OK" || theirs == "OK" || theirs == "NO ANSWER")
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outcome { ours, theirs } => write!(f, "levada {ours}, emulator {theirs}"),
            Self::Field { path, ours, theirs } => write!(f, "{path}: levada {ours}, emulator {theirs}"),
        }
    }
}

/// Where two answers differ; errors are compared by their status, not by their words.
pub fn compare(ours: &Answer, theirs: &Answer) -> Vec<Difference> {
    if ours.outcome != theirs.outcome {
        let (ours, theirs) = (ours.outcome.clone(), theirs.outcome.clone());
        return vec![Difference::Outcome { ours, theirs }];
    }
    let mut differences = Vec::new();
    if !ours.is_error() {
        fields("", &ours.body, &theirs.body, &mut differences);
    }
    differences
}

fn fields(path: &str, ours: &Value, theirs: &Value, out: &mut Vec<Difference>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let (a, b) = (a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null));
                fields(&below(name), a, b, out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (a, b) in a.iter().zip(b) {
                fields(&below("*"), a, b, out);
            }
        }
        (a, b) if a == b => {}
        (a, b) => {
            let shown = |value: &Value| value.to_string().chars().take(120).collect::<String>();
            let found = Difference::Field { path: path.to_owned(), ours: shown(a), theirs: shown(b) };
            if !out.contains(&found) {
                out.push(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: &Value) -> Answer {
        let body = body.to_string().into_bytes();
        Answer::read(&levada_testkit::Answer { status, headers: Vec::new(), body })
    }

    #[test]
    fn what_a_server_chooses_is_no_difference_and_what_it_says_is() {
        let a = answer(
            200,
            &json!({"messageId": "1", "labels": {}, "items": [{"name": "x", "state": "ACTIVE"}]}),
        );
        let b = answer(200, &json!({"messageId": "2", "items": [{"name": "x"}]}));
        let found: Vec<String> = compare(&a, &b).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["items.*.state: levada \"ACTIVE\", emulator null"]);
        assert!(compare(&b, &b).is_empty());
    }

    #[test]
    fn errors_are_compared_by_status_alone() {
        let error = |http, status: &str, text: &str| {
            answer(http, &json!({"error": {"code": http, "status": status, "message": text}}))
        };
        let (a, b) = (error(404, "NOT_FOUND", "a"), error(404, "NOT_FOUND", "b"));
        assert!(compare(&a, &b).is_empty());
        let c = error(409, "ALREADY_EXISTS", "a");
        assert!(!compare(&a, &c)[0].parts_state(), "both refused");
        let ok = answer(200, &json!({}));
        assert!(compare(&a, &ok)[0].parts_state() && compare(&a, &Answer::none())[0].parts_state());
        assert_eq!(answer(404, &Value::Null).outcome, "NOT_FOUND");
        assert_eq!(answer(502, &Value::Null).outcome, "HTTP 502");
    }
}
