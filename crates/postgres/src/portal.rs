//! Prepared statements, portals, and rows on their way to the client.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{SinkExt, StreamExt};
use levada_lake::{BatchStream, Param, QueryOutput, Truncation};
use pgwire::api::Type;
use pgwire::messages::PgWireBackendMessage;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::connection::{Io, STALL};
use crate::encode::{Page, Shown};
use crate::error::{Outcome, fatal, refuse, refuse_with};
use crate::kept::Kept;
use crate::statement::{Hold, Statement};
use crate::types::{Formats, pg_type};

/// A statement that was parsed, and described where it is the lake's.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub statement: Statement,
    /// As the client wrote it.
    pub sql: String,
    pub params: Vec<Type>,
    /// What the client is told of its columns; `None` for none.
    pub schema: Option<SchemaRef>,
    /// Its bytes, where it stays beyond its message.
    pub kept: Option<Kept>,
}

/// A prepared statement with its parameters: also what a cursor is.
pub(crate) struct Portal {
    pub prepared: Arc<Prepared>,
    pub params: Vec<Param>,
    pub formats: Formats,
    pub hold: Hold,
    /// Since it was first executed.
    pub flow: Option<Flow>,
    pub kept: Kept,
}

/// Rows that come when they are asked for. Dropping it stops the query.
pub(crate) struct Flow {
    pub schema: SchemaRef,
    stream: BatchStream,
    /// The batch being sent, from its first unsent row.
    rest: Option<RecordBatch>,
    truncation: Option<Truncation>,
    ended: bool,
    /// When the statement's time is over, whether or not the query comes to a pause.
    deadline: Option<Deadline>,
    /// The session's way to write values, as it was when the statement began.
    shown: Shown,
}

/// When a statement must have ended, and the limit that says so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub at: Instant,
    pub limit: Duration,
}

impl Deadline {
    pub fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }

    pub fn passed(self) -> crate::error::Failure {
        let text = format!(
            "canceling statement due to statement timeout: it ran longer than {} s",
            self.limit.as_secs_f64()
        );
        refuse_with("57014", text, "narrow it with a filter, or ask for a longer timeout")
    }
}

/// Batches that wait to be sent, besides the one being sent.
const READ_AHEAD: usize = 1;

/// The rows of a query, made by a task of their own: a query that computes for long without a
/// pause then cannot keep its client from being told that it is cancelled. Dropping the
/// stream ends the task at its next pause.
fn on_a_task(mut stream: BatchStream) -> BatchStream {
    let (batches, received) = tokio::sync::mpsc::channel(READ_AHEAD);
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(batch) = stream.next().await {
            if batches.send(batch).await.is_err() {
                break;
            }
        }
    }));
    let rows = futures::stream::unfold((received, task), |(mut received, task)| async move {
        let batch = received.recv().await?;
        Some((batch, (received, task)))
    });
    rows.boxed()
}

/// What a turn of sending came to.
pub(crate) struct Sent {
    pub rows: u64,
    /// False when the limit was met first.
    pub ended: bool,
    /// Whether the server's row limit cut the result.
    pub truncated: bool,
}

impl Flow {
    pub fn new(output: QueryOutput, deadline: Deadline, shown: Shown) -> Self {
        let truncation = Some(output.truncation());
        let (schema, stream) = (output.schema, on_a_task(output.stream));
        Self { schema, stream, rest: None, truncation, ended: false, deadline: Some(deadline), shown }
    }

