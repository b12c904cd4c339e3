//! Durability classes: what they have in common. What a crash leaves is for tests that can
//! crash the engine.

use anyhow::Result;
use levada_bus::port::{Durability, TopicSpec};

use super::super::check::same;
use super::super::world::{World, name};

super::cases! {
    "durability":
    every_class_delivers,
    every_class_outlives_a_clean_restart [Restart],
    a_class_can_change,
}

const CLASSES: [Durability; 3] = [Durability::Fsync, Durability::Interval, Durability::Memory];

async fn every_class_delivers(world: &mut World) -> Result<()> {
    for durability in CLASSES {
        let topic = name(&format!("orders-{}", durability.as_str()));
        let spec = TopicSpec { durability, ..TopicSpec::new(topic.clone()) };
        same("the class", world.port().create_topic(spec).await?.durability, durability)?;
        let subscription =
            world.subscribe(&format!("billing-{}", durability.as_str()), &topic, |_| {}).await?;
        world.publish(&topic, &["a", "b"]).await?;
        let received = world.expect(&subscription, &["a", "b"]).await?;
        world.ack(&subscription, &received).await?;
        world.settled(&subscription)?;
    }
    Ok(())
}

async fn every_class_outlives_a_clean_restart(world: &mut World) -> Result<()> {
    for durability in CLASSES {
        let topic = name(&format!("orders-{}", durability.as_str()));
        let spec = TopicSpec { durability, ..TopicSpec::new(topic.clone()) };
        world.port().create_topic(spec).await?;
        world.subscribe(&format!("billing-{}", durability.as_str()), &topic, |_| {}).await?;
        world.publish(&topic, &["a"]).await?;
    }
    world.restart().await?;
    for durability in CLASSES {
        let topic = name(&format!("orders-{}", durability.as_str()));
        same("the class", world.port().topic(&topic)?.durability, durability)?;
        let subscription = world.subscription(&format!("billing-{}", durability.as_str()))?;
        world.expect(&subscription, &["a"]).await?;
    }
    Ok(())
}

async fn a_class_can_change(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    for durability in [Durability::Memory, Durability::Interval, Durability::Fsync] {
        world.port().update_topic(TopicSpec { durability, ..TopicSpec::new(topic.clone()) }).await?;
        world.publish(&topic, &["a"]).await?;
        let received = world.expect(&subscription, &["a"]).await?;
        world.ack(&subscription, &received).await?;
    }
    Ok(())
}
