//! Numbers, sizes and times as people read them.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

/// `1,234,567`
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Below a million in full, above it with three digits: `12.4 M`.
pub(crate) fn compact(n: u64) -> String {
    match n {
        0..1_000_000 => count(n),
        1_000_000..1_000_000_000 => three_digits(n as f64 / 1e6, "M"),
        _ => three_digits(n as f64 / 1e9, "G"),
    }
}

fn three_digits(x: f64, unit: &str) -> String {
    if x < 10.0 {
        format!("{x:.2} {unit}")
    } else if x < 100.0 {
        format!("{x:.1} {unit}")
    } else {
        format!("{x:.0} {unit}")
    }
}

/// Events a second.
pub(crate) fn rate(per_s: f64) -> String {
    if !per_s.is_finite() || per_s <= 0.0 {
        "0".to_owned()
    } else if per_s < 10.0 {
        format!("{per_s:.1}")
    } else {
        compact(per_s.round() as u64)
    }
}

/// `4.12 MiB`
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut x = n as f64 / 1024.0;
    let mut unit = 0;
    while x >= 1024.0 && unit + 1 < UNITS.len() {
        x /= 1024.0;
        unit += 1;
    }
    three_digits(x, UNITS[unit])
}

/// `38 ms`, `1.20 s`, `4 min`
pub(crate) fn millis(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else if ms < 1000.0 {
        format!("{ms:.0} ms")
    } else if ms < 60_000.0 {
        three_digits(ms / 1000.0, "s")
    } else {
        span((ms / 1000.0) as u64)
    }
}

/// `45 s`, `3 min`, `2 h 5 min`, `4 d 2 h`
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => match (seconds / 3600, seconds % 3600 / 60) {
            (h, 0) => format!("{h} h"),
            (h, m) => format!("{h} h {m} min"),
        },
        _ => match (seconds / 86_400, seconds % 86_400 / 3600) {
            (d, 0) => format!("{d} d"),
            (d, h) => format!("{d} d {h} h"),
        },
    }
}

/// `2026-11-21 08:03:12` in UTC.
pub(crate) fn utc(ms: i64) -> String {
    instant(ms).format("%Y-%m-%d %H:%M:%S").to_string()
}

fn instant(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap_or(DateTime::UNIX_EPOCH)
}

/// How long ago, with the exact moment on hover and for machines.
pub(crate) fn ago(now_ms: i64, at_ms: i64) -> Markup {
    let past_s = u64::try_from((now_ms - at_ms) / 1000).unwrap_or(0);
    let text = match past_s {
        0 => "now".to_owned(),
        1..3600 => format!("{} ago", span(past_s)),
        3600..86_400 => format!("{} h ago", past_s / 3600),
        _ => instant(at_ms).format("%-d %b %H:%M").to_string(),
    };
    html! {
        time datetime=(instant(at_ms).to_rfc3339()) title={ (utc(at_ms)) " UTC" } { (text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(compact(12_400_000), "12.4 M");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(4_321_000), "4.12 MiB");
        assert_eq!(millis(38.4), "38 ms");
        assert_eq!(millis(1204.0), "1.20 s");
        assert_eq!(span(7500), "2 h 5 min");
        assert_eq!(rate(f64::NAN), "0");
        assert_eq!(rate(3.26), "3.3");
    }

    #[test]
    fn ages_shrink_to_the_largest_unit() {
        let text = |s: i64| ago(s * 1000, 0).into_string();
        assert!(text(0).contains(">now<"));
        assert!(text(59).contains(">59 s ago<"));
        assert!(text(200).contains(">3 min ago<"));
        assert!(text(7500).contains(">2 h ago<"));
        assert!(text(90_000).contains(">1 Jan 00:00<"));
    }
}
