//! The SQL page: one statement, and the tables that it may read.

use std::time::Instant;

use futures::TryStreamExt;
use levada_console::{Column, QueryAnswer, ShownRows, TableRow};
use levada_core::{Principal, Problem, TenantSet, Zone};
use levada_lake::{QueryLimits, each_row_as_text};

use super::PlatformData;

impl PlatformData {
    pub(super) async fn run_query(
        &self,
        principal: &Principal,
        sql: &str,
        max_rows: usize,
    ) -> Result<QueryAnswer, Problem> {
        let started = Instant::now();
        let session = self.lake.session(principal, None)?;
        let limits = QueryLimits { max_rows: max_rows.min(self.limits.max_rows), ..self.limits };
        let output = session.query(sql, Vec::new(), limits).await?;
        let as_of = output.as_of.iter().map(|a| format!("{} {}", a.table, a.version)).collect();
        let truncation = output.truncation();
        let columns = output.text_columns();
        let mut rows =
            ShownRows::new(columns.iter().map(|c| Column::new(&c.name, &c.data_type, c.is_numeric)));
        let mut batches = output.stream;
        // Dropping the stream where the page is full ends the query.
        while !rows.is_full()
            && let Some(batch) = batches.try_next().await?
        {
            // Text of long values is work: not on a thread that answers requests.
            let shown = tokio::task::spawn_blocking(move || {
                let columns = rows.columns().len();
                each_row_as_text(&batch, columns, |cells| rows.push(cells)).map(|()| rows)
            });
            rows =
                shown.await.map_err(|_| Problem::new(500, "internal", "the rows could not be shown"))??;
        }
        Ok(QueryAnswer {
            truncated: rows.is_full() || truncation.is_truncated(),
            rows,
            elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            as_of,
        })
    }

    pub(super) async fn table_rows(&self, principal: &Principal) -> Result<Vec<TableRow>, Problem> {
        let session = self.lake.session(principal, None)?;
        let stats = self.lake.tables().await.unwrap_or_default();
        let platform = principal.tenants == TenantSet::All;
        let (sources, pipelines) = (self.census.of(&principal.tenants), self.engines.pipelines());
        let rows = session.tables().into_iter().map(|table| {
            let columns = table.columns.into_iter().map(|c| (c.name, c.data_type)).collect();
            if table.zone == Zone::Bronze.as_str() {
                let held =
                    sources.iter().find(|(name, _)| name.as_str() == table.table).map(|(_, held)| held);
                let readers = pipelines.iter().filter(|p| p.name.as_str() == table.table);
                return TableRow {
                    name: table.name,
                    rows: Some(readers.map(|p| p.bronze_rows(&principal.tenants)).sum()),
                    files: held.map(|held| held.objects),
                    bytes: held.map(|held| held.bytes),
                    columns,
                    description: table.description,
                };
            }
            let found = stats.iter().find(|s| {
                s.key.name.zone.as_str() == table.zone
                    && s.key.name.name.as_str() == table.table
                    && s.key.owner.tenant() == table.tenant.as_ref()
            });
            let shown = found.filter(|s| platform || s.key.owner.tenant().is_some());
            TableRow {
                name: table.name,
                rows: shown.map(|s| s.rows),
                files: shown.map(|s| s.files),
                bytes: shown.map(|s| s.bytes),
                columns,
                description: table.description,
            }
        });
        Ok(rows.collect())
    }
}
