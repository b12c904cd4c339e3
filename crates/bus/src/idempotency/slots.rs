//! The table of keys: many small tables, since one that grows moves all that it has at once, and
//! every publish would wait for a million keys.

use std::collections::HashMap;

use super::{KeyHash, Slot};

const TABLES: usize = 32;

type Table = HashMap<KeyHash, Slot, ahash::RandomState>;

#[derive(Debug)]
pub(super) struct Slots {
    tables: Vec<Table>,
    len: usize,
}

impl Default for Slots {
    fn default() -> Self {
        Self { tables: std::iter::repeat_with(Table::default).take(TABLES).collect(), len: 0 }
    }
}

impl Slots {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, key: &KeyHash) -> Option<&Slot> {
        self.tables[table(key)].get(key)
    }

    pub fn get_mut(&mut self, key: &KeyHash) -> Option<&mut Slot> {
        self.tables[table(key)].get_mut(key)
    }

    pub fn insert(&mut self, key: KeyHash, slot: Slot) -> Option<Slot> {
        let before = self.tables[table(&key)].insert(key, slot);
        self.len += usize::from(before.is_none());
        before
    }

    pub fn remove(&mut self, key: &KeyHash) -> Option<Slot> {
        let before = self.tables[table(key)].remove(key);
        self.len -= usize::from(before.is_some());
        before
    }
}

/// Any bits of a hash are as good as others.
fn table(key: &KeyHash) -> usize {
    (key.0 % TABLES as u128) as usize
}
