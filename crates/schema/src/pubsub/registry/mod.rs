//! The registry: schemas of projects with their revisions, kept in a document store.
//!
//! A revision is written before the head that names it, and a head goes before its revisions
//! do, so a crash leaves a schema as it was before the call or after it. Heads are in memory;
//! definitions are read when needed, and those in use are kept compiled.

mod compiled;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use levada_core::{Clock, ProjectId, ResourceId, ResourceName};
use levada_store::{DocumentStore, StoreError};
use parking_lot::{Mutex, RwLock};
use thiserror::Error;

use super::{Definition, Encoding, Flaw, Language};
use compiled::CompiledDefinitions;
use stored::{Head, Stored, StoredRevision};

/// Revisions of one schema at a time, as documented.
const MAX_REVISIONS: usize = 20;
/// Schemas of one project, as documented.
const MAX_SCHEMAS: usize = 10_000;
/// Definitions of one page of a list; a page ends early when they are large.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// Why a call on the registry failed.
#[derive(Debug, Clone, Error)]
pub enum RegistryError {
    #[error("there is no schema {0}")]
    NotFound(ResourceName),
    #[error("the schema {name} has no revision `{revision}`")]
    RevisionNotFound { name: ResourceName, revision: String },
    #[error("the schema {0} already exists")]
    AlreadyExists(ResourceName),
    #[error("{0}")]
    Definition(Flaw),
    /// A revision must be compatible with every other one that is kept.
    #[error("the definition is incompatible with revision {revision}: {flaw}")]
    Incompatible { revision: String, flaw: Flaw },
    #[error("the project {0} has {MAX_SCHEMAS} schemas, the most there can be: delete some")]
    TooManySchemas(ProjectId),
    #[error("the schema {0} has {MAX_REVISIONS} revisions, the most there can be: delete one first")]
    TooManyRevisions(ResourceName),
    #[error("revision {revision} is the only one of the schema {name}: delete the schema instead")]
    OnlyRevision { name: ResourceName, revision: String },
    /// In a range of revisions, the first is newer than the last.
    #[error("revision {first} of the schema {name} is newer than {last}: swap the two")]
    EmptyRange { name: ResourceName, first: String, last: String },
    /// What was stored once is not understood any more.
    #[error("the stored schema {name} cannot be used: {reason}")]
    Unusable { name: String, reason: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One revision of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    pub name: ResourceName,
    pub language: Language,
    pub definition: String,
    /// Eight hexadecimal digits.
    pub id: String,
    pub created_at_ms: i64,
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    pub items: Vec<Revision>,
    /// The name to go on after; `None` at the end.
    pub next: Option<ResourceName>,
}

/// By which revisions messages are checked, compiled.
#[derive(Debug, Clone)]
pub struct Checker {
    /// Newest first; not empty.
    revisions: Vec<(String, Arc<Definition>)>,
    pub language: Language,
}

impl Checker {
    /// Answers the id of the newest revision that the message fits.
    ///
    /// # Errors
    /// The revision that was tried last, and why the message does not fit it.
    pub fn check(&self, encoding: Encoding, message: &[u8]) -> Result<&str, (&str, Flaw)> {
        let mut last = ("", Flaw::new("there is no revision"));
        for (id, definition) in &self.revisions {
            match definition.check(encoding, message) {
                Ok(()) => return Ok(id),
                Err(flaw) => last = (id, flaw),
            }
        }
        Err(last)
    }
}

/// The schemas of all projects. Its calls read and write files: keep them off threads that
/// must not wait.
#[derive(Debug)]
pub struct SchemaRegistry {
    store: DocumentStore,
    clock: Arc<dyn Clock>,
    heads: RwLock<BTreeMap<ProjectId, BTreeMap<ResourceId, Arc<Head>>>>,
    compiled: CompiledDefinitions,
    /// Changes take turns.
    changing: Mutex<()>,
}

impl SchemaRegistry {
    /// Reads the heads of all schemas, and removes what an interrupted call left behind.
    ///
    /// # Errors
    /// `Store` when a document is damaged, `Unusable` when it is of an unknown version.
    pub fn open(store: DocumentStore, clock: Arc<dyn Clock>) -> Result<Self, RegistryError> {
        let heads = stored::load(&store)?;
        let compiled = CompiledDefinitions::default();
        Ok(Self { store, clock, heads: RwLock::new(heads), compiled, changing: Mutex::default() })
    }

    /// Creates a schema with its first revision; durable when this returns.
    ///
    /// # Errors
    /// `Definition`, `AlreadyExists`, `TooManySchemas`, `Store`.
    pub fn create(
        &self,
        name: &ResourceName,
        language: Language,
        definition: &str,
    ) -> Result<Revision, RegistryError> {
        let compiled = Definition::parse(language, definition).map_err(RegistryError::Definition)?;
        let _turn = self.changing.lock();
        if self.head(name).is_ok() {
            return Err(RegistryError::AlreadyExists(name.clone()));
        }
        if self.heads.read().get(&name.project).is_some_and(|schemas| schemas.len() >= MAX_SCHEMAS) {
            return Err(RegistryError::TooManySchemas(name.project.clone()));
        }
        let head = Head { name: name.clone(), language, revisions: Vec::new() };
        self.append(&head, definition, compiled)
    }

