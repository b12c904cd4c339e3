"""The event catalogue as the workers know it: types, versions and fields.

A version is `major.minor`. Within a major version fields may be added but not changed: a reader
takes the fields that it knows, gives defaults to optional ones that are missing, and overlooks
the rest. A new major version needs a reader of its own here.
"""


class Permanent(Exception):
    """The event is wrong, and will be wrong again."""


REQUIRED = object()


def fields(**known):
    """A reader of the fields given, with their defaults."""

    def read(payload):
        out = {}
        for name, default in known.items():
            value = payload.get(name)
            if value is None or (default is REQUIRED and value == ""):
                if default is REQUIRED:
                    raise Permanent(f"the payload lacks `{name}`")
                value = default
            out[name] = value
        return out

    return read


document_v1 = fields(document_id=REQUIRED, document_title=None, document_type=None, user_id=None)
inner = fields(id=REQUIRED, title=None, type=None, pages=None)


def document_v2(payload):
    """Version 2 puts what is known of the document into an object of its own."""
    document = payload.get("document")
    if not isinstance(document, dict):
        raise Permanent("the payload lacks the object `document`")
    try:
        known = inner(document)
    except Permanent:
        raise Permanent("the payload lacks `document.id`") from None
    return {
        "document_id": known["id"],
        "document_title": known["title"],
        "document_type": known["type"],
        "pages": known["pages"],
        "user_id": payload.get("user_id"),
    }


# Readers by event type and major version. All readers of a type answer the same fields.
EVENTS = {
    "document.ingested": {1: document_v1, 2: document_v2},
    "document.updated": {1: document_v1, 2: document_v2},
    "document.deleted": {1: document_v1, 2: document_v2},
    "query.executed": {1: fields(query_id=REQUIRED, user_id=None, duration_ms=0.0)},
    "query.failed": {1: fields(query_id=REQUIRED, user_id=None, duration_ms=0.0, error="unknown")},
    "user.registered": {1: fields(user_id=REQUIRED, method="unknown")},
    "user.login": {1: fields(user_id=REQUIRED, method="unknown")},
    "organization.created": {1: fields(organization_id=REQUIRED, name=None, changed_by=None)},
    "organization.updated": {1: fields(organization_id=REQUIRED, name=None, changed_by=None)},
    "system.error": {1: fields(component=REQUIRED, message="")},
    "system.health_check": {1: fields(component=REQUIRED, status="unknown")},
}


def read(kind, version, payload):
    """The known fields of an event, whatever version it is of."""
    versions = EVENTS.get(kind)
    if versions is None:
        raise Permanent(f"unknown event type `{kind}`")
    major = str(version).split(".")[0]
    reader = versions.get(int(major)) if major.isascii() and major.isdigit() else None
    if reader is None:
        known = ", ".join(f"{number}.x" for number in versions)
        raise Permanent(f"unknown version {version} of {kind}: this worker knows {known}")
    return reader(payload)
