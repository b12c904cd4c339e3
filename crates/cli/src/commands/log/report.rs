//! A verification as people and as programs read it.

use std::ops::Range;
use std::path::Path;

use indicatif::{HumanBytes, HumanCount};
use levada_log::{Finding, TopicReport, VerifyReport};
use serde_json::{Value, json};

use crate::output::Output;

/// The report as one object; `damage` and `notices` hold the first 1,000 each.
pub fn json(folder: &Path, report: &VerifyReport) -> Value {
    let damage: Vec<_> = report.damage.iter().map(|f| damage(report, f)).collect();
    let notices: Vec<_> = report.notices.iter().map(|f| notice(report, f)).collect();
    let topics: Vec<_> = report
        .topics
        .iter()
        .map(|t| {
            json!({
                "id": t.id.0,
                "topic": t.name.as_ref().map(|n| n.as_str()),
                "first_offset": t.first,
                "next_offset": t.next,
                "records": t.records,
                "bytes": t.bytes,
                "segments": t.segments,
                "damaged": t.damaged,
            })
        })
        .collect();
    let commit = &report.commit;
    let torn = commit.torn_tail.as_ref();
    json!({
        "log": folder.display().to_string(),
        "clean": report.is_clean(),
        "bytes": report.bytes,
        "topics": topics,
        "commit": {
            "files": commit.files,
            "groups": commit.groups,
            "replay_groups": commit.replay_groups,
            "replay_records": commit.replay_records,
            "torn_tail": torn.map(|t| json!({ "file": t.file, "position": t.position, "bytes": t.bytes })),
        },
        "damaged": report.damaged,
        "damage": damage,
        "noticed": report.noticed,
        "notices": notices,
    })
}

fn finding(report: &VerifyReport, finding: &Finding) -> Value {
    json!({
        "code": finding.fault.code(),
        "file": finding.file,
        "position": finding.position,
        "bytes": finding.bytes,
        "topic": topic(report, finding).and_then(|t| t.name.as_ref()).map(|n| n.as_str()),
        "topic_id": finding.topic.map(|t| t.0),
        "first_offset": finding.offsets.as_ref().map(|o| o.start),
        "next_offset": finding.offsets.as_ref().map(|o| o.end),
        "what": finding.fault.to_string(),
    })
}

fn damage(report: &VerifyReport, found: &Finding) -> Value {
    let mut value = finding(report, found);
    value["loses_records"] = json!(found.fault.loses_records());
    value["mend"] = json!(found.fault.mend());
    value
}

fn notice(report: &VerifyReport, found: &Finding) -> Value {
    let mut value = finding(report, found);
    value["harmless_because"] = json!(found.fault.harmless_because());
    value
}

fn topic<'a>(report: &'a VerifyReport, finding: &Finding) -> Option<&'a TopicReport> {
    let id = finding.topic?;
    report.topics.binary_search_by_key(&id, |t| t.id).ok().map(|i| &report.topics[i])
}

/// A table of the topics, the damage with its mend, and a line that sums up.
pub fn print(output: &Output, folder: &Path, report: &VerifyReport) {
    let rows: Vec<_> = report.topics.iter().map(row).collect();
    if !rows.is_empty() {
        let header = ["TOPIC", "ID", "FIRST", "NEXT", "RECORDS", "BYTES", "SEGMENTS", "DAMAGED"];
        output.table(&header, rows, &[1, 2, 3, 4, 5, 6, 7]);
        output.line("");
    }
    list(output, "damage", &report.damage, report.damaged, report, true);
    list(output, "to know", &report.notices, report.noticed, report, false);
    let commit = &report.commit;
    if commit.replay_groups > 0 {
        let (records, groups) =
            (counted(commit.replay_records, "record"), counted(commit.replay_groups, "group"));
        output.line(&format!("the next start replays {records} in {groups}"));
    }
    if let Some(torn) = &commit.torn_tail {
        output.line(&format!(
            "the next start cuts a group that was never confirmed: {} at byte {} of {} (no damage)",
            HumanBytes(torn.bytes),
            torn.position,
            torn.file
        ));
    }
    let records: u64 = report.topics.iter().map(|t| t.records).sum();
    let checked = format!(
        "{} and {}, {} read in {}",
        counted(records, "record"),
        counted(report.topics.len() as u64, "topic"),
        HumanBytes(report.bytes),
        folder.display()
    );
    let verdict = if report.is_clean() {
        paint(output, "clean", anstyle::AnsiColor::Green)
    } else {
        let text = format!("damaged in {}", counted(report.damaged, "place"));
        paint(output, &text, anstyle::AnsiColor::Red)
    };
    output.line(&format!("{verdict}: {checked}"));
}

fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

fn row(topic: &TopicReport) -> Vec<String> {
    vec![
        topic.name.as_ref().map_or_else(|| "(no name)".to_owned(), |name| name.as_str().to_owned()),
        topic.id.to_string(),
        topic.first.to_string(),
        topic.next.to_string(),
        topic.records.to_string(),
        topic.bytes.to_string(),
        topic.segments.to_string(),
        topic.damaged.to_string(),
    ]
}

fn list(
    output: &Output,
    title: &str,
    findings: &[Finding],
    total: u64,
    report: &VerifyReport,
    is_damage: bool,
) {
    if findings.is_empty() {
        return;
    }
    let color = if is_damage { anstyle::AnsiColor::Red } else { anstyle::AnsiColor::Yellow };
    output.line(&paint(output, &format!("{title}:"), color));
    for (i, finding) in (1..).zip(findings) {
        output.line(&format!("{i:>4}. {}", place(finding)));
        if let Some(lost) = lost(report, finding) {
            output.line(&format!("      {lost}"));
        }
        output.line(&format!("      what: {}", finding.fault));
        output.line(&if is_damage {
            format!("      mend: {}", finding.fault.mend())
        } else {
            format!("      no damage: {}", finding.fault.harmless_because())
        });
    }
    if total > findings.len() as u64 {
        output.line(&format!("      and {} more", HumanCount(total - findings.len() as u64)));
    }
    output.line("");
}

fn place(finding: &Finding) -> String {
    match finding.bytes {
        0 => format!("{}, byte {}", finding.file, finding.position),
        bytes => format!("{}, byte {}, {bytes} bytes", finding.file, finding.position),
    }
}

/// Which topic and which of its offsets.
fn lost(report: &VerifyReport, finding: &Finding) -> Option<String> {
    let topic = topic(report, finding)?;
    let name = topic.name.as_ref().map_or_else(|| topic.id.to_string(), |name| name.as_str().to_owned());
    Some(match &finding.offsets {
        Some(Range { start, end }) if *end == start + 1 => format!("topic {name}, offset {start}"),
        Some(Range { start, end }) if end > start => format!("topic {name}, offsets {start} to {}", end - 1),
        _ => format!("topic {name}"),
    })
}

fn paint(output: &Output, text: &str, color: anstyle::AnsiColor) -> String {
    if !output.color {
        return text.to_owned();
    }
    let style = anstyle::Style::new().bold().fg_color(Some(color.into()));
    format!("{style}{text}{style:#}")
}
