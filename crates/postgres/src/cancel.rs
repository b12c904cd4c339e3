//! Cancel requests: they come on a connection of their own, with the number and the
//! secret that the other connection was given at login.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use parking_lot::Mutex;
use pgwire::messages::startup::SecretKey;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

/// The connections that can be cancelled.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    next: AtomicI32,
    connections: Mutex<HashMap<i32, Entry>>,
}

#[derive(Debug)]
struct Entry {
    secret: SecretKey,
    running: Slot,
}

/// The statement that runs now, if any.
type Slot = Arc<Mutex<Option<CancellationToken>>>;

/// One connection's place in the registry; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Registration {
    pub number: i32,
    pub secret: SecretKey,
    running: Slot,
    registry: Arc<Registry>,
}

impl Registry {
    /// Secrets of protocol 3.0 have four bytes: that is what its clients can send back.
    pub fn register(self: &Arc<Self>) -> Registration {
        let number = self.next.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let secret = SecretKey::I32(rand::random());
        let running = Slot::default();
        let entry = Entry { secret: secret.clone(), running: running.clone() };
        self.connections.lock().insert(number, entry);
        Registration { number, secret, running, registry: self.clone() }
    }

    /// Stops what the connection is running; says nothing about whether there was anything.
    pub fn cancel(&self, number: i32, secret: &SecretKey) {
        let connections = self.connections.lock();
        let Some(entry) = connections.get(&number) else { return };
        if bool::from(entry.secret.to_bytes().ct_eq(&secret.to_bytes()))
            && let Some(token) = &*entry.running.lock()
        {
            token.cancel();
        }
    }
}

/// A statement that can be cancelled; dropping it makes later requests go nowhere.
#[derive(Debug)]
pub(crate) struct Running {
    pub token: CancellationToken,
    slot: Slot,
}

impl Registration {
    pub fn start(&self) -> Running {
        let token = CancellationToken::new();
        *self.running.lock() = Some(token.clone());
        Running { token, slot: self.running.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.slot.lock() = None;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.connections.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_secret_stops_only_what_runs() {
        let registry = Arc::new(Registry::default());
        let one = registry.register();
        let SecretKey::I32(secret) = one.secret else { panic!("four bytes") };
        registry.cancel(one.number, &SecretKey::I32(secret));
        let running = one.start();
        assert!(!running.token.is_cancelled(), "an early request does not hit the next statement");
        registry.cancel(one.number, &SecretKey::I32(!secret));
        registry.cancel(one.number + 1, &SecretKey::I32(secret));
        assert!(!running.token.is_cancelled());
        registry.cancel(one.number, &SecretKey::I32(secret));
        assert!(running.token.is_cancelled());
        drop(one);
        assert!(registry.connections.lock().is_empty());
    }
}
