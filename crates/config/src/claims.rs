//! Event types that two topics ask for. An event goes to one topic, so the pipeline of the
//! other one waits for it in vain; the hint says which topic it is, by the rules of the gateway.
//!
//! Only one and the same text counts: that `order.paid` goes before `order.*` is a rule that
//! projects build on.

use std::collections::HashMap;

use levada_core::TopicName;

use crate::codes;
use crate::diagnostic::{Diagnostic, Sink};
use crate::draft::PipelineDraft;
use crate::model::{Owner, Source};
use crate::source::Span;

struct Claim<'a> {
    draft: &'a PipelineDraft,
    topic: &'a TopicName,
    place: &'a Span,
}

/// Reports every type that an earlier file asks for under another topic. The drafts come in
/// the order in which the gateway has its rules.
pub(crate) fn check(drafts: &[PipelineDraft], sink: &mut Sink) {
    let mut claimed: HashMap<&str, Vec<Claim<'_>>> = HashMap::new();
    for draft in drafts {
        let Some(Source::Events { topic, event_types }) = draft.pipeline.as_ref().map(|p| &p.source) else {
            continue;
        };
        for (event_type, place) in event_types.iter().zip(&draft.type_spans) {
            let claim = Claim { draft, topic, place };
            let before = claimed.entry(event_type).or_default();
            if let Some(rival) = rival(before, &claim) {
                report(event_type, rival, &claim, sink);
            }
            // A file that asks for it again claims nothing more.
            if !before.last().is_some_and(|last| std::ptr::eq(last.draft, draft)) {
                before.push(claim);
            }
        }
    }
}

/// The claim that keeps events from `claim`, or that `claim` takes events from. One of the
/// same owner is the worse clash: of the two, one gets nothing at all.
fn rival<'a, 'd>(before: &'a [Claim<'d>], claim: &Claim<'_>) -> Option<&'a Claim<'d>> {
    let other_topic = || before.iter().filter(|b| b.topic != claim.topic);
    let same_owner = other_topic().find(|b| b.draft.owner == claim.draft.owner);
    let is_shared = |c: &Claim<'_>| c.draft.owner == Owner::Shared;
    same_owner.or_else(|| other_topic().find(|b| is_shared(b) != is_shared(claim)))
}

fn report(event_type: &str, rival: &Claim<'_>, claim: &Claim<'_>, sink: &mut Sink) {
    let message = format!("the topic `{}` asks for `{event_type}`, as `{}` does", claim.topic, rival.topic);
    let file = &rival.draft.file;
    let place = format!("{}:{}", file.path.display(), file.line_of(rival.place.start));
    let fate = match (&rival.draft.owner, &claim.draft.owner) {
        (Owner::Shared, Owner::Tenant(tenant)) => {
            format!(
                "those of `{tenant}` go to its own topic `{}` only, the others to `{}` ({place})",
                claim.topic, rival.topic
            )
        }
        (Owner::Tenant(tenant), Owner::Shared) => {
            format!(
                "those of `{tenant}` go to its own topic `{}` ({place}) only, the others to `{}`",
                rival.topic, claim.topic
            )
        }
        _ => format!("they go to `{}` only, since {place} comes first", rival.topic),
    };
    let hint = format!(
        "an event goes to one topic: {fate}; ask for the type in one place, or let both pipelines read one topic"
    );
    sink.push(Diagnostic::at(&claim.draft.file, codes::CLAIMED, claim.place, message)).hint(hint);
}
