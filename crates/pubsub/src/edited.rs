//! Messages that an operator edited, held to what publishers are held to.

use std::sync::Arc;

use futures::future::BoxFuture;
use levada_bus::admin::MessageRule;
use levada_bus::port::TopicSpec;
use levada_core::{Message, Problem};

use crate::error::ApiError;
use crate::limits;
use crate::messages::pb;
use crate::publisher::{SCHEMA_ATTRIBUTES, tell_schema};
use crate::schemas::SchemaStore;

/// Checks the limits of a publish and the schema of the topic.
pub struct EditedMessages {
    schemas: Arc<dyn SchemaStore>,
}

impl EditedMessages {
    pub fn new(schemas: Arc<dyn SchemaStore>) -> Self {
        Self { schemas }
    }

    async fn checked(&self, topic: &TopicSpec, mut message: Message) -> Result<Message, ApiError> {
        // By which schema it was checked the first time is not what holds now.
        for attribute in SCHEMA_ATTRIBUTES {
            message.attributes.remove(attribute);
        }
        let attributes = message.attributes.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        limits::publish(&pb::PublishRequest {
            messages: vec![pb::PubsubMessage {
                data: message.body.clone(),
                attributes,
                ordering_key: message.ordering_key.as_deref().unwrap_or_default().to_owned(),
                ..pb::PubsubMessage::default()
            }],
            ..pb::PublishRequest::default()
        })?;
        if let Some(settings) = &topic.schema {
            let revisions = self.schemas.check(settings, std::slice::from_ref(&message.body)).await?;
            if let Some(revision) = revisions.first() {
                tell_schema(&mut message.attributes, settings, revision);
            }
        }
        Ok(message)
    }
}

impl MessageRule for EditedMessages {
    fn prepare<'a>(
        &'a self,
        topic: &'a TopicSpec,
        message: Message,
    ) -> BoxFuture<'a, Result<Message, Problem>> {
        Box::pin(async move {
            let refused = |error: ApiError| Problem::new(422, "body-invalid", error.message);
            self.checked(topic, message).await.map_err(refused)
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use levada_bus::port::{Encoding, SchemaSettings};
    use levada_core::{Attributes, TenantId};

    use super::*;
    use crate::schemas::NoSchemas;

    fn message(body: &str, attributes: &[(&str, &str)]) -> Message {
        Message {
            tenant: TenantId::new("acme").expect("a tenant"),
            attributes: attributes.iter().copied().collect::<Attributes>(),
            ordering_key: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[tokio::test]
    async fn an_edited_message_keeps_the_limits_of_a_publish_and_the_schema_of_its_topic() {
        let rule = EditedMessages::new(Arc::new(NoSchemas));
        let mut topic = TopicSpec::new("demo/orders".parse().expect("a name"));
        let code = |result: Result<Message, Problem>| result.map_err(|problem| problem.code);
        let told = message("x", &[("googclient_schemaname", "old"), ("a", "b")]);
        let kept = rule.prepare(&topic, told).await.expect("fits");
        assert_eq!(kept.attributes.iter().collect::<Vec<_>>(), [("a", "b")]);
        for bad in [
            message("", &[]),
            message("x", &[("google-thing", "b")]),
            message("x", &[("a", &"v".repeat(1_025))]),
            message(&"x".repeat((10 << 20) + 1), &[]),
        ] {
            assert_eq!(code(rule.prepare(&topic, bad).await), Err("body-invalid".into()));
        }
        topic.schema = Some(SchemaSettings {
            schema: "projects/demo/schemas/order".into(),
            encoding: Encoding::Json,
            first_revision_id: String::new(),
            last_revision_id: String::new(),
        });
        let unchecked = rule.prepare(&topic, message("{}", &[])).await;
        assert_eq!(code(unchecked), Err("body-invalid".into()), "nothing goes around the schema");
    }
}
