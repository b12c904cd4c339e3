//! Cursors of SQL: what DECLARE opens and FETCH reads.

use std::sync::Arc;

use levada_lake::Param;
use pgwire::messages::response::TransactionStatus;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::error::{Outcome, refuse};
use crate::kept;
use crate::portal::{Flow, Portal, Prepared, no_portal, tagged};
use crate::statement::{Hold, Rows, Statement};
use crate::types::Formats;

impl Connection<'_> {
    /// Opens a cursor.
    ///
    /// # Errors
    /// 42P03 where there is one of the name, and what its query answers.
    pub(crate) async fn declare(
        &mut self,
        cursor: &str,
        hold: Hold,
        prepared: &Prepared,
        params: Vec<Param>,
        cancel: &CancellationToken,
    ) -> Outcome<()> {
        if self.portals.contains_key(cursor) {
            return Err(refuse("42P03", format!("cursor \"{cursor}\" already exists")));
        }
        let flow = self.query(&prepared.sql, params, cancel).await?;
        let kept = self.shelf.take(cursor.len() + 2 * prepared.sql.len() + kept::columns(&flow.schema))?;
        // Outside a transaction PostgreSQL has no use for a cursor that ends with it.
        let hold = if self.status == TransactionStatus::Idle { Hold::Session } else { hold };
        let opened = Prepared {
            statement: Statement::Query,
            sql: prepared.sql.clone(),
            params: Vec::new(),
            schema: None,
            kept: None,
        };
        let formats = Formats::default();
        let (prepared, params) = (Arc::new(opened), Vec::new());
        let portal = Portal { prepared, params, formats, hold, flow: Some(flow), kept };
        self.keep(cursor.to_owned(), portal)
    }

    pub(crate) fn cursor(&self, name: &str) -> Outcome<&Flow> {
        self.portals.get(name).and_then(|portal| portal.flow.as_ref()).ok_or_else(|| no_portal(name))
    }

    /// Sends rows of a cursor.
    ///
    /// # Errors
    /// 34000 without a cursor of the name, and what its query answers.
    pub(crate) async fn fetch(
        &mut self,
        cursor: &str,
        rows: Rows,
        formats: &Formats,
        cancel: &CancellationToken,
    ) -> Outcome<()> {
        let mut portal = self.portals.remove(cursor).ok_or_else(|| no_portal(cursor))?;
        let flow = portal.flow.as_mut().ok_or_else(|| no_portal(cursor))?;
        let sent = flow.send(&mut self.io, formats, None, rows.limit(), cancel).await?;
        self.portals.insert(cursor.to_owned(), portal);
        self.warn(sent.truncated && sent.rows > 0).await?;
        self.complete(tagged("FETCH", sent.rows)).await
    }
}
