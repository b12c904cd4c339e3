//! Statements: the simple protocol, the extended one, cursors, and what each answers.

use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use futures::SinkExt;
use levada_lake::{Description, Param};
use pgwire::api::Type;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse, TransactionStatus};
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::error::{Failure, Outcome, refuse, refuse_with};
use crate::kept;
use crate::metrics;
use crate::params;
use crate::portal::{
    Deadline, Flow, Portal, Prepared, cancelled, no_portal, no_statement, show_columns, tagged, text_schema,
};
use crate::settings::Until;
use crate::statement::{Hold, Rows, Statement, classify};
use crate::tokens::split;
use crate::types::{Formats, describe, pg_type, told};

/// Statements that one message of the simple protocol may hold.
const MAX_SERIES: usize = 128;
/// The target bytes of Describe and Close.
const STATEMENT: u8 = b'S';

/// What running a statement gives.
enum Opened {
    /// Rows, and the word that their count is told with.
    Rows(Flow, &'static str),
    /// Rows of a cursor.
    Fetch(String, Rows),
    /// Nothing but this tag; an empty one answers an empty statement.
    Tag(String),
}

impl Connection<'_> {
    /// Runs the statements of a text, one after the other, up to the first failure.
    pub(crate) async fn simple(&mut self, text: &str) -> Outcome<()> {
        let series = split(text);
        if series.is_empty() {
            self.io.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
        }
        if series.len() > MAX_SERIES {
            return Err(refuse("54000", format!("more than {MAX_SERIES} statements at once")));
        }
        for sql in series {
            let started = Instant::now();
            let outcome = self.simple_one(sql).await;
            count(&outcome, started);
            outcome?;
        }
        Ok(())
    }

    async fn simple_one(&mut self, sql: &str) -> Outcome<()> {
        let running = self.registration.start();
        let statement = classify(sql);
        let sql = match &statement {
            Statement::Declare { query_at, .. } => &sql[*query_at..],
            _ => sql,
        };
        let prepared =
            Prepared { statement, sql: sql.to_owned(), params: Vec::new(), schema: None, kept: None };
        let formats = Formats::default();
        match self.open(&prepared, Vec::new(), &running.token).await? {
            Opened::Tag(tag) => self.complete(tag).await,
            Opened::Rows(mut flow, tag) => {
                self.send_description(&flow.schema, &formats).await?;
                let sent = flow.send(&mut self.io, &formats, None, None, &running.token).await?;
                self.warn(sent.truncated).await?;
                self.complete(tagged(tag, sent.rows)).await
            }
            Opened::Fetch(cursor, rows) => {
                let schema = self.cursor(&cursor)?.schema.clone();
                self.send_description(&schema, &formats).await?;
                self.fetch(&cursor, rows, &formats, &running.token).await
            }
        }
    }

    pub(crate) async fn parse(&mut self, message: Parse) -> Outcome<()> {
        let name = message.name.unwrap_or_default();
        if name.is_empty() {
            // As in PostgreSQL it ends where another one begins, also one that is refused.
            self.statements.remove("");
        }
        let running = self.registration.start();
        let mut prepared = self.prepare(&message.query, &message.type_oids, &running.token).await?;
        if self.statements.len() >= self.shared.config.max_statements && !self.statements.contains_key(&name)
        {
            return Err(refuse_with("54000", "too many prepared statements", "close those no longer needed"));
        }
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(refuse("42P05", format!("prepared statement \"{name}\" already exists")));
        }
        prepared.kept = Some(self.shelf.take(kept::bytes_of(&name, &prepared))?);
        self.statements.insert(name, Arc::new(prepared));
        self.io.feed(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await?;
        Ok(())
    }

    async fn prepare(
        &mut self,
        text: &str,
        declared: &[u32],
        cancel: &CancellationToken,
    ) -> Outcome<Prepared> {
        let sql = match split(text).as_slice() {
            [] => "",
            [one] => *one,
            _ => return Err(refuse("42601", "a prepared statement holds one statement only")),
        };
        let statement = classify(sql);
        self.check_transaction(&statement)?;
        let (query, rows) = match &statement {
            Statement::Query => (Some(sql), true),
            Statement::Declare { query_at, .. } => (Some(&sql[*query_at..]), false),
            _ => (None, false),
        };
        let described = match query {
            Some(query) => self.describe_query(query, cancel).await?,
            None => Description { params: Vec::new(), schema: text_schema(&[]) },
        };
        let count = declared.len().max(described.params.len());
        let params = (0..count).map(|i| {
            let own = declared.get(i).filter(|oid| **oid != 0).and_then(|oid| Type::from_oid(*oid));
            let wanted = described.params.get(i).and_then(Option::as_ref).map(pg_type);
            own.or(wanted).unwrap_or(Type::TEXT)
        });
        let params = params.collect();
        let schema = rows.then(|| told(&described.schema));
        Ok(Prepared { params, schema, sql: query.unwrap_or(sql).to_owned(), statement, kept: None })
    }

