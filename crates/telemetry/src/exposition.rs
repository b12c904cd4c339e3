//! Reads the text format of Prometheus as this process writes it.
//!
//! Source: Prometheus documentation, "Exposition formats", text-based format 0.0.4.

use crate::figures::number_of;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

/// One metric with all of its samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    pub name: String,
    pub help: String,
    pub kind: Kind,
    pub samples: Vec<Sample>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// What the line's name has beyond the family's, such as `_sum`.
    pub suffix: String,
    pub labels: Vec<(String, String)>,
    /// The value as written.
    pub text: String,
}

impl Sample {
    pub fn value(&self) -> f64 {
        number_of(&self.text)
    }
}

/// The families of a text. A line that is not understood is left out.
pub fn parse(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    let mut help = ("", String::new());
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("# HELP ") {
            let (name, text) = line.split_once(' ').unwrap_or((line, ""));
            help = (name, unescape(text));
        } else if let Some(line) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = line.split_once(' ') else { continue };
            let Some(kind) = kind_of(kind) else { continue };
            let help = if help.0 == name { std::mem::take(&mut help.1) } else { String::new() };
            families.push(Family { name: name.to_owned(), help, kind, samples: Vec::new() });
        } else if let Some(family) = families.last_mut() {
            family.samples.extend(sample(line, &family.name));
        }
    }
    families
}

fn kind_of(text: &str) -> Option<Kind> {
    match text.trim() {
        "counter" => Some(Kind::Counter),
        "gauge" => Some(Kind::Gauge),
        "histogram" => Some(Kind::Histogram),
        "summary" => Some(Kind::Summary),
        _ => None,
    }
}

fn sample(line: &str, family: &str) -> Option<Sample> {
    let rest = line.strip_prefix(family)?;
    let name_ends = rest.find(['{', ' '])?;
    let (suffix, rest) = rest.split_at(name_ends);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let text = rest.split_ascii_whitespace().next()?.to_owned();
    Some(Sample { suffix: suffix.to_owned(), labels, text })
}

type Labels = Vec<(String, String)>;

/// Labels after the opening brace, and what comes after the closing one.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, value) = rest.split_once("=\"")?;
        let end = end_of(value)?;
        labels.push((name.to_owned(), unescape(&value[..end])));
        rest = &value[end + 1..];
    }
}

/// The place of the first quote that is not escaped.
fn end_of(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => plain.push('\n'),
                Some(c) => plain.push(c),
                None => plain.push('\\'),
            },
            c => plain.push(c),
        }
    }
    plain
}
