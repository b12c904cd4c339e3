//! `google.pubsub.v1.SchemaService`, over a store of schemas that the composition fills in.

use async_trait::async_trait;
use bytes::Bytes;
use levada_bus::port::{Encoding, Page, PageRequest, PortError, SchemaSettings};
use levada_core::{ProjectId, ResourceId, ResourceName};

use crate::api::{Call, PubsubApi};
use crate::convert;
use crate::error::ApiError;
use crate::messages::pb;
use crate::names;
use crate::publisher::missing;

/// The longest definition, as documented.
const MAX_DEFINITION_BYTES: usize = 300 << 10;
/// Topics that are looked through at a time when a schema is deleted.
const TOPICS_A_PAGE: usize = 500;

/// The language of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaKind {
    Avro,
    ProtocolBuffer,
}

/// One revision of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    pub name: ResourceName,
    pub kind: SchemaKind,
    pub definition: String,
    /// Eight hexadecimal digits.
    pub revision_id: String,
    pub created_at_ms: i64,
}

/// By what a single message is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaSource {
    /// The latest revision of a schema that exists.
    Named(ResourceName),
    Given {
        kind: SchemaKind,
        definition: String,
    },
}

/// Keeps schemas with their revisions and checks messages by them. Who may do what has been
/// decided before.
///
/// Errors are the API's: NOT_FOUND, ALREADY_EXISTS, INVALID_ARGUMENT with what is wrong in the
/// definition or the message.
#[async_trait]
pub trait SchemaStore: Send + Sync {
    async fn create(
        &self,
        name: &ResourceName,
        kind: SchemaKind,
        definition: &str,
    ) -> Result<Schema, ApiError>;
    /// `None`: the latest revision.
    async fn get(&self, name: &ResourceName, revision: Option<&str>) -> Result<Schema, ApiError>;
    /// The latest revision of each schema, by name.
    async fn list(&self, project: &ProjectId, page: &PageRequest) -> Result<Page<Schema>, ApiError>;
    /// All revisions, newest first.
    async fn revisions(&self, name: &ResourceName) -> Result<Vec<Schema>, ApiError>;
    async fn commit(
        &self,
        name: &ResourceName,
        kind: SchemaKind,
        definition: &str,
    ) -> Result<Schema, ApiError>;
    /// Makes an earlier revision the latest again, under a new revision id.
    async fn rollback(&self, name: &ResourceName, revision: &str) -> Result<Schema, ApiError>;
    /// Answers the deleted revision. The only one there is cannot be deleted.
    async fn delete_revision(&self, name: &ResourceName, revision: &str) -> Result<Schema, ApiError>;
    async fn delete(&self, name: &ResourceName) -> Result<(), ApiError>;
    async fn validate(&self, kind: SchemaKind, definition: &str) -> Result<(), ApiError>;
    async fn validate_message(
        &self,
        schema: &SchemaSource,
        encoding: Encoding,
        message: &Bytes,
    ) -> Result<(), ApiError>;
    /// Checks the messages of one publish by a topic's settings; refuses all when one is wrong.
    /// Answers for each the revision that it was checked by.
    async fn check(&self, settings: &SchemaSettings, messages: &[Bytes]) -> Result<Vec<String>, ApiError>;
}

/// A server without schemas: every call says so.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoSchemas;

fn none<T>() -> Result<T, ApiError> {
    Err(ApiError::unimplemented("This server keeps no schemas."))
}

