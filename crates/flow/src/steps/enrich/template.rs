//! A URL with `{column}` placeholders.
//!
//! Values are percent-encoded, so that none can leave its path segment or query value, and
//! the scheme, host and port are fixed by the project.

use arrow::array::RecordBatch;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

use crate::rows;
use crate::steps::StepError;

/// Everything but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Debug)]
pub struct Template {
    /// Literal text before each placeholder and its column; the last has none.
    parts: Vec<(String, Option<String>)>,
    origin: String,
}

impl Template {
    pub fn parse(url: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = url;
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, after) =
                after.split_once('}').ok_or_else(|| format!("`{{` is not closed in the URL {url}"))?;
            parts.push((literal.to_owned(), Some(name.trim().to_owned())));
            rest = after;
        }
        parts.push((rest.to_owned(), None));
        let sample: String =
            parts.iter().map(|(l, p)| format!("{l}{}", p.as_ref().map_or("", |_| "x"))).collect();
        let parsed = Url::parse(&sample).map_err(|e| format!("{url} is no absolute URL: {e}"))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(format!("{url} should begin with http:// or https://"));
        }
        let authority = parts[0].0.split_once("://").map_or("", |(_, rest)| rest);
        if parts.len() > 1 && !authority.contains(['/', '?']) {
            return Err(format!(
                "{url} has a placeholder in its host, which would let data choose the server"
            ));
        }
        Ok(Self { parts, origin: parsed.origin().ascii_serialization() })
    }

    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|(_, name)| name.as_deref())
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// For each row its URL, or why it has none.
    pub fn fill(&self, batch: &RecordBatch) -> Result<Vec<Result<String, String>>, StepError> {
        let column =
            |name: &str| batch.column_by_name(name).ok_or_else(|| StepError::MissingColumn(name.to_owned()));
        let columns = self.placeholders().map(column).collect::<Result<Vec<_>, _>>()?;
        let url = |row: usize| {
            let mut url = String::new();
            let mut values = columns.iter();
            for (literal, name) in &self.parts {
                url.push_str(literal);
                let Some(name) = name else { continue };
                let value = values.next().and_then(|c| rows::text(c, row)).filter(|t| !t.is_empty());
                let value = value
                    .ok_or_else(|| format!("`{name}` is null or empty, so there is nothing to ask for"))?;
                url.extend(utf8_percent_encode(&value, ENCODED));
            }
            check_segments(url)
        };
        Ok((0..batch.num_rows()).map(url).collect())
    }
}

/// A value such as `..` would make the URL lead elsewhere once it is normalised.
fn check_segments(url: String) -> Result<String, String> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    match path.split('/').skip(3).any(|segment| segment == "." || segment == "..") {
        true => Err("a value of `.` or `..` cannot be part of a URL's path".to_owned()),
        false => Ok(url),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    fn fill(template: &str, value: Option<&str>) -> Result<String, String> {
        let column: ArrayRef = Arc::new(StringArray::from(vec![value]));
        let batch = RecordBatch::try_from_iter([("station", column)]).expect("a batch");
        Template::parse(template)?.fill(&batch).expect("the column").remove(0)
    }

    #[test]
    fn values_stay_in_their_place() {
        let url = "http://w.example/stations/{station}/now?s={station}";
        let filled = |v| fill(url, Some(v)).expect("a url");
        assert_eq!(filled("JFK"), "http://w.example/stations/JFK/now?s=JFK");
        assert!(filled("a/../b").starts_with("http://w.example/stations/a%2F..%2Fb/now"));
        assert!(fill(url, Some("..")).is_err() && fill(url, Some("")).is_err() && fill(url, None).is_err());
    }

    #[test]
    fn data_cannot_choose_the_server() {
        for bad in [
            "http://{station}/x",
            "http://a.{station}.example/x",
            "{station}",
            "ftp://x/{station}",
            "http://x/{a",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
