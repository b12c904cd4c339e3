//! What a program says about its messages: by exit code for all, by a JSON line for one.

use std::collections::HashMap;

use serde::Deserialize;

/// `EX_DATAERR` of sysexits.h: the input is wrong and will be wrong again.
const PERMANENT: i32 = 65;

/// Bytes of a reason, so that it fits an attribute (1,024 bytes).
const REASON_BYTES: usize = 1_000;

/// What is to happen to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Ack,
    /// Deliver it again.
    Retry(String),
    /// It will never succeed.
    DeadLetter(String),
}

impl Verdict {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Retry(_) => "retry",
            Self::DeadLetter(_) => "dead_letter",
        }
    }

    pub fn reason(&self) -> &str {
        match self {
            Self::Ack => "",
            Self::Retry(reason) | Self::DeadLetter(reason) => reason,
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(i32),
    TimedOut,
    /// The worker stops and the program outlived its grace.
    Stopped,
    NotStarted(String),
}

/// A run of the program, over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    pub end: End,
    /// By message id.
    pub verdicts: HashMap<String, Verdict>,
    /// The last line of standard error.
    pub last_error: Option<String>,
}

impl Finished {
    /// The verdict on a message: its own, else that of the exit code.
    pub fn verdict(&self, message_id: &str) -> Verdict {
        self.verdicts.get(message_id).cloned().unwrap_or_else(|| self.of_all())
    }

    fn of_all(&self) -> Verdict {
        let why = |what: String| {
            cut(match &self.last_error {
                Some(line) => format!("{what}: {line}"),
                None => what,
            })
        };
        match &self.end {
            End::Code(0) => Verdict::Ack,
            End::Code(PERMANENT) => Verdict::DeadLetter(why(format!("the program ended with {PERMANENT}"))),
            End::Code(code) => Verdict::Retry(why(format!("the program ended with {code}"))),
            End::Signal(signal) => Verdict::Retry(why(format!("the program was ended by signal {signal}"))),
            End::TimedOut => Verdict::Retry(why("the program took too long and was ended".to_owned())),
            End::Stopped => Verdict::Retry("the worker stopped before the program was done".to_owned()),
            End::NotStarted(error) => Verdict::Retry(cut(format!("the program cannot be started: {error}"))),
        }
    }
}

/// Cuts a text to what fits an attribute.
pub fn cut(mut text: String) -> String {
    if text.len() > REASON_BYTES {
        let end = (0..=REASON_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    message_id: String,
    verdict: String,
    #[serde(default)]
    reason: String,
}

/// Reads a line of standard output. `None`: it is no verdict but the program's own talk.
/// A word that is no verdict makes the message come again: acknowledging it might lose it.
pub fn parse(line: &[u8]) -> Option<(String, Verdict)> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let reason = cut(line.reason);
    let verdict = match line.verdict.as_str() {
        "ack" => Verdict::Ack,
        "retry" => Verdict::Retry(reason),
        "dead_letter" => Verdict::DeadLetter(reason),
        other => Verdict::Retry(cut(format!(
            "the program wrote the verdict `{other}`; ack, retry and dead_letter are known"
        ))),
    };
    Some((line.message_id, verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(end: End, last_error: Option<&str>) -> Finished {
        Finished { end, verdicts: HashMap::new(), last_error: last_error.map(str::to_owned) }
    }

    #[test]
    fn the_exit_code_decides_for_all_that_have_no_line() {
        for (end, expected) in [
            (End::Code(0), "ack"),
            (End::Code(1), "retry"),
            (End::Code(75), "retry"),
            (End::Code(65), "dead_letter"),
            (End::Signal(9), "retry"),
            (End::TimedOut, "retry"),
            (End::Stopped, "retry"),
            (End::NotStarted("no such file".into()), "retry"),
        ] {
            let mut run = finished(end.clone(), Some("bad payload"));
            assert_eq!(run.verdict("1").name(), expected, "{end:?}");
            run.verdicts.insert("1".into(), Verdict::Ack);
            assert_eq!(run.verdict("1"), Verdict::Ack, "a line goes before {end:?}");
        }
        let reason = finished(End::Code(65), Some("no tenant")).verdict("1").reason().to_owned();
        assert_eq!(reason, "the program ended with 65: no tenant");
    }

    #[test]
    fn lines_that_are_no_verdicts_are_talk() {
        for talk in ["", "done", "{}", "[1]", r#"{"messageId": 1, "verdict": "ack"}"#, r#"{"verdict":"ack"}"#]
        {
            assert_eq!(parse(talk.as_bytes()), None, "{talk}");
        }
        let line = br#"{"messageId":"7","verdict":"dead_letter","reason":"unknown tenant","ms":3}"#;
        assert_eq!(parse(line), Some(("7".into(), Verdict::DeadLetter("unknown tenant".into()))));
        let Some((_, Verdict::Retry(reason))) = parse(br#"{"messageId":"7","verdict":"nack"}"#) else {
            panic!("an unknown verdict is a retry")
        };
        assert!(reason.contains("`nack`"), "{reason}");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let text = cut("ü".repeat(700));
        assert_eq!(text.len(), 1_000);
    }
}
