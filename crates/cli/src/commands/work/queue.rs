//! What is on lease and waits for its turn: messages of one ordering key run one after another.

use std::collections::{HashSet, VecDeque};

use super::api::Pulled;

/// The messages that were pulled and do not run yet, in the order of their delivery.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Pulled>,
    /// Keys of which a message runs.
    running: HashSet<String>,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn extend(&mut self, pulled: Vec<Pulled>) {
        self.waiting.extend(pulled);
    }

    /// How many could run now.
    pub fn ready(&self) -> usize {
        self.waiting.iter().filter(|pulled| self.may_run(pulled)).count()
    }

    fn may_run(&self, pulled: &Pulled) -> bool {
        let key = &pulled.message.ordering_key;
        key.is_empty() || !self.running.contains(key)
    }

    /// Takes up to `max` messages that may run now, in order. All of a key that fit go
    /// together, as the program sees them one after another; the key is taken until
    /// [`Queue::release`].
    pub fn take(&mut self, max: usize) -> Vec<Pulled> {
        let mut taken = Vec::new();
        let mut kept = VecDeque::with_capacity(self.waiting.len());
        while let Some(pulled) = self.waiting.pop_front() {
            if taken.len() < max && self.may_run(&pulled) {
                taken.push(pulled);
            } else {
                kept.push_back(pulled);
            }
        }
        self.waiting = kept;
        let keys = taken.iter().map(|pulled| &pulled.message.ordering_key).filter(|key| !key.is_empty());
        self.running.extend(keys.cloned());
        taken
    }

    /// The keys of a batch are free again.
    pub fn release<'a>(&mut self, keys: impl IntoIterator<Item = &'a String>) {
        for key in keys {
            self.running.remove(key);
        }
    }

    /// Takes out what waits behind a failed message of its key.
    pub fn drop_keys(&mut self, failed: &HashSet<String>) -> Vec<Pulled> {
        if failed.is_empty() {
            return Vec::new();
        }
        let (dropped, kept) =
            self.waiting.drain(..).partition(|pulled: &Pulled| failed.contains(&pulled.message.ordering_key));
        self.waiting = kept;
        Vec::from(dropped)
    }

    pub fn drain(&mut self) -> Vec<Pulled> {
        self.waiting.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::work::api::PubsubMessage;

    fn pulled(id: u32, key: &str) -> Pulled {
        let message =
            PubsubMessage { message_id: id.to_string(), ordering_key: key.into(), ..Default::default() };
        Pulled { message, ..Default::default() }
    }

    fn ids(pulled: &[Pulled]) -> String {
        pulled.iter().map(|p| p.message.message_id.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_key_waits_for_itself_and_for_nobody_else() {
        let mut queue = Queue::default();
        queue.extend(vec![pulled(1, "a"), pulled(2, "a"), pulled(3, ""), pulled(4, "b"), pulled(5, "")]);
        assert_eq!(ids(&queue.take(1)), "1");
        assert_eq!(queue.ready(), 3, "2 waits for 1");
        assert_eq!(ids(&queue.take(1)), "3");
        assert_eq!(ids(&queue.take(10)), "4 5");
        assert!(queue.take(10).is_empty());
        queue.release(&["a".to_owned()]);
        assert_eq!(ids(&queue.take(10)), "2");
    }

    #[test]
    fn a_batch_holds_a_key_in_its_order() {
        let mut queue = Queue::default();
        queue.extend(vec![pulled(1, "a"), pulled(2, "b"), pulled(3, "a"), pulled(4, "a")]);
        assert_eq!(ids(&queue.take(3)), "1 2 3");
        assert_eq!(queue.ready(), 0, "4 waits for the batch of 1 and 3");
        let dropped = queue.drop_keys(&["a".to_owned()].into());
        assert_eq!((ids(&dropped).as_str(), queue.len()), ("4", 0));
    }
}
