//! Messages that are to be delivered later: two reserved attributes, so that clients that
//! know nothing of it can schedule.

use chrono::DateTime;
use levada_core::{Attributes, Problem};

/// Not before this time, RFC 3339.
pub(crate) const DELIVER_AT: &str = "levada.deliver_at";
/// Not before so many milliseconds after the publish.
pub(crate) const DELAY_MS: &str = "levada.delay_ms";
/// The furthest schedule: the longest that a subscription keeps a message.
const MAX_DELAY_MS: i64 = 31 * 24 * 3600 * 1000;

/// When a message is due by its attributes; `None` for at once.
///
/// # Errors
/// A problem of status 422 that says what is wrong with the attribute.
pub(crate) fn due_ms(attributes: &Attributes, published_at_ms: i64) -> Result<Option<i64>, Problem> {
    let (mut at, mut delay) = (None, None);
    for (name, value) in attributes.iter() {
        match name {
            DELIVER_AT => at = Some(value),
            DELAY_MS => delay = Some(value),
            _ => {}
        }
    }
    let due = match (at, delay) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(wrong(format!("{DELIVER_AT} and {DELAY_MS} exclude each other")));
        }
        (Some(text), None) => {
            let parsed = DateTime::parse_from_rfc3339(text);
            parsed
                .map_err(|_| wrong(format!("{DELIVER_AT} `{}` is not a time", shown(text))))?
                .timestamp_millis()
        }
        (None, Some(text)) => {
            let delay: Option<u32> = text.parse().ok();
            let delay =
                delay.ok_or_else(|| wrong(format!("{DELAY_MS} `{}` is not a number", shown(text))))?;
            published_at_ms.saturating_add(i64::from(delay))
        }
    };
    if due.saturating_sub(published_at_ms) > MAX_DELAY_MS {
        return Err(wrong("the message is due more than 31 days after its publish".to_owned()));
    }
    Ok(Some(due).filter(|due| *due > published_at_ms))
}

fn wrong(detail: String) -> Problem {
    Problem::new(422, "schedule-invalid", detail)
        .hint(format!("give {DELIVER_AT} as RFC 3339, or {DELAY_MS} in milliseconds, at most 31 days ahead"))
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(attributes: &[(&str, &str)]) -> Result<Option<i64>, String> {
        let attributes = attributes.iter().copied().collect();
        due_ms(&attributes, 1_000_000).map_err(|problem| problem.to_string())
    }

    #[test]
    fn both_attributes_say_when() {
        assert_eq!(due(&[("other", "1")]), Ok(None));
        assert_eq!(due(&[(DELAY_MS, "2500")]), Ok(Some(1_002_500)));
        assert_eq!(due(&[(DELAY_MS, "0")]), Ok(None));
        assert_eq!(due(&[(DELIVER_AT, "1970-01-01T00:20:00.5Z")]), Ok(Some(1_200_500)));
        assert_eq!(due(&[(DELIVER_AT, "1970-01-01T01:20:00+01:00")]), Ok(Some(1_200_000)));
        assert_eq!(due(&[(DELIVER_AT, "1960-01-01T00:00:00Z")]), Ok(None), "what is past is due");
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            &[(DELAY_MS, "soon")][..],
            &[(DELAY_MS, "-1")],
            &[(DELAY_MS, "2678400001")],
            &[(DELIVER_AT, "tomorrow")],
            &[(DELIVER_AT, "2100-01-01T00:00:00Z")],
            &[(DELIVER_AT, "1970-01-01T00:20:00Z"), (DELAY_MS, "1")],
        ] {
            assert!(due(wrong).is_err(), "{wrong:?}");
        }
    }
}
