//! The made-up zones and tables.

use levada_console::*;
use levada_core::{Principal, Zone};

use super::Double;

impl Double {
    pub(super) fn zone_rows(&self, principal: &Principal) -> Vec<ZoneRow> {
        let s = self.seconds();
        let zones = [(Zone::Bronze, 5, 2400, 1100), (Zone::Silver, 4, 2380, 210), (Zone::Gold, 3, 2, 90)];
        zones
            .into_iter()
            .filter(|(zone, ..)| principal.may_read(*zone))
            .map(|(zone, tables, per_s, row_bytes)| ZoneRow {
                zone: zone.to_string(),
                tables,
                objects: (zone == Zone::Bronze).then_some(s / 10),
                rows: s * per_s,
                bytes: s * per_s * row_bytes,
            })
            .collect()
    }

    pub(super) fn table_rows(&self, principal: &Principal) -> Vec<TableRow> {
        let s = self.seconds();
        let table = |name: &str, rows: u64, columns: &[(&str, &str)]| TableRow {
            name: name.to_owned(),
            rows: Some(rows),
            files: Some(1 + rows / 1_000),
            bytes: Some(rows * 40),
            columns: columns.iter().map(|(n, k)| ((*n).to_owned(), (*k).to_owned())).collect(),
            description: name.starts_with("gold").then(|| "Refreshed from its model.".to_owned()),
        };
        let checkin: &[(&str, &str)] = &[
            ("tenant_id", "text"),
            ("user", "text"),
            ("station", "text"),
            ("time", "timestamptz"),
            ("temp", "double"),
        ];
        let all = vec![
            (
                Zone::Gold,
                table(
                    "gold.station_day",
                    1092,
                    &[("station", "text"), ("day", "date"), ("checkins", "bigint")],
                ),
            ),
            (Zone::Silver, table("silver.checkins", s * 1480, checkin)),
            (Zone::Silver, table("silver.github_events", s * 640, checkin)),
            (Zone::Bronze, table("bronze.checkins", s * 1490, checkin)),
        ];
        all.into_iter().filter(|(zone, _)| principal.may_read(*zone)).map(|(_, t)| t).collect()
    }
}
