//! `levada subscriptions weigh`: shares of tenants in delivery.

use serde_json::{Map, Value, json};

use crate::args::Weight;
use crate::client::Connection;
use crate::output::{Failure, Output};

pub async fn weigh(
    output: &Output,
    server: &Connection,
    path: &str,
    weights: &[Weight],
) -> Result<(), Failure> {
    let named: Map<String, Value> = weights.iter().map(|w| (w.tenant.clone(), json!(w.weight))).collect();
    let changed = server.patch(path, &json!({ "weights": named })).await?;
    if output.json {
        output.value(&changed);
        return Ok(());
    }
    let now = text(&changed["weights"]);
    output.say(&match now.is_empty() {
        true => "no tenant has a weight of its own: all count 1".to_owned(),
        false => format!("weights now: {now}; others count 1"),
    });
    Ok(())
}

/// Weights on one line, such as `acme 5, globex 2`; a long list is cut.
pub fn text(weights: &Value) -> String {
    const SHOWN: usize = 20;
    let all = weights.as_object().into_iter().flatten();
    let mut shown: Vec<String> =
        all.take(SHOWN).map(|(tenant, weight)| format!("{tenant} {weight}")).collect();
    let more = weights.as_object().map_or(0, Map::len).saturating_sub(SHOWN);
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_as_they_are_typed() {
        let read = |text: &str| text.parse::<Weight>().map(|w| (w.tenant, w.weight));
        assert_eq!(read("acme=5"), Ok(("acme".into(), Some(5))));
        assert_eq!(read("acme=-"), Ok(("acme".into(), None)));
        for bad in ["acme", "=5", "acme=", "acme=0", "acme=1001", "acme=1.5", "acme=-1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_line_of_weights_is_short() {
        assert_eq!(text(&json!({"acme": 5, "globex": 1})), "acme 5, globex 1");
        assert_eq!(text(&Value::Null), "");
        let many: Map<String, Value> = (0..30).map(|n| (format!("t-{n:02}"), json!(2))).collect();
        assert!(text(&Value::Object(many)).ends_with("t-19 2, 10 more"));
    }
}
