//! Definitions that are in use, compiled; bounded, the least recently used go first.

use std::collections::HashMap;
use std::sync::Arc;

use levada_core::ResourceName;
use parking_lot::Mutex;

use crate::pubsub::Definition;

const MAX_DEFINITIONS: usize = 1_024;
/// Of definitions as text; compiled they take some times that.
const MAX_BYTES: usize = 8 << 20;

#[derive(Debug, Default)]
pub(super) struct CompiledDefinitions(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<ResourceName, HashMap<String, Entry>>,
    count: usize,
    bytes: usize,
    now: u64,
}

#[derive(Debug)]
struct Entry {
    definition: Arc<Definition>,
    bytes: usize,
    used: u64,
}

impl CompiledDefinitions {
    pub(super) fn get(&self, name: &ResourceName, revision: &str) -> Option<Arc<Definition>> {
        let mut inner = self.0.lock();
        inner.now += 1;
        let now = inner.now;
        let entry = inner.entries.get_mut(name)?.get_mut(revision)?;
        entry.used = now;
        Some(entry.definition.clone())
    }

    pub(super) fn put(&self, name: &ResourceName, revision: &str, definition: Arc<Definition>, bytes: usize) {
        let mut inner = self.0.lock();
        inner.remove(name, revision);
        while inner.count >= MAX_DEFINITIONS || (inner.count > 0 && inner.bytes + bytes > MAX_BYTES) {
            inner.remove_oldest();
        }
        inner.now += 1;
        let entry = Entry { definition, bytes, used: inner.now };
        inner.entries.entry(name.clone()).or_default().insert(revision.to_owned(), entry);
        inner.count += 1;
        inner.bytes += bytes;
    }
}

impl Inner {
    fn remove(&mut self, name: &ResourceName, revision: &str) {
        let Some(revisions) = self.entries.get_mut(name) else { return };
        if let Some(entry) = revisions.remove(revision) {
            self.count -= 1;
            self.bytes -= entry.bytes;
        }
        if revisions.is_empty() {
            self.entries.remove(name);
        }
    }

    /// Looks at all, which is little beside the compilation that made it necessary.
    fn remove_oldest(&mut self) {
        let all = self.entries.iter().flat_map(|(name, revisions)| {
            revisions.iter().map(move |(revision, entry)| (entry.used, name, revision))
        });
        let oldest =
            all.min_by_key(|(used, ..)| *used).map(|(_, name, revision)| (name.clone(), revision.clone()));
        if let Some((name, revision)) = oldest {
            self.remove(&name, &revision);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pubsub::Language;

    #[test]
    fn the_least_recently_used_go_when_there_are_too_many_or_too_large_ones() {
        let definition = Arc::new(Definition::parse(Language::Avro, "\"int\"").expect("a definition"));
        let name = |index: usize| format!("demo/schema-{index}").parse::<ResourceName>().expect("a name");
        let compiled = CompiledDefinitions::default();
        let kept = |index: usize| compiled.get(&name(index), "r").is_some();
        for index in 0..MAX_DEFINITIONS {
            compiled.put(&name(index), "r", definition.clone(), 10);
        }
        assert!(kept(0), "and by this it is used");
        compiled.put(&name(MAX_DEFINITIONS), "r", definition.clone(), 10);
        assert!(kept(0) && !kept(1) && kept(2) && kept(MAX_DEFINITIONS));
        compiled.put(&name(5_000), "r", definition.clone(), MAX_BYTES - 30);
        assert!(kept(5_000) && !kept(3));
        compiled.put(&name(5_001), "r", definition, MAX_BYTES + 1);
        let inner = compiled.0.lock();
        assert_eq!((inner.count, inner.bytes, inner.entries.len()), (1, MAX_BYTES + 1, 1));
    }
}
