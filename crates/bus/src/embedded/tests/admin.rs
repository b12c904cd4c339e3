//! Operating subscriptions: who sees which, and what may be done.

use levada_core::{Clock, Principal, Problem, Role, TenantSet};

use super::*;
use crate::admin::{
    MAX_WEIGHED_TENANTS, NewReplay, ProjectOwner, SubscriptionAdmin, SubscriptionChange, SubscriptionReport,
    TopicChange, TopicReport, Weighing,
};
use crate::filter::Filter;
use crate::port::{DeadLetterPolicy, Deduplication, KeyScope, PageRequest, SeekTo, Unblock};

/// The project `acme` is the tenant's of that name, `shared` the platform's, others nobody's.
pub fn admin(port: &Port) -> SubscriptionAdmin {
    let owner_of = |project: &ProjectId| match project.as_str() {
        "acme" => Some(ProjectOwner::Tenant(tenant("acme"))),
        "shared" => Some(ProjectOwner::Platform),
        _ => None,
    };
    SubscriptionAdmin::new(Arc::new(port.port.clone()), Arc::new(owner_of))
}

pub fn principal(tenants: &[&str]) -> Principal {
    let only = TenantSet::Only(tenants.iter().map(|t| tenant(t)).collect());
    Principal {
        id: "k".into(),
        name: "k".into(),
        tenants: if tenants.is_empty() { TenantSet::All } else { only },
        roles: [Role::Engineer].into(),
    }
}

fn names(admin: &SubscriptionAdmin, tenants: &[&str], page: &PageRequest) -> Vec<String> {
    let found = admin.list(&principal(tenants), page);
    found.items.iter().map(|report| report.spec.name.to_string()).collect()
}

async fn world() -> (Port, SubscriptionAdmin) {
    let port = fresh();
    let shared = port.topic("shared/orders").await;
    let own = port.topic("acme/orders").await;
    port.subscribe("acme/billing", &own, |_| {}).await;
    port.subscribe("shared/all", &shared, |_| {}).await;
    port.subscribe("shared/of-acme", &shared, |s| s.tenant = Some(tenant("acme"))).await;
    port.subscribe("shared/of-globex", &shared, |s| s.tenant = Some(tenant("globex"))).await;
    port.subscribe("undeclared/left", &shared, |_| {}).await;
    let admin = admin(&port);
    (port, admin)
}

#[tokio::test]
async fn a_tenant_sees_its_project_and_its_own_subscriptions_and_the_platform_all() {
    let (_port, admin) = world().await;
    let all = PageRequest::default();
    let everything = ["acme/billing", "shared/all", "shared/of-acme", "shared/of-globex", "undeclared/left"];
    assert_eq!(names(&admin, &[], &all), everything);
    assert_eq!(names(&admin, &["acme"], &all), ["acme/billing", "shared/of-acme"]);
    assert_eq!(names(&admin, &["globex"], &all), ["shared/of-globex"]);
    assert!(names(&admin, &["initech"], &all).is_empty());
    for hidden in ["acme/billing", "shared/all", "shared/of-acme", "undeclared/left", "shared/none"] {
        let refused = admin.show(&principal(&["globex"]), &name(hidden)).expect_err(hidden);
        assert_eq!((refused.status, &*refused.code), (404, "subscription-unknown"), "{hidden}");
        assert_eq!(admin.blocked_keys(&principal(&["globex"]), &name(hidden), 9), Err(refused));
    }
    let mut page = PageRequest { size: 2, after: None };
    let mut walked = Vec::new();
    loop {
        let found = admin.list(&principal(&[]), &page);
        walked.extend(found.items.iter().map(|report| report.spec.name.to_string()));
        let Some(next) = found.next else { break };
        page.after = Some(next);
    }
    assert_eq!(walked, everything, "page by page");
    assert_eq!(names(&admin, &["acme"], &PageRequest { size: 1, after: None }), ["acme/billing"]);
}