    /// A revision; `None`: the latest.
    ///
    /// # Errors
    /// `NotFound`, `RevisionNotFound`, `Store`.
    pub fn get(&self, name: &ResourceName, revision: Option<&str>) -> Result<Revision, RegistryError> {
        let head = self.head(name)?;
        let found = match revision {
            Some(id) => head.revision(id)?,
            None => head.latest()?,
        };
        self.read(&head, found)
    }

    /// The latest revisions of a project's schemas, by name, at most `size` of them.
    ///
    /// # Errors
    /// `Store`.
    pub fn list(
        &self,
        project: &ProjectId,
        after: Option<&ResourceName>,
        size: usize,
    ) -> Result<Page, RegistryError> {
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.id.clone()));
        let mut heads: Vec<Arc<Head>> = match self.heads.read().get(project) {
            Some(schemas) => schemas
                .range((from, Bound::Unbounded))
                .map(|(_, head)| head.clone())
                .take(size.saturating_add(1))
                .collect(),
            None => Vec::new(),
        };
        let mut more = heads.len() > size;
        heads.truncate(size);
        let mut items = Vec::with_capacity(heads.len());
        let (mut bytes, mut last) = (0, None);
        for head in heads {
            if bytes >= MAX_PAGE_BYTES {
                more = true;
                break;
            }
            last = Some(head.name.clone());
            match self.read(&head, head.latest()?) {
                Ok(revision) => {
                    bytes += revision.definition.len();
                    items.push(revision);
                }
                // Deleted since the heads were looked at.
                Err(RegistryError::NotFound(_) | RegistryError::RevisionNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Page { items, next: last.filter(|_| more) })
    }

    /// All revisions, newest first.
    ///
    /// # Errors
    /// `NotFound`, `Store`.
    pub fn revisions(&self, name: &ResourceName) -> Result<Vec<Revision>, RegistryError> {
        let head = self.head(name)?;
        head.revisions.iter().rev().map(|revision| self.read(&head, revision)).collect()
    }

    /// Adds a revision, which becomes the latest; durable when this returns.
    ///
    /// # Errors
    /// `NotFound`, `Definition`, `Incompatible`, `TooManyRevisions`, `Store`.
    pub fn commit(
        &self,
        name: &ResourceName,
        language: Language,
        definition: &str,
    ) -> Result<Revision, RegistryError> {
        self.head(name)?;
        let compiled = Definition::parse(language, definition).map_err(RegistryError::Definition)?;
        let _turn = self.changing.lock();
        let head = self.head(name)?;
        for earlier in head.revisions.iter().rev() {
            compiled
                .compatible_with(&*self.definition(&head, earlier)?)
                .map_err(|flaw| RegistryError::Incompatible { revision: earlier.id.clone(), flaw })?;
        }
        self.append(&head, definition, compiled)
    }

    /// Adds a copy of an earlier revision, which becomes the latest; durable when this returns.
    ///
    /// # Errors
    /// `NotFound`, `RevisionNotFound`, `TooManyRevisions`, `Store`.
    pub fn rollback(&self, name: &ResourceName, revision: &str) -> Result<Revision, RegistryError> {
        let _turn = self.changing.lock();
        let head = self.head(name)?;
        let earlier = self.read(&head, head.revision(revision)?)?;
        let compiled = parse_stored(&head, &earlier.definition)?;
        self.append(&head, &earlier.definition, compiled)
    }

    /// Removes a revision and answers it.
    ///
    /// # Errors
    /// `NotFound`, `RevisionNotFound`, `OnlyRevision`, `Store`.
    pub fn delete_revision(&self, name: &ResourceName, revision: &str) -> Result<Revision, RegistryError> {
        let _turn = self.changing.lock();
        let head = self.head(name)?;
        let gone = self.read(&head, head.revision(revision)?)?;
        if head.revisions.len() == 1 {
            return Err(RegistryError::OnlyRevision { name: name.clone(), revision: revision.to_owned() });
        }
        let mut head = Head::clone(&head);
        head.revisions.retain(|kept| kept.id != revision);
        self.put(head)?;
        self.remove_leftover(name, revision);
        Ok(gone)
    }

    /// Removes a schema with all its revisions.
    ///
    /// # Errors
    /// `NotFound`, `Store`.
    pub fn delete(&self, name: &ResourceName) -> Result<(), RegistryError> {
        let _turn = self.changing.lock();
        let head = self.head(name)?;
        self.store.remove(&stored::head_name(name))?;
        let mut heads = self.heads.write();
        if let Some(schemas) = heads.get_mut(&name.project) {
            schemas.remove(&name.id);
            if schemas.is_empty() {
                heads.remove(&name.project);
            }
        }
        drop(heads);
        for revision in &head.revisions {
            self.remove_leftover(name, &revision.id);
        }
        Ok(())
    }

    /// What checks messages by the latest revision of a schema.
    ///
    /// # Errors
    /// `NotFound`, `Store`.
    pub fn latest(&self, name: &ResourceName) -> Result<Checker, RegistryError> {
        let head = self.head(name)?;
        let latest = head.latest()?;
        let revisions = vec![(latest.id.clone(), self.definition(&head, latest)?)];
        Ok(Checker { revisions, language: head.language })
    }

    /// What checks messages by the revisions of a schema from `first` to `last`, both included;
    /// an empty id does not bound.
    ///
    /// # Errors
    /// `NotFound`, `RevisionNotFound`, `EmptyRange`, `Store`.
    pub fn checker(&self, name: &ResourceName, first: &str, last: &str) -> Result<Checker, RegistryError> {
        let head = self.head(name)?;
        let revisions = head.range(first, last)?.iter().rev();
        let revisions = revisions
            .map(|revision| Ok((revision.id.clone(), self.definition(&head, revision)?)))
            .collect::<Result<_, RegistryError>>()?;
        Ok(Checker { revisions, language: head.language })
    }

    /// As [`Self::checker`], without touching the disk: `None` unless all is compiled.
    ///
    /// # Errors
    /// `NotFound`, `RevisionNotFound`, `EmptyRange`.
    pub fn ready_checker(
        &self,
        name: &ResourceName,
        first: &str,
        last: &str,
    ) -> Result<Option<Checker>, RegistryError> {
        let head = self.head(name)?;
        let revisions: Option<Vec<_>> = head
            .range(first, last)?
            .iter()
            .rev()
            .map(|revision| Some((revision.id.clone(), self.compiled.get(name, &revision.id)?)))
            .collect();
        Ok(revisions.map(|revisions| Checker { revisions, language: head.language }))
    }

    fn head(&self, name: &ResourceName) -> Result<Arc<Head>, RegistryError> {
        let heads = self.heads.read();
        let head = heads.get(&name.project).and_then(|schemas| schemas.get(&name.id));
        head.cloned().ok_or_else(|| RegistryError::NotFound(name.clone()))
    }

    fn read(&self, head: &Head, revision: &StoredRevision) -> Result<Revision, RegistryError> {
        Ok(Revision {
            name: head.name.clone(),
            language: head.language,
            definition: stored::definition(&self.store, head, &revision.id)?,
            id: revision.id.clone(),
            created_at_ms: revision.created_at_ms,
        })
    }

    /// Compiled, from memory or from its document.
    fn definition(&self, head: &Head, revision: &StoredRevision) -> Result<Arc<Definition>, RegistryError> {
        if let Some(definition) = self.compiled.get(&head.name, &revision.id) {
            return Ok(definition);
        }
        let text = stored::definition(&self.store, head, &revision.id)?;
        let definition = Arc::new(parse_stored(head, &text)?);
        self.compiled.put(&head.name, &revision.id, definition.clone(), text.len());
        Ok(definition)
    }

    /// Writes a revision, then the head that names it. The caller holds the turn.
    fn append(&self, head: &Head, definition: &str, compiled: Definition) -> Result<Revision, RegistryError> {
        if head.revisions.len() >= MAX_REVISIONS {
            return Err(RegistryError::TooManyRevisions(head.name.clone()));
        }
        let created_at_ms = self.clock.now_ms();
        let id = stored::new_id(head, created_at_ms, definition);
        self.store.put(&stored::revision_name(&head.name, &id), &Stored::revision(definition))?;
        let mut head = head.clone();
        head.revisions.push(StoredRevision { id: id.clone(), created_at_ms });
        let (name, language) = (head.name.clone(), head.language);
        self.put(head)?;
        self.compiled.put(&name, &id, Arc::new(compiled), definition.len());
        Ok(Revision { name, language, definition: definition.to_owned(), id, created_at_ms })
    }

    /// A revision that no head names any more. What cannot be removed now is when the registry
    /// is opened next: the call is done without it.
    fn remove_leftover(&self, name: &ResourceName, revision: &str) {
        let _ = self.store.remove(&stored::revision_name(name, revision));
    }

    fn put(&self, head: Head) -> Result<(), RegistryError> {
        self.store.put(&stored::head_name(&head.name), &Stored::head(&head))?;
        let (project, id) = (head.name.project.clone(), head.name.id.clone());
        self.heads.write().entry(project).or_default().insert(id, Arc::new(head));
        Ok(())
    }
}

fn parse_stored(head: &Head, definition: &str) -> Result<Definition, RegistryError> {
    Definition::parse(head.language, definition)
        .map_err(|flaw| RegistryError::Unusable { name: head.name.to_string(), reason: flaw.to_string() })
}
