//! The topics that the project folder names, made at the start, unless they are somebody's.
//!
//! In the project's own Pub/Sub project a topic of the folder and one that the API made would
//! have the same name. The folder's would hide the other with its messages and subscriptions,
//! so such a start is refused while nothing has happened yet.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use levada_bus::port::BusPort;
use levada_bus::{Bus, TopicConfig};
use levada_config::model::{Owner, Pipeline, Project, Source};
use levada_core::{Problem, ProjectId, ResourceId, ResourceName, TenantId, TopicName};
use levada_http::DEFAULT_TOPIC;

/// Names that the answer lists at most.
const LISTED: usize = 20;

/// Makes the topics of the folder that are not there yet; `topics` are all of them.
///
/// # Errors
/// `topic-taken`, or what the log answers.
pub async fn ensure(
    project: &Project,
    topics: Vec<TopicName>,
    home: &ProjectId,
    bus: &Bus,
    port: &dyn BusPort,
) -> Result<()> {
    let taken = taken(project, home, bus, port);
    if !taken.is_empty() {
        return Err(refused(home, &taken).into());
    }
    bus.own_topics(private(project));
    let bus = bus.clone();
    let make = move || -> Result<()> {
        for topic in topics {
            bus.ensure_topic(&topic, TopicConfig::default())?;
        }
        Ok(())
    };
    tokio::task::spawn_blocking(make).await?.context("cannot make the project's topics")
}

/// The topics of pipelines that tenants declare for themselves, where no other pipeline uses
/// them, with the tenants that do.
pub fn private(project: &Project) -> BTreeMap<TopicName, BTreeSet<TenantId>> {
    let mut owners: BTreeMap<TopicName, BTreeSet<TenantId>> = BTreeMap::new();
    let mut shared: BTreeSet<TopicName> = TopicName::new(DEFAULT_TOPIC).into_iter().collect();
    for pipeline in &project.pipelines {
        let topic = levada_flow::dead_letter_origin(pipeline);
        match &pipeline.owner {
            Owner::Tenant(tenant) => {
                owners.entry(topic).or_default().insert(tenant.clone());
            }
            Owner::Shared => {
                shared.insert(topic);
            }
        }
    }
    owners.retain(|topic, _| !shared.contains(topic));
    owners
}

/// Topics that the folder would name anew and that the API made before, with who names them.
fn taken<'p>(
    project: &'p Project,
    home: &ProjectId,
    bus: &Bus,
    port: &dyn BusPort,
) -> Vec<(TopicName, &'p Path)> {
    let mut taken: Vec<(TopicName, &Path)> = Vec::new();
    for pipeline in &project.pipelines {
        for topic in needed(pipeline) {
            let Ok(id) = ResourceId::new(topic.as_str()) else { continue };
            let is_new = !bus.has_topic(&topic) && taken.iter().all(|(known, _)| *known != topic);
            if is_new && port.topic(&ResourceName::new(home.clone(), id)).is_ok() {
                taken.push((topic, &pipeline.file));
            }
        }
    }
    taken
}

/// The topic that a pipeline reads, and the one for its dead letters.
fn needed(pipeline: &Pipeline) -> Vec<TopicName> {
    let dead_letters = levada_flow::dead_letter_origin(pipeline).dead_letter().ok();
    let read = match &pipeline.source {
        Source::Events { topic, .. } => Some(topic.clone()),
        Source::Files(_) => None,
    };
    read.into_iter().chain(dead_letters).collect()
}

fn refused(home: &ProjectId, taken: &[(TopicName, &Path)]) -> Problem {
    let mut named: Vec<String> =
        taken.iter().take(LISTED).map(|(topic, file)| format!("`{topic}` ({})", file.display())).collect();
    if taken.len() > LISTED {
        named.push(format!("{} more", taken.len() - LISTED));
    }
    Problem::new(
        409,
        "topic-taken",
        format!(
            "the folder needs topics that the Pub/Sub API made earlier in the project `{home}`, and would hide \
             them with all that is in them: {}",
            named.join(", ")
        ),
    )
    .hint(format!(
        "name other topics in those files; or start without the files once, delete projects/{home}/topics/<name>, \
         and put the files back"
    ))
}
