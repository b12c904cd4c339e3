//! What a pipeline's things are called: folders, writers of tables, dead-letter topics.

use levada_config::model::{Owner, Pipeline, Source};
use levada_core::{SourceName, TopicName};

/// Folder of this crate's state on the data disk.
pub const DIR: &str = "flow";

/// The owner as the lake knows it.
pub fn lake_owner(owner: &Owner) -> levada_lake::Owner {
    match owner {
        Owner::Shared => levada_lake::Owner::Shared,
        Owner::Tenant(tenant) => levada_lake::Owner::Tenant(tenant.clone()),
    }
}

/// Unique in a project: a shared pipeline's name, or `<tenant>/<name>`.
pub fn full(pipeline: &Pipeline) -> String {
    full_of(&pipeline.owner, &pipeline.name)
}

/// As [`full`].
pub fn full_of(owner: &Owner, name: &SourceName) -> String {
    match owner {
        Owner::Shared => name.to_string(),
        Owner::Tenant(tenant) => format!("{tenant}/{name}"),
    }
}

fn dir(pipeline: &Pipeline) -> String {
    format!("{DIR}/{}/{}", lake_owner(&pipeline.owner), pipeline.name)
}

/// Manifests of the pipeline's rows.
pub fn silver_dir(pipeline: &Pipeline) -> String {
    format!("{}/silver", dir(pipeline))
}

/// Manifests of its archive.
pub fn bronze_dir(pipeline: &Pipeline) -> String {
    format!("{}/bronze", dir(pipeline))
}

/// What the table's log calls the pipeline.
pub fn app_id(pipeline: &Pipeline) -> String {
    format!("{}/{}", full(pipeline), pipeline.sink)
}

/// What a gold table's log calls its model.
pub fn model_app_id(model: &SourceName) -> String {
    format!("model/{model}")
}

/// The topic whose dead letters a pipeline writes: its own, or for files one called after it.
pub fn dead_letter_origin(pipeline: &Pipeline) -> TopicName {
    match &pipeline.source {
        Source::Events { topic, .. } => topic.clone(),
        Source::Files(_) => TopicName::new(pipeline.name.as_str()).unwrap_or_else(|_| {
            TopicName::new(&format!("files-{}", pipeline.name)).expect("a source name makes a topic name")
        }),
    }
}
