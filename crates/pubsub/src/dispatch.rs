//! Every unary call of the API, once: its path, its messages and its method. gRPC and REST
//! both find calls here.

use futures::future::BoxFuture;
use prost::Message;

use crate::api::{Call, PubsubApi};
use crate::error::ApiError;
use crate::messages::{iam, pb};

/// What is done with a call that was found.
pub(crate) trait Visitor {
    type Output;

    /// `path` is that of the call, for its figures.
    fn visit<Q, A, F>(self, path: &'static str, method: F) -> BoxFuture<'static, Self::Output>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
        F: Fn(PubsubApi, Call, Q) -> BoxFuture<'static, Result<A, ApiError>> + Clone + Send + Sync + 'static;
}

macro_rules! methods {
    ($($path:literal, $method:ident, $question:ty => $answer:ty;)*) => {
        /// Finds the call at `service/method`; `None` when there is no such call.
        pub(crate) fn dispatch<V: Visitor>(path: &str, visitor: V) -> Option<BoxFuture<'static, V::Output>> {
            Some(match path {
                $($path => visitor.visit::<$question, $answer, _>($path, |api, call, question| {
                    Box::pin(async move { api.$method(&call, question).await })
                }),)*
                _ => return None,
            })
        }

        /// All paths.
        #[cfg(test)]
        pub(crate) const PATHS: &[&str] = &[$($path),*];
    };
}

methods! {
    "google.pubsub.v1.Publisher/CreateTopic", create_topic, pb::Topic => pb::Topic;
    "google.pubsub.v1.Publisher/UpdateTopic", update_topic, pb::UpdateTopicRequest => pb::Topic;
    "google.pubsub.v1.Publisher/Publish", publish, pb::PublishRequest => pb::PublishResponse;
    "google.pubsub.v1.Publisher/GetTopic", get_topic, pb::GetTopicRequest => pb::Topic;
    "google.pubsub.v1.Publisher/ListTopics", list_topics, pb::ListTopicsRequest => pb::ListTopicsResponse;
    "google.pubsub.v1.Publisher/ListTopicSubscriptions", list_topic_subscriptions,
        pb::ListTopicSubscriptionsRequest => pb::ListTopicSubscriptionsResponse;
    "google.pubsub.v1.Publisher/ListTopicSnapshots", list_topic_snapshots,
        pb::ListTopicSnapshotsRequest => pb::ListTopicSnapshotsResponse;
    "google.pubsub.v1.Publisher/DeleteTopic", delete_topic, pb::DeleteTopicRequest => ();
    "google.pubsub.v1.Publisher/DetachSubscription", detach_subscription,
        pb::DetachSubscriptionRequest => pb::DetachSubscriptionResponse;

    "google.pubsub.v1.Subscriber/CreateSubscription", create_subscription, pb::Subscription => pb::Subscription;
    "google.pubsub.v1.Subscriber/GetSubscription", get_subscription,
        pb::GetSubscriptionRequest => pb::Subscription;
    "google.pubsub.v1.Subscriber/UpdateSubscription", update_subscription,
        pb::UpdateSubscriptionRequest => pb::Subscription;
    "google.pubsub.v1.Subscriber/ListSubscriptions", list_subscriptions,
        pb::ListSubscriptionsRequest => pb::ListSubscriptionsResponse;
    "google.pubsub.v1.Subscriber/DeleteSubscription", delete_subscription, pb::DeleteSubscriptionRequest => ();
    "google.pubsub.v1.Subscriber/ModifyAckDeadline", modify_ack_deadline, pb::ModifyAckDeadlineRequest => ();
    "google.pubsub.v1.Subscriber/Acknowledge", acknowledge, pb::AcknowledgeRequest => ();
    "google.pubsub.v1.Subscriber/Pull", pull, pb::PullRequest => pb::PullResponse;
    "google.pubsub.v1.Subscriber/ModifyPushConfig", modify_push_config, pb::ModifyPushConfigRequest => ();
    "google.pubsub.v1.Subscriber/GetSnapshot", get_snapshot, pb::GetSnapshotRequest => pb::Snapshot;
    "google.pubsub.v1.Subscriber/ListSnapshots", list_snapshots,
        pb::ListSnapshotsRequest => pb::ListSnapshotsResponse;
    "google.pubsub.v1.Subscriber/CreateSnapshot", create_snapshot, pb::CreateSnapshotRequest => pb::Snapshot;
    "google.pubsub.v1.Subscriber/UpdateSnapshot", update_snapshot, pb::UpdateSnapshotRequest => pb::Snapshot;
    "google.pubsub.v1.Subscriber/DeleteSnapshot", delete_snapshot, pb::DeleteSnapshotRequest => ();
    "google.pubsub.v1.Subscriber/Seek", seek, pb::SeekRequest => pb::SeekResponse;

    "google.pubsub.v1.SchemaService/CreateSchema", create_schema, pb::CreateSchemaRequest => pb::Schema;
    "google.pubsub.v1.SchemaService/GetSchema", get_schema, pb::GetSchemaRequest => pb::Schema;
    "google.pubsub.v1.SchemaService/ListSchemas", list_schemas,
        pb::ListSchemasRequest => pb::ListSchemasResponse;
    "google.pubsub.v1.SchemaService/ListSchemaRevisions", list_schema_revisions,
        pb::ListSchemaRevisionsRequest => pb::ListSchemaRevisionsResponse;
    "google.pubsub.v1.SchemaService/CommitSchema", commit_schema, pb::CommitSchemaRequest => pb::Schema;
    "google.pubsub.v1.SchemaService/RollbackSchema", rollback_schema, pb::RollbackSchemaRequest => pb::Schema;
    "google.pubsub.v1.SchemaService/DeleteSchemaRevision", delete_schema_revision,
        pb::DeleteSchemaRevisionRequest => pb::Schema;
    "google.pubsub.v1.SchemaService/DeleteSchema", delete_schema, pb::DeleteSchemaRequest => ();
    "google.pubsub.v1.SchemaService/ValidateSchema", validate_schema,
        pb::ValidateSchemaRequest => pb::ValidateSchemaResponse;
    "google.pubsub.v1.SchemaService/ValidateMessage", validate_message,
        pb::ValidateMessageRequest => pb::ValidateMessageResponse;

    "google.iam.v1.IAMPolicy/SetIamPolicy", set_iam_policy, iam::SetIamPolicyRequest => iam::Policy;
    "google.iam.v1.IAMPolicy/GetIamPolicy", get_iam_policy, iam::GetIamPolicyRequest => iam::Policy;
    "google.iam.v1.IAMPolicy/TestIamPermissions", test_iam_permissions,
        iam::TestIamPermissionsRequest => iam::TestIamPermissionsResponse;
}
