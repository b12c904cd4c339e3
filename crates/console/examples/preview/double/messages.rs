//! Made-up messages of a subscription: dead letters in JSON, text and bytes.

use levada_console::*;
use levada_core::{Principal, Problem};

use super::Double;

/// The ids of the messages, newest first, and how many there are.
const NEWEST: u64 = 48_211;
const COUNT: u64 = 120;

impl Double {
    fn made(&self, message_id: u64) -> Option<MessageRow> {
        if message_id > NEWEST
            || message_id + COUNT <= NEWEST
            || self.resent.lock().contains(&message_id.to_string())
        {
            return None;
        }
        let n = NEWEST - message_id;
        let body = match n % 4 {
            0 | 1 => format!(
                r#"{{"user_id":"u-{n}","station":"XX{n}","amount":{n}.5,"tags":["late","<b>odd</b>"],"at":"2026-11-20T09:{:02}:00Z"}}"#,
                n % 60
            )
            .into_bytes(),
            2 => format!("station {n}: no such place").into_bytes(),
            _ => vec![0x0a, 0x07, b'u', 0xff, 0xfe, 0x10, n as u8, 0x00, 0x1f, 0x8b],
        };
        let (code, reason) = match n % 3 {
            0 => ("delivery-attempts-exhausted", "5 deliveries failed"),
            1 => ("delivery-parked", "an operator took it away"),
            _ => (
                "card-unknown",
                "the worker said: no card u-4711 at this bank, and no other bank knows it either",
            ),
        };
        let source = ("mountain-weather", "fraud-alerts");
        let attributes = [
            ("type", "checkin"),
            ("priority", if n.is_multiple_of(2) { "high" } else { "low" }),
            ("tenant_id", "alpine"),
            ("levada.dead.code", code),
            ("levada.dead.reason", reason),
            ("CloudPubSubDeadLetterSourceSubscriptionProject", source.0),
            ("CloudPubSubDeadLetterSourceSubscription", source.1),
        ];
        let mut message = MessageRow {
            message_id,
            published_ms: self.clock.now_ms() - 40_000 * i64::try_from(n + 1).unwrap_or(1),
            tenant: "alpine".to_owned(),
            ordering_key: n.is_multiple_of(5).then(|| format!("user-{n}")),
            attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            body: body.into(),
            dead: Some(DeadMark {
                source: format!("{}/{}", source.0, source.1),
                code: code.to_owned(),
                reason: reason.to_owned(),
            }),
        };
        if let Some(wide) = self.wide() {
            message.ordering_key = Some(wide.clone());
            message.attributes.push(("wide".to_owned(), wide.clone()));
            message.dead.iter_mut().for_each(|dead| dead.reason = wide.clone());
            message.body = wide.into();
        }
        Some(message)
    }

    pub fn message_page(
        &self,
        principal: &Principal,
        name: &str,
        filter: &MessageFilter,
    ) -> Result<MessagePage, Problem> {
        self.subscription_detail(principal, name)
            .ok_or_else(|| Problem::new(404, "subscription-unknown", "there is no such subscription"))?;
        if filter.filter.contains('!') {
            return Err(Problem::new(422, "body-invalid", "the filter breaks off at `!`"));
        }
        if !name.ends_with("dead") {
            return Ok(MessagePage::default());
        }
        let below = filter.before.unwrap_or(NEWEST + 1);
        let messages: Vec<MessageRow> =
            (0..below).rev().take(COUNT as usize).filter_map(|id| self.made(id)).take(filter.limit).collect();
        let last = messages.last().map(|message| message.message_id);
        Ok(MessagePage { messages, before: last.filter(|last| *last > NEWEST - COUNT + 1) })
    }

    pub fn one_message(&self, principal: &Principal, name: &str, message_id: u64) -> Option<MessageRow> {
        self.subscription_detail(principal, name)?;
        self.made(message_id)
    }

    pub fn resend_one(&self, message_id: u64, edit: &MessageEdit) -> Result<String, Problem> {
        if edit.attributes.contains_key("goog") {
            return Err(Problem::new(422, "body-invalid", "an attribute may not begin with `goog`"));
        }
        self.resent.lock().insert(message_id.to_string());
        Ok(format!("Message {message_id} was sent to mountain-weather/checkins as message 90210."))
    }
}
