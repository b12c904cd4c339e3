//! Which HTTP request is which call: the `google.api.http` rules of the API.

use http::Method;

use super::schema::{self, Shape};

/// What the last part of a path may end with after a colon.
type Action = &'static str;

/// One rule.
#[derive(Debug)]
pub(super) struct Binding {
    pub method: Method,
    /// The collections of the path: `topics` for `projects/*/topics/*`, empty for `projects/*`.
    collection: &'static str,
    /// What follows the resource, as `subscriptions` in `projects/*/topics/*/subscriptions`.
    listed: &'static str,
    action: Action,
    /// The field that the resource's name goes to, dots between nested names.
    pub field: &'static str,
    pub body: Body,
    pub call: &'static str,
    pub question: &'static Shape,
    pub answer: &'static Shape,
}

/// Where the body goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Nothing,
    /// It is the request.
    Whole,
    /// It is this field of the request.
    Field(&'static str),
}

macro_rules! bindings {
    ($($method:ident $collection:literal $listed:literal $action:literal $field:literal $body:expr,
        $service:literal $call:literal, $question:ident => $answer:ident;)*) => {
        pub(super) static BINDINGS: &[Binding] = &[$(Binding {
            method: Method::$method,
            collection: $collection,
            listed: $listed,
            action: $action,
            field: $field,
            body: $body,
            call: concat!("google.", $service, "/", $call),
            question: &schema::$question,
            answer: &schema::$answer,
        }),*];
    };
}

use Body::{Field, Nothing, Whole};

