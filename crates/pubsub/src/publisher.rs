//! `google.pubsub.v1.Publisher`: topics and what is published to them.

use levada_bus::port::{Encoding, Page, Publication, SchemaSettings, TopicSpec};
use levada_core::{Attributes, Message, ResourceName, attr};

use crate::access::Access;
use crate::api::{Call, PubsubApi, filtered};
use crate::convert;
use crate::error::ApiError;
use crate::limits;
use crate::mask;
use crate::messages::pb;
use crate::metrics;
use crate::names::{self, DELETED_SCHEMA};

impl PubsubApi {
    pub(crate) async fn create_topic(&self, call: &Call, topic: pb::Topic) -> Result<pb::Topic, ApiError> {
        let spec = convert::topic_in(&topic)?;
        let access = self.project(call, &spec.name.project)?;
        access.require_topic_control()?;
        self.check_schema(call, &spec).await?;
        if self.bus.topic(&spec.name).is_err() {
            self.admit_topic(&spec.name.project, &access.owner)?;
        }
        let created = self.bus.create_topic(spec).await?;
        self.forget_policy(&created.name.path("topics"));
        Ok(convert::topic_out(created))
    }

    pub(crate) async fn update_topic(
        &self,
        call: &Call,
        request: pb::UpdateTopicRequest,
    ) -> Result<pb::Topic, ApiError> {
        let mut given = request.topic.ok_or_else(|| missing("topic"))?;
        let name = names::resource(&given.name, "topics")?;
        self.access(call, &name)?.require_topic_control()?;
        let kept = self.bus.topic(&name)?;
        let paths = mask::paths(request.update_mask.as_ref(), &mask::TOPIC)?;
        let (durability, deduplication, ordering) =
            (kept.durability, kept.deduplication.clone(), kept.ordering);
        let mut topic = convert::topic_out(kept);
        for path in paths {
            let (top, nested) = path.split_once('.').unwrap_or((path, ""));
            match top {
                "labels" => topic.labels = std::mem::take(&mut given.labels),
                "message_storage_policy" => {
                    topic.message_storage_policy = given.message_storage_policy.clone()
                }
                "kms_key_name" => topic.kms_key_name.clone_from(&given.kms_key_name),
                "schema_settings" => merge_schema(&mut topic, given.schema_settings.as_ref(), nested),
                "message_retention_duration" => {
                    topic.message_retention_duration = given.message_retention_duration;
                }
                "ingestion_data_source_settings" => {
                    topic.ingestion_data_source_settings = given.ingestion_data_source_settings.clone();
                }
                _ => topic.message_transforms = given.message_transforms.clone(),
            }
        }
        let spec = TopicSpec { durability, deduplication, ordering, ..convert::topic_in(&topic)? };
        self.check_schema(call, &spec).await?;
        Ok(convert::topic_out(self.bus.update_topic(spec).await?))
    }

    /// A topic may only name a schema that is there.
    async fn check_schema(&self, call: &Call, spec: &TopicSpec) -> Result<(), ApiError> {
        let Some(settings) = spec.schema.as_ref().filter(|settings| settings.schema != DELETED_SCHEMA) else {
            return Ok(());
        };
        let name = names::resource(&settings.schema, "schemas")?;
        self.access(call, &name)?;
        for revision in [&settings.first_revision_id, &settings.last_revision_id] {
            let revision = (!revision.is_empty()).then_some(revision.as_str());
            self.schemas.get(&name, revision).await?;
        }
        Ok(())
    }

    pub(crate) async fn publish(
        &self,
        call: &Call,
        request: pb::PublishRequest,
    ) -> Result<pb::PublishResponse, ApiError> {
        let name = names::resource(&request.topic, "topics")?;
        let access = self.access(call, &name)?;
        call.require(call.may_publish(), "engineer, service or client")?;
        let spec = self.topic(call, &name)?;
        limits::publish(&request)?;
        let mut revisions = Vec::new();
        if let Some(settings) = &spec.schema {
            let bodies: Vec<_> = request.messages.iter().map(|message| message.data.clone()).collect();
            revisions = match self.schemas.check(settings, &bodies).await {
                Ok(revisions) => revisions,
                Err(error) => {
                    self.unlink_if_deleted(&name, settings).await?;
                    return Err(error);
                }
            };
        }
        let mut items: Vec<Publication> = request
            .messages
            .into_iter()
            .map(|message| publication(&access, message))
            .collect::<Result<_, _>>()?;
        if let Some(settings) = &spec.schema {
            for (item, revision) in items.iter_mut().zip(&revisions) {
                tell_schema(&mut item.message.attributes, settings, revision);
            }
        }
        self.take_tokens(&items)?;
        let count = items.len();
        let outcomes = self.bus.publish(&name, items).await?;
        metrics::published(count);
        let message_ids = outcomes
            .into_iter()
            .map(|outcome| outcome.map(|id| id.to_string()).map_err(ApiError::from))
            .collect::<Result<_, _>>()?;
        Ok(pb::PublishResponse { message_ids })
    }

    /// A topic whose project is not known to who deletes the schema is marked at its next publish.
    async fn unlink_if_deleted(
        &self,
        topic: &ResourceName,
        settings: &SchemaSettings,
    ) -> Result<(), ApiError> {
        let Ok(schema) = names::resource(&settings.schema, "schemas") else { return Ok(()) };
        if self.schemas.get(&schema, None).await.is_err_and(|error| error.is_not_found()) {
            self.unlink_topic(topic, &settings.schema).await?;
        }
        Ok(())
    }

    pub(crate) async fn get_topic(
        &self,
        call: &Call,
        request: pb::GetTopicRequest,
    ) -> Result<pb::Topic, ApiError> {
        let name = names::resource(&request.topic, "topics")?;
        self.access(call, &name)?;
        Ok(convert::topic_out(self.topic(call, &name)?))
    }

