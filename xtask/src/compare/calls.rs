//! One call, and scripts of calls that make sense one after the other.

use std::fmt;

use levada_testkit::Request;
use serde_json::{Map, Value, json};

use super::random::Random;
use super::{messages, schemas, subscriptions, topics};

/// A call to be made of both servers.
#[derive(Debug, Clone)]
pub struct Call {
    /// As in the `.proto` file.
    pub name: &'static str,
    /// What is out of the ordinary about it, as `ack_deadline_seconds=5`.
    pub traits: Vec<String>,
    method: &'static str,
    path: String,
    /// `$LEASED0` stands for the first ack id that the server gave last, and so on.
    body: Option<Value>,
    /// A pull after a publish.
    pub awaits_messages: bool,
}

impl Call {
    pub fn new(name: &'static str, method: &'static str, path: impl Into<String>) -> Self {
        Self { name, traits: Vec::new(), method, path: path.into(), body: None, awaits_messages: false }
    }

    #[must_use]
    pub fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    #[must_use]
    pub fn with(mut self, what: Option<String>) -> Self {
        self.traits.extend(what);
        self
    }

    #[must_use]
    pub fn awaiting(mut self, messages: bool) -> Self {
        self.awaits_messages = messages;
        self
    }

    pub fn request(&self, leased: &[String]) -> Request {
        let mut request = Request::new(self.method, &format!("/v1/{}", self.path));
        if let Some(body) = &self.body {
            let mut text = body.to_string();
            for (n, id) in leased.iter().enumerate() {
                text = text.replace(&format!("$LEASED{n}"), id);
            }
            request = request.bytes("application/json", text);
        }
        request
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        let body = self.body.as_ref().map(Value::to_string).unwrap_or_default();
        write!(f, " {}", body.chars().take(300).collect::<String>())
    }
}

/// A value that is sent, and how it is called where it is out of the ordinary.
pub type Choice = (&'static str, Value);

/// The object of a call under construction.
#[derive(Debug, Default)]
pub struct Fields {
    pub object: Map<String, Value>,
    pub traits: Vec<String>,
}

impl Fields {
    /// Sets a field, once in so many times, to an ordinary value or to one that is not.
    pub fn maybe(&mut self, random: &mut Random, times: usize, name: &'static str, choices: &[Choice]) {
        if !random.once_in(times) {
            return;
        }
        let (what, value) = random.pick(choices);
        self.object.insert(name.to_owned(), value.clone());
        if !what.is_empty() {
            self.traits.push(format!("{name}={what}"));
        }
    }

    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.object.insert(name.to_owned(), value.into());
    }

    pub fn call(self, call: Call) -> Call {
        let traits = self.traits.into_iter().map(Some);
        traits.fold(call.body(Value::Object(self.object)), Call::with)
    }
}

/// Calls in one project.
pub struct Script {
    pub project: String,
    published: bool,
}

/// An id and what is out of the ordinary about it.
pub type Id = (String, Option<String>);

impl Script {
    pub fn new(number: usize) -> Self {
        Self { project: format!("compare-{number}"), published: false }
    }

    /// One of the few ids of its kind, so that calls meet; now and then one that cannot be.
    pub fn id(&self, random: &mut Random, kind: &str) -> Id {
        if !random.once_in(14) {
            return (format!("{kind}-{}", random.below(2)), None);
        }
        let long = "a".repeat(256);
        let (what, id) = *random.pick(&[
            ("short", "ab"),
            ("goog", "goog-abc"),
            ("digit", "1abc"),
            ("long", long.as_str()),
            ("signs", "a.b_c~d+e"),
            ("percent", "abc%2525d"),
            ("space", "ab%20c"),
            ("letter", "ab%C3%A4"),
        ]);
        (id.to_owned(), Some(format!("{kind}-id={what}")))
    }

    /// The full path of a resource, for a body.
    pub fn path(&self, collection: &str, id: &str) -> String {
        format!("projects/{}/{collection}/{id}", self.project)
    }

    pub fn next(&mut self, step: usize, random: &mut Random) -> Call {
        // The first calls make something that the others can be about.
        match step {
            0 => return topics::create(self, random),
            1 if !random.once_in(6) => return subscriptions::create(self, random),
            2 if random.once_in(3) => return schemas::create(self, random),
            _ => {}
        }
        match random.below(12) {
            0 | 1 => topics::any(self, random),
            2..=5 => subscriptions::any(self, random),
            6 | 7 => schemas::any(self, random),
            8 => self.unusual(random),
            _ => messages::any(self, random, self.published),
        }
    }

    /// Remembers what a call did to both.
    pub fn done(&mut self, call: &Call) {
        match call.name {
            "Publish" => self.published = true,
            "Seek" | "Pull" => self.published = false,
            _ => {}
        }
    }

    /// Paths and queries rather than resources.
    fn unusual(&self, random: &mut Random) -> Call {
        let topic = self.path("topics", "topic-0");
        let requests = [
            ("no action", "POST", format!("{topic}:explode")),
            ("no method", "POST", topic.clone()),
            ("no resource", "GET", format!("projects/{}/queues/a", self.project)),
            ("encoded action", "POST", format!("{topic}%3Apublish")),
            ("encoded letter", "GET", format!("projects/{}/%74opics/topic-0", self.project)),
            ("encoded slash", "GET", format!("projects/{}/topics%2Ftopic-0", self.project)),
            ("selection", "GET", format!("{topic}?fields=name")),
            ("unknown selection", "GET", format!("{topic}?fields=nonsense")),
            ("json", "GET", format!("{topic}?alt=json&$alt=json;enum-encoding=int")),
            ("proto", "GET", format!("{topic}?alt=proto")),
            ("credentials", "GET", format!("{topic}?key=a&access_token=b")),
            ("unknown parameter", "GET", format!("{topic}?nonsense=1")),
            ("twice", "GET", format!("projects/{}/topics?pageSize=1&pageSize=2", self.project)),
            ("word for a number", "GET", format!("projects/{}/topics?pageSize=x", self.project)),
        ];
        let (what, method, path) = random.pick(&requests);
        let call = Call::new("REST", method, path.clone()).with(Some((*what).to_owned()));
        match *method {
            "POST" => call.body(json!({ "messages": [{ "data": "aGk=" }] })),
            _ => call,
        }
    }
}