bindings! {
    PUT "topics" "" "" "name" Whole, "pubsub.v1.Publisher" "CreateTopic", TOPIC => TOPIC;
    PATCH "topics" "" "" "topic.name" Whole, "pubsub.v1.Publisher" "UpdateTopic", UPDATE_TOPIC => TOPIC;
    POST "topics" "" "publish" "topic" Whole, "pubsub.v1.Publisher" "Publish", PUBLISH => PUBLISHED;
    GET "topics" "" "" "topic" Nothing, "pubsub.v1.Publisher" "GetTopic", BY_TOPIC => TOPIC;
    GET "" "topics" "" "project" Nothing, "pubsub.v1.Publisher" "ListTopics", BY_PROJECT => TOPICS;
    GET "topics" "subscriptions" "" "topic" Nothing,
        "pubsub.v1.Publisher" "ListTopicSubscriptions", BY_TOPIC => SUBSCRIPTION_NAMES;
    GET "topics" "snapshots" "" "topic" Nothing,
        "pubsub.v1.Publisher" "ListTopicSnapshots", BY_TOPIC => SNAPSHOT_NAMES;
    DELETE "topics" "" "" "topic" Nothing, "pubsub.v1.Publisher" "DeleteTopic", BY_TOPIC => EMPTY;
    POST "subscriptions" "" "detach" "subscription" Nothing,
        "pubsub.v1.Publisher" "DetachSubscription", BY_SUBSCRIPTION => EMPTY;

    PUT "subscriptions" "" "" "name" Whole,
        "pubsub.v1.Subscriber" "CreateSubscription", SUBSCRIPTION => SUBSCRIPTION;
    GET "subscriptions" "" "" "subscription" Nothing,
        "pubsub.v1.Subscriber" "GetSubscription", BY_SUBSCRIPTION => SUBSCRIPTION;
    PATCH "subscriptions" "" "" "subscription.name" Whole,
        "pubsub.v1.Subscriber" "UpdateSubscription", UPDATE_SUBSCRIPTION => SUBSCRIPTION;
    GET "" "subscriptions" "" "project" Nothing,
        "pubsub.v1.Subscriber" "ListSubscriptions", BY_PROJECT => SUBSCRIPTIONS;
    DELETE "subscriptions" "" "" "subscription" Nothing,
        "pubsub.v1.Subscriber" "DeleteSubscription", BY_SUBSCRIPTION => EMPTY;
    POST "subscriptions" "" "modifyAckDeadline" "subscription" Whole,
        "pubsub.v1.Subscriber" "ModifyAckDeadline", MODIFY_ACK_DEADLINE => EMPTY;
    POST "subscriptions" "" "acknowledge" "subscription" Whole,
        "pubsub.v1.Subscriber" "Acknowledge", ACKNOWLEDGE => EMPTY;
    POST "subscriptions" "" "pull" "subscription" Whole, "pubsub.v1.Subscriber" "Pull", PULL => PULLED;
    POST "subscriptions" "" "modifyPushConfig" "subscription" Whole,
        "pubsub.v1.Subscriber" "ModifyPushConfig", MODIFY_PUSH => EMPTY;
    POST "subscriptions" "" "seek" "subscription" Whole, "pubsub.v1.Subscriber" "Seek", SEEK => EMPTY;
    GET "snapshots" "" "" "snapshot" Nothing, "pubsub.v1.Subscriber" "GetSnapshot", BY_SNAPSHOT => SNAPSHOT;
    GET "" "snapshots" "" "project" Nothing, "pubsub.v1.Subscriber" "ListSnapshots", BY_PROJECT => SNAPSHOTS;
    PUT "snapshots" "" "" "name" Whole,
        "pubsub.v1.Subscriber" "CreateSnapshot", CREATE_SNAPSHOT => SNAPSHOT;
    PATCH "snapshots" "" "" "snapshot.name" Whole,
        "pubsub.v1.Subscriber" "UpdateSnapshot", UPDATE_SNAPSHOT => SNAPSHOT;
    DELETE "snapshots" "" "" "snapshot" Nothing,
        "pubsub.v1.Subscriber" "DeleteSnapshot", BY_SNAPSHOT => EMPTY;

    POST "" "schemas" "" "parent" Field("schema"),
        "pubsub.v1.SchemaService" "CreateSchema", CREATE_SCHEMA => SCHEMA;
    GET "schemas" "" "" "name" Nothing, "pubsub.v1.SchemaService" "GetSchema", GET_SCHEMA => SCHEMA;
    GET "" "schemas" "" "parent" Nothing, "pubsub.v1.SchemaService" "ListSchemas", LIST_SCHEMAS => SCHEMAS;
    GET "schemas" "" "listRevisions" "name" Nothing,
        "pubsub.v1.SchemaService" "ListSchemaRevisions", LIST_REVISIONS => SCHEMAS;
    POST "schemas" "" "commit" "name" Whole,
        "pubsub.v1.SchemaService" "CommitSchema", COMMIT_SCHEMA => SCHEMA;
    POST "schemas" "" "rollback" "name" Whole,
        "pubsub.v1.SchemaService" "RollbackSchema", SCHEMA_REVISION => SCHEMA;
    DELETE "schemas" "" "deleteRevision" "name" Nothing,
        "pubsub.v1.SchemaService" "DeleteSchemaRevision", SCHEMA_REVISION => SCHEMA;
    DELETE "schemas" "" "" "name" Nothing, "pubsub.v1.SchemaService" "DeleteSchema", SCHEMA_REVISION => EMPTY;
    POST "" "schemas" "validate" "parent" Whole,
        "pubsub.v1.SchemaService" "ValidateSchema", VALIDATE_SCHEMA => EMPTY;
    POST "" "schemas" "validateMessage" "parent" Whole,
        "pubsub.v1.SchemaService" "ValidateMessage", VALIDATE_MESSAGE => EMPTY;

    GET "*" "" "getIamPolicy" "resource" Nothing, "iam.v1.IAMPolicy" "GetIamPolicy", GET_POLICY => POLICY;
    POST "*" "" "getIamPolicy" "resource" Whole, "iam.v1.IAMPolicy" "GetIamPolicy", GET_POLICY => POLICY;
    POST "*" "" "setIamPolicy" "resource" Whole, "iam.v1.IAMPolicy" "SetIamPolicy", SET_POLICY => POLICY;
    POST "*" "" "testIamPermissions" "resource" Whole,
        "iam.v1.IAMPolicy" "TestIamPermissions", TEST_PERMISSIONS => PERMISSIONS;
}

/// A path taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// `projects/p` or `projects/p/topics/t`.
    pub resource: String,
    collection: String,
    listed: String,
    action: String,
}

impl Target {
    /// Takes apart what follows `/v1/`, still percent-encoded.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let decode =
            |part: &str| percent_encoding::percent_decode_str(part).decode_utf8().ok().map(String::from);
        let mut parts: Vec<String> = path.split('/').map(decode).collect::<Option<_>>()?;
        // The colon may be encoded like anything else: no id has one.
        let action = match parts.last_mut().and_then(|last| Some((last.rfind(':')?, last))) {
            Some((at, last)) => {
                let action = last.split_off(at)[1..].to_owned();
                if action.is_empty() {
                    return None;
                }
                action
            }
            None => String::new(),
        };
        // A decoded slash must not make another resource of a name.
        if parts.iter().any(|part| part.is_empty() || part.contains('/')) || action.contains('/') {
            return None;
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (resource, collection, listed) = match parts.as_slice() {
            ["projects", project, listed] => (format!("projects/{project}"), "", *listed),
            ["projects", project, collection, id] => {
                (format!("projects/{project}/{collection}/{id}"), *collection, "")
            }
            ["projects", project, collection, id, listed] => {
                (format!("projects/{project}/{collection}/{id}"), *collection, *listed)
            }
            _ => return None,
        };
        Some(Self { resource, collection: collection.into(), listed: listed.into(), action })
    }