    pub(crate) async fn list_topics(
        &self,
        call: &Call,
        request: pb::ListTopicsRequest,
    ) -> Result<pb::ListTopicsResponse, ApiError> {
        let project = names::project(&request.project)?;
        self.project(call, &project)?;
        let page = filtered(
            &names::page(request.page_size, &request.page_token)?,
            |page| Ok(self.bus.topics(&project, page)),
            |spec| &spec.name,
            |spec| self.bus.is_visible(&spec.name, &call.principal.tenants),
        )?;
        Ok(pb::ListTopicsResponse {
            next_page_token: names::page_token(page.next.as_ref()),
            topics: page.items.into_iter().map(convert::topic_out).collect(),
        })
    }

    pub(crate) async fn list_topic_subscriptions(
        &self,
        call: &Call,
        request: pb::ListTopicSubscriptionsRequest,
    ) -> Result<pb::ListTopicSubscriptionsResponse, ApiError> {
        let topic = names::resource(&request.topic, "topics")?;
        self.access(call, &topic)?;
        self.topic(call, &topic)?;
        let wanted = names::page(request.page_size, &request.page_token)?;
        let page = filtered(
            &wanted,
            |page| Ok(self.bus.topic_subscriptions(&topic, page)?),
            |name| name,
            |name| self.sees_subscription(call, name),
        )?;
        let (subscriptions, next_page_token) = self.listed(call, page, "subscriptions");
        Ok(pb::ListTopicSubscriptionsResponse { subscriptions, next_page_token })
    }

    pub(crate) async fn list_topic_snapshots(
        &self,
        call: &Call,
        request: pb::ListTopicSnapshotsRequest,
    ) -> Result<pb::ListTopicSnapshotsResponse, ApiError> {
        let topic = names::resource(&request.topic, "topics")?;
        self.access(call, &topic)?;
        self.topic(call, &topic)?;
        let wanted = names::page(request.page_size, &request.page_token)?;
        let page = filtered(
            &wanted,
            |page| Ok(self.bus.topic_snapshots(&topic, page)?),
            |name| name,
            |name| self.sees_snapshot(call, name),
        )?;
        let (snapshots, next_page_token) = self.listed(call, page, "snapshots");
        Ok(pb::ListTopicSnapshotsResponse { snapshots, next_page_token })
    }

    fn listed(&self, call: &Call, page: Page<ResourceName>, collection: &str) -> (Vec<String>, String) {
        let token = names::page_token(page.next.as_ref());
        (page.items.iter().map(|name| self.shown(call, name).path(collection)).collect(), token)
    }

    pub(crate) async fn delete_topic(
        &self,
        call: &Call,
        request: pb::DeleteTopicRequest,
    ) -> Result<(), ApiError> {
        let name = names::resource(&request.topic, "topics")?;
        self.access(call, &name)?.require_topic_control()?;
        self.bus.delete_topic(&name).await?;
        self.forget_policy(&request.topic);
        Ok(())
    }

    pub(crate) async fn detach_subscription(
        &self,
        call: &Call,
        request: pb::DetachSubscriptionRequest,
    ) -> Result<pb::DetachSubscriptionResponse, ApiError> {
        let opened = self.open(call, &request.subscription)?;
        call.require(call.may_operate(), "engineer or admin")?;
        self.bus.detach_subscription(&opened.port.spec().name).await?;
        Ok(pb::DetachSubscriptionResponse {})
    }
}

fn publication(access: &Access, message: pb::PubsubMessage) -> Result<Publication, ApiError> {
    let named = message.attributes.get(attr::TENANT_ID).map(String::as_str);
    let context = access.publish_context(named)?;
    let mut attributes = limits::attributes(&message.attributes);
    if named.is_none() && access.names_tenant() {
        attributes.push(attr::TENANT_ID, context.tenant().as_str());
    }
    let key = message.ordering_key;
    let message = Message {
        tenant: context.tenant().clone(),
        attributes,
        ordering_key: (!key.is_empty()).then(|| key.into_boxed_str()),
        body: message.data,
    };
    Ok(Publication::new(context, message))
}

/// What a message was checked by, under the names that Pub/Sub's clients know.
pub(crate) const SCHEMA_ATTRIBUTES: [&str; 3] =
    ["googclient_schemaencoding", "googclient_schemaname", "googclient_schemarevisionid"];

/// Writes them into a message.
pub(crate) fn tell_schema(attributes: &mut Attributes, settings: &SchemaSettings, revision: &str) {
    let encoding = match settings.encoding {
        Encoding::Json => "JSON",
        Encoding::Binary => "BINARY",
    };
    for (attribute, value) in SCHEMA_ATTRIBUTES.into_iter().zip([encoding, &settings.schema, revision]) {
        attributes.set(attribute, value);
    }
}

fn merge_schema(topic: &mut pb::Topic, given: Option<&pb::SchemaSettings>, nested: &str) {
    if nested.is_empty() {
        topic.schema_settings = given.cloned();
        return;
    }
    let given = given.cloned().unwrap_or_default();
    let kept = topic.schema_settings.get_or_insert_default();
    match nested {
        "schema" => kept.schema = given.schema,
        "encoding" => kept.encoding = given.encoding,
        "first_revision_id" => kept.first_revision_id = given.first_revision_id,
        _ => kept.last_revision_id = given.last_revision_id,
    }
}

/// A message of the request that must be there is not.
pub(crate) fn missing(field: &str) -> ApiError {
    ApiError::invalid_field(
        field,
        format!("You have passed an invalid argument to the service (argument={field}): it is required."),
    )
}
