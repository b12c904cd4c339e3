#!/usr/bin/env python3
"""Compares what workers and pipelines made with what the event files say.

    check.py PROJECT LEVADA [--once FILE ...]

Run in a project whose catalogue was published twice and whose bad events once; FILE names more
events that were published once. What is expected is counted here from those files alone: nothing
of workers/ is used. RESENT names a tenant whose dead letters were sent again.
"""
import collections
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import time

TOPICS = {
    "organization": "living-twin-events",
    "document": "living-twin-document-events",
    "query": "living-twin-query-events",
    "user": "living-twin-user-events",
    "system": "living-twin-system-events",
}

# Why a worker and a pipeline refuse the events of bad.jsonl: a part of the reason, and a code.
WHY = {
    "bad-tenant": ("its payload says `acme`", "quality-regex"),
    "bad-version": ("unknown version", "quality-regex"),
    "bad-version-text": ("unknown version newest", "quality-regex"),
    "bad-field": ("lacks `document_id`", "quality-not-null"),
    "bad-object": ("lacks the object `document`", "quality-not-null"),
    "bad-type": ("unknown event type `user.suspended`", "quality-one-of"),
    "bad-json": ("not a JSON object", "schema-malformed"),
    "bad-shape": ("not a JSON object", "schema-not-object"),
}

LAKE_WAIT_S = 90

project, levada, extra = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[4:]
failures = 0


def events(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def same(what, got, wanted):
    global failures
    if got == wanted:
        print(f"  ok    {what}")
        return
    failures += 1
    print(f"  WRONG {what}\n    wanted {wanted}\n    got    {got}")


def run(*command):
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def domain(event):
    return event["event_type"].split(".")[0]


def sort(rows):
    return sorted(rows, key=repr)


def documents_of(tenant):
    """The tenant's documents after all events, with title, type, pages and number of updates."""
    out = {}
    for event in good:
        if event["tenant_id"] != tenant or domain(event) != "document":
            continue
        body = event["payload"]
        new = event.get("schema_version", "1").startswith("2")
        about = body["document"] if new else body
        at = about["id"] if new else about["document_id"]
        if event["event_type"] == "document.deleted":
            out.pop(at)
            continue
        row = out.setdefault(at, [None, None, None, 0])
        names = ("title", "type", "pages") if new else ("document_title", "document_type", "-")
        for place, name in enumerate(names):
            row[place] = about.get(name) or row[place]
        row[3] += event["event_type"] == "document.updated"
    return out


def workers():
    for tenant in tenants:
        own = [event for event in good if event["tenant_id"] == tenant]
        db = sqlite3.connect(f"file:{project}/state/{tenant}.db?mode=ro", uri=True)
        got = db.execute("select tenant_id, subscription, event_type, event_id from processed").fetchall()
        wanted = [
            (tenant, f"{TOPICS[domain(e)]}-{tenant}-worker", e["event_type"], e["event_id"]) for e in own
        ]
        same(f"{tenant}: {len(wanted)} events, each processed once, by its worker", sort(got), sort(wanted))
        twice = [f"{e['event_type']}:{tenant}:{e['event_id']}" for e in catalogue if e["tenant_id"] == tenant]
        got = [key for (key,) in db.execute("select idempotency_key from duplicates")]
        same(f"{tenant}: {len(twice)} copies noticed and left alone", sort(got), sort(twice))
        wanted = collections.Counter(e["event_type"] for e in own)
        same(f"{tenant}: effects counted once", dict(db.execute("select * from activity")), dict(wanted))
        got = {row[0]: list(row[1:]) for row in db.execute("select * from documents")}
        same(f"{tenant}: documents as the last event left them", got, documents_of(tenant))


def worker_letters():
    letters = [json.loads(line) for line in run("./deadletters.sh", "list").splitlines()]
    got, wrong = [], []
    for letter in letters:
        attributes = letter["attributes"]
        number = attributes["event_id"]
        got.append((letter["subscription"], attributes["tenant_id"], attributes["event_type"], number))
        if WHY.get(number, ("no such event", ""))[0] not in letter["reason"]:
            wrong.append((number, letter["reason"]))
    wanted = []
    for event in bad:
        tenant = event["tenant_id"]
        wanted.append((f"{TOPICS[domain(event)]}-{tenant}-dlq", tenant, event["event_type"], event["event_id"]))
    same(f"workers: {len(wanted)} bad events in the dead letter of their tenant", sort(got), sort(wanted))
    same("workers: each with its reason", wrong, [])


def pipeline_letters():
    letters = json.loads(run(levada, "deadletters", "list", "--json", "--limit", "1000"))
    got = [
        (e["tenant_id"], e["source_topic"], e["attributes"]["event_id"], e["code"])
        for e in letters
        if e["attributes"].get("event_id", "").startswith("bad-")
    ]
    wanted = []
    for event in bad:
        letter = (event["tenant_id"], TOPICS[domain(event)], event["event_id"], WHY[event["event_id"]][1])
        wanted += [letter] * (2 if event["tenant_id"] == os.environ.get("RESENT") else 1)
    return sort(got), sort(wanted)


def sql(query):
    return [tuple(row) for row in json.loads(run(levada, "sql", "--json", query))["rows"]]


def silver(name):
    got = sql(f"select tenant_id, event_type, event_id from silver.{name}_events")
    wanted = [(e["tenant_id"], e["event_type"], e["event_id"]) for e in good if domain(e) == name]
    return sort(got), sort(wanted)


def activity():
    got = sql("select tenant_id, event_type, schema_version, events from gold.event_activity")
    wanted = collections.Counter(
        (e["tenant_id"], e["event_type"], e.get("schema_version", "1.0")) for e in good
    )
    return sort(got), sort([(*key, count) for key, count in wanted.items()])


def documents():
    got = sql("select tenant_id, document_id, title, type, pages, updates from gold.documents")
    wanted = [(tenant, at, *row) for tenant in tenants for at, row in documents_of(tenant).items()]
    return sort(got), sort(wanted)


def query_health():
    got = sql("select tenant_id, queries, failed, average_ms from gold.query_health")
    wanted = []
    for tenant in tenants:
        own = [e for e in good if e["tenant_id"] == tenant and domain(e) == "query"]
        times = [e["payload"]["duration_ms"] for e in own if "duration_ms" in e["payload"]]
        failed = sum(e["event_type"] == "query.failed" for e in own)
        wanted.append((tenant, len(own), failed, sum(times) / len(times)))
    return sort(got), sort(wanted)


def lake():
    """What tables hold comes a little after the events: each has a while to become right."""
    checks = {f"silver.{name}_events": lambda name=name: silver(name) for name in TOPICS}
    checks |= {"gold.event_activity": activity, "gold.documents": documents}
    checks |= {"gold.query_health": query_health, "dead letters of the pipelines": pipeline_letters}
    deadline = time.monotonic() + LAKE_WAIT_S
    for what, check in checks.items():
        while True:
            try:
                got, wanted = check()
            except RuntimeError as error:  # the table is not there yet
                got, wanted = str(error), "an answer"
            if got == wanted or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        same(f"{what}: {len(wanted)} rows", got, wanted)


catalogue = events(project / "events/catalogue.jsonl")
bad = events(project / "events/bad.jsonl")
good = catalogue + [event for path in extra for event in events(pathlib.Path(path))]
tenants = sorted({event["tenant_id"] for event in catalogue})
workers()
worker_letters()
lake()
sys.exit(1 if failures else 0)