    fn fits(&self, binding: &Binding) -> bool {
        let collection = match binding.collection {
            "*" => !self.collection.is_empty(),
            named => named == self.collection,
        };
        collection && binding.listed == self.listed && binding.action == self.action
    }

    /// The rule for a request of that method; `Err` tells whether any method fits the path.
    pub(super) fn binding(&self, method: &Method) -> Result<&'static Binding, bool> {
        let mut fitting = BINDINGS.iter().filter(|binding| self.fits(binding)).peekable();
        let known = fitting.peek().is_some();
        fitting.find(|binding| binding.method == *method).ok_or(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_names_a_call_and_every_call_but_streams_has_a_rule() {
        for path in crate::dispatch::PATHS {
            assert!(BINDINGS.iter().any(|binding| binding.call == *path), "{path} has no rule");
        }
        for binding in BINDINGS {
            assert!(crate::dispatch::PATHS.contains(&binding.call), "{}", binding.call);
            let top = binding.field.split('.').next().unwrap_or_default();
            assert!(binding.question.field(top).is_some(), "{}: {}", binding.call, binding.field);
        }
    }

    #[test]
    fn paths_find_their_rule() {
        let find = |method: Method, path: &str| {
            let target = Target::parse(path)?;
            let binding = target.binding(&method).ok()?;
            Some((binding.call.rsplit('/').next().unwrap_or_default(), target.resource))
        };
        let found = |call, resource: &str| Some((call, resource.to_owned()));
        assert_eq!(
            find(Method::POST, "projects/p/topics/t:publish"),
            found("Publish", "projects/p/topics/t")
        );
        assert_eq!(find(Method::GET, "projects/p/topics"), found("ListTopics", "projects/p"));
        assert_eq!(
            find(Method::GET, "projects/p/topics/t/snapshots"),
            found("ListTopicSnapshots", "projects/p/topics/t")
        );
        assert_eq!(find(Method::POST, "projects/p/schemas:validate"), found("ValidateSchema", "projects/p"));
        assert_eq!(
            find(Method::GET, "projects/p/subscriptions/s:getIamPolicy"),
            found("GetIamPolicy", "projects/p/subscriptions/s")
        );
        assert_eq!(
            find(Method::GET, "projects/p/topics/a%252Fb"),
            found("GetTopic", "projects/p/topics/a%2Fb")
        );
        assert_eq!(
            find(Method::GET, "projects/p/schemas/s%40abcd"),
            found("GetSchema", "projects/p/schemas/s@abcd")
        );
        for encoded in [
            "projects/p/topics/t%3Apublish",
            "projects/p/topics/t%3apublish",
            "projects/p/%74opics/t:%70ublish",
        ] {
            assert_eq!(find(Method::POST, encoded), found("Publish", "projects/p/topics/t"), "{encoded}");
        }
        assert_eq!(
            find(Method::GET, "projects/p/topics/a%253Apublish"),
            found("GetTopic", "projects/p/topics/a%3Apublish")
        );
        assert_eq!(
            find(Method::GET, "projects/a.org%3Ap/topics/t"),
            found("GetTopic", "projects/a.org:p/topics/t")
        );
        for bad in [
            "projects/p/topics/a%2Fb",
            "projects//topics",
            "projects/p",
            "topics/t",
            "projects/p/topics/",
            "projects/p/topics/t:",
            "projects/p/topics/t%3A",
            "projects/p/topics/%ff",
        ] {
            assert_eq!(find(Method::GET, bad), None, "{bad}");
        }
        let target = Target::parse("projects/p/topics/t:publish").expect("a target");
        assert_eq!(target.binding(&Method::GET).err(), Some(true));
        let target = Target::parse("projects/p/topics/t:explode").expect("a target");
        assert_eq!(target.binding(&Method::POST).err(), Some(false));
    }
}
