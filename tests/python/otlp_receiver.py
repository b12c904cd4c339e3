"""An OTLP/HTTP receiver made of the official Python package, for tests to look into.

    python tests/python/otlp_receiver.py

Prints its address as the first line and serves until its standard input ends. What it decodes is
held to the schema of `opentelemetry-proto`: a field that the schema does not know is a fault.

    POST /v1/traces, /v1/metrics   as any collector
    POST /behave                   {"status": 503, "retry_after": "1"}: how to answer from now on
    GET  /spans                    all spans taken so far, each with its resource
    GET  /metrics                  the newest points of every metric
    GET  /state                    counts of requests, headers of the last one, faults
"""

import gzip
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from opentelemetry.proto.trace.v1 import trace_pb2

LOCK = threading.Lock()
SPANS = []
METRICS = {}
STATE = {"traces": 0, "metrics": 0, "refused": {"traces": 0, "metrics": 0}, "headers": {}, "faults": []}
BEHAVIOUR = {"status": 200, "retry_after": None}
TEMPORALITY_CUMULATIVE = 2


def unknown(message, path):
    """Names of the places where a message has fields that its schema does not."""
    found = [f"{path}: field {field.field_number}" for field in UnknownFieldSet(message)]
    for field, value in message.ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        children = value if hasattr(value, "__len__") and not hasattr(value, "ListFields") else [value]
        for child in children:
            found += unknown(child, f"{path}.{field.name}")
    return found


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def take_traces(body):
    request = trace_service.ExportTraceServiceRequest.FromString(body)
    faults = unknown(request, "traces")
    for resource_spans in request.resource_spans:
        resource = attributes(resource_spans.resource.attributes)
        for scope in resource_spans.scope_spans:
            for span in scope.spans:
                if len(span.trace_id) != 16 or len(span.span_id) != 8:
                    faults.append(f"the ids of {span.name} have another length")
                SPANS.append({
                    "resource": resource,
                    "scope": scope.scope.name,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "name": span.name,
                    "kind": trace_pb2.Span.SpanKind.Name(span.kind),
                    "start_ns": span.start_time_unix_nano,
                    "end_ns": span.end_time_unix_nano,
                    "attributes": attributes(span.attributes),
                    "links": [{"trace": l.trace_id.hex(), "id": l.span_id.hex()} for l in span.links],
                    "status": trace_pb2.Status.StatusCode.Name(span.status.code),
                    "flags": span.flags,
                })
    return faults, trace_service.ExportTraceServiceResponse()


def take_metrics(body):
    request = metrics_service.ExportMetricsServiceRequest.FromString(body)
    faults = unknown(request, "metrics")
    for resource_metrics in request.resource_metrics:
        for scope in resource_metrics.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                if kind in ("sum", "histogram") and data.aggregation_temporality != TEMPORALITY_CUMULATIVE:
                    faults.append(f"{metric.name} is not cumulative")
                points = [point(kind, one) for one in data.data_points]
                METRICS[metric.name] = {
                    "kind": kind,
                    "unit": metric.unit,
                    "description": metric.description,
                    "monotonic": kind == "sum" and data.is_monotonic,
                    "points": points,
                }
    return faults, metrics_service.ExportMetricsServiceResponse()


def point(kind, one):
    told = {
        "attributes": attributes(one.attributes),
        "start_ns": one.start_time_unix_nano,
        "time_ns": one.time_unix_nano,
    }
    if kind in ("sum", "gauge"):
        told["value"] = getattr(one, one.WhichOneof("value"))
    elif kind == "histogram":
        told |= {
            "count": one.count,
            "sum": one.sum,
            "buckets": list(one.bucket_counts),
            "bounds": list(one.explicit_bounds),
        }
    else:
        told |= {"count": one.count, "sum": one.sum}
    return told


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, content_type, headers=()):
        self.send_response(status)
        for name, value in [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def tell(self, value):
        self.answer(200, json.dumps(value).encode(), "application/json")

    def do_GET(self):
        with LOCK:
            known = {"/spans": SPANS, "/metrics": METRICS, "/state": STATE}
            self.tell(known[self.path])

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/behave":
            BEHAVIOUR.update(json.loads(body))
            return self.tell(BEHAVIOUR)
        signal = self.path.removeprefix("/v1/")
        with LOCK:
            status, retry_after = BEHAVIOUR["status"], BEHAVIOUR["retry_after"]
            if status != 200:
                STATE["refused"][signal] += 1
                headers = [("Retry-After", retry_after)] if retry_after else []
                return self.answer(status, b"", "text/plain", headers)
            if self.headers["Content-Type"] != "application/x-protobuf":
                STATE["faults"].append(f"content type {self.headers['Content-Type']}")
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            try:
                faults, response = {"traces": take_traces, "metrics": take_metrics}[signal](body)
            except Exception as error:  # whatever it is, the test must hear of it
                faults, response = [repr(error)], None
            STATE["faults"] += faults
            STATE[signal] += 1
            STATE["headers"] = {name.lower(): value for name, value in self.headers.items()}
            if response is None:
                return self.answer(400, b"", "text/plain")
            return self.answer(200, response.SerializeToString(), "application/x-protobuf")


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
print(f"127.0.0.1:{server.server_port}", flush=True)
sys.stdin.read()
