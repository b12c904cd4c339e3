#!/usr/bin/env python3
"""Turns event envelopes into requests of the Pub/Sub API.

Reads one JSON envelope a line from the file named first, or from standard input, and writes
`tenant<TAB>topic<TAB>publish request` a line. The envelope's fields become attributes, its
payload the data; a payload that is a text is sent as it stands. Where the sender gave no
idempotency key it is `{event_type}:{tenant_id}:{event_id}`.
"""
import base64
import json
import sys

# The domain of an event, the part before the dot, decides its topic.
TOPICS = {
    "organization": "living-twin-events",
    "document": "living-twin-document-events",
    "query": "living-twin-query-events",
    "user": "living-twin-user-events",
    "system": "living-twin-system-events",
}

# By which field events of a domain belong together: those of one document come in order.
SUBJECTS = {
    "organization": "organization_id",
    "document": "document_id",
    "query": "query_id",
    "user": "user_id",
    "system": "component",
}


def subject(domain, payload):
    if not isinstance(payload, dict):
        return None
    nested = payload.get(domain)  # as version 2 of document events has it
    return payload.get(SUBJECTS.get(domain)) or (isinstance(nested, dict) and nested.get("id"))


def request(event):
    """Answers the tenant, the topic and the body of the request."""
    attributes = {name: str(value) for name, value in event.items() if name != "payload"}
    kind, tenant, number = (attributes[name] for name in ("event_type", "tenant_id", "event_id"))
    attributes.setdefault("idempotency_key", f"{kind}:{tenant}:{number}")
    payload = event.get("payload", {})
    data = payload if isinstance(payload, str) else json.dumps(payload)
    message = {"data": base64.b64encode(data.encode()).decode(), "attributes": attributes}
    domain = kind.split(".")[0]
    about = subject(domain, payload)
    if about:
        message["orderingKey"] = f"{tenant}/{domain}/{about}"
    return tenant, TOPICS.get(domain, TOPICS["organization"]), {"messages": [message]}


def main():
    source = open(sys.argv[1], encoding="utf-8") if len(sys.argv) > 1 else sys.stdin
    with source:
        for number, line in enumerate(source, 1):
            if not line.strip():
                continue
            try:
                tenant, topic, body = request(json.loads(line))
            except (KeyError, ValueError, AttributeError) as error:
                sys.exit(f"line {number} is not an event: {error!r}")
            print(f"{tenant}\t{topic}\t{json.dumps(body)}")


if __name__ == "__main__":
    main()
