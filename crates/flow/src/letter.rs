//! Dead letters on their way to the bus: part of the manifest of their epoch, so that a
//! record is a dead letter exactly when the epoch that decided so is durable.

use bytes::Bytes;
use levada_bus::DeadLetter;
use levada_core::{Attributes, Record, TenantId};
use serde::{Deserialize, Serialize};

use crate::codec::{Reader, put_bytes};

/// A longer body is cut, and the reason says so: no record may be too large to be set aside.
const BODY_BYTES: usize = 8 << 20;

/// A record that a pipeline refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub about: About,
    pub attributes: Attributes,
    pub body: Bytes,
}

/// All of a letter but its attributes and bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub tenant: TenantId,
    pub code: String,
    pub reason: String,
    pub stage: String,
    pub attempts: u32,
    /// Offset in the topic, or `object:line`.
    pub position: String,
    pub resendable: bool,
}

impl Letter {
    /// The letter of a record, with its original bytes.
    pub fn of(record: &Record, mut about: About) -> Self {
        let original = record.original();
        let body = original.slice(..original.len().min(BODY_BYTES));
        if body.len() < original.len() {
            about.reason = format!("{} (only the first {BODY_BYTES} bytes are kept)", about.reason);
            about.resendable = false;
        }
        Self { about, attributes: record.attributes.clone(), body }
    }

    /// As the bus wants it. The key is the same however often the letter is sent.
    pub fn for_bus(self, pipeline: &str) -> DeadLetter {
        let About { tenant, code, reason, stage, attempts, position, resendable } = self.about;
        DeadLetter {
            idempotency_key: key(pipeline, &position, &stage),
            tenant,
            code,
            reason,
            stage,
            attempts,
            pipeline: pipeline.to_owned(),
            position,
            attributes: self.attributes,
            ordering_key: None,
            body: self.body,
            resendable,
        }
    }
}

/// Names one failure for good.
pub fn key(pipeline: &str, position: &str, stage: &str) -> String {
    format!("{pipeline}:{position}:{stage}")
}

/// Appends the letters' stored form.
pub fn encode(letters: &[Letter], out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    out.extend_from_slice(&(letters.len() as u64).to_le_bytes());
    for letter in letters {
        put_bytes(out, &serde_json::to_vec(&letter.about)?);
        put_bytes(out, letter.attributes.packed());
        put_bytes(out, &letter.body);
    }
    Ok(())
}

/// Reads what [`encode`] wrote; `None` when it did not write this.
pub fn decode(reader: &mut Reader<'_>) -> Option<Vec<Letter>> {
    let count = usize::try_from(reader.u64()?).ok()?;
    let mut letters = Vec::new();
    for _ in 0..count {
        letters.push(Letter {
            about: serde_json::from_slice(reader.bytes()?).ok()?,
            attributes: Attributes::from_packed(Bytes::copy_from_slice(reader.bytes()?)).ok()?,
            body: Bytes::copy_from_slice(reader.bytes()?),
        });
    }
    Some(letters)
}
