//! The schemas of the API over the registry of `levada-schema`: names, threads and words.
//!
//! What reads or writes files, or takes long, runs on the threads for blocking work. A publish
//! of ordinary size whose definitions are compiled is checked where it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use levada_bus::port::{self, PageRequest, SchemaSettings};
use levada_core::{Clock, ProjectId, ResourceName};
use levada_schema::pubsub::{
    Checker, Definition, Encoding, Flaw, Language, RegistryError, Revision, SchemaRegistry,
};
use levada_store::{DocumentStore, StoreError};
use tokio::sync::Semaphore;
use tonic::Code;

use crate::error::ApiError;
use crate::names::{self, DELETED_SCHEMA};
use crate::schemas::{Schema, SchemaKind, SchemaSource, SchemaStore};

/// Bodies of one publish that are checked without going to another thread.
const INLINE_BYTES: usize = 64 << 10;
/// Calls on other threads at a time. JSON becomes values of many times its size, and a
/// publish may have 10 MB.
const MAX_BLOCKING: usize = 4;

/// Schemas kept in a document store. Cheap to clone, all clones are one.
#[derive(Debug, Clone)]
pub struct StoredSchemas {
    registry: Arc<SchemaRegistry>,
    blocking: Arc<Semaphore>,
}

impl StoredSchemas {
    /// Opens what the store holds; nothing else may write to the store.
    ///
    /// # Errors
    /// When a document is damaged or of an unknown version.
    pub fn open(store: DocumentStore, clock: Arc<dyn Clock>) -> Result<Self, RegistryError> {
        let registry = Arc::new(SchemaRegistry::open(store, clock)?);
        Ok(Self { registry, blocking: Arc::new(Semaphore::new(MAX_BLOCKING)) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SchemaRegistry) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let registry = self.registry.clone();
        let turn = self.blocking.clone().acquire_owned().await;
        let turn = turn.map_err(|_| ApiError::unavailable("The schemas are being closed."))?;
        let done = tokio::task::spawn_blocking(move || {
            // Held to the end of the work, also when the caller has gone.
            let _turn = turn;
            work(&registry)
        })
        .await;
        // A panic in a parser ends this call, not the process.
        done.unwrap_or_else(|_| Err(ApiError::new(Code::Internal, "The schema could not be processed.")))
    }
}

#[async_trait]
impl SchemaStore for StoredSchemas {
    async fn create(
        &self,
        name: &ResourceName,
        kind: SchemaKind,
        definition: &str,
    ) -> Result<Schema, ApiError> {
        let (name, definition) = (name.clone(), definition.to_owned());
        self.blocking(move |registry| Ok(schema(registry.create(&name, language(kind), &definition)?))).await
    }

    async fn get(&self, name: &ResourceName, revision: Option<&str>) -> Result<Schema, ApiError> {
        let (name, revision) = (name.clone(), revision.map(str::to_owned));
        self.blocking(move |registry| Ok(schema(registry.get(&name, revision.as_deref())?))).await
    }

    async fn list(&self, project: &ProjectId, page: &PageRequest) -> Result<port::Page<Schema>, ApiError> {
        let (project, page) = (project.clone(), page.clone());
        self.blocking(move |registry| {
            let size = if page.size == 0 { 100 } else { page.size };
            let page = registry.list(&project, page.after.as_ref(), size)?;
            Ok(port::Page { items: page.items.into_iter().map(schema).collect(), next: page.next })
        })
        .await
    }

    async fn revisions(&self, name: &ResourceName) -> Result<Vec<Schema>, ApiError> {
        let name = name.clone();
        self.blocking(move |registry| Ok(registry.revisions(&name)?.into_iter().map(schema).collect())).await
    }

    async fn commit(
        &self,
        name: &ResourceName,
        kind: SchemaKind,
        definition: &str,
    ) -> Result<Schema, ApiError> {
        let (name, definition) = (name.clone(), definition.to_owned());
        self.blocking(move |registry| match registry.commit(&name, language(kind), &definition) {
            Ok(revision) => Ok(schema(revision)),
            Err(RegistryError::Incompatible { revision, flaw }) => Err(ApiError::invalid(format!(
                "Compatibility checking failed to commit a schema revision for (schema={}). (reason=Revision is \
                 incompatible with previous revision: {revision}. Failed with error: {flaw}).",
                name.path("schemas")
            ))),
            Err(error) => Err(error.into()),
        })
        .await
    }