#[async_trait]
impl SchemaStore for NoSchemas {
    async fn create(&self, _: &ResourceName, _: SchemaKind, _: &str) -> Result<Schema, ApiError> {
        none()
    }
    async fn get(&self, _: &ResourceName, _: Option<&str>) -> Result<Schema, ApiError> {
        none()
    }
    async fn list(&self, _: &ProjectId, _: &PageRequest) -> Result<Page<Schema>, ApiError> {
        none()
    }
    async fn revisions(&self, _: &ResourceName) -> Result<Vec<Schema>, ApiError> {
        none()
    }
    async fn commit(&self, _: &ResourceName, _: SchemaKind, _: &str) -> Result<Schema, ApiError> {
        none()
    }
    async fn rollback(&self, _: &ResourceName, _: &str) -> Result<Schema, ApiError> {
        none()
    }
    async fn delete_revision(&self, _: &ResourceName, _: &str) -> Result<Schema, ApiError> {
        none()
    }
    async fn delete(&self, _: &ResourceName) -> Result<(), ApiError> {
        none()
    }
    async fn validate(&self, _: SchemaKind, _: &str) -> Result<(), ApiError> {
        none()
    }
    async fn validate_message(&self, _: &SchemaSource, _: Encoding, _: &Bytes) -> Result<(), ApiError> {
        none()
    }
    async fn check(&self, _: &SchemaSettings, _: &[Bytes]) -> Result<Vec<String>, ApiError> {
        none()
    }
}

impl PubsubApi {
    /// A schema of a project the caller may enter, with the revision after an `@`.
    fn schema_name(&self, call: &Call, text: &str) -> Result<(ResourceName, Option<String>), ApiError> {
        let (path, revision) = match text.split_once('@') {
            Some((path, revision)) => (path, Some(revision.to_owned())),
            None => (text, None),
        };
        let name = names::resource(path, "schemas")?;
        self.access(call, &name)?;
        Ok((name, revision))
    }

    /// As [`Self::schema_name`], for a caller who changes schemas.
    fn own_schema(&self, call: &Call, text: &str) -> Result<(ResourceName, Option<String>), ApiError> {
        let named = self.schema_name(call, text)?;
        self.access(call, &named.0)?.require_topic_control()?;
        Ok(named)
    }

    pub(crate) async fn create_schema(
        &self,
        call: &Call,
        request: pb::CreateSchemaRequest,
    ) -> Result<pb::Schema, ApiError> {
        let project = names::project(&request.parent)?;
        let access = self.project(call, &project)?;
        access.require_topic_control()?;
        let given = request.schema.ok_or_else(|| missing("schema"))?;
        let id = if request.schema_id.is_empty() {
            format!("schema-{}", self.ids.uuid().simple())
        } else {
            request.schema_id
        };
        let id = ResourceId::new(&id)
            .map_err(|error| ApiError::invalid(format!("Invalid schema_id given: {error}.")))?;
        let name = ResourceName::new(project, id);
        if self.schemas.get(&name, None).await.is_err_and(|error| error.is_not_found()) {
            self.admit_schema(&access.owner).await?;
            // Topics that still name an earlier schema of this name must not take this one for it.
            self.unlink_schema(&name).await?;
        }
        Ok(schema_out(self.schemas.create(&name, kind(&given)?, &given.definition).await?, Basic::No))
    }

    pub(crate) async fn get_schema(
        &self,
        call: &Call,
        request: pb::GetSchemaRequest,
    ) -> Result<pb::Schema, ApiError> {
        let (name, revision) = self.schema_name(call, &request.name)?;
        // A single schema is shown in full unless the view says otherwise.
        let basic = Basic::of(request.view, pb::SchemaView::Full);
        Ok(schema_out(self.schemas.get(&name, revision.as_deref()).await?, basic))
    }

    pub(crate) async fn list_schemas(
        &self,
        call: &Call,
        request: pb::ListSchemasRequest,
    ) -> Result<pb::ListSchemasResponse, ApiError> {
        let project = names::project(&request.parent)?;
        self.project(call, &project)?;
        let wanted = names::page(request.page_size, &request.page_token)?;
        let page = self.schemas.list(&project, &wanted).await?;
        let basic = Basic::of(request.view, pb::SchemaView::Basic);
        Ok(pb::ListSchemasResponse {
            next_page_token: names::page_token(page.next.as_ref()),
            schemas: page.items.into_iter().map(|schema| schema_out(schema, basic)).collect(),
        })
    }

