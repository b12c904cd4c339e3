//! The embedded bus against the conformance suite of its port, on the simulated disk and on a
//! real one; and the suite against buses that break a promise.

mod broken;
mod platform;

use levada_testkit::bus_conformance::{Case, cases, run};

use broken::{Broken, Fault};
use platform::{Real, Simulated};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_bus_conforms_on_the_simulated_disk() {
    let report = run(&Simulated::default(), &cases()).await;
    println!("{report}");
    report.expect_green();
    assert_eq!(report.green(), cases().len(), "the simulated disk offers everything: nothing is skipped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_bus_conforms_on_a_real_disk() {
    let report = run(&Real, &cases()).await;
    println!("{report}");
    report.expect_green();
    // Days cannot be waited for; all else runs.
    let manual = cases().iter().filter(|case| !case.runs_in_real_time()).count();
    assert_eq!(report.green() + manual, cases().len());
}

/// The suite but for what takes long, since every fault goes through it.
fn short() -> Vec<Case> {
    cases().into_iter().filter(|case| !case.name.starts_with("fair/")).collect()
}

/// Runs the suite against a fault: these cases must be red, and none of these groups.
async fn notices(fault: Fault, red: &[&str], unharmed: &[&str]) {
    let report = run(&Broken(fault), &short()).await;
    let found = report.red();
    println!("{report}");
    for name in red {
        assert!(cases().iter().any(|case| case.name == *name), "there is no case {name}");
        assert!(found.contains(name), "{fault:?} was not noticed by {name}; red: {found:?}\n{report}");
    }
    for name in found {
        let group = name.split('/').next().unwrap_or(name);
        assert!(!unharmed.contains(&group), "{fault:?} has nothing to do with {name}\n{report}");
    }
}

/// One test a fault, so that they run beside each other and each is named when it fails.
macro_rules! faults {
    ($($test:ident: $fault:ident => [$($red:literal),+ $(,)?], not [$($unharmed:literal),* $(,)?];)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            notices(Fault::$fault, &[$($red),+], &[$($unharmed),*]).await;
        })+
    };
}

