//! Where a record carries the key of the idempotency window, so that a restart finds it again.
//!
//! An event carries it as its own `idempotency_key`. What Levada itself writes because of an
//! event, a dead letter or a copy that is sent again, has a key besides, and leaves the event's
//! own alone: whoever reads it sees the event as its sender wrote it.

use std::borrow::Cow;

use levada_core::{Attributes, attr};

/// The key of a message that is sent again from this dead letter, `<topic>/<offset>`.
pub(crate) fn resend(from: &str) -> String {
    format!("resend:{from}")
}

/// The key that a record was written under, where it was written under one.
pub(crate) fn carried(attributes: &Attributes) -> Option<Cow<'_, str>> {
    if let Some(key) = attributes.get(attr::DEAD_KEY) {
        return Some(key.into());
    }
    if let Some(from) = attributes.get(attr::RESENT_FROM) {
        return Some(resend(from).into());
    }
    attributes.get(attr::IDEMPOTENCY_KEY).map(Cow::from)
}

/// Makes the record carry the key.
pub(crate) fn carry(attributes: &mut Attributes, key: &str) {
    if carried(attributes).as_deref() == Some(key) {
        return;
    }
    // Somebody gave what only Levada writes.
    for name in [attr::DEAD_KEY, attr::RESENT_FROM] {
        if attributes.get(name).is_some() {
            attributes.remove(name);
        }
    }
    if attributes.get(attr::IDEMPOTENCY_KEY) != Some(key) {
        attributes.set(attr::IDEMPOTENCY_KEY, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_is_what_was_given_whatever_else_is_there() {
        let given: [&[(&str, &str)]; 5] = [
            &[],
            &[(attr::IDEMPOTENCY_KEY, "own")],
            &[(attr::DEAD_KEY, "k"), (attr::IDEMPOTENCY_KEY, "own")],
            &[(attr::RESENT_FROM, "orders-dlq/7"), (attr::IDEMPOTENCY_KEY, "own")],
            &[(attr::RESENT_FROM, "orders-dlq/7"), (attr::DEAD_KEY, "k")],
        ];
        for pairs in given {
            for key in ["k", "own", "resend:orders-dlq/7", "other"] {
                let mut attributes: Attributes = pairs.iter().copied().collect();
                carry(&mut attributes, key);
                assert_eq!(carried(&attributes).as_deref(), Some(key), "{pairs:?}");
            }
        }
    }
}