    pub(crate) async fn list_schema_revisions(
        &self,
        call: &Call,
        request: pb::ListSchemaRevisionsRequest,
    ) -> Result<pb::ListSchemaRevisionsResponse, ApiError> {
        let (name, _) = self.schema_name(call, &request.name)?;
        let wanted = names::page(request.page_size, "")?;
        let revisions = self.schemas.revisions(&name).await?;
        let start = match request.page_token.as_str() {
            "" => 0,
            token => {
                let at = revisions.iter().position(|schema| schema.revision_id == token);
                at.ok_or_else(|| {
                    ApiError::invalid(
                        "You have passed an invalid argument to the service (argument=page_token).",
                    )
                })?
            }
        };
        // The token is the revision that comes next: revisions are opaque already.
        let next = revisions.get(start.saturating_add(wanted.size)).map(|schema| schema.revision_id.clone());
        let basic = Basic::of(request.view, pb::SchemaView::Basic);
        let page = revisions.into_iter().skip(start).take(wanted.size);
        Ok(pb::ListSchemaRevisionsResponse {
            schemas: page.map(|schema| schema_out(schema, basic)).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    pub(crate) async fn commit_schema(
        &self,
        call: &Call,
        request: pb::CommitSchemaRequest,
    ) -> Result<pb::Schema, ApiError> {
        let (name, _) = self.own_schema(call, &request.name)?;
        self.schemas.get(&name, None).await?;
        let given = request.schema.ok_or_else(|| missing("schema"))?;
        Ok(schema_out(self.schemas.commit(&name, kind(&given)?, &given.definition).await?, Basic::No))
    }

    pub(crate) async fn rollback_schema(
        &self,
        call: &Call,
        request: pb::RollbackSchemaRequest,
    ) -> Result<pb::Schema, ApiError> {
        let (name, _) = self.own_schema(call, &request.name)?;
        if request.revision_id.is_empty() {
            return Err(missing("revision_id"));
        }
        Ok(schema_out(self.schemas.rollback(&name, &request.revision_id).await?, Basic::No))
    }

    pub(crate) async fn delete_schema_revision(
        &self,
        call: &Call,
        request: pb::DeleteSchemaRevisionRequest,
    ) -> Result<pb::Schema, ApiError> {
        let (name, revision) = self.own_schema(call, &request.name)?;
        #[allow(deprecated)] // Older clients send it beside the name.
        let older = Some(request.revision_id).filter(|revision| !revision.is_empty());
        let revision = revision.or(older).ok_or_else(|| {
            ApiError::invalid(
                "The name must end with the revision to delete, as in projects/p/schemas/s@1a2b3c4d.",
            )
        })?;
        Ok(schema_out(self.schemas.delete_revision(&name, &revision).await?, Basic::No))
    }

    pub(crate) async fn delete_schema(
        &self,
        call: &Call,
        request: pb::DeleteSchemaRequest,
    ) -> Result<(), ApiError> {
        let (name, _) = self.own_schema(call, &request.name)?;
        let deleted = self.schemas.delete(&name).await;
        // Also when it was gone already: an earlier call may have been broken off here.
        if deleted.as_ref().err().is_none_or(ApiError::is_not_found) {
            self.unlink_schema(&name).await?;
        }
        deleted
    }

    /// Topics that name a schema which is gone say so from now on, and stay so when another
    /// schema takes the name.
    async fn unlink_schema(&self, schema: &ResourceName) -> Result<(), ApiError> {
        let path = schema.path("schemas");
        self.forget_policy(&path);
        let mut projects = self.projects.known();
        if !projects.contains(&schema.project) {
            projects.push(schema.project.clone());
        }
        for project in projects {
            let mut page = PageRequest { size: TOPICS_A_PAGE, after: None };
            loop {
                let found = self.bus.topics(&project, &page);
                for topic in found.items {
                    if topic.schema.as_ref().is_some_and(|settings| settings.schema == path) {
                        self.unlink_topic(&topic.name, &path).await?;
                    }
                }
                match found.next {
                    Some(after) => page.after = Some(after),
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Marks the schema of one topic as deleted, unless the topic names another by now.
    pub(crate) async fn unlink_topic(&self, topic: &ResourceName, schema: &str) -> Result<(), ApiError> {
        // It may have changed since it was listed, or be gone.
        let Ok(mut spec) = self.bus.topic(topic) else { return Ok(()) };
        let Some(settings) = spec.schema.as_mut().filter(|settings| settings.schema == schema) else {
            return Ok(());
        };
        settings.schema = names::DELETED_SCHEMA.to_owned();
        settings.first_revision_id.clear();
        settings.last_revision_id.clear();
        match self.bus.update_topic(spec).await {
            Ok(_) | Err(PortError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn validate_schema(
        &self,
        call: &Call,
        request: pb::ValidateSchemaRequest,
    ) -> Result<pb::ValidateSchemaResponse, ApiError> {
        self.project(call, &names::project(&request.parent)?)?;
        let given = request.schema.ok_or_else(|| missing("schema"))?;
        self.schemas.validate(kind(&given)?, &given.definition).await?;
        Ok(pb::ValidateSchemaResponse {})
    }

    pub(crate) async fn validate_message(
        &self,
        call: &Call,
        request: pb::ValidateMessageRequest,
    ) -> Result<pb::ValidateMessageResponse, ApiError> {
        self.project(call, &names::project(&request.parent)?)?;
        let source = match request.schema_spec.ok_or_else(|| missing("schema_spec"))? {
            pb::validate_message_request::SchemaSpec::Name(name) => {
                let name = self.schema_name(call, &name)?.0;
                self.schemas.get(&name, None).await?;
                SchemaSource::Named(name)
            }
            pb::validate_message_request::SchemaSpec::Schema(given) => {
                SchemaSource::Given { kind: kind(&given)?, definition: given.definition }
            }
        };
        let encoding = match pb::Encoding::try_from(request.encoding) {
            Ok(pb::Encoding::Json) => Encoding::Json,
            Ok(pb::Encoding::Binary) => Encoding::Binary,
            _ => return Err(missing("encoding")),
        };
        self.schemas.validate_message(&source, encoding, &request.message).await?;
        Ok(pb::ValidateMessageResponse {})
    }
}

fn kind(schema: &pb::Schema) -> Result<SchemaKind, ApiError> {
    let bytes = schema.definition.len();
    if bytes == 0 {
        return Err(missing("schema.definition"));
    }
    crate::limits::within("schema.definition size", bytes as i64, 1, MAX_DEFINITION_BYTES as i64)?;
    match pb::schema::Type::try_from(schema.r#type) {
        Ok(pb::schema::Type::Avro) => Ok(SchemaKind::Avro),
        Ok(pb::schema::Type::ProtocolBuffer) => Ok(SchemaKind::ProtocolBuffer),
        _ => {
            Err(ApiError::invalid("The schema needs a type: AVRO or PROTOCOL_BUFFER (argument=schema.type)."))
        }
    }
}

/// Whether the definition is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Basic {
    Yes,
    No,
}

impl Basic {
    fn of(view: i32, default: pb::SchemaView) -> Self {
        let view = pb::SchemaView::try_from(view).unwrap_or_default();
        let view = if view == pb::SchemaView::Unspecified { default } else { view };
        if view == pb::SchemaView::Basic { Basic::Yes } else { Basic::No }
    }
}

fn schema_out(schema: Schema, basic: Basic) -> pb::Schema {
    let kind = match schema.kind {
        SchemaKind::Avro => pb::schema::Type::Avro,
        SchemaKind::ProtocolBuffer => pb::schema::Type::ProtocolBuffer,
    };
    pb::Schema {
        name: schema.name.path("schemas"),
        r#type: kind as i32,
        definition: if basic == Basic::Yes { String::new() } else { schema.definition },
        revision_id: schema.revision_id,
        revision_create_time: Some(convert::timestamp_out(schema.created_at_ms)),
    }
}