    async fn rollback(&self, name: &ResourceName, revision: &str) -> Result<Schema, ApiError> {
        let (name, revision) = (name.clone(), revision.to_owned());
        self.blocking(move |registry| Ok(schema(registry.rollback(&name, &revision)?))).await
    }

    async fn delete_revision(&self, name: &ResourceName, revision: &str) -> Result<Schema, ApiError> {
        let (name, revision) = (name.clone(), revision.to_owned());
        self.blocking(move |registry| Ok(schema(registry.delete_revision(&name, &revision)?))).await
    }

    async fn delete(&self, name: &ResourceName) -> Result<(), ApiError> {
        let name = name.clone();
        self.blocking(move |registry| Ok(registry.delete(&name)?)).await
    }

    async fn validate(&self, kind: SchemaKind, definition: &str) -> Result<(), ApiError> {
        let definition = definition.to_owned();
        self.blocking(move |_| {
            Definition::parse(language(kind), &definition).map(drop).map_err(wrong_definition)
        })
        .await
    }

    async fn validate_message(
        &self,
        source: &SchemaSource,
        encoding: port::Encoding,
        message: &Bytes,
    ) -> Result<(), ApiError> {
        let (source, message, encoding) = (source.clone(), message.clone(), encoding_in(encoding));
        self.blocking(move |registry| match source {
            SchemaSource::Named(name) => {
                let checker = registry.latest(&name)?;
                let outcome = checker.check(encoding, &message);
                let refused = |(revision, flaw)| Refusal { checker: &checker, encoding, revision, flaw };
                outcome.map(drop).map_err(|last| refused(last).answer(&name.path("schemas"), ""))
            }
            SchemaSource::Given { kind, definition } => {
                let language = language(kind);
                let definition = Definition::parse(language, &definition).map_err(wrong_definition)?;
                definition.check(encoding, &message).map_err(|flaw| {
                    let text =
                        format!("Invalid data in message: Message failed schema validation. Reason: {flaw}.");
                    ApiError::invalid(text).with_info(reason(language, encoding), metadata(&flaw.to_string()))
                })
            }
        })
        .await
    }

    async fn check(&self, settings: &SchemaSettings, messages: &[Bytes]) -> Result<Vec<String>, ApiError> {
        if settings.schema == DELETED_SCHEMA {
            return Err(deleted(&settings.schema));
        }
        let name = names::resource(&settings.schema, "schemas")?;
        let encoding = encoding_in(settings.encoding);
        let (first, last) = (&settings.first_revision_id, &settings.last_revision_id);
        let bytes: usize = messages.iter().map(Bytes::len).sum();
        if bytes <= INLINE_BYTES {
            let ready = self.registry.ready_checker(&name, first, last).map_err(unusable_range)?;
            if let Some(checker) = ready {
                return check_all(&checker, &settings.schema, encoding, messages);
            }
        }
        let (settings, messages) = (settings.clone(), messages.to_vec());
        self.blocking(move |registry| {
            let (first, last) = (&settings.first_revision_id, &settings.last_revision_id);
            let checker = registry.checker(&name, first, last).map_err(unusable_range)?;
            check_all(&checker, &settings.schema, encoding, &messages)
        })
        .await
    }
}

fn check_all(
    checker: &Checker,
    path: &str,
    encoding: Encoding,
    messages: &[Bytes],
) -> Result<Vec<String>, ApiError> {
    let check = |(index, message): (usize, &Bytes)| {
        let checked = checker.check(encoding, message).map(str::to_owned);
        checked.map_err(|(revision, flaw)| {
            let which = match messages.len() {
                1 => String::new(),
                count => format!(" (message {} of {count})", index + 1),
            };
            Refusal { checker, encoding, revision, flaw }.answer(path, &which)
        })
    };
    messages.iter().enumerate().map(check).collect()
}

/// A message that no revision takes.
struct Refusal<'a> {
    checker: &'a Checker,
    encoding: Encoding,
    /// The last that was tried.
    revision: &'a str,
    flaw: Flaw,
}

