//! Names, parsed once at the edge and trusted afterwards.
//!
//! Every name is safe as one path segment, one SQL identifier part or one metric
//! label: none can hold a slash, a dot-dot, a quote or a control character.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not a name. `what` is the kind of name, `text` the offender cut to 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}: {rule}")]
pub struct NameError {
    pub what: &'static str,
    pub text: String,
    pub rule: &'static str,
}

fn error(what: &'static str, text: &str, rule: &'static str) -> NameError {
    NameError { what, text: text.chars().take(64).collect(), rule }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the name.
            ///
            /// # Errors
            /// A [`NameError`] that quotes the rule when the text breaks it.
            pub fn new(text: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.into())) } else { Err(error($what, text, $rule)) }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.to_string()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A tenant. The tenant `default` always exists.
    TenantId, "tenant id",
    "use 1 to 63 of a-z, 0-9, '-' and '_', starting with a letter or digit",
    |t| (1..=63).contains(&t.len())
        && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        && t.as_bytes()[0].is_ascii_alphanumeric()
);

name!(
    /// A topic, by the rule of Google Pub/Sub resource ids (3 to 255 characters).
    TopicName, "topic name",
    "use 3 to 255 letters, digits and - . _ ~, starting with a letter, not with 'goog'",
    |t| (3..=255).contains(&t.len())
        && t.as_bytes()[0].is_ascii_alphabetic()
        && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
        && !t.contains("..")
        && !t.starts_with("goog")
);

name!(
    /// A source, pipeline, model or table: also a SQL identifier that needs no quotes.
    SourceName, "name",
    "use 1 to 63 of a-z, 0-9 and '_', starting with a letter",
    |t| (1..=63).contains(&t.len())
        && t.as_bytes()[0].is_ascii_lowercase()
        && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
);

name!(
    /// A project: a namespace of topics and subscriptions, owned by a tenant or the platform.
    ProjectId, "project id",
    "use 1 to 63 of a-z, 0-9 and '-', starting with a letter",
    |t| (1..=63).contains(&t.len())
        && t.as_bytes()[0].is_ascii_lowercase()
        && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
);

name!(
    /// The last part of a resource name, by the rule of Google Pub/Sub (3 to 255 characters).
    ResourceId, "resource id",
    "use 3 to 255 letters, digits and - . _ ~ + %, starting with a letter, not with 'goog'",
    |t| (3..=255).contains(&t.len())
        && t.as_bytes()[0].is_ascii_alphabetic()
        && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+%".contains(&b))
        && !t.starts_with("goog")
);

/// A topic, subscription, snapshot or schema of a project. Written `project/id`; the
/// collection between the two is known from the place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceName {
    pub project: ProjectId,
    pub id: ResourceId,
}

impl ResourceName {
    pub fn new(project: ProjectId, id: ResourceId) -> Self {
        Self { project, id }
    }

    /// The full name, as in `projects/p/topics/t`.
    pub fn path(&self, collection: &str) -> String {
        format!("projects/{}/{collection}/{}", self.project, self.id)
    }

    /// Parses a full name.
    ///
    /// # Errors
    /// A [`NameError`] unless the text is `projects/<project>/<collection>/<id>`.
    pub fn parse_path(text: &str, collection: &str) -> Result<Self, NameError> {
        let parts: Vec<&str> = text.split('/').collect();
        let ["projects", project, kind, id] = parts.as_slice() else {
            return Err(error("resource name", text, "write it as projects/<project>/<collection>/<id>"));
        };
        if *kind != collection {
            return Err(error("resource name", text, "the collection is another one"));
        }
        Ok(Self { project: ProjectId::new(project)?, id: ResourceId::new(id)? })
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.id)
    }
}

impl FromStr for ResourceName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (project, id) =
            text.split_once('/').ok_or_else(|| error("resource name", text, "write it as project/id"))?;
        Ok(Self { project: project.parse()?, id: id.parse()? })
    }
}

