//! What a dead letter says of itself, and to whom.
//!
//! A message that a subscription moved to its dead-letter topic carries the four attributes that
//! Google documents, and details of Levada's own, by which the console, redrive and resend tell
//! why it failed. The details stay in the log, but only a subscription that asks for them with a
//! label delivers them: to all others a dead letter looks as Google's does.

use levada_bus::port::SubscriptionSpec;
use levada_core::{Attributes, attr};

use crate::error::ApiError;

/// The label by which a subscription asks for the details: `true`, or `false` as without it.
pub const DETAILS_LABEL: &str = "levada-dead-letter-details";

/// Google's own; this one alone is on every dead letter of a subscription.
const SOURCE_SUBSCRIPTION: &str = "CloudPubSubDeadLetterSourceSubscription";
const SOURCE: [&str; 4] = [
    SOURCE_SUBSCRIPTION,
    "CloudPubSubDeadLetterSourceSubscriptionProject",
    "CloudPubSubDeadLetterSourceDeliveryCount",
    "CloudPubSubDeadLetterSourceTopicPublishTime",
];
const DETAILS: [&str; 8] = [
    attr::DEAD_REASON,
    attr::DEAD_CODE,
    attr::DEAD_STAGE,
    attr::DEAD_ATTEMPTS,
    attr::DEAD_PIPELINE,
    attr::DEAD_TOPIC,
    attr::DEAD_POSITION,
    attr::DEAD_KEY,
];

/// Whether an attribute is about the dead letter rather than of the message.
pub fn is_of_dead_letter(attribute: &str) -> bool {
    SOURCE.contains(&attribute) || DETAILS.contains(&attribute)
}

/// Checks the label, which would have no effect with a value that nobody knows.
///
/// # Errors
/// INVALID_ARGUMENT for a value other than `true` and `false`.
pub fn check_label(spec: &SubscriptionSpec) -> Result<(), ApiError> {
    match spec.labels.get(DETAILS_LABEL).map(String::as_str) {
        None | Some("true" | "false") => Ok(()),
        Some(_) => Err(ApiError::invalid_field(
            "labels",
            format!(
                "The label `{DETAILS_LABEL}` is `true` or `false`: whether dead letters tell why they failed."
            ),
        )),
    }
}

/// The attributes of a message as a subscription delivers them.
pub fn delivered<'a>(
    spec: &SubscriptionSpec,
    attributes: &'a Attributes,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let asked = spec.labels.get(DETAILS_LABEL).is_some_and(|value| value == "true");
    // Dead letters of pipelines have no other attributes that tell why: they keep theirs.
    let hides = !asked && attributes.get(SOURCE_SUBSCRIPTION).is_some();
    attributes.iter().filter(move |(name, _)| !(hides && DETAILS.contains(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(label: Option<&str>) -> SubscriptionSpec {
        let name = |text: &str| text.parse().expect("a name");
        let mut spec = SubscriptionSpec::new(name("demo/letters"), name("demo/dead"));
        spec.labels.extend(label.map(|value| (DETAILS_LABEL.to_owned(), value.to_owned())));
        spec
    }

    #[test]
    fn details_are_delivered_to_who_asks_for_them() {
        let own: Attributes =
            [("k", "v"), ("levada.dead.mine", "v"), ("levada.deliver_at", "x")].into_iter().collect();
        let mut letter = own.clone();
        for name in DETAILS.into_iter().chain(SOURCE) {
            letter.set(name, "x");
        }
        let count = |label, attributes: &Attributes| delivered(&spec(label), attributes).count();
        for label in [None, Some("false")] {
            let names: Vec<&str> = delivered(&spec(label), &letter).map(|(name, _)| name).collect();
            assert_eq!(names[..3], ["k", "levada.dead.mine", "levada.deliver_at"]);
            assert_eq!(names[3..], SOURCE);
        }
        assert_eq!(count(Some("true"), &letter), 3 + 8 + 4);
        let mut of_pipeline = own.clone();
        of_pipeline.set(attr::DEAD_REASON, "no such column");
        assert_eq!(count(None, &of_pipeline), 4, "nothing else says why");
        assert_eq!(count(None, &own), 3);
    }

    #[test]
    fn the_label_has_two_values() {
        for (label, fine) in [(None, true), (Some("true"), true), (Some("false"), true), (Some("yes"), false)]
        {
            assert_eq!(check_label(&spec(label)).is_ok(), fine, "{label:?}");
        }
    }
}
