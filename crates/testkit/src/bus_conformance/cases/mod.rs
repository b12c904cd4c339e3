//! The cases, by what they are about.

mod catalog;
mod dead;
mod deduplication;
mod durability;
mod exactly_once;
mod fair;
mod filter;
mod lease;
mod life;
mod operate;
mod ordering;
mod publish;
mod pull;
mod replay;
mod retry;
mod schedule;
mod seek;
mod snapshot;
mod together;
mod update;

use super::Case;

/// Lists the functions of a module as cases, each with what it needs.
macro_rules! cases {
    ($group:literal: $($name:ident $([$($need:ident),+])?),+ $(,)?) => {
        pub(super) fn all() -> Vec<crate::bus_conformance::Case> {
            vec![$(crate::bus_conformance::Case {
                name: concat!($group, "/", stringify!($name)),
                needs: &[$($(crate::bus_conformance::Need::$need),+)?],
                run: |world| Box::pin($name(world)),
            }),+]
        }
    };
}
use cases;

pub(super) fn all() -> Vec<Case> {
    let groups = [
        catalog::all(),
        publish::all(),
        deduplication::all(),
        durability::all(),
        pull::all(),
        lease::all(),
        exactly_once::all(),
        ordering::all(),
        together::all(),
        filter::all(),
        retry::all(),
        dead::all(),
        seek::all(),
        snapshot::all(),
        replay::all(),
        update::all(),
        life::all(),
        schedule::all(),
        fair::all(),
        operate::all(),
    ];
    groups.into_iter().flatten().collect()
}
