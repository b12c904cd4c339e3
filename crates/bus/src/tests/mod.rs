//! Behaviour of the bus over the simulated disk.

mod crash;
mod dead;
mod delivery_model;
mod moving;
mod publish;
mod scrub;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use levada_core::{
    Attributes, ManualClock, Message, Principal, Role, TenantContext, TenantId, TenantSet, TopicName, attr,
};
use levada_disk::{Disk, SimDisk};
use levada_log::LogConfig;

use crate::{Bus, BusConfig, Publish, TopicConfig};

pub const START_MS: i64 = 1_780_000_000_000;

pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("tenant")
}

pub fn topic(name: &str) -> TopicName {
    TopicName::new(name).expect("topic")
}

/// An event of a tenant with an idempotency key.
pub fn event(owner: &str, key: Option<&str>, body: &str) -> Publish {
    let id = key.unwrap_or("none");
    let attributes: Attributes =
        [(attr::EVENT_TYPE, "test.happened"), (attr::EVENT_ID, id)].into_iter().collect();
    Publish {
        context: TenantContext::system(tenant(owner), "test"),
        message: Message {
            tenant: tenant(owner),
            attributes,
            ordering_key: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
        },
        idempotency_key: key.map(str::to_owned),
    }
}

pub fn principal(tenants: &[&str]) -> Principal {
    Principal {
        id: "key-1".into(),
        name: "test".into(),
        tenants: TenantSet::Only(tenants.iter().map(|t| tenant(t)).collect()),
        roles: [Role::Engineer].into_iter().collect(),
    }
}

/// Small files: the simulated disk keeps every sector in memory.
pub fn config() -> BusConfig {
    let log = LogConfig {
        commit_file_bytes: 64 << 10,
        segment_bytes: 32 << 10,
        group_bytes: 16 << 10,
        ..LogConfig::default()
    };
    BusConfig { log, ..BusConfig::default() }
}

pub struct World {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<ManualClock>,
    pub bus: Bus,
    pub recovery: crate::Recovery,
}

pub fn open(disk: Arc<dyn Disk>, clock: Arc<ManualClock>) -> World {
    open_with(disk, clock, config())
}

pub fn open_with(disk: Arc<dyn Disk>, clock: Arc<ManualClock>, config: BusConfig) -> World {
    let (bus, recovery) = Bus::open(disk.clone(), config, clock.clone()).expect("bus opens");
    World { disk, clock, bus, recovery }
}

pub fn fresh() -> World {
    let world = open(Arc::new(SimDisk::new(1)), Arc::new(ManualClock::new(START_MS)));
    world.bus.ensure_topic(&topic("orders"), TopicConfig::default()).expect("topic");
    world
}

impl World {
    /// Closes cleanly and opens again after some downtime.
    pub async fn restart(self, downtime: Duration) -> World {
        self.bus.close().await.expect("closes");
        self.clock.advance(downtime);
        open(self.disk, self.clock)
    }
}