impl Refusal<'_> {
    fn answer(&self, path: &str, which: &str) -> ApiError {
        let Self { flaw, revision, .. } = self;
        let tried = format!(
            "Could not validate message with any schema revision for schema: {path}, last checked revision: \
             revision_id={revision} failed with status: {flaw}"
        );
        let text =
            format!("Invalid data in message: Message failed schema validation. Reason: {flaw}{which}.");
        ApiError::invalid(text).with_info(reason(self.checker.language, self.encoding), metadata(&tried))
    }
}

fn metadata(tried: &str) -> BTreeMap<String, String> {
    let pairs = [("message", "Message failed schema validation"), ("revisionInfo", tried)];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// As Google's service says it in `ErrorInfo`.
fn reason(language: Language, encoding: Encoding) -> &'static str {
    match (language, encoding) {
        (Language::Avro, Encoding::Json) => "INVALID_JSON_AVRO_MESSAGE",
        (Language::Avro, Encoding::Binary) => "INVALID_BINARY_AVRO_MESSAGE",
        (Language::ProtocolBuffer, Encoding::Json) => "INVALID_JSON_PROTO_MESSAGE",
        (Language::ProtocolBuffer, Encoding::Binary) => "INVALID_BINARY_PROTO_MESSAGE",
    }
}

/// A publish to a topic whose schema or revisions are gone: the topic must be changed first.
fn unusable_range(error: RegistryError) -> ApiError {
    match error {
        RegistryError::NotFound(name) => deleted(&name.path("schemas")),
        RegistryError::RevisionNotFound { .. } | RegistryError::EmptyRange { .. } => ApiError::new(
            Code::FailedPrecondition,
            format!(
                "The topic's schema settings name revisions that cannot be used: {error}. Update the topic."
            ),
        ),
        error => error.into(),
    }
}

fn deleted(schema: &str) -> ApiError {
    ApiError::new(
        Code::FailedPrecondition,
        format!(
            "The topic's schema was deleted (schema={schema}): set another one, or remove the schema settings."
        ),
    )
}

fn wrong_definition(flaw: Flaw) -> ApiError {
    ApiError::invalid(format!("The schema definition is not valid (argument=schema.definition): {flaw}."))
}

fn language(kind: SchemaKind) -> Language {
    match kind {
        SchemaKind::Avro => Language::Avro,
        SchemaKind::ProtocolBuffer => Language::ProtocolBuffer,
    }
}

fn encoding_in(encoding: port::Encoding) -> Encoding {
    match encoding {
        port::Encoding::Json => Encoding::Json,
        port::Encoding::Binary => Encoding::Binary,
    }
}

fn schema(revision: Revision) -> Schema {
    Schema {
        name: revision.name,
        kind: match revision.language {
            Language::Avro => SchemaKind::Avro,
            Language::ProtocolBuffer => SchemaKind::ProtocolBuffer,
        },
        definition: revision.definition,
        revision_id: revision.id,
        created_at_ms: revision.created_at_ms,
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NotFound(name) => Self::not_found(name.id.as_str()),
            RegistryError::RevisionNotFound { name, revision } => {
                Self::not_found(&format!("{}@{revision}", name.id))
            }
            RegistryError::AlreadyExists(name) => Self::new(
                Code::AlreadyExists,
                format!("Resource already exists in the project (resource={}).", name.id),
            ),
            RegistryError::Definition(flaw) => wrong_definition(flaw),
            RegistryError::Incompatible { .. } | RegistryError::EmptyRange { .. } => {
                Self::invalid(format!("{error}."))
            }
            RegistryError::TooManySchemas(_) => Self::new(Code::ResourceExhausted, format!("{error}.")),
            RegistryError::TooManyRevisions(_) | RegistryError::OnlyRevision { .. } => {
                Self::new(Code::FailedPrecondition, format!("{error}."))
            }
            RegistryError::Store(StoreError::Full { .. }) => {
                Self::new(Code::Unavailable, format!("{error}."))
            }
            RegistryError::Unusable { .. } | RegistryError::Store(_) => {
                Self::new(Code::Internal, format!("{error}."))
            }
        }
    }
}
