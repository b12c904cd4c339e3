//! Figures of a pipeline that tenants share, told apart by tenant.
//!
//! Tenants come from the project, so there are only so many. A bound holds all the same; what
//! is beyond it, and rows whose tenant is no tenant, is counted together. The sum over all is
//! always the pipeline's total.

use std::collections::BTreeMap;

use ahash::AHashMap;
use arrow::array::RecordBatch;
use levada_core::{Record, TenantId};
use levada_schema::TENANT_ID;

use crate::codec::{Reader, put_bytes};
use crate::manifest::Totals;
use crate::rows;

/// Tenants that are told apart: the first ones that come.
const TENANTS: usize = 1_000;

/// What a pipeline did for one tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    pub totals: Totals,
    /// The last epoch that held a record of the tenant, and when it was sealed.
    pub epoch: u64,
    pub at_ms: i64,
}

/// What a pipeline did, by tenant. Empty for a pipeline that one tenant owns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shares {
    told: BTreeMap<TenantId, Share>,
    others: Totals,
}

impl Shares {
    /// Figures of which nobody knows whose they are.
    pub fn untold(totals: Totals) -> Self {
        Self { told: BTreeMap::new(), others: totals }
    }

    /// The tenant's own, or those of all who are not told apart.
    pub fn totals_of(&mut self, tenant: &TenantId) -> &mut Totals {
        self.slot(tenant).0
    }

    fn slot(&mut self, tenant: &TenantId) -> (&mut Totals, Option<(&mut u64, &mut i64)>) {
        if self.told.len() >= TENANTS && !self.told.contains_key(tenant) {
            return (&mut self.others, None);
        }
        let share = self.told.entry(tenant.clone()).or_default();
        (&mut share.totals, Some((&mut share.epoch, &mut share.at_ms)))
    }

    pub fn get(&self, tenant: &TenantId) -> Option<&Share> {
        self.told.get(tenant)
    }

    /// The tenants that are told apart.
    pub fn iter(&self) -> impl Iterator<Item = (&TenantId, &Share)> {
        self.told.iter()
    }

    /// Adds what one epoch did.
    pub fn add(&mut self, done: &Self, epoch: u64, at_ms: i64) {
        for (tenant, share) in &done.told {
            let (totals, last) = self.slot(tenant);
            *totals += share.totals;
            if let Some((last_epoch, last_ms)) = last {
                (*last_epoch, *last_ms) = (epoch, at_ms);
            }
        }
        self.others += done.others;
    }

    /// Counts rows by what their tenant column says.
    pub fn tally(&mut self, tally: Tally, figure: fn(&mut Totals) -> &mut u64) {
        for (text, rows) in tally.told {
            match TenantId::new(&text) {
                Ok(tenant) => *figure(self.totals_of(&tenant)) += rows,
                Err(_) => *figure(&mut self.others) += rows,
            }
        }
        *figure(&mut self.others) += tally.nameless;
    }

    /// Appends the stored form: a count, then for each a name (empty for those that are not
    /// told apart) and six numbers.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let others = Share { totals: self.others, ..Share::default() };
        out.extend_from_slice(&(self.told.len() as u64 + 1).to_le_bytes());
        let told = self.told.iter().map(|(tenant, share)| (tenant.as_str(), share));
        for (name, share) in std::iter::once(("", &others)).chain(told) {
            put_bytes(out, name.as_bytes());
            let Totals { records_in, rows_out, duplicates, dead_letters } = share.totals;
            for number in [records_in, rows_out, duplicates, dead_letters, share.epoch] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&share.at_ms.to_le_bytes());
        }
    }

    /// Reads what [`Shares::encode`] wrote; `None` when it did not write this.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let mut shares = Self::default();
        for _ in 0..reader.u64()? {
            let name = std::str::from_utf8(reader.bytes()?).ok()?;
            let totals = Totals {
                records_in: reader.u64()?,
                rows_out: reader.u64()?,
                duplicates: reader.u64()?,
                dead_letters: reader.u64()?,
            };
            let (epoch, at_ms) = (reader.u64()?, reader.u64()?.cast_signed());
            if name.is_empty() {
                shares.others = totals;
            } else {
                shares.told.insert(TenantId::new(name).ok()?, Share { totals, epoch, at_ms });
            }
        }
        Some(shares)
    }
}

/// How many records each tenant has among some. Neighbours are mostly of one tenant, so a look
/// into the map is paid once a run of them.
pub fn records_by_tenant<'a>(records: impl Iterator<Item = &'a Record>) -> AHashMap<&'a TenantId, u64> {
    let mut counts = AHashMap::new();
    let mut run: Option<(&TenantId, u64)> = None;
    for record in records {
        match &mut run {
            Some((tenant, count)) if **tenant == record.tenant => *count += 1,
            _ => {
                if let Some((tenant, count)) = run.replace((&record.tenant, 1)) {
                    *counts.entry(tenant).or_default() += count;
                }
            }
        }
    }
    if let Some((tenant, count)) = run {
        *counts.entry(tenant).or_default() += count;
    }
    counts
}

/// Rows of batches, counted by their tenant column.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    told: AHashMap<Box<str>, u64>,
    /// Rows without a tenant.
    nameless: u64,
}

impl Tally {
    /// Counts some rows of a batch.
    pub fn add(&mut self, batch: &RecordBatch, rows: impl IntoIterator<Item = usize>) {
        let column = batch.column_by_name(TENANT_ID);
        let mut run = (None, 0);
        for row in rows {
            let tenant = column.and_then(|c| rows::text(c, row));
            if run.0 == tenant {
                run.1 += 1;
            } else {
                let (last, count) = std::mem::replace(&mut run, (tenant, 1));
                self.count(last.as_deref(), count);
            }
        }
        self.count(run.0.as_deref(), run.1);
    }

    /// Counts every row of a batch.
    pub fn add_all(&mut self, batch: &RecordBatch) {
        self.add(batch, 0..batch.num_rows());
    }

    fn count(&mut self, tenant: Option<&str>, rows: u64) {
        match tenant {
            _ if rows == 0 => {}
            None => self.nameless += rows,
            Some(tenant) => match self.told.get_mut(tenant) {
                Some(count) => *count += rows,
                None => drop(self.told.insert(tenant.into(), rows)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).expect("a tenant")
    }

    fn read(records_in: u64) -> Totals {
        Totals { records_in, ..Totals::default() }
    }

    #[test]
    fn tenants_beyond_the_bound_are_counted_together_and_nothing_is_lost() {
        let mut all = Shares::default();
        for n in 0..TENANTS + 20 {
            let mut epoch = Shares::default();
            *epoch.totals_of(&tenant(&format!("t{n:04}"))) = read(1);
            all.add(&epoch, n as u64, 7);
        }
        assert_eq!(all.told.len(), TENANTS);
        assert_eq!(all.others, read(20));
        let first = all.told[&tenant("t0000")];
        assert_eq!(first, Share { totals: read(1), epoch: 0, at_ms: 7 });
        assert!(!all.told.contains_key(&tenant("t1000")), "those who came later are not told apart");
        let mut again = Shares::default();
        *again.totals_of(&tenant("t0000")) = read(4);
        all.add(&again, 5_000, 9);
        assert_eq!(all.told[&tenant("t0000")], Share { totals: read(5), epoch: 5_000, at_ms: 9 });
        let mut bytes = Vec::new();
        all.encode(&mut bytes);
        assert_eq!(Shares::decode(&mut Reader(&bytes)), Some(all));
        assert_eq!(Shares::decode(&mut Reader(&bytes[..bytes.len() - 1])), None);
    }
}