faults! {
    dropped_acknowledgements_are_noticed: DropsAcknowledgements => [
        "lease/acknowledged_is_acknowledged",
        "exactly-once/what_is_confirmed_never_comes_again",
        "pull/pullers_at_once_get_disjoint_messages",
        "ordering/each_key_comes_in_order",
    ], not ["catalog", "publish", "retry", "dead-letter", "schedule"];

    ignored_ordering_keys_are_noticed: IgnoresOrderingKeys => [
        "ordering/one_message_of_a_key_comes_to_who_wants_single_ones",
        "ordering/each_key_comes_in_order",
        "together/only_the_stream_with_the_key_gets_more",
        "together/what_follows_one_that_was_given_back_comes_again",
        "ordering/what_follows_comes_after_what_was_given_back",
        "ordering/order_outlives_a_restart",
        "operate/a_blocked_key_is_shown",
    ], not ["publish", "lease", "exactly-once", "filter", "retry", "seek", "snapshot", "life"];

    another_order_is_noticed: Reorders => [
        "publish/ids_ascend_and_are_those_of_the_deliveries",
        "ordering/one_message_of_a_key_comes_to_who_wants_single_ones",
        "together/messages_of_a_key_come_together_in_order",
        "ordering/each_key_comes_in_order",
        "ordering/order_outlives_a_restart",
    ], not ["catalog", "exactly-once", "filter", "retry", "seek", "life", "update"];

    leases_that_count_for_ever_are_noticed: IsNotExactlyOnce => [
        "exactly-once/an_ended_lease_is_invalid",
        "exactly-once/only_the_newest_lease_counts",
        "exactly-once/a_lease_given_back_is_over",
        "exactly-once/a_restart_ends_leases",
        "exactly-once/it_begins_with_an_update",
    ], not ["publish", "pull", "lease", "ordering", "filter", "retry", "dead-letter", "seek", "snapshot"];

    ignored_filters_are_noticed: IgnoresFilters => [
        "filter/only_what_matches_comes",
        "filter/what_does_not_match_counts_as_acknowledged",
        "filter/a_filter_that_cannot_be_read_is_refused",
    ], not ["publish", "pull", "lease", "exactly-once", "ordering", "retry", "seek"];

    ignored_tenants_are_noticed: IgnoresTenants => [
        "filter/a_tenants_subscription_gets_its_messages_only",
        "filter/a_tenants_snapshot_stays_its_own",
    ], not ["publish", "pull", "lease", "exactly-once", "ordering", "retry", "seek"];

    missing_backoff_is_noticed: IgnoresRetryPolicies => [
        "retry/what_was_given_back_waits_for_its_backoff",
        "retry/the_backoff_grows_up_to_its_cap",
        "ordering/what_follows_waits_for_the_backoff",
    ], not ["catalog", "publish", "pull", "lease", "exactly-once", "filter", "dead-letter", "seek"];

    missing_dead_letters_are_noticed: HasNoDeadLetters => [
        "dead-letter/a_message_moves_after_its_attempts",
        "dead-letter/leases_that_end_are_attempts_too",
        "ordering/what_follows_comes_after_the_dead_letter",
        "operate/a_blocked_key_can_be_parked",
    ], not ["catalog", "publish", "pull", "lease", "filter", "retry", "seek", "update"];

    ignored_deadlines_are_noticed: IgnoresDeadlinesOfPulls => [
        "lease/the_deadline_is_the_subscriptions_unless_the_pull_has_its_own",
        "lease/a_lease_that_ends_brings_the_message_again",
    ], not ["catalog", "publish", "filter", "snapshot", "schedule"];

    ignored_nacks_are_noticed: IgnoresNacks => [
        "lease/a_message_given_back_comes_at_once_with_another_id",
        "retry/without_a_policy_it_comes_at_once",
        "dead-letter/a_message_moves_after_its_attempts",
    ], not ["catalog", "publish", "filter", "snapshot", "schedule"];

    short_lists_are_noticed: EndsLists => [
        "catalog/topics_come_in_pages_of_one_project",
        "catalog/subscriptions_and_snapshots_come_in_pages",
    ], not ["publish", "pull", "lease", "exactly-once", "ordering", "seek", "life"];

    ignored_seeks_are_noticed: IgnoresSeeks => [
        "seek/forward_acknowledges_what_came_before",
        "seek/backward_brings_back_what_is_retained",
        "snapshot/brings_back_what_was_not_acknowledged_then",
        "snapshot/a_subscription_of_another_topic_may_not",
        "exactly-once/a_seek_ends_leases",
    ], not ["publish", "pull", "lease", "retry", "dead-letter"];

    ids_taken_for_granted_are_noticed: AcceptsEveryId => [
        "lease/an_id_that_never_was_is_invalid",
        "exactly-once/an_ended_lease_is_invalid",
    ], not ["catalog", "publish", "pull", "ordering", "filter", "retry", "dead-letter", "seek"];

    duplicates_are_noticed: Duplicates => [
        "publish/ids_ascend_and_are_those_of_the_deliveries",
        "lease/acknowledged_is_acknowledged",
        "filter/only_what_matches_comes",
    ], not ["catalog"];

    forgotten_attempts_are_noticed: ForgetsAttempts => [
        "lease/a_message_given_back_comes_at_once_with_another_id",
        "lease/progress_outlives_a_restart",
        "dead-letter/a_message_moves_after_its_attempts",
    ], not ["catalog", "publish", "filter", "snapshot", "life"];

    ignored_deduplication_is_noticed: IgnoresDeduplication => [
        "deduplication/the_same_value_is_one_message",
        "deduplication/inside_of_one_publish_too",
        "deduplication/it_outlives_a_restart",
        "deduplication/settings_that_promise_nothing_are_refused",
    ], not ["catalog", "publish", "durability", "replay", "seek"];

    replays_without_a_beginning_are_noticed: ReplaysEverything => [
        "replay/begins_at_its_time",
        "replay/begins_at_a_snapshot",
    ], not ["catalog", "publish", "durability", "deduplication", "seek"];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrapper_of_faults_is_harmless_by_itself() {
    run(&Broken(Fault::None), &short()).await.expect_green();
}
