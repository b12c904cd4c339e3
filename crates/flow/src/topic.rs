//! Reads a topic as the source of a pipeline, in the order of its offsets.
//!
//! Offsets are the order in which tenants' commits were admitted, and the bus shares that
//! admission among them, so a pipeline that keeps up serves all tenants alike.

use std::time::Duration;

use async_trait::async_trait;
use levada_bus::{Bus, BusError, Delivered};
use levada_core::{ReadError, Record, RecordBatchIn, RecordReader, TenantId, TopicName};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A cursor in one topic.
pub struct TopicReader {
    bus: Bus,
    topic: TopicName,
    /// Only records of this tenant: a tenant's own pipeline never sees another's.
    tenant: Option<TenantId>,
    next: u64,
    end: watch::Receiver<u64>,
}

#[derive(Serialize, Deserialize)]
struct Position {
    offset: u64,
}

fn failed(error: &BusError) -> ReadError {
    ReadError { message: error.to_string(), retryable: error.is_retryable() }
}

impl TopicReader {
    /// Begins at the first record that the topic still holds.
    ///
    /// # Errors
    /// When the topic does not exist.
    pub fn new(bus: Bus, topic: TopicName, tenant: Option<TenantId>) -> Result<Self, ReadError> {
        let end = bus.end(&topic).map_err(|e| failed(&e))?;
        Ok(Self { bus, topic, tenant, next: 0, end })
    }

    /// Damaged records cannot be read by anybody; they are in the log's quarantine. Those
    /// behind them must not wait for a person.
    fn pass_damage(&mut self, error: &BusError) -> Result<RecordBatchIn, ReadError> {
        match error.resumes_at() {
            Some(resume) if resume > self.next => {
                tracing::error!(topic = %self.topic, from = self.next, to = resume, %error, "damaged records are passed over");
                self.next = resume;
                Ok(RecordBatchIn::default())
            }
            _ => Err(failed(error)),
        }
    }

    fn take(&mut self, delivered: Vec<Delivered>) -> RecordBatchIn {
        let Some(last) = delivered.last() else { return RecordBatchIn::default() };
        let first = delivered[0].offset;
        if first > self.next && self.next > 0 {
            tracing::error!(
                topic = %self.topic, from = self.next, to = first,
                "records were deleted by retention before the pipeline read them"
            );
        }
        self.next = last.offset + 1;
        let wanted = |d: &Delivered| self.tenant.as_ref().is_none_or(|t| *t == d.message.tenant);
        let records = delivered.into_iter().filter(wanted).map(|d| Record {
            tenant: d.message.tenant,
            offset: d.offset,
            published_at_ms: d.published_at_ms,
            attributes: d.message.attributes,
            body: d.message.body,
            original: None,
        });
        RecordBatchIn { records: records.collect(), ..RecordBatchIn::default() }
    }
}

#[async_trait]
impl RecordReader for TopicReader {
    async fn seek(&mut self, position: Option<&serde_json::Value>) -> Result<(), ReadError> {
        let position: Option<Position> =
            position.map(|p| serde_json::from_value(p.clone())).transpose().map_err(|e| ReadError {
                message: format!("not a position in a topic: {e}"),
                retryable: false,
            })?;
        self.next = position.map_or(0, |p| p.offset);
        Ok(())
    }

    async fn read(
        &mut self,
        max_rows: usize,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<RecordBatchIn, ReadError> {
        let next = self.next;
        if *self.end.borrow_and_update() <= next {
            let arrival = tokio::time::timeout(wait, self.end.wait_for(|end| *end > next)).await;
            match arrival {
                Err(_) => return Ok(RecordBatchIn::default()),
                Ok(Err(_)) => {
                    return Err(ReadError { message: "the bus is shut down".into(), retryable: false });
                }
                Ok(Ok(_)) => {}
            }
        }
        let (bus, topic) = (self.bus.clone(), self.topic.clone());
        let read = tokio::task::spawn_blocking(move || bus.read(&topic, next, max_rows, max_bytes));
        match read.await.map_err(|e| ReadError { message: e.to_string(), retryable: true })? {
            Ok(delivered) => Ok(self.take(delivered)),
            Err(error) => self.pass_damage(&error),
        }
    }

    fn position(&self) -> serde_json::Value {
        serde_json::json!({ "offset": self.next })
    }

    fn backlog(&self) -> u64 {
        self.end.borrow().saturating_sub(self.next)
    }
}