impl TryFrom<String> for ResourceName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ResourceName> for String {
    fn from(name: ResourceName) -> String {
        name.to_string()
    }
}

impl TenantId {
    /// The tenant that owns files at the root of a project.
    pub fn default_tenant() -> Self {
        Self("default".into())
    }
}

impl TopicName {
    /// The log's own name of a topic that no project folder names: `project:topic.number`, or
    /// `:name` of one of the platform itself. The colon keeps it apart from every name that a
    /// user can write.
    ///
    /// # Errors
    /// A [`NameError`] unless the text holds one ':' and otherwise what resource names hold.
    pub fn internal(text: &str) -> Result<Self, NameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+%:".contains(&b);
        let valid = text.len() <= 400
            && text.bytes().all(allowed)
            && text.split_once(':').is_some_and(|(_, id)| !id.is_empty() && !id.contains(':'));
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(error("internal topic name", text, "write it as project:topic"))
        }
    }

    /// A name as it was stored: a user's or an internal one.
    ///
    /// # Errors
    /// A [`NameError`] when it is neither.
    pub fn stored(text: &str) -> Result<Self, NameError> {
        if text.contains(':') { Self::internal(text) } else { Self::new(text) }
    }

    /// Whether no user can have written this name.
    pub fn is_internal(&self) -> bool {
        self.0.contains(':')
    }

    /// The dead-letter topic of this topic: `<topic>-dlq`.
    ///
    /// # Errors
    /// A [`NameError`] when the topic's own name leaves no room for the suffix.
    pub fn dead_letter(&self) -> Result<Self, NameError> {
        Self::new(&format!("{}-dlq", self.0))
    }

    /// Whether this is a dead-letter topic.
    pub fn is_dead_letter(&self) -> bool {
        self.0.ends_with("-dlq")
    }
}

/// A zone of the lake, from raw to curated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Zone {
    Bronze,
    Silver,
    Gold,
}

impl Zone {
    pub const ALL: [Zone; 3] = [Zone::Bronze, Zone::Silver, Zone::Gold];

    pub fn as_str(self) -> &'static str {
        match self {
            Zone::Bronze => "bronze",
            Zone::Silver => "silver",
            Zone::Gold => "gold",
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Zone {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "bronze" => Ok(Zone::Bronze),
            "silver" => Ok(Zone::Silver),
            "gold" => Ok(Zone::Gold),
            _ => Err(error("zone", text, "use bronze, silver or gold")),
        }
    }
}

/// A table of the lake, written `zone.name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    pub zone: Zone,
    pub name: SourceName,
}

impl TableName {
    pub fn new(zone: Zone, name: SourceName) -> Self {
        Self { zone, name }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.zone, self.name)
    }
}

impl FromStr for TableName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (zone, name) = text
            .split_once('.')
            .ok_or_else(|| error("table name", text, "write it as zone.name, as in silver.orders"))?;
        Ok(Self { zone: zone.parse()?, name: name.parse()? })
    }
}

impl TryFrom<String> for TableName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> String {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_refuse_what_could_escape_a_path_or_an_identifier() {
        for bad in ["", "..", "a/b", "a b", "A", "-a", "é", "a\0", &"a".repeat(64)] {
            assert!(TenantId::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["ab", "1ab", "a/b", "a..b", "google-x", "a\nb", &"a".repeat(256)] {
            assert!(TopicName::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "1a", "a-b", "a.b", "A"] {
            assert!(SourceName::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["ab", "a:", "a:b:c", "a:b/c", "a:b c"] {
            assert!(TopicName::internal(bad).is_err(), "{bad:?}");
        }
        assert!(TopicName::new("p:orders").is_err(), "users cannot write internal names");
        assert!(TopicName::stored("p:orders").is_ok_and(|name| name.is_internal()));
        assert_eq!("silver.orders".parse::<TableName>().map(|t| t.to_string()), Ok("silver.orders".into()));
        assert!("orders".parse::<TableName>().is_err());
    }
}
