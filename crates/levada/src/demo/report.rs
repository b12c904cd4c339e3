//! What the demo tells at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use levada_cli::Output;
use levada_core::{Principal, Role, TenantSet, Zone};
use levada_lake::QueryLimits;
use serde_json::{Value, json};

use super::stream::Sent;
use crate::server::Server;

const QUESTION: &str = "select station, sum(check_ins) as check_ins, round(avg(mean_temp), 1) as mean_temp_f \
    from gold.station_days group by station order by station";
/// Bronze is archived on a slower beat than silver.
const BRONZE_WITHIN: Duration = Duration::from_secs(30);

/// The result of a run.
pub struct Report {
    sent: Sent,
    dead_letters: BTreeMap<String, u64>,
    dropped: u64,
    /// Zone, then table.
    rows: BTreeMap<&'static str, BTreeMap<String, u64>>,
    answer: levada_lake::TextRows,
    latency_ms: (Option<f64>, Option<f64>),
    seconds: f64,
}

fn everything() -> Principal {
    Principal {
        id: "demo".to_owned(),
        name: "demo".to_owned(),
        tenants: TenantSet::All,
        roles: [Role::Admin].into(),
    }
}

impl Report {
    /// Reads the result from the running server.
    ///
    /// # Errors
    /// When a query fails.
    pub async fn gather(server: &Server, sent: &Sent, elapsed: Duration) -> Result<Self> {
        let pipelines = server.engines.pipelines();
        let mut rows: BTreeMap<&'static str, BTreeMap<String, u64>> = BTreeMap::new();
        for zone in Zone::ALL {
            rows.insert(zone.as_str(), BTreeMap::new());
        }
        for table in server.lake.tables().await? {
            let zone = rows.entry(table.key.name.zone.as_str()).or_default();
            *zone.entry(table.key.name.name.to_string()).or_default() += table.rows;
        }
        let sources: Vec<String> =
            pipelines.iter().filter(|p| p.totals.records_in > 0).map(|p| p.name.to_string()).collect();
        let expected = sent.records();
        rows.insert("bronze", bronze(server, &sources, expected).await?);
        let freshness = server.engines.freshness();
        Ok(Self {
            sent: *sent,
            dead_letters: server.bus.dead_letter_counts(&TenantSet::All)?,
            dropped: pipelines.iter().map(|p| p.totals.duplicates).sum(),
            rows,
            answer: ask(server, QUESTION).await?,
            latency_ms: (freshness.p50_ms, freshness.p99_ms),
            seconds: elapsed.as_secs_f64(),
        })
    }

    /// All that were written.
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters.values().sum()
    }

    pub fn json(&self) -> Value {
        json!({
            "accepted": self.sent.accepted,
            "file_rows": self.sent.file_rows,
            "duplicates": self.sent.duplicates + self.dropped,
            "dead_letters": self.dead_letters,
            "rows": self.rows,
            "latency_ms": { "p50": self.latency_ms.0, "p99": self.latency_ms.1 },
            "seconds": (self.seconds * 100.0).round() / 100.0,
        })
    }

    pub fn print(&self, output: &Output, server: &Server) {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let mut rows = vec![
            row("events accepted", self.sent.accepted.to_string()),
            row("rows in files", self.sent.file_rows.to_string()),
            row("duplicates dropped", (self.sent.duplicates + self.dropped).to_string()),
        ];
        for (code, count) in &self.dead_letters {
            rows.push(row(&format!("dead: {code}"), count.to_string()));
        }
        for (zone, tables) in &self.rows {
            for (table, count) in tables {
                rows.push(row(&format!("{zone}.{table}"), count.to_string()));
            }
        }
        output.line("");
        output.table(&["WHAT", "COUNT"], rows, &[1]);
        output.line("");
        output.line(QUESTION);
        let header: Vec<&str> = self.answer.columns.iter().map(|c| c.name.as_str()).collect();
        let cell = |value: &Option<String>| value.clone().unwrap_or_else(|| "∅".to_owned());
        let cells = self.answer.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        output.table(&header, cells, &[1, 2]);
        let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.0} ms"));
        output.line("");
        output.line(&format!(
            "publish to queryable  p50 {}  p99 {}   in all {:.1} s",
            ms(self.latency_ms.0),
            ms(self.latency_ms.1),
            self.seconds
        ));
        output.line("");
        output.line(&format!("console     {}/console", server.url));
        output.line(&format!("API         {}/openapi.json", server.url));
        if let Some(postgres) = server.postgres {
            output.line(&format!("PostgreSQL  psql -h {} -p {} -U levada", postgres.ip(), postgres.port()));
        }
        output.line(&format!("key         {}", server.admin_key_path.display()));
    }
}

/// Rows of the bronze sources, once the archive has caught up.
async fn bronze(server: &Server, sources: &[String], expected: u64) -> Result<BTreeMap<String, u64>> {
    let give_up = tokio::time::Instant::now() + BRONZE_WITHIN;
    loop {
        let mut counts = BTreeMap::new();
        for source in sources {
            // A source that archived nothing yet has no table.
            let sql = format!("select count(*) from bronze.{source}");
            if let Ok(count) = count(server, &sql).await {
                counts.insert(source.clone(), count);
            }
        }
        if counts.values().sum::<u64>() >= expected || tokio::time::Instant::now() > give_up {
            return Ok(counts);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn count(server: &Server, sql: &str) -> Result<u64> {
    let text = ask(server, sql).await?;
    let first = text.rows.first().and_then(|row| row.first().cloned().flatten());
    Ok(first.unwrap_or_default().parse()?)
}

async fn ask(server: &Server, sql: &str) -> Result<levada_lake::TextRows> {
    let session = server.lake.session(&everything(), None)?;
    Ok(session.query(sql, Vec::new(), QueryLimits::default()).await?.into_text().await?)
}
