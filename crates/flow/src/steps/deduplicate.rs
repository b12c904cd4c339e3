//! Drops rows whose key was seen within the window, per tenant.
//!
//! A key counts as seen only once its row has come through the rest of the chain: the chain
//! calls [`Split::winners`] keys in after the later steps have run. So a dead letter that is
//! sent again is not taken for a duplicate of itself.

use ahash::AHashMap;
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use levada_config::model::Deduplicate;
use levada_schema::TENANT_ID;

use super::{BuildError, StepError};
use crate::rows;
use crate::window::{Key, Window};

/// Computes keys from the columns of a batch.
#[derive(Debug, Clone)]
pub struct Keyer {
    columns: Vec<String>,
}

impl Keyer {
    /// # Errors
    /// When a column is not there.
    pub fn new(step: &str, columns: &[String], schema: &Schema) -> Result<Self, BuildError> {
        if let Some(missing) = columns.iter().find(|c| schema.index_of(c).is_err()) {
            return Err(BuildError::new(step, format!("there is no column `{missing}`")));
        }
        Ok(Self { columns: columns.to_vec() })
    }

    /// A key for each row; `None` where all its values are null, since those say nothing
    /// about sameness.
    pub fn keys(&self, batch: &RecordBatch) -> Result<Vec<Option<Key>>, StepError> {
        let find = |name: &String| {
            batch.column_by_name(name).cloned().ok_or_else(|| StepError::MissingColumn(name.clone()))
        };
        let columns = self.columns.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let tenant = batch.column_by_name(TENANT_ID);
        let mut input = Vec::with_capacity(128);
        let keys = (0..batch.num_rows()).map(|row| {
            if columns.iter().all(|c| c.is_null(row)) {
                return None;
            }
            input.clear();
            tenant.iter().for_each(|t| rows::hash_input(t, row, &mut input));
            columns.iter().for_each(|c| rows::hash_input(c, row, &mut input));
            let hash = blake3::hash(&input);
            let (half, _) = hash.as_bytes().split_first_chunk::<16>()?;
            Some(Key::from_le_bytes(*half))
        });
        Ok(keys.collect())
    }
}

/// The deduplication step; its window is held by the chain.
#[derive(Debug)]
pub struct DeduplicateStep {
    keyer: Keyer,
}

/// What one batch splits into.
#[derive(Debug)]
pub struct Split {
    /// The first row of each new key, and rows without a key.
    pub batch: RecordBatch,
    /// Row number to key of the rows that go on.
    pub winners: Vec<(u32, Key)>,
    /// Positions in the input batch of rows that repeat a winner of this same batch.
    pub held: Vec<(usize, Key)>,
    /// Positions in the input batch of rows that repeat a key of the window.
    pub duplicates: Vec<usize>,
}

impl DeduplicateStep {
    /// # Errors
    /// When a key column is not there.
    pub fn new(config: &Deduplicate, schema: &Schema) -> Result<Self, BuildError> {
        let columns: Vec<String> = config.key.iter().map(ToString::to_string).collect();
        Ok(Self { keyer: Keyer::new("deduplicate", &columns, schema)? })
    }

    /// # Errors
    /// [`StepError`] for a defect.
    pub fn split(&self, batch: &RecordBatch, window: &Window) -> Result<Split, StepError> {
        let keys = self.keyer.keys(batch)?;
        let numbers = rows::numbers(batch).ok_or_else(|| StepError::MissingColumn(rows::ROW.into()))?;
        let mut first: AHashMap<Key, ()> = AHashMap::with_capacity(keys.len());
        let mut split = Split {
            batch: batch.clone(),
            winners: Vec::with_capacity(keys.len()),
            held: Vec::new(),
            duplicates: Vec::new(),
        };
        let mut flags = vec![true; keys.len()];
        for (at, key) in keys.iter().enumerate() {
            let Some(key) = *key else { continue };
            if window.contains(key) {
                split.duplicates.push(at);
                flags[at] = false;
            } else if first.insert(key, ()).is_some() {
                split.held.push((at, key));
                flags[at] = false;
            } else {
                split.winners.push((numbers.value(at), key));
            }
        }
        split.batch = rows::keep(batch, flags)?;
        Ok(split)
    }
}
