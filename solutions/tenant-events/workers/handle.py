#!/usr/bin/env python3
"""The worker of a tenant: levada work --subscription S -- workers/handle.py

Reads one JSON line a message and writes one verdict a message (see `levada work --help`).

- Tenant check: TENANT_ID names the tenant that this worker serves. Attribute and payload of an
  event must not name another one; nothing of a foreign event is used, it goes to the dead
  letter with both names in the reason.
- Versions: see catalogue.py. An unknown type or major version is a dead letter, which can be
  sent again once a worker knows it.
- Idempotency: `{event_type}:{tenant_id}:{event_id}` is written in the same transaction as the
  event's effect, so that a second delivery changes nothing.
- Errors: what is wrong with an event is permanent (dead letter); what is wrong with the world,
  such as a database that cannot be opened, is temporary (retry). A worker that is set up wrongly
  ends with 75 and harms no event: all of them are delivered again.

WORKER_DB is the tenant's database of effects. One log line a message goes to standard error,
as JSON, with LOG_LEVEL=WARNING only of those that failed.
"""
import json
import logging
import os
import sqlite3
import sys

from catalogue import Permanent, read

TEMPORARY = 75  # EX_TEMPFAIL

SCHEMA = """
create table if not exists processed (
    idempotency_key text primary key, subscription text not null, tenant_id text not null,
    event_type text not null, event_id text not null, correlation_id text);
create table if not exists duplicates (
    idempotency_key text not null, message_id text not null, primary key (idempotency_key, message_id));
create table if not exists documents (
    document_id text primary key, title text, type text, pages integer, updates integer not null);
create table if not exists activity (event_type text primary key, events integer not null);
"""


def document(db, kind, event):
    """Keeps the tenant's documents as they are after the event."""
    if kind == "document.deleted":
        db.execute("delete from documents where document_id = ?", (event["document_id"],))
        return
    db.execute(
        "insert into documents values (:document_id, :document_title, :document_type, :pages, 0) "
        "on conflict (document_id) do update set title = coalesce(excluded.title, title), "
        "type = coalesce(excluded.type, type), pages = coalesce(excluded.pages, pages), "
        "updates = updates + :is_update",
        {"pages": None, **event, "is_update": kind == "document.updated"},
    )


# What is done beyond counting, by the domain of an event.
EFFECTS = {"document": document}


def checked(own_tenant, message):
    """The tenant check and the parts of an event that its attributes carry."""
    attributes, payload = message.get("attributes", {}), message.get("json")
    tenant = attributes.get("tenant_id")
    if tenant != own_tenant:
        raise Permanent(f"tenant mismatch: this worker serves `{own_tenant}`, the event is of `{tenant}`")
    for name in ("event_type", "event_id"):
        if not attributes.get(name):
            raise Permanent(f"the attribute `{name}` is missing")
    if not isinstance(payload, dict):
        raise Permanent("the data is not a JSON object")
    inside = payload.get("tenant_id", tenant)
    if inside != own_tenant:
        raise Permanent(f"tenant mismatch: the event is of `{own_tenant}`, its payload says `{inside}`")
    version = attributes.get("schema_version") or payload.get("version") or "1.0"
    return attributes["event_type"], attributes["event_id"], version, payload


def handle(db, own_tenant, message):
    """Processes one message; answers what became of it."""
    kind, number, version, payload = checked(own_tenant, message)
    event = read(kind, version, payload)
    key = f"{kind}:{own_tenant}:{number}"
    with db:  # one transaction: the key and the effect, or neither
        db.execute("begin immediate")
        known = db.execute("select 1 from processed where idempotency_key = ?", (key,)).fetchone()
        if known:
            db.execute("insert or ignore into duplicates values (?, ?)", (key, message["messageId"]))
            return "processed before"
        subscription = os.environ.get("LEVADA_SUBSCRIPTION", "").rsplit("/", 1)[-1]
        correlation = message["attributes"].get("correlation_id")
        db.execute(
            "insert into processed values (?, ?, ?, ?, ?, ?)",
            (key, subscription, own_tenant, kind, number, correlation),
        )
        effect = EFFECTS.get(kind.split(".")[0])
        if effect:
            effect(db, kind, event)
        db.execute(
            "insert into activity values (?, 1) on conflict (event_type) do update set events = events + 1",
            (kind,),
        )
    return "processed"


def judge(db, own_tenant, message):
    """Verdict and reason."""
    try:
        return "ack", handle(db, own_tenant, message)
    except Permanent as error:
        return "dead_letter", str(error)
    except sqlite3.OperationalError as error:
        return "retry", f"the database: {error}"
    except Exception as error:  # a defect of this program: the event waits for a mended one
        return "retry", f"{type(error).__name__}: {error}"


def log(message, verdict, reason):
    level = logging.INFO if verdict == "ack" else logging.WARNING
    attributes = message.get("attributes", {})
    line = {"level": logging.getLevelName(level), "verdict": verdict, "reason": reason}
    for name in ("tenant_id", "event_type", "event_id", "correlation_id"):
        line[name] = attributes.get(name)
    line["message_id"], line["attempt"] = message["messageId"], message.get("deliveryAttempt", 1)
    logging.log(level, json.dumps(line))


def misplaced(own_tenant):
    """Why this worker must not touch what it is given, if so."""
    if not own_tenant:
        return "TENANT_ID is not set: it names the tenant that this worker serves"
    subscription = os.environ.get("LEVADA_SUBSCRIPTION", "")
    if subscription and not subscription.endswith(f"-{own_tenant}-worker"):
        return f"this worker serves `{own_tenant}`, but was started on {subscription}"
    return None


def main():
    logging.basicConfig(format="%(message)s", level=os.environ.get("LOG_LEVEL", "INFO").upper())
    own_tenant = os.environ.get("TENANT_ID", "")
    why = misplaced(own_tenant)
    if why:
        print(why, file=sys.stderr)
        return TEMPORARY
    try:
        db = sqlite3.connect(os.environ.get("WORKER_DB", f"{own_tenant}.db"), timeout=30, isolation_level=None)
        db.executescript(SCHEMA)
    except sqlite3.OperationalError as error:
        print(f"the database: {error}", file=sys.stderr)
        return TEMPORARY
    for line in sys.stdin:
        message = json.loads(line)
        verdict, reason = judge(db, own_tenant, message)
        log(message, verdict, reason)
        said = {"messageId": message["messageId"], "verdict": verdict, "reason": reason}
        print(json.dumps(said), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
