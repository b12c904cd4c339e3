//! The delivery machine beside what is hard to reach from outside: moves to the dead letter
//! that race with late acknowledgements, and a key that blocks very many messages.

use std::time::Duration;

use crate::delivery::{KeyBounds, Now, Outcome, Progress, Rules, Seen, State, Waiting};
use crate::port::Consumer;

const NOW: Now = Now { at: Duration::from_secs(1), wall_ms: 1_000 };
const LATER: Now = Now { at: Duration::from_secs(60), wall_ms: 60_000 };

fn state(ordered: bool, max_attempts: Option<u32>) -> State {
    let rules = Rules {
        ordered,
        key_bounds: KeyBounds { messages: 100, bytes: 1_000_000 },
        exactly_once: false,
        ack_deadline: Duration::from_secs(10),
        retry: None,
        max_attempts,
        max_leased: 100_000,
        look_ahead: 250_000,
    };
    State::new(rules, Progress::default(), 1)
}

fn see(state: &mut State, offset: u64, key: u64) {
    let message = Waiting { offset, bytes: 100, key };
    state.scanned(Seen { lane: 1, message, not_before_ms: None });
}

#[test]
fn an_acknowledgement_that_comes_while_its_message_moves_means_nothing() {
    let mut state = state(false, Some(1));
    see(&mut state, 0, 0);
    let lease = state.lease(Consumer::Call, 1, 1_000, None, NOW)[0];
    assert_eq!(state.expire(LATER).len(), 1, "its only delivery has failed");
    assert!(state.begin_move(0));
    assert_eq!(state.ack(lease.ack_id), Outcome::Known);
    assert!(!state.settled().contains(0), "only the move settles it");
    assert!(state.settle(0));
    assert!(!state.begin_move(0), "it is moved once");
}

#[test]
fn an_acknowledgement_before_the_move_wins() {
    let mut state = state(false, Some(1));
    see(&mut state, 0, 0);
    let lease = state.lease(Consumer::Call, 1, 1_000, None, NOW)[0];
    state.expire(LATER);
    assert_eq!(state.ack(lease.ack_id), Outcome::Settled(0));
    assert!(!state.begin_move(0));
}

#[test]
fn what_was_not_moved_after_all_comes_again() {
    let mut state = state(true, None);
    see(&mut state, 0, 7);
    see(&mut state, 1, 7);
    let lease = state.lease(Consumer::Call, 2, 1_000, None, NOW)[0];
    assert!(state.begin_move(0), "a lease does not hinder an operator");
    assert!(state.begin_move(1));
    assert!(
        state.lease(Consumer::Call, 2, 1_000, None, NOW).is_empty(),
        "nothing of the key is delivered meanwhile"
    );
    state.put_back(0, NOW);
    state.put_back(1, NOW);
    assert_eq!(state.ack(lease.ack_id), Outcome::Known, "that lease has ended");
    let again = state.lease(Consumer::Call, 2, 1_000, None, NOW);
    assert_eq!(again.iter().map(|l| l.offset).collect::<Vec<_>>(), [0, 1], "in order");
    assert_eq!(state.ack(again[0].ack_id), Outcome::Settled(0));
    assert_eq!(state.ack(again[1].ack_id), Outcome::Settled(1));
}

#[test]
fn very_many_messages_behind_one_key_do_not_stop_the_other_keys() {
    const BEHIND: u64 = 1_000_000;
    let mut state = state(true, None);
    see(&mut state, 0, 7);
    assert_eq!(state.lease(Consumer::Call, 1, 1_000, None, NOW).len(), 1, "it stays on lease");
    for offset in 1..BEHIND {
        // Two keys in turn, so that they are no run.
        assert_eq!(state.wants_scan(), Some(offset), "the scan goes on");
        see(&mut state, offset, if offset % 5_000 == 0 { offset } else { 7 });
        if offset % 5_000 == 0 {
            let mut got = Vec::new();
            while got.is_empty() {
                got = state.lease(Consumer::Call, 1, 1_000, None, NOW);
            }
            assert_eq!(got[0].offset, offset);
            assert_eq!(state.ack(got[0].ack_id), Outcome::Settled(offset));
        }
    }
}
