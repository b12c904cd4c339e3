//! The made-up dead letters.

use std::collections::BTreeSet;

use levada_console::*;
use levada_core::{Principal, TopicName};

use super::{Double, tenant};

impl Double {
    pub(super) fn letters(&self, principal: &Principal) -> Vec<DeadLetter> {
        let now = self.clock.now_ms();
        let of =
            |offset: u64, who: &str, code: &str, reason: &str, stage: &str, pipeline: &str, body: &[u8]| {
                let topic = TopicName::new(&format!("{}-dlq", pipeline.replace('_', "-"))).expect("a topic");
                let resent = self.resent.lock().contains(&format!("{topic}/{offset}"));
                DeadLetter {
                    topic,
                    offset,
                    tenant: who.to_owned(),
                    code: code.to_owned(),
                    reason: reason.to_owned(),
                    stage: stage.to_owned(),
                    attempts: if stage == "enrich" { 5 } else { 1 },
                    pipeline: Some(pipeline.to_owned()),
                    position: Some((offset * 3821).to_string()),
                    event_id: Some(format!("0199c0de-7a11-7000-8000-{offset:012}")),
                    event_type: Some(format!("{}.created", pipeline.trim_end_matches('s'))),
                    at_ms: now - offset as i64 * 37_000,
                    resent_ms: resent.then_some(now),
                    attributes: vec![
                        ("tenant_id".into(), who.to_owned()),
                        ("source_service".into(), "mobile-app".into()),
                        (
                            "traceparent".into(),
                            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
                        ),
                    ],
                    body: bytes::Bytes::copy_from_slice(body),
                }
            };
        let mut all = Vec::new();
        for i in 0..6u64 {
            let base = i * 5 + 1;
            all.push(of(
                base,
                "alpine",
                "enrich-failed",
                "the weather service answered 503 five times; last after 812 ms",
                "enrich",
                "checkins",
                br#"{"user":"u-4711","station":"EWR","time":"2013-07-04T09:00:00Z"}"#,
            ));
            all.push(of(
                base + 1,
                "coast",
                "schema-invalid",
                "field `time`: `yesterday` is not a timestamp; write RFC 3339, as in 2026-11-21T08:00:00Z",
                "validate",
                "checkins",
                br#"{"user":"u-0815","station":"JFK","time":"yesterday"}"#,
            ));
            all.push(of(
                base + 2,
                "alpine",
                "quality-failed",
                "rule `humid in 0..100` failed: 104.2",
                "quality",
                "weather",
                b"EWR,2013,1,1,1,39.02,26.06,104.2,270,10.35702,NA,0,1012,10",
            ));
            all.push(of(
                base + 3,
                "coast",
                "not-utf8",
                "the body is no valid UTF-8: byte 0xff at 3",
                "decode",
                "avalanche_reports",
                b"{\"a\xff\xfe<script>alert(1)</script>\x00\x01\x02binary",
            ));
            all.push(of(
                base + 4,
                "coast",
                "schema-invalid",
                "required field `action` is missing <b>here</b>",
                "validate",
                "github_events",
                br#"{"repository":{"full_name":"octo/<script>alert(1)</script>"}}"#,
            ));
        }
        all.retain(|l| principal.tenants.contains(&tenant(&l.tenant)));
        all.sort_by_key(|l| std::cmp::Reverse(l.at_ms));
        if let Some(wide) = self.wide() {
            for letter in &mut all {
                (letter.reason, letter.stage) = (wide.clone(), wide.clone());
                (letter.event_type, letter.position) = (Some(wide.clone()), Some(wide.clone()));
                letter.attributes.push(("wide".to_owned(), wide.clone()));
                letter.body = wide.clone().into();
            }
        }
        all
    }

    pub(super) fn letter_page(&self, principal: &Principal, filter: &DeadLetterFilter) -> DeadLetterPage {
        let all = self.letters(principal);
        let distinct = |of: fn(&DeadLetter) -> String| {
            all.iter().map(of).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        };
        let reasons = distinct(|l| l.code.clone())
            .into_iter()
            .map(|code| ReasonCount { count: all.iter().filter(|l| l.code == code).count() as u64, code })
            .collect();
        let (topics, pipelines) =
            (distinct(|l| l.topic.to_string()), distinct(|l| l.pipeline.clone().unwrap_or_default()));
        let from: usize = filter.after.as_deref().and_then(|a| a.parse().ok()).unwrap_or(0);
        let matching: Vec<DeadLetter> = all
            .into_iter()
            .filter(|l| filter.topic.as_ref().is_none_or(|t| *t == l.topic))
            .filter(|l| filter.pipeline.is_none() || filter.pipeline == l.pipeline)
            .filter(|l| filter.code.as_ref().is_none_or(|c| *c == l.code))
            .collect();
        let limit = filter.limit.min(20);
        let next = (matching.len() > from + limit).then(|| (from + limit).to_string());
        let letters = matching.into_iter().skip(from).take(limit).collect();
        DeadLetterPage { letters, next, is_full: false, topics, pipelines, reasons }
    }
}