    /// Columns of text that are known already.
    pub fn of_text(names: &[&str], rows: &[Vec<String>]) -> Self {
        let schema = text_schema(names);
        let column = |i: usize| -> arrow::array::ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row[i].as_str())))
        };
        let columns = (0..names.len()).map(column).collect();
        let batch = RecordBatch::try_new(schema.clone(), columns).expect("as many columns as names");
        let stream = futures::stream::iter([Ok(batch)]).boxed();
        let shown = Shown::default();
        Self { schema, stream, rest: None, truncation: None, ended: false, deadline: None, shown }
    }

    /// Sends rows, at most `limit`, in the formats asked for. `described` is what the client was
    /// told before, where it was: a column described as text is sent as text.
    ///
    /// # Errors
    /// 57014 on cancel, what the query answers, or the connection's own failure.
    pub async fn send(
        &mut self,
        io: &mut Io,
        formats: &Formats,
        described: Option<&Schema>,
        limit: Option<u64>,
        cancel: &CancellationToken,
    ) -> Outcome<Sent> {
        let mut rows = 0;
        while !self.ended && limit.is_none_or(|limit| rows < limit) {
            let Some(batch) = self.next(cancel).await? else { break };
            let wanted =
                limit.map_or(usize::MAX, |limit| usize::try_from(limit - rows).unwrap_or(usize::MAX));
            let now = batch.slice(0, batch.num_rows().min(wanted));
            if now.num_rows() < batch.num_rows() {
                self.rest = Some(batch.slice(now.num_rows(), batch.num_rows() - now.num_rows()));
            }
            let page = Page::new(&as_described(now, described)?, formats, self.shown)?;
            let sending = send_page(io, &page, cancel);
            match tokio::time::timeout(STALL, sending).await {
                Ok(sent) => sent?,
                Err(_) => return Err(fatal("57014", "the client stopped reading", None)),
            }
            rows += page.rows as u64;
        }
        let truncated = self.ended && self.truncation.as_ref().is_some_and(Truncation::is_truncated);
        Ok(Sent { rows, ended: self.ended, truncated })
    }

    /// Leaves rows out.
    ///
    /// # Errors
    /// As [`Flow::send`].
    pub async fn skip(&mut self, limit: Option<u64>, cancel: &CancellationToken) -> Outcome<u64> {
        let mut rows = 0;
        while !self.ended && limit.is_none_or(|limit| rows < limit) {
            let Some(batch) = self.next(cancel).await? else { break };
            let wanted =
                limit.map_or(usize::MAX, |limit| usize::try_from(limit - rows).unwrap_or(usize::MAX));
            if batch.num_rows() > wanted {
                self.rest = Some(batch.slice(wanted, batch.num_rows() - wanted));
            }
            rows += batch.num_rows().min(wanted) as u64;
        }
        Ok(rows)
    }

    async fn next(&mut self, cancel: &CancellationToken) -> Outcome<Option<RecordBatch>> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        let over = async {
            match self.deadline {
                Some(deadline) => {
                    tokio::time::sleep_until(deadline.at).await;
                    deadline.passed()
                }
                None => std::future::pending().await,
            }
        };
        let next = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(cancelled()),
            failure = over => return Err(failure),
            next = self.stream.next() => next,
        };
        match next {
            Some(batch) => Ok(Some(batch?)),
            None => {
                self.ended = true;
                Ok(None)
            }
        }
    }
}

pub(crate) fn cancelled() -> crate::error::Failure {
    refuse("57014", "canceling statement due to user request")
}

pub(crate) fn no_statement(name: &str) -> crate::error::Failure {
    refuse("26000", format!("prepared statement \"{name}\" does not exist"))
}

pub(crate) fn no_portal(name: &str) -> crate::error::Failure {
    refuse("34000", format!("cursor \"{name}\" does not exist"))
}

/// `SELECT 3`; `SHOW` is told without a count.
pub(crate) fn tagged(word: &str, rows: u64) -> String {
    if word == "SHOW" { word.to_owned() } else { format!("{word} {rows}") }
}

/// The columns of the answer to SHOW.
pub(crate) fn show_columns(name: &str) -> Vec<&str> {
    if name == "all" { vec!["name", "setting", "description"] } else { vec![name] }
}

pub(crate) fn text_schema(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|n| Field::new(*n, DataType::Utf8, true)).collect::<Vec<_>>()))
}

async fn send_page(io: &mut Io, page: &Page, cancel: &CancellationToken) -> Outcome<()> {
    for row in 0..page.rows {
        if row % 256 == 0 && cancel.is_cancelled() {
            return Err(cancelled());
        }
        io.feed(PgWireBackendMessage::DataRow(page.row(row)?)).await?;
    }
    Ok(())
}

/// A column whose type was open when the statement was described was described as text.
fn as_described(batch: RecordBatch, described: Option<&Schema>) -> Outcome<RecordBatch> {
    let Some(described) = described.filter(|d| d.fields().len() == batch.num_columns()) else {
        return Ok(batch);
    };
    let schema = batch.schema();
    let changed = |i: usize| {
        let (told, have) = (pg_type(described.field(i).data_type()), pg_type(schema.field(i).data_type()));
        told == Type::TEXT && have != Type::TEXT
    };
    if !(0..batch.num_columns()).any(changed) {
        return Ok(batch);
    }
    let mut columns = batch.columns().to_vec();
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| (**f).clone()).collect();
    for i in (0..batch.num_columns()).filter(|i| changed(*i)) {
        columns[i] = arrow::compute::cast(&columns[i], &DataType::Utf8)
            .map_err(|e| refuse("42804", format!("column {} cannot be sent as text: {e}", i + 1)))?;
        fields[i] = Field::new(fields[i].name(), DataType::Utf8, true);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|e| refuse("XX000", format!("rows do not fit their description: {e}")))
}
