//! How the catalog is kept: one document a resource, named by a number that is never given
//! out again.

use std::sync::atomic::{AtomicBool, Ordering};

use levada_core::{ResourceName, TopicName};
use levada_store::{DocumentStore, StoreError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::config::BusError;
use crate::delivery::{Progress, Settled};
use crate::port::{SnapshotSpec, SubscriptionSpec, TopicSpec};

const DIR: &str = "port";
/// Numbers are reserved in blocks, so that most resources cost one write.
const BLOCK: u64 = 256;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TopicDocument {
    pub number: u64,
    pub spec: TopicSpec,
    /// `None`: the topic of this name in the project folder.
    #[serde(default)]
    pub log: Option<StoredTopic>,
    /// The first offset that deduplication knows of, where it is switched on.
    #[serde(default)]
    pub deduplicated_from: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SubscriptionDocument {
    pub number: u64,
    pub spec: SubscriptionSpec,
    pub log: StoredTopic,
    /// Where it begins, until a checkpoint says more.
    pub start: Progress,
    /// Milliseconds since the epoch; 0 for one that an older program made.
    #[serde(default)]
    pub made_ms: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SnapshotDocument {
    pub number: u64,
    pub spec: SnapshotSpec,
    pub log: StoredTopic,
    pub settled: Settled,
}

/// The log's name of a topic, which may be an internal one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct StoredTopic(pub TopicName);

impl TryFrom<String> for StoredTopic {
    type Error = levada_core::NameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        TopicName::stored(&text).map(Self)
    }
}

impl From<StoredTopic> for String {
    fn from(name: StoredTopic) -> String {
        name.0.as_str().to_owned()
    }
}

/// What was given out so far.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Numbers {
    /// Numbers from here on are free.
    next: u64,
    /// Starts so far.
    run: u64,
}

#[derive(Debug, Clone, Copy)]
struct Given {
    next: u64,
    reserved: Numbers,
}

pub(crate) struct Documents {
    store: DocumentStore,
    given: Mutex<Given>,
    lost: AtomicBool,
}

/// Kinds of documents, as they are named.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Topic,
    Subscription,
    Snapshot,
}

impl Kind {
    fn prefix(self) -> String {
        let kind = match self {
            Kind::Topic => "topic",
            Kind::Subscription => "subscription",
            Kind::Snapshot => "snapshot",
        };
        format!("{DIR}/{kind}-")
    }
}

impl Documents {
    /// Opens the documents and counts this start.
    pub fn open(store: DocumentStore) -> Result<Self, BusError> {
        let mut numbers: Numbers = store.get(&format!("{DIR}/numbers"))?.unwrap_or_default();
        numbers.run += 1;
        store.put(&format!("{DIR}/numbers"), &numbers)?;
        Ok(Self {
            store,
            given: Mutex::new(Given { next: numbers.next, reserved: numbers }),
            lost: false.into(),
        })
    }

    /// Which start this is, counted from 1.
    pub fn run(&self) -> u64 {
        self.given.lock().reserved.run
    }

    /// A number that no resource has had.
    pub fn number(&self) -> Result<u64, BusError> {
        let mut given = self.given.lock();
        if given.next >= given.reserved.next {
            let reserved = Numbers { next: given.next + BLOCK, ..given.reserved };
            self.store.put(&format!("{DIR}/numbers"), &reserved)?;
            given.reserved = reserved;
        }
        given.next += 1;
        Ok(given.next - 1)
    }

    pub fn put<T: Serialize>(&self, kind: Kind, number: u64, document: &T) -> Result<(), BusError> {
        Ok(self.store.put(&format!("{}{number}", kind.prefix()), document)?)
    }

    pub fn get<T: for<'a> Deserialize<'a>>(&self, kind: Kind, number: u64) -> Result<Option<T>, BusError> {
        Ok(self.store.get(&format!("{}{number}", kind.prefix()))?)
    }

    pub fn remove(&self, kind: Kind, number: u64) -> Result<(), BusError> {
        self.store.remove(&format!("{}{number}", kind.prefix()))?;
        Ok(())
    }

    pub fn all<T: for<'a> Deserialize<'a>>(&self, kind: Kind) -> Result<Vec<T>, BusError> {
        let mut documents = Vec::new();
        for name in self.store.list(&kind.prefix())? {
            match self.store.get(&name) {
                Ok(document) => documents.extend(document),
                // One resource is lost; the others are not to stop for it.
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(%error, "a topic, subscription or snapshot is left out until its document is restored");
                    self.lost.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(documents)
    }

    /// Whether a document could not be read: then nobody knows which messages are still needed.
    pub fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    pub fn get_checkpoint<T: for<'a> Deserialize<'a>>(&self) -> Result<Option<T>, BusError> {
        Ok(self.store.get(&format!("{DIR}/progress"))?)
    }

    pub fn put_checkpoint<T: Serialize>(&self, document: &T) -> Result<(), BusError> {
        Ok(self.store.put(&format!("{DIR}/progress"), document)?)
    }
}

/// The log's name of a topic that is made through the port.
pub(crate) fn log_name(name: &ResourceName, number: u64) -> Result<TopicName, BusError> {
    TopicName::internal(&format!("{}:{}.{number}", name.project, name.id))
        .map_err(|error| BusError::Store(error.to_string()))
}