    async fn describe_query(&mut self, sql: &str, cancel: &CancellationToken) -> Outcome<Description> {
        let (lake, sql) = self.session.open_for(sql)?;
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(cancelled()),
            () = tokio::time::sleep(self.session.limits().timeout) => {
                Err(refuse("57014", "canceling statement due to statement timeout"))
            }
            described = lake.describe(&sql) => Ok(described?),
        }
    }

    pub(crate) async fn bind(&mut self, message: Bind) -> Outcome<()> {
        let of = message.statement_name.unwrap_or_default();
        let prepared = self.statements.get(&of).cloned().ok_or_else(|| no_statement(&of))?;
        if message.parameters.len() != prepared.params.len() {
            let (given, wanted) = (message.parameters.len(), prepared.params.len());
            return Err(refuse(
                "08P01",
                format!("the statement has {wanted} parameters and {given} were given"),
            ));
        }
        let formats = Formats::new(&message.parameter_format_codes);
        let name = message.portal_name.unwrap_or_default();
        if name.is_empty() {
            self.portals.remove("");
        }
        let mut kept = self.shelf.take(name.len() + 2 * message.result_column_format_codes.len())?;
        let params = params::decode(&message.parameters, &formats, &prepared.params, &mut kept)?;
        if !name.is_empty() && self.portals.contains_key(&name) {
            return Err(refuse("42P03", format!("cursor \"{name}\" already exists")));
        }
        let formats = Formats::new(&message.result_column_format_codes);
        let portal = Portal { prepared, params, formats, hold: Hold::Transaction, flow: None, kept };
        self.keep(name, portal)?;
        self.io.feed(PgWireBackendMessage::BindComplete(BindComplete::new())).await?;
        Ok(())
    }

    pub(crate) fn keep(&mut self, name: String, portal: Portal) -> Outcome<()> {
        let max = (self.shared.config.max_statements / 4).max(2);
        if self.portals.len() >= max && !self.portals.contains_key(&name) {
            return Err(refuse_with("54000", "too many open cursors", "close those no longer needed"));
        }
        self.portals.insert(name, portal);
        Ok(())
    }

    pub(crate) async fn describe(&mut self, message: Describe) -> Outcome<()> {
        let name = message.name.unwrap_or_default();
        let (schema, formats) = if message.target_type == STATEMENT {
            let prepared = self.statements.get(&name).cloned().ok_or_else(|| no_statement(&name))?;
            let oids = prepared.params.iter().map(Type::oid).collect();
            self.io.feed(PgWireBackendMessage::ParameterDescription(ParameterDescription::new(oids))).await?;
            (self.schema_of(&prepared), Formats::default())
        } else {
            let portal = self.portals.get(&name).ok_or_else(|| no_portal(&name))?;
            // A cursor that is open knows its columns; a bound statement was described.
            let own = portal.prepared.schema.clone();
            let running = portal.flow.as_ref().map(|flow| flow.schema.clone());
            let schema = own.or(running).or_else(|| self.schema_of(&portal.prepared));
            (schema, portal.formats.clone())
        };
        match schema {
            Some(schema) => self.send_description(&schema, &formats).await,
            None => Ok(self.io.feed(PgWireBackendMessage::NoData(NoData::new())).await?),
        }
    }

    fn schema_of(&self, prepared: &Prepared) -> Option<SchemaRef> {
        match &prepared.statement {
            Statement::Query => prepared.schema.clone(),
            Statement::Show(name) => Some(text_schema(&show_columns(name))),
            Statement::Fetch { cursor, .. } => self.cursor(cursor).ok().map(|flow| flow.schema.clone()),
            _ => None,
        }
    }

    pub(crate) async fn execute(&mut self, message: Execute) -> Outcome<()> {
        let started = Instant::now();
        let outcome = self.execute_portal(message).await;
        count(&outcome, started);
        outcome
    }

    async fn execute_portal(&mut self, message: Execute) -> Outcome<()> {
        let name = message.name.unwrap_or_default();
        let running = self.registration.start();
        // Out of the map while it runs: a failure leaves no half-read portal behind.
        let mut portal = self.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        if portal.flow.is_none() {
            let params = std::mem::take(&mut portal.params);
            match self.open(&portal.prepared, params, &running.token).await? {
                Opened::Tag(tag) => return self.complete(tag).await,
                Opened::Fetch(cursor, rows) => {
                    return self.fetch(&cursor, rows, &portal.formats, &running.token).await;
                }
                Opened::Rows(flow, _) => {
                    portal.kept.grow(kept::columns(&flow.schema))?;
                    portal.flow = Some(flow);
                }
            }
        } else {
            // A suspended portal goes on only as long as its key is good.
            self.session.open()?;
        }
        let limit = u64::try_from(message.max_rows).ok().filter(|max| *max > 0);
        let described = portal.prepared.schema.clone();
        let Some(flow) = &mut portal.flow else { return Ok(()) };
        let sent =
            flow.send(&mut self.io, &portal.formats, described.as_deref(), limit, &running.token).await?;
        if sent.ended {
            self.warn(sent.truncated).await?;
            let word =
                if matches!(portal.prepared.statement, Statement::Show(_)) { "SHOW" } else { "SELECT" };
            self.portals.insert(name, portal);
            return self.complete(tagged(word, sent.rows)).await;
        }
        self.portals.insert(name, portal);
        self.io.feed(PgWireBackendMessage::PortalSuspended(PortalSuspended::new())).await?;
        Ok(())
    }

    pub(crate) async fn close(&mut self, message: Close) -> Outcome<()> {
        let name = message.name.unwrap_or_default();
        if message.target_type == STATEMENT {
            self.statements.remove(&name);
        } else {
            self.portals.remove(&name);
        }
        self.io.feed(PgWireBackendMessage::CloseComplete(CloseComplete::new())).await?;
        Ok(())
    }

    /// A Sync outside a transaction ends what began with the messages before it.
    pub(crate) fn end_of_series(&mut self) {
        self.portals.remove("");
        if self.status == TransactionStatus::Idle {
            self.portals.retain(|_, portal| portal.hold == Hold::Session);
        }
    }

    fn check_transaction(&self, statement: &Statement) -> Outcome<()> {
        let ends =
            matches!(statement, Statement::Commit | Statement::Rollback | Statement::Accepted("ROLLBACK"));
        if self.status == TransactionStatus::Error && !ends {
            return Err(refuse_with(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
                "send ROLLBACK",
            ));
        }
        Ok(())
    }

    /// Begins a statement, or does all of it where it has no rows.
    async fn open(
        &mut self,
        prepared: &Prepared,
        params: Vec<Param>,
        cancel: &CancellationToken,
    ) -> Outcome<Opened> {
        self.check_transaction(&prepared.statement)?;
        if let Statement::Query = prepared.statement {
            return Ok(Opened::Rows(self.query(&prepared.sql, params, cancel).await?, "SELECT"));
        }
        // Nothing else needs the lake; the key must be good all the same.
        self.session.open()?;
        let tag = match &prepared.statement {
            Statement::Show(name) => return Ok(Opened::Rows(self.show(name)?, "SHOW")),
            Statement::Fetch { cursor, rows } => return Ok(Opened::Fetch(cursor.clone(), *rows)),
            Statement::Declare { cursor, hold, .. } => {
                self.declare(cursor, *hold, prepared, params, cancel).await?;
                "DECLARE CURSOR".to_owned()
            }
            Statement::Move { cursor, rows } => {
                let limit = rows.limit();
                let mut portal = self.portals.remove(cursor).ok_or_else(|| no_portal(cursor))?;
                let skipped = match &mut portal.flow {
                    Some(flow) => flow.skip(limit, cancel).await?,
                    None => 0,
                };
                self.portals.insert(cursor.clone(), portal);
                tagged("MOVE", skipped)
            }
            other => {
                let told = self.session.settings.reported();
                let tag = self.manage(other)?.to_owned();
                self.report(&told).await?;
                tag
            }
        };
        Ok(Opened::Tag(tag))
    }

    pub(crate) async fn query(
        &mut self,
        sql: &str,
        params: Vec<Param>,
        cancel: &CancellationToken,
    ) -> Outcome<Flow> {
        let told = self.session.settings.reported();
        self.session.set_config(sql)?;
        self.report(&told).await?;
        let (lake, sql) = self.session.open_for(sql)?;
        let limits = self.session.limits();
        let deadline = Deadline::after(limits.timeout);
        let shown = self.session.shown();
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(cancelled()),
            output = lake.query(&sql, params, limits) => Ok(Flow::new(output?, deadline, shown)),
        }
    }

    /// Statements about the session alone; the answer is their tag.
    fn manage(&mut self, statement: &Statement) -> Outcome<&'static str> {
        match statement {
            Statement::Set { name, value, until } => {
                // Outside a transaction there is nothing that a local value could hold for.
                if *until == Until::Session || self.status == TransactionStatus::Transaction {
                    self.session.settings.set(name, value, *until)?;
                }
                Ok("SET")
            }
            Statement::Reset(name) => {
                self.session.settings.reset(name.as_deref());
                Ok("RESET")
            }
            Statement::Begin => {
                if self.status == TransactionStatus::Idle {
                    self.session.settings.begin();
                }
                self.status = TransactionStatus::Transaction;
                Ok("BEGIN")
            }
            Statement::Commit | Statement::Rollback => {
                let failed = self.status == TransactionStatus::Error;
                self.status = TransactionStatus::Idle;
                self.portals.retain(|_, portal| portal.hold == Hold::Session);
                let commits = *statement == Statement::Commit && !failed;
                self.session.settings.end(commits);
                Ok(if commits { "COMMIT" } else { "ROLLBACK" })
            }
            Statement::Accepted(tag) => {
                if *tag == "ROLLBACK" && self.status == TransactionStatus::Error {
                    self.status = TransactionStatus::Transaction;
                }
                Ok(tag)
            }
            Statement::CloseCursor(name) => {
                match name {
                    Some(name) => drop(self.portals.remove(name).ok_or_else(|| no_portal(name))?),
                    None => self.portals.clear(),
                }
                Ok("CLOSE CURSOR")
            }
            Statement::Deallocate(name) => {
                match name {
                    Some(name) => drop(self.statements.remove(name).ok_or_else(|| no_statement(name))?),
                    None => self.statements.clear(),
                }
                Ok("DEALLOCATE")
            }
            Statement::Discard => {
                self.statements.clear();
                self.portals.clear();
                self.session.settings.reset(None);
                Ok("DISCARD ALL")
            }
            Statement::Refused { what, hint } => {
                Err(refuse_with("0A000", format!("{what} is not offered here"), hint))
            }
            Statement::Query
            | Statement::Show(_)
            | Statement::Declare { .. }
            | Statement::Fetch { .. }
            | Statement::Move { .. } => {
                Err(refuse("XX000", "a statement with rows was taken for one without"))
            }
        }
    }

    fn show(&self, name: &str) -> Outcome<Flow> {
        let columns = show_columns(name);
        if name == "all" {
            let rows: Vec<Vec<String>> =
                self.session.settings.all().into_iter().map(|(n, v)| vec![n, v, String::new()]).collect();
            return Ok(Flow::of_text(&columns, &rows));
        }
        match self.session.settings.get(name) {
            Some(value) => Ok(Flow::of_text(&columns, &[vec![value]])),
            None => Err(refuse("42704", format!("unrecognized configuration parameter \"{name}\""))),
        }
    }

    async fn send_description(&mut self, schema: &SchemaRef, formats: &Formats) -> Outcome<()> {
        let description = RowDescription::new(describe(schema, formats));
        Ok(self.io.feed(PgWireBackendMessage::RowDescription(description)).await?)
    }

    pub(crate) async fn warn(&mut self, truncated: bool) -> Outcome<()> {
        if truncated {
            let max = self.session.limits().max_rows;
            self.notice("01000", format!("the result was cut after {max} rows, the limit of this server"))
                .await?;
        }
        Ok(())
    }

    pub(crate) async fn complete(&mut self, tag: String) -> Outcome<()> {
        let message = match tag.as_str() {
            "" => PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new()),
            _ => PgWireBackendMessage::CommandComplete(CommandComplete::new(tag)),
        };
        Ok(self.io.feed(message).await?)
    }
}

fn count(outcome: &Outcome<()>, started: Instant) {
    let code = match outcome {
        Ok(()) => "ok".to_owned(),
        Err(Failure::Statement(info) | Failure::Fatal(info)) => info.code.clone(),
        Err(Failure::Wire(_)) => "disconnected".to_owned(),
    };
    metrics::statement(code, started.elapsed());
}
