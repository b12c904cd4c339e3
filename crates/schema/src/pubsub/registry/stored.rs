//! The documents of the registry, version 1, and their names.
//!
//! `<project>/<hash>.head` says what a schema is and which revisions it has, oldest first;
//! `<project>/<hash>.<revision>` holds a definition. The hash is of the schema's id, which may
//! be longer than a document's name and hold characters that such a name cannot.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use levada_core::{ProjectId, ResourceId, ResourceName};
use levada_store::DocumentStore;
use serde::{Deserialize, Serialize};

use super::RegistryError;
use crate::pubsub::Language;

const VERSION: u32 = 1;
const HEAD: &str = "head";

/// A schema without its definitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub name: ResourceName,
    pub language: Language,
    /// Oldest first; never empty once stored.
    pub revisions: Vec<StoredRevision>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredRevision {
    pub id: String,
    pub created_at_ms: i64,
}

/// A document with its version.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredDefinition {
    definition: String,
}

impl<'a> Stored<&'a Head> {
    pub(super) fn head(content: &'a Head) -> Self {
        Self { version: VERSION, content }
    }
}

impl Stored<StoredDefinition> {
    pub(super) fn revision(definition: &str) -> Self {
        Self { version: VERSION, content: StoredDefinition { definition: definition.to_owned() } }
    }
}

impl<T> Stored<T> {
    fn content(self, document: &str) -> Result<T, RegistryError> {
        if self.version == VERSION {
            return Ok(self.content);
        }
        Err(RegistryError::Unusable {
            name: document.to_owned(),
            reason: format!("its format version {} is not known here", self.version),
        })
    }
}

impl Head {
    pub(super) fn latest(&self) -> Result<&StoredRevision, RegistryError> {
        self.revisions.last().ok_or_else(|| RegistryError::NotFound(self.name.clone()))
    }

    pub(super) fn revision(&self, id: &str) -> Result<&StoredRevision, RegistryError> {
        Ok(&self.revisions[self.position(id)?])
    }

    fn position(&self, id: &str) -> Result<usize, RegistryError> {
        let found = self.revisions.iter().position(|revision| revision.id == id);
        found.ok_or_else(|| RegistryError::RevisionNotFound {
            name: self.name.clone(),
            revision: id.to_owned(),
        })
    }

    /// From `first` to `last`, both included; an empty id does not bound.
    pub(super) fn range(&self, first: &str, last: &str) -> Result<&[StoredRevision], RegistryError> {
        let from = if first.is_empty() { 0 } else { self.position(first)? };
        let to = if last.is_empty() { self.revisions.len() } else { self.position(last)? + 1 };
        match self.revisions.get(from..to) {
            Some(range) if !range.is_empty() => Ok(range),
            _ if self.revisions.is_empty() => Err(RegistryError::NotFound(self.name.clone())),
            _ => Err(RegistryError::EmptyRange {
                name: self.name.clone(),
                first: first.to_owned(),
                last: last.to_owned(),
            }),
        }
    }
}

/// The document that all documents of a schema begin with.
fn stem(name: &ResourceName) -> String {
    let hash = blake3::hash(name.id.as_str().as_bytes()).to_hex();
    format!("{}/{}", name.project, &hash.as_str()[..32])
}

pub(super) fn head_name(name: &ResourceName) -> String {
    format!("{}.{HEAD}", stem(name))
}

pub(super) fn revision_name(name: &ResourceName, revision: &str) -> String {
    format!("{}.{revision}", stem(name))
}

/// Eight hexadecimal digits that no revision of the schema has.
pub(super) fn new_id(head: &Head, now_ms: i64, definition: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head.name.to_string().as_bytes());
    hasher.update(&now_ms.to_le_bytes());
    hasher.update(definition.as_bytes());
    let mut digits = hasher.finalize_xof();
    loop {
        let mut bytes = [0; 4];
        digits.fill(&mut bytes);
        let id = format!("{:08x}", u32::from_be_bytes(bytes));
        if head.revisions.iter().all(|revision| revision.id != id) {
            return id;
        }
    }
}

/// The text of a revision.
pub(super) fn definition(
    store: &DocumentStore,
    head: &Head,
    revision: &str,
) -> Result<String, RegistryError> {
    let document = revision_name(&head.name, revision);
    let stored: Option<Stored<StoredDefinition>> = store.get(&document)?;
    let gone = || RegistryError::RevisionNotFound { name: head.name.clone(), revision: revision.to_owned() };
    Ok(stored.ok_or_else(gone)?.content(&document)?.definition)
}

/// All heads. Revisions that no head names are the rest of an interrupted call and go.
pub(super) fn load(
    store: &DocumentStore,
) -> Result<BTreeMap<ProjectId, BTreeMap<ResourceId, Arc<Head>>>, RegistryError> {
    let documents = store.list("")?;
    let mut heads: BTreeMap<ProjectId, BTreeMap<ResourceId, Arc<Head>>> = BTreeMap::new();
    let mut known = HashSet::new();
    for document in documents.iter().filter(|document| document.ends_with(&format!(".{HEAD}"))) {
        let Some(stored) = store.get::<Stored<Head>>(document)? else { continue };
        let head = stored.content(document)?;
        known.insert(document.clone());
        known.extend(head.revisions.iter().map(|revision| revision_name(&head.name, &revision.id)));
        let (project, id) = (head.name.project.clone(), head.name.id.clone());
        heads.entry(project).or_default().insert(id, Arc::new(head));
    }
    for document in documents.iter().filter(|document| !known.contains(*document)) {
        store.remove(document)?;
    }
    Ok(heads)
}