#[tokio::test]
async fn figures_of_a_shared_topic_tell_a_tenant_nothing_of_others() {
    let (port, admin) = world().await;
    let topic = name("shared/orders");
    let messages = (0..40).map(|n| message(if n % 4 == 0 { "globex" } else { "acme" }, "x")).collect();
    port.try_publish(&topic, messages).await.expect("published");
    let of_globex = name("shared/of-globex");
    let listed = admin.list(&principal(&["globex"]), &PageRequest::default());
    assert_eq!(listed.items[0].stats.backlog_messages, 0, "nobody has looked yet");
    assert!(!listed.items[0].backlog_is_exact);
    // The last records may become readable a moment after their publish was answered.
    let shown = loop {
        let shown = admin.show(&principal(&["globex"]), &of_globex).expect("its own");
        if shown.backlog_is_exact {
            break shown;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((shown.stats.backlog_messages, shown.backlog_is_exact), (10, true));
    assert_eq!(shown.tenant, Some(tenant("globex")));
    assert_eq!(shown.stats.by_tenant.keys().collect::<Vec<_>>(), [&tenant("globex")]);
    assert_eq!(shown.stats.oldest_unacked_ms, Some(START_MS));
    let all = admin.show(&principal(&[]), &name("shared/all")).expect("the platform's");
    assert_eq!((all.stats.backlog_messages, all.backlog_is_exact), (40, true));
}

#[tokio::test]
async fn a_blocked_key_is_skipped_or_parked_by_who_holds_its_tenant() {
    let (port, admin) = world().await;
    let dead = port.topic("acme/dead").await;
    let (orders, ordered) = (name("acme/orders"), name("acme/ordered"));
    let policy = DeadLetterPolicy { topic: dead.clone(), max_delivery_attempts: 5 };
    let set = |s: &mut SubscriptionSpec| {
        s.ordered = true;
        s.dead_letter = Some(policy);
    };
    let subscription = port.subscribe("acme/ordered", &orders, set).await;
    let letters = port.subscribe("acme/letters", &dead, |_| {}).await;
    let keyed = |body: &str| Message { ordering_key: Some("k".into()), ..message("acme", body) };
    port.try_publish(&orders, ["1", "2", "3"].map(keyed).into()).await.expect("published");
    assert_eq!(bodies(&subscription.pull(singly()).await.expect("pulls")), ["1"], "one at a time");

    let acme = principal(&["acme"]);
    let blocked = admin.blocked_keys(&acme, &ordered, 10).expect("seen");
    assert_eq!((blocked.len(), &*blocked[0].key, blocked[0].waiting), (1, "k", 2));
    assert!(admin.blocked_keys(&acme, &ordered, 0).expect("seen").is_empty());
    assert_eq!(admin.show(&acme, &ordered).expect("seen").stats.blocked_keys, 1);

    let try_unblock = async |caller: &Principal, of: &str, key: &str, how| -> Result<(), Problem> {
        admin.unblock(caller, &ordered, &tenant(of), key, how).await
    };
    let code = |outcome: Result<(), Problem>| outcome.expect_err("refused").code;
    let globex = principal(&["globex"]);
    assert_eq!(code(try_unblock(&globex, "acme", "k", Unblock::Skip).await), "subscription-unknown");
    assert_eq!(code(try_unblock(&acme, "globex", "k", Unblock::Skip).await), "tenant-forbidden");
    assert_eq!(code(try_unblock(&acme, "acme", "other", Unblock::Skip).await), "subscription-state");
    assert_eq!(code(try_unblock(&principal(&[]), "nobody", "k", Unblock::Park).await), "subscription-state");

    try_unblock(&acme, "acme", "k", Unblock::Skip).await.expect("skipped");
    assert_eq!(bodies(&subscription.pull(singly()).await.expect("pulls")), ["2"]);
    try_unblock(&acme, "acme", "k", Unblock::Park).await.expect("parked");
    assert!(subscription.pull(singly()).await.expect("pulls").is_empty());
    assert_eq!(bodies(&letters.pull(limits(9)).await.expect("pulls")), ["2", "3"]);
}

#[tokio::test]
async fn a_subscription_says_from_afar_how_it_does() {
    let (port, admin) = world().await;
    let billing = name("acme/billing");
    let state = |port: &Port| {
        let report = admin.show(&principal(&["acme"]), &billing).expect("seen");
        report.state(port.world.clock.now_ms()).0.as_str()
    };
    assert_eq!(state(&port), "idle");
    port.publish(&name("acme/orders"), &["a"]).await;
    let subscription = port.open_subscription("acme/billing");
    let pulled = subscription.pull(limits(9)).await.expect("pulls");
    assert_eq!(state(&port), "healthy");
    port.advance(Duration::from_secs(301));
    assert_eq!(state(&port), "late");
    port.advance(Duration::from_secs(3_600));
    assert_eq!(state(&port), "stuck");
    acknowledge(&subscription, &pulled).await;
    assert_eq!(state(&port), "healthy");
    port.port.detach_subscription(&billing).await.expect("detached");
    assert_eq!(state(&port), "ended");
}

#[tokio::test]
async fn messages_are_browsed_newest_first_without_being_consumed() {
    let (port, admin) = world().await;
    let topic = name("shared/orders");
    let sent = |n: u32| Message {
        attributes: [("n", n.to_string().as_str())].into_iter().collect(),
        ..message(if n.is_multiple_of(3) { "globex" } else { "acme" }, &n.to_string())
    };
    port.try_publish(&topic, (0..300).map(sent).collect()).await.expect("published");
    let subscription = port.open_subscription("shared/of-globex");
    // What a pull sees, everybody sees.
    let pulled = subscription.pull(limits(1_000)).await.expect("pulls");
    acknowledge(&subscription, &pulled).await;
    let everything = Filter::parse("").expect("a filter");
    let browse = |tenants: &[&str], of: &str, before, limit, filter: &Filter| {
        let found = admin.browse(&principal(tenants), &name(of), before, limit, filter).expect("seen");
        let bodies = found.messages.iter().map(|m| String::from_utf8_lossy(&m.message.body).into_owned());
        (bodies.collect::<Vec<_>>(), found.before)
    };
    let (first, before) = browse(&["globex"], "shared/of-globex", None, 2, &everything);
    assert_eq!(first, ["297", "294"], "also those that are acknowledged");
    let (next, _) = browse(&["globex"], "shared/of-globex", before, 1, &everything);
    assert_eq!(next, ["291"]);
    let (all, end) = browse(&[], "shared/all", None, 1_000, &everything);
    assert_eq!((all.len(), all[0].as_str(), all[299].as_str(), end), (300, "299", "0", None));
    let some = Filter::parse("attributes.n = \"6\" OR attributes.n = \"7\"").expect("a filter");
    assert_eq!(browse(&[], "shared/all", None, 10, &some), (vec!["7".to_owned(), "6".to_owned()], None));
    assert_eq!(browse(&["globex"], "shared/of-globex", None, 10, &some).0, ["6"]);
    let hidden = admin.browse(&principal(&["globex"]), &name("shared/all"), None, 1, &everything);
    assert_eq!(hidden.expect_err("hidden").code, "subscription-unknown");
    assert_eq!(port.open_subscription("shared/all").stats().leased, 0);
}

#[tokio::test]
async fn weights_are_set_by_who_sees_the_subscription_for_its_own_tenants() {
    let (port, admin) = world().await;
    let weighing = |tenants: &[(&str, Option<u32>)]| SubscriptionChange {
        weighing: Weighing {
            from_nothing: false,
            tenants: tenants.iter().map(|(t, weight)| (tenant(t), *weight)).collect(),
        },
        max_rate_per_s: None,
    };
    let all = name("shared/all");
    let set = weighing(&[("acme", Some(5)), ("globex", Some(1_000))]);
    let report = admin.change(&principal(&[]), &all, &set).await.expect("weighed");
    assert_eq!(report.weights, [(tenant("acme"), 5), (tenant("globex"), 1_000)].into());
    let report = admin.change(&principal(&[]), &all, &weighing(&[("globex", None)])).await;
    assert_eq!(report.expect("weighed").weights, [(tenant("acme"), 5)].into(), "the other is left alone");

    let code = |refused: Result<SubscriptionReport, Problem>| refused.expect_err("refused").code;
    let acme = principal(&["acme"]);
    assert_eq!(code(admin.change(&acme, &all, &set).await), "subscription-unknown", "it is the platform's");
    let own = name("shared/of-acme");
    assert_eq!(code(admin.change(&acme, &own, &set).await), "tenant-forbidden");
    for weight in [0, 1_001] {
        let refused = admin.change(&acme, &own, &weighing(&[("acme", Some(weight))])).await;
        assert_eq!(code(refused), "body-invalid", "{weight}");
    }
    admin.change(&acme, &own, &weighing(&[("acme", Some(2))])).await.expect("its own");
    let many: Vec<String> = (0..=MAX_WEIGHED_TENANTS).map(|n| format!("t-{n}")).collect();
    let many: Vec<(&str, Option<u32>)> = many.iter().map(|t| (t.as_str(), Some(2))).collect();
    assert_eq!(code(admin.change(&principal(&[]), &all, &weighing(&many)).await), "body-invalid");

    // What is set outlives the process, and steers delivery: five of acme's for one of globex's.
    let port = port.restart().await;
    let admin = super::admin::admin(&port);
    assert_eq!(admin.show(&principal(&[]), &all).expect("seen").weights, [(tenant("acme"), 5)].into());
    let of = |n: usize| message(if n.is_multiple_of(2) { "acme" } else { "globex" }, &"x".repeat(1_024));
    for _ in 0..20 {
        port.try_publish(&name("shared/orders"), (0..20).map(of).collect()).await.expect("published");
    }
    let subscription = port.open_subscription("shared/all");
    let mut pulled = Vec::new();
    while pulled.len() < 120 {
        pulled.extend(subscription.pull(limits(120)).await.expect("pulls"));
        tokio::task::yield_now().await;
    }
    let of_acme = pulled[..120].iter().filter(|r| r.message.tenant == tenant("acme")).count();
    assert!((90..=110).contains(&of_acme), "{of_acme} of 120");

    let from_nothing = Weighing { from_nothing: true, ..Weighing::default() };
    let from_nothing = SubscriptionChange { weighing: from_nothing, ..SubscriptionChange::default() };
    let report = admin.change(&principal(&[]), &all, &from_nothing).await.expect("weighed");
    assert!(report.weights.is_empty());
}

#[tokio::test]
async fn a_replay_is_made_beside_a_subscription_by_who_sees_it() {
    let (port, admin) = world().await;
    let of_acme = name("shared/of-acme");
    let sent = ["1", "2", "3"].map(|body| message("acme", body)).into();
    port.try_publish(&name("shared/orders"), sent).await.expect("published");
    let source = port.open_subscription("shared/of-acme");
    let mut got = Vec::new();
    while got.len() < 3 {
        got.extend(source.pull(limits(9)).await.expect("pulls"));
        tokio::task::yield_now().await;
    }
    acknowledge(&source, &got).await;
    let new =
        |id: &str, from: SeekTo, rate_per_s| NewReplay { id: id.parse().expect("an id"), from, rate_per_s };
    let rate = |rate| SubscriptionChange { max_rate_per_s: Some(rate), ..SubscriptionChange::default() };
    let earliest = SeekTo::TimeMs(0);
    let acme = principal(&["acme"]);
    let made = admin.replay(&acme, &of_acme, new("again", earliest.clone(), Some(500))).await.expect("made");
    assert_eq!((made.spec.name.to_string().as_str(), made.spec.max_rate_per_s), ("shared/again", Some(500)));
    assert_eq!((made.tenant.clone(), made.state(0).0.as_str()), (Some(tenant("acme")), "replaying"));
    let now_ms = port.world.clock.now_ms() + 30 * 24 * 3_600_000;
    assert_eq!(made.state(now_ms).0.as_str(), "replaying", "old messages are what it is for");
    let faster = admin.change(&acme, &name("shared/again"), &rate(None)).await.expect("its own");
    assert_eq!(faster.spec.max_rate_per_s, None);
    let again = port.open_subscription("shared/again");
    let pulled = again.pull(limits(9)).await.expect("pulls");
    assert_eq!(bodies(&pulled), ["1", "2", "3"]);
    acknowledge(&again, &pulled).await;
    let shown = admin.show(&acme, &name("shared/again")).expect("seen");
    assert_eq!(shown.state(now_ms).0.as_str(), "finished");

    let code = |refused: Result<SubscriptionReport, Problem>| refused.expect_err("refused").code;
    let globex = principal(&["globex"]);
    let third = || new("third", earliest.clone(), None);
    assert_eq!(code(admin.replay(&globex, &of_acme, third()).await), "subscription-unknown");
    assert_eq!(
        code(admin.replay(&acme, &of_acme, new("again", earliest.clone(), None)).await),
        "subscription-state"
    );
    assert_eq!(
        code(admin.replay(&acme, &of_acme, new("third", earliest.clone(), Some(0))).await),
        "body-invalid"
    );
    assert_eq!(
        code(admin.replay(&acme, &name("shared/again"), third()).await),
        "body-invalid",
        "of a replay"
    );
    assert_eq!(code(admin.change(&acme, &of_acme, &rate(Some(0))).await), "body-invalid");
    let halves = [(tenant("acme"), Some(0))].into();
    let weighing = Weighing { from_nothing: false, tenants: halves };
    let both = SubscriptionChange { weighing, max_rate_per_s: Some(Some(9)) };
    assert_eq!(code(admin.change(&acme, &of_acme, &both).await), "body-invalid");
    assert_eq!(admin.show(&acme, &of_acme).expect("seen").spec.max_rate_per_s, None, "all or nothing");
    // A snapshot of another tenant is one that does not exist.
    port.port
        .create_snapshot(name("shared/theirs"), &name("shared/of-globex"), [].into())
        .await
        .expect("made");
    port.port.create_snapshot(name("shared/ours"), &of_acme, [].into()).await.expect("made");
    let theirs = SeekTo::Snapshot(name("shared/theirs"));
    assert_eq!(code(admin.replay(&acme, &of_acme, new("third", theirs, None)).await), "snapshot-unknown");
    let ours = SeekTo::Snapshot(name("shared/ours"));
    let none = admin.replay(&acme, &of_acme, new("third", ours, None)).await.expect("made");
    assert_eq!(none.state(0).0.as_str(), "finished", "all of it was acknowledged by then");
}

#[tokio::test]
async fn topics_are_seen_and_changed_by_who_owns_their_project() {
    let (port, admin) = world().await;
    let topics = admin.topics();
    let by = |attribute: &str| TopicChange {
        durability: None,
        deduplication: Some(Some(Deduplication {
            attribute: attribute.into(),
            window: Duration::from_secs(60),
        })),
        ordering: None,
    };
    let (acme, globex, all) = (principal(&["acme"]), principal(&["globex"]), principal(&[]));
    let (own, shared) = (name("acme/orders"), name("shared/orders"));
    let changed = topics.change(&acme, &own, &by("n")).await.expect("its own");
    assert_eq!(changed.spec.deduplication.as_ref().map(|d| &*d.attribute), Some("n"));
    assert_eq!(topics.change(&acme, &own, &TopicChange::default()).await, Ok(changed));
    let code = |refused: Result<TopicReport, Problem>| refused.expect_err("refused").code;
    assert_eq!(code(topics.change(&globex, &own, &by("n")).await), "topic-unknown");
    assert_eq!(code(topics.change(&acme, &shared, &by("n")).await), "tenant-forbidden");
    assert_eq!(code(topics.change(&acme, &own, &by("")).await), "body-invalid");
    assert_eq!(code(topics.show(&all, &name("acme/none"))), "topic-unknown");
    topics.change(&all, &shared, &by("n")).await.expect("the platform's");
    let listed = |principal: &Principal, project: &str| {
        let project = ProjectId::new(project).expect("a project");
        let found = topics.list(principal, &project, &PageRequest::default());
        found.items.iter().map(|t| (t.spec.name.to_string(), t.may_change)).collect::<Vec<_>>()
    };
    assert_eq!(listed(&acme, "shared"), [("shared/orders".to_owned(), false)]);
    assert_eq!(listed(&acme, "acme"), [("acme/orders".to_owned(), true)]);
    assert!(listed(&globex, "acme").is_empty());
    let port = port.restart().await;
    let again = super::admin::admin(&port).topics().show(&acme, &own).expect("there");
    assert!(again.spec.deduplication.is_some(), "it outlives the process");
    let topics = super::admin::admin(&port).topics();
    for (set, shown) in [(Some(KeyScope::Global), KeyScope::Global), (None, KeyScope::Tenant)] {
        let change = TopicChange { ordering: Some(set), ..TopicChange::default() };
        let changed = topics.change(&acme, &own, &change).await.expect("its own");
        assert_eq!((changed.spec.ordering, changed.ordering), (set, shown));
    }
}
