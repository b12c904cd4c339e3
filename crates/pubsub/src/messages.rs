//! The messages of the API: Pub/Sub's own from their crate, and the few of `google.iam.v1`
//! and `google.rpc` that it uses, written out here because no crate of ours has them.

pub use googleapis_tonic_google_pubsub_v1::google::pubsub::v1 as pb;

/// `google.rpc`: the details of an error.
pub mod rpc {
    use std::collections::HashMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Status {
        #[prost(int32, tag = "1")]
        pub code: i32,
        #[prost(string, tag = "2")]
        pub message: String,
        #[prost(message, repeated, tag = "3")]
        pub details: Vec<prost_types::Any>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct BadRequest {
        #[prost(message, repeated, tag = "1")]
        pub field_violations: Vec<FieldViolation>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct FieldViolation {
        #[prost(string, tag = "1")]
        pub field: String,
        #[prost(string, tag = "2")]
        pub description: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        pub retry_delay: Option<prost_types::Duration>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ErrorInfo {
        #[prost(string, tag = "1")]
        pub reason: String,
        #[prost(string, tag = "2")]
        pub domain: String,
        #[prost(map = "string, string", tag = "3")]
        pub metadata: HashMap<String, String>,
    }
}

/// `google.iam.v1`: policies of resources.
pub mod iam {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SetIamPolicyRequest {
        #[prost(string, tag = "1")]
        pub resource: String,
        #[prost(message, optional, tag = "2")]
        pub policy: Option<Policy>,
        #[prost(message, optional, tag = "3")]
        pub update_mask: Option<prost_types::FieldMask>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct GetIamPolicyRequest {
        #[prost(string, tag = "1")]
        pub resource: String,
        #[prost(message, optional, tag = "2")]
        pub options: Option<GetPolicyOptions>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct GetPolicyOptions {
        #[prost(int32, tag = "1")]
        pub requested_policy_version: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TestIamPermissionsRequest {
        #[prost(string, tag = "1")]
        pub resource: String,
        #[prost(string, repeated, tag = "2")]
        pub permissions: Vec<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TestIamPermissionsResponse {
        #[prost(string, repeated, tag = "1")]
        pub permissions: Vec<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Policy {
        #[prost(int32, tag = "1")]
        pub version: i32,
        #[prost(message, repeated, tag = "4")]
        pub bindings: Vec<Binding>,
        #[prost(bytes = "bytes", tag = "3")]
        pub etag: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Binding {
        #[prost(string, tag = "1")]
        pub role: String,
        #[prost(string, repeated, tag = "2")]
        pub members: Vec<String>,
        #[prost(message, optional, tag = "3")]
        pub condition: Option<Expr>,
    }

    /// `google.type.Expr`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Expr {
        #[prost(string, tag = "1")]
        pub expression: String,
        #[prost(string, tag = "2")]
        pub title: String,
        #[prost(string, tag = "3")]
        pub description: String,
        #[prost(string, tag = "4")]
        pub location: String,
    }
}
