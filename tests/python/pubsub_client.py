"""Drives the Pub/Sub API with the official Python client, one line a case.

    PUBSUB_EMULATOR_HOST=127.0.0.1:8085 python tests/python/pubsub_client.py [CASE...]

Needs `pip install google-cloud-pubsub` and a server in development mode. With LEVADA_HOST and
LEVADA_KEY instead, every call carries the key; it must be an admin's, and the project named by
LEVADA_PROJECT its tenant's. Every case uses names of its own, so that the script can run again
against the same server. Ends with status 1 when a case failed.
"""

import concurrent.futures
import gzip
import http.server
import json
import os
import queue
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
import uuid

import grpc
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber import exceptions as sub_exceptions
from google.iam.v1 import policy_pb2
from google.protobuf import timestamp_pb2
from google.pubsub_v1 import types as pubsub_types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

PROJECT = os.environ.get("LEVADA_PROJECT", "python-suite")
KEY = os.environ.get("LEVADA_KEY")
HOST = os.environ["LEVADA_HOST" if KEY else "PUBSUB_EMULATOR_HOST"]
RUN = uuid.uuid4().hex[:8]
CASES = []



class SendKey(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Adds the key to every call of a channel."""

    def with_key(self, details):
        metadata = [*(details.metadata or []), ("authorization", f"Bearer {KEY}")]
        return details._replace(metadata=metadata)

    def intercept_unary_unary(self, proceed, details, request):
        return proceed(self.with_key(details), request)

    def intercept_stream_stream(self, proceed, details, requests):
        return proceed(self.with_key(details), requests)


def channel():
    return grpc.intercept_channel(grpc.insecure_channel(HOST), SendKey())


def make_publisher(**options):
    if KEY:
        options["transport"] = PublisherGrpcTransport(channel=channel())
    return pubsub_v1.PublisherClient(**options)


def make_subscriber():
    if KEY:
        return pubsub_v1.SubscriberClient(transport=SubscriberGrpcTransport(channel=channel()))
    return pubsub_v1.SubscriberClient()


publisher = make_publisher()
subscriber = make_subscriber()


def case(function):
    CASES.append(function)
    return function


def refused(kind, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}")


def topic(name, **fields):
    path = publisher.topic_path(PROJECT, f"t-{name}-{RUN}")
    publisher.create_topic(request={"name": path, **fields})
    return path


def subscription(name, of, **fields):
    path = subscriber.subscription_path(PROJECT, f"s-{name}-{RUN}")
    subscriber.create_subscription(request={"name": path, "topic": of, **fields})
    return path


def pull(path, count, seconds=10):
    """Pulls until `count` messages came."""
    got, end = [], time.monotonic() + seconds
    while len(got) < count and time.monotonic() < end:
        answer = subscriber.pull(
            request={"subscription": path, "max_messages": count - len(got)},
            timeout=max(0.5, end - time.monotonic()),
        )
        got.extend(answer.received_messages)
    return got


def ack(path, received):
    subscriber.acknowledge(request={"subscription": path, "ack_ids": [m.ack_id for m in received]})


def stream(path, callback, **options):
    return subscriber.subscribe(path, callback=callback, **options)


def stop(future):
    future.cancel()
    try:
        future.result(timeout=10)
    except concurrent.futures.CancelledError:
        pass


@case
def topics_are_created_read_listed_and_deleted():
    path = topic("crud", labels={"team": "red"})
    assert publisher.get_topic(request={"topic": path}).labels["team"] == "red"
    assert refused(exceptions.AlreadyExists, publisher.create_topic, request={"name": path})
    others = {topic(f"crud-{n}") for n in range(5)}
    listed = [t.name for t in publisher.list_topics(request={"project": f"projects/{PROJECT}", "page_size": 2})]
    assert others | {path} <= set(listed) and len(set(listed)) == len(listed)
    updated = publisher.update_topic(
        request={
            "topic": {"name": path, "message_retention_duration": {"seconds": 3600}},
            "update_mask": {"paths": ["message_retention_duration"]},
        }
    )
    assert updated.message_retention_duration.total_seconds() == 3600 and updated.labels["team"] == "red"
    publisher.delete_topic(request={"topic": path})
    error = refused(exceptions.NotFound, publisher.get_topic, request={"topic": path})
    assert "Resource not found" in error.message


@case
def bad_arguments_are_refused():
    path = topic("bad")
    bad = exceptions.InvalidArgument
    refused(bad, publisher.create_topic, request={"name": "projects/x/topics/no"})
    refused(bad, publisher.create_topic, request={"name": publisher.topic_path(PROJECT, "goog-x")})
    refused(bad, publisher.publish(path, b"x", **{"googkey": "v"}).result)
    refused(bad, publisher.publish(path, b"").result)
    publisher.publish(path, b"x", googclient_traceparent="00-1").result(timeout=10)
    name = subscriber.subscription_path(PROJECT, f"s-bad-{RUN}")
    make = subscriber.create_subscription
    refused(bad, make, request={"name": name, "topic": path, "ack_deadline_seconds": 9})
    refused(bad, make, request={"name": name, "topic": path, "ack_deadline_seconds": 601})
    refused(bad, make, request={"name": name, "topic": path, "filter": "attributes.x ="})
    refused(bad, make, request={"name": name, "topic": path, "message_retention_duration": {"seconds": 1}})
    refused(exceptions.NotFound, make, request={"name": name, "topic": path + "-nowhere"})
    letters = {"dead_letter_topic": path + "-nowhere", "max_delivery_attempts": 5}
    refused(exceptions.NotFound, make, request={"name": name, "topic": path, "dead_letter_policy": letters})
    error = refused(bad, make, request={"name": name, "topic": path, "ack_deadline_seconds": 9})
    assert error.details[0].field_violations[0].field == "ack_deadline_seconds", error.details
    refused(
        exceptions.MethodNotImplemented,
        make,
        request={"name": name, "topic": path, "bigquery_config": {"table": "a.b.c"}},
    )
    made = subscription("bad", path)
    update = subscriber.update_subscription
    changed = {"name": made, "dead_letter_policy": letters}
    mask = {"paths": ["dead_letter_policy"]}
    refused(exceptions.NotFound, update, request={"subscription": changed, "update_mask": mask})
    for paths in (["topic"], ["nonsense"], []):
        refused(bad, update, request={"subscription": {"name": made, "topic": path}, "update_mask": {"paths": paths}})
    refused(bad, subscriber.pull, request={"subscription": made, "max_messages": 0})
    refused(bad, subscriber.acknowledge, request={"subscription": made, "ack_ids": ["made-up"]})
    refused(
        bad,
        subscriber.modify_ack_deadline,
        request={"subscription": made, "ack_ids": ["made-up"], "ack_deadline_seconds": 10},
    )


@case
def subscriptions_are_created_updated_listed_and_deleted():
    path = topic("subs")
    made = subscription("subs", path, ack_deadline_seconds=20, retry_policy={"minimum_backoff": {"seconds": 3}})
    kept = subscriber.get_subscription(request={"subscription": made})
    assert kept.ack_deadline_seconds == 20 and kept.topic == path
    assert kept.message_retention_duration.days == 7 and kept.expiration_policy.ttl.days == 31
    assert kept.retry_policy.minimum_backoff.seconds == 3 and kept.retry_policy.maximum_backoff.seconds == 600
    updated = subscriber.update_subscription(
        request={
            "subscription": {"name": made, "topic": path, "ack_deadline_seconds": 30, "labels": {"a": "b"}},
            "update_mask": {"paths": ["labels"]},
        }
    )
    assert updated.ack_deadline_seconds == 20 and updated.labels["a"] == "b"
    assert list(publisher.list_topic_subscriptions(request={"topic": path})) == [made]
    names = [s.name for s in subscriber.list_subscriptions(request={"project": f"projects/{PROJECT}"})]
    assert made in names
    subscriber.delete_subscription(request={"subscription": made})
    refused(exceptions.NotFound, subscriber.get_subscription, request={"subscription": made})
    unnamed = subscriber.create_subscription(request={"topic": path}).name
    assert unnamed.startswith(f"projects/{PROJECT}/subscriptions/"), unnamed
    subscriber.delete_subscription(request={"subscription": unnamed})


@case
def a_published_message_comes_as_it_was():
    path = topic("pull")
    made = subscription("pull", path)
    sent = publisher.publish(path, "grüße".encode(), origin="test", empty="").result(timeout=10)
    (got,) = pull(made, 1)
    assert got.message.data.decode() == "grüße" and dict(got.message.attributes) == {"origin": "test", "empty": ""}
    assert got.message.message_id == sent and got.message.ordering_key == ""
    age = time.time() - got.message.publish_time.timestamp()
    assert -1 < age < 30, age
    assert got.delivery_attempt == 0
    ack(made, [got])
    answer = subscriber.pull(request={"subscription": made, "max_messages": 1, "return_immediately": True})
    assert not answer.received_messages


@case
def an_empty_pull_waits_and_ends_with_its_deadline():
    made = subscription("empty", topic("empty"))
    start = time.monotonic()
    try:
        answer = subscriber.pull(request={"subscription": made, "max_messages": 1}, timeout=2, retry=None)
        assert not answer.received_messages
    except exceptions.DeadlineExceeded:
        pass
    assert 1.5 < time.monotonic() - start < 4


@case
def a_message_given_back_comes_again_with_another_ack_id():
    path = topic("nack")
    made = subscription("nack", path)
    publisher.publish(path, b"again").result(timeout=10)
    (first,) = pull(made, 1)
    subscriber.modify_ack_deadline(
        request={"subscription": made, "ack_ids": [first.ack_id], "ack_deadline_seconds": 0}
    )
    (second,) = pull(made, 1)
    assert second.message.message_id == first.message.message_id and second.ack_id != first.ack_id
    ack(made, [second])
    ack(made, [second])


@case
def batches_come_through_a_stream_once():
    path = topic("stream")
    made = subscription("stream", path)
    batching = pubsub_v1.types.BatchSettings(max_messages=100, max_latency=0.05)
    sender = make_publisher(batch_settings=batching)
    futures = [sender.publish(path, str(n).encode(), n=str(n)) for n in range(1000)]
    ids = {future.result(timeout=30) for future in futures}
    assert len(ids) == 1000
    got, lock, done = {}, threading.Lock(), threading.Event()

    def take(message):
        with lock:
            got[message.message_id] = got.get(message.message_id, 0) + 1
            if len(got) == 1000:
                done.set()
        message.ack()

    future = stream(made, take)
    assert done.wait(30), len(got)
    stop(future)
    assert set(got) == ids and set(got.values()) == {1}


@case
def flow_control_holds_messages_back():
    path = topic("flow")
    made = subscription("flow", path, ack_deadline_seconds=60)
    for n in range(20):
        publisher.publish(path, str(n).encode()).result(timeout=10)
    held = queue.Queue()
    flow = pubsub_v1.types.FlowControl(max_messages=5)
    future = stream(made, held.put, flow_control=flow)
    first = [held.get(timeout=10) for _ in range(5)]
    try:
        held.get(timeout=1.5)
        raise AssertionError("more than five are outstanding")
    except queue.Empty:
        pass
    for message in first:
        message.ack()
    for _ in range(15):
        held.get(timeout=10).ack()
    stop(future)


@case
def a_stream_holds_a_slow_message_by_extending_its_lease():
    path = topic("slow")
    made = subscription("slow", path, ack_deadline_seconds=10)
    publisher.publish(path, b"slow").result(timeout=10)
    seen, done = [], threading.Event()

    def take(message):
        seen.append(message.message_id)
        time.sleep(14)
        message.ack()
        done.set()

    future = stream(made, take)
    assert done.wait(30)
    time.sleep(1)
    stop(future)
    assert len(seen) == 1, seen


@case
def messages_of_one_key_come_in_order():
    path = topic("order")
    made = subscription("order", path, enable_message_ordering=True)
    options = pubsub_v1.types.PublisherOptions(enable_message_ordering=True)
    sender = make_publisher(publisher_options=options)
    futures = [
        sender.publish(path, f"{key}:{n}".encode(), ordering_key=key) for n in range(50) for key in ("a", "b", "c")
    ]
    for future in futures:
        future.result(timeout=30)
    got, done = {"a": [], "b": [], "c": []}, threading.Event()

    def take(message):
        key, n = message.data.decode().split(":")
        assert message.ordering_key == key
        got[key].append(int(n))
        message.ack()
        if sum(map(len, got.values())) >= 150:
            done.set()

    future = stream(made, take)
    assert done.wait(60), {k: len(v) for k, v in got.items()}
    stop(future)
    assert all(numbers == list(range(50)) for numbers in got.values()), got


@case
def many_messages_of_one_key_are_outstanding_and_follow_one_that_fails():
    path = topic("together")
    made = subscription("together", path, enable_message_ordering=True, ack_deadline_seconds=60)
    sender = make_publisher(publisher_options=pubsub_v1.types.PublisherOptions(enable_message_ordering=True))
    for future in [sender.publish(path, str(n).encode(), ordering_key="k") for n in range(300)]:
        future.result(timeout=30)
    feed, answers = raw_stream({"subscription": made, "stream_ack_deadline_seconds": 60})
    answers = iter(answers)

    def take(numbers):
        got = []
        while len(got) < len(numbers):
            got.extend(next(answers).received_messages)
        assert [int(m.message.data) for m in got] == list(numbers)
        return got

    held = take(range(300))
    again = {"modify_deadline_ack_ids": [held[100].ack_id], "modify_deadline_seconds": [0]}
    feed.put(pubsub_types.StreamingPullRequest(**again))
    later = take(range(100, 300))
    ids = [m.ack_id for m in held[:100] + later]
    feed.put(pubsub_types.StreamingPullRequest(ack_ids=ids))
    sender.publish(path, b"300", ordering_key="k").result(timeout=30)
    take([300])
    feed.put(None)


@case
def one_key_keeps_the_order_of_all_tenants_in_development():
    if KEY:
        return
    path = topic("across")
    made = subscription("across", path, enable_message_ordering=True)
    sender = make_publisher(publisher_options=pubsub_v1.types.PublisherOptions(enable_message_ordering=True))
    sent = [
        sender.publish(path, str(n).encode(), ordering_key="k", tenant_id=f"t{n // 50 % 2}") for n in range(200)
    ]
    for future in sent:
        future.result(timeout=30)
    got, done = [], threading.Event()

    def take(message):
        got.append(int(message.data))
        message.ack()
        if len(got) >= 200:
            done.set()

    future = stream(made, take)
    assert done.wait(30), len(got)
    stop(future)
    assert got == list(range(200)), got


@case
def exactly_once_confirms_acknowledgements():
    path = topic("once")
    made = subscription("once", path, enable_exactly_once_delivery=True, ack_deadline_seconds=60)
    for n in range(10):
        publisher.publish(path, str(n).encode()).result(timeout=10)
    outcomes, seen, done = [], [], threading.Event()

    def take(message):
        seen.append(message.message_id)
        outcomes.append(message.ack_with_response())
        if len(seen) == 10:
            done.set()

    future = stream(made, take)
    assert done.wait(30), len(seen)
    for outcome in outcomes:
        assert outcome.result(timeout=20) == sub_exceptions.AcknowledgeStatus.SUCCESS
    stop(future)
    assert len(set(seen)) == 10 == len(seen)


@case
def exactly_once_refuses_an_ack_id_that_ended():
    path = topic("once-bad")
    made = subscription("once-bad", path, enable_exactly_once_delivery=True, ack_deadline_seconds=10)
    publisher.publish(path, b"x").result(timeout=10)
    (first,) = pull(made, 1)
    subscriber.modify_ack_deadline(
        request={"subscription": made, "ack_ids": [first.ack_id], "ack_deadline_seconds": 0}
    )
    (second,) = pull(made, 1)
    error = refused(exceptions.FailedPrecondition, ack, made, [first])
    assert error.metadata[first.ack_id] == "PERMANENT_FAILURE_INVALID_ACK_ID", error
    assert error.reason and error.domain == "pubsub.googleapis.com"
    ack(made, [second])
    assert not subscriber.pull(
        request={"subscription": made, "max_messages": 1, "return_immediately": True}
    ).received_messages


@case
def a_nack_through_a_stream_redelivers():
    path = topic("stream-nack")
    made = subscription("stream-nack", path, enable_exactly_once_delivery=True)
    publisher.publish(path, b"x").result(timeout=10)
    seen, done = [], threading.Event()

    def take(message):
        seen.append(message.message_id)
        if len(seen) == 1:
            message.nack_with_response()
        else:
            message.ack_with_response()
            done.set()

    future = stream(made, take)
    assert done.wait(20)
    stop(future)
    assert len(seen) == 2 and len(set(seen)) == 1


@case
def filters_let_only_matching_messages_through():
    path = topic("filter")
    made = subscription("filter", path, filter='attributes.kind = "a" AND NOT attributes:skip')
    for attributes in ({"kind": "a"}, {"kind": "b"}, {"kind": "a", "skip": ""}, {}):
        publisher.publish(path, json.dumps(attributes).encode(), **attributes).result(timeout=10)
    (got,) = pull(made, 1)
    assert dict(got.message.attributes) == {"kind": "a"}
    ack(made, [got])
    again = subscriber.pull(request={"subscription": made, "max_messages": 10, "return_immediately": True})
    assert not again.received_messages


@case
def a_message_that_fails_goes_to_the_dead_letter_topic():
    path, dead = topic("dlq"), topic("dlq-dead")
    rest = subscription("dlq-dead", dead)
    made = subscription(
        "dlq", path, dead_letter_policy={"dead_letter_topic": dead, "max_delivery_attempts": 5}
    )
    publisher.publish(path, b"poison", origin="test").result(timeout=10)
    for attempt in range(1, 6):
        (got,) = pull(made, 1)
        assert got.delivery_attempt == attempt, got.delivery_attempt
        subscriber.modify_ack_deadline(
            request={"subscription": made, "ack_ids": [got.ack_id], "ack_deadline_seconds": 0}
        )
    assert not subscriber.pull(
        request={"subscription": made, "max_messages": 1, "return_immediately": True}
    ).received_messages
    (moved,) = pull(rest, 1)
    attributes = dict(moved.message.attributes)
    assert moved.message.data == b"poison" and attributes["origin"] == "test"
    assert attributes["CloudPubSubDeadLetterSourceDeliveryCount"] == "5", attributes
    assert made.endswith("/" + attributes["CloudPubSubDeadLetterSourceSubscription"])
    assert attributes["CloudPubSubDeadLetterSourceSubscriptionProject"] == PROJECT
    assert not [name for name in attributes if name.startswith("levada.")], attributes
    ack(rest, [moved])


@case
def seek_goes_back_to_a_time_and_forward():
    path = topic("seek")
    made = subscription("seek", path, retain_acked_messages=True)
    before = timestamp_pb2.Timestamp()
    before.FromMilliseconds(int(time.time() * 1000) - 60_000)
    publisher.publish(path, b"replay").result(timeout=10)
    (got,) = pull(made, 1)
    ack(made, [got])
    subscriber.seek(request={"subscription": made, "time": before})
    (again,) = pull(made, 1)
    assert again.message.message_id == got.message.message_id
    after = timestamp_pb2.Timestamp()
    after.FromMilliseconds(int(time.time() * 1000) + 60_000)
    subscriber.seek(request={"subscription": made, "time": after})
    assert not subscriber.pull(
        request={"subscription": made, "max_messages": 1, "return_immediately": True}
    ).received_messages
    # A seek is about what there is: what comes later is delivered, long before that time.
    later = publisher.publish(path, b"later").result(timeout=10)
    (got,) = pull(made, 1)
    assert got.message.message_id == later


@case
def snapshots_keep_what_was_not_acknowledged():
    path = topic("snap")
    made = subscription("snap", path)
    first = publisher.publish(path, b"one").result(timeout=10)
    snapshot = subscriber.snapshot_path(PROJECT, f"snap-{RUN}")
    kept = subscriber.create_snapshot(request={"name": snapshot, "subscription": made, "labels": {"a": "b"}})
    assert kept.topic == path and kept.expire_time.timestamp() > time.time() + 6 * 86400
    ack(made, pull(made, 1))
    subscriber.seek(request={"subscription": made, "snapshot": snapshot})
    (again,) = pull(made, 1)
    assert again.message.message_id == first
    assert snapshot in list(publisher.list_topic_snapshots(request={"topic": path}))
    names = [s.name for s in subscriber.list_snapshots(request={"project": f"projects/{PROJECT}"})]
    assert snapshot in names
    changed = subscriber.update_snapshot(
        request={"snapshot": {"name": snapshot, "labels": {"c": "d"}}, "update_mask": {"paths": ["labels"]}}
    )
    assert dict(changed.labels) == {"c": "d"}
    subscriber.delete_snapshot(request={"snapshot": snapshot})
    refused(exceptions.NotFound, subscriber.get_snapshot, request={"snapshot": snapshot})


@case
def a_deleted_topic_leaves_its_subscription():
    path = topic("gone")
    made = subscription("gone", path)
    publisher.publish(path, b"last").result(timeout=10)
    publisher.delete_topic(request={"topic": path})
    assert subscriber.get_subscription(request={"subscription": made}).topic == "_deleted-topic_"
    refused(exceptions.NotFound, publisher.publish(path, b"late").result)
    (got,) = pull(made, 1)
    assert got.message.data == b"last"


@case
def a_detached_subscription_gives_no_messages():
    path = topic("detach")
    made = subscription("detach", path)
    publisher.detach_subscription(request={"subscription": made})
    assert subscriber.get_subscription(request={"subscription": made}).detached
    refused(exceptions.FailedPrecondition, subscriber.pull, request={"subscription": made, "max_messages": 1})


@case
def a_stream_ends_when_its_subscription_is_deleted():
    made = subscription("ends", topic("ends"))
    future = stream(made, lambda message: message.ack())
    time.sleep(1)
    subscriber.delete_subscription(request={"subscription": made})
    refused(exceptions.NotFound, future.result, timeout=20)


def raw_stream(*requests):
    """The first answers of a stream that gets these requests and then stays open."""
    feed = queue.Queue()
    for request in requests:
        feed.put(pubsub_types.StreamingPullRequest(request))
    return feed, subscriber.streaming_pull(requests=iter(feed.get, None))


@case
def a_stream_refuses_what_is_only_for_its_first_request():
    made = subscription("initial", topic("initial"))
    first = {"subscription": made, "stream_ack_deadline_seconds": 10}
    for second in (
        {"subscription": made},
        {"max_outstanding_messages": 5},
        {"max_outstanding_bytes": 5},
        {"protocol_version": 1},
        {"ack_ids": ["made-up"]},
        {"stream_ack_deadline_seconds": 9},
        {"modify_deadline_ack_ids": ["a", "b"], "modify_deadline_seconds": [10]},
    ):
        feed, answers = raw_stream(first, second)
        error = refused(exceptions.InvalidArgument, lambda: [None for _ in answers])
        assert error.message, second
        feed.put(None)
    for bad in ({"subscription": made}, {"subscription": made, "stream_ack_deadline_seconds": 601}):
        feed, answers = raw_stream(bad)
        refused(exceptions.InvalidArgument, lambda: [None for _ in answers])
        feed.put(None)


@case
def a_quiet_stream_of_protocol_version_one_is_kept_alive():
    made = subscription("alive", topic("alive"), enable_message_ordering=True)
    feed, answers = raw_stream({"subscription": made, "stream_ack_deadline_seconds": 10, "protocol_version": 1})
    start = time.monotonic()
    first = next(iter(answers))
    assert first.subscription_properties.message_ordering_enabled
    assert not first.subscription_properties.exactly_once_delivery_enabled
    second = next(iter(answers))
    waited = time.monotonic() - start
    assert not second.received_messages and 5 < waited <= 15, waited
    feed.put(None)


@case
def pushed_messages_come_until_they_are_taken():
    posts, answers = queue.Queue(), iter([500, 429, 204])

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            posts.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(next(answers, 200))
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/push"
    path = topic("push")
    if KEY:
        refused(exceptions.InvalidArgument, subscription, "push", path, push_config={"push_endpoint": url})
        server.shutdown()
        return
    made = subscription("push", path, push_config={"push_endpoint": url, "attributes": {"x-goog-version": "v1"}})
    sent = publisher.publish(path, b"hello", k="v").result(timeout=10)
    for _ in range(3):
        post = posts.get(timeout=15)
        assert post["subscription"] == made and post["message"]["messageId"] == sent, post
        assert post["message"]["data"] == "aGVsbG8=" and post["message"]["attributes"] == {"k": "v"}
    refused(exceptions.FailedPrecondition, subscriber.pull, request={"subscription": made, "max_messages": 1})
    subscriber.modify_push_config(request={"subscription": made, "push_config": {}})
    answer = subscriber.pull(request={"subscription": made, "max_messages": 1, "return_immediately": True})
    assert not answer.received_messages and posts.empty()
    server.shutdown()


@case
def policies_are_kept_with_their_etag():
    path = topic("iam")
    policy = publisher.get_iam_policy(request={"resource": path})
    policy.bindings.append(policy_pb2.Binding(role="roles/pubsub.viewer", members=["allUsers"]))
    kept = publisher.set_iam_policy(request={"resource": path, "policy": policy})
    assert kept.bindings[0].role == "roles/pubsub.viewer" and kept.etag
    stale = policy_pb2.Policy(etag=b"old")
    refused(exceptions.Aborted, publisher.set_iam_policy, request={"resource": path, "policy": stale})
    wanted = ["pubsub.topics.publish", "pubsub.topics.get"]
    held = publisher.test_iam_permissions(request={"resource": path, "permissions": wanted})
    assert list(held.permissions) == wanted


def rest(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    if KEY:
        headers["authorization"] = f"Bearer {KEY}"
    request = urllib.request.Request(f"http://{HOST}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@case
def rest_speaks_of_the_same_resources():
    name, sub = f"projects/{PROJECT}/topics/t-rest-{RUN}", f"projects/{PROJECT}/subscriptions/s-rest-{RUN}"
    status, made = rest("PUT", f"/v1/{name}", {"labels": {"a": "b"}, "messageRetentionDuration": "3600s"})
    assert status == 200 and made["messageRetentionDuration"] == "3600s", made
    status, made = rest("PUT", f"/v1/{sub}", {"topic": name, "ackDeadlineSeconds": 20})
    assert status == 200 and made["expirationPolicy"] == {"ttl": "2678400s"}, made
    status, sent = rest(
        "POST", f"/v1/{name}:publish", {"messages": [{"data": "aGVsbG8=", "attributes": {"k": "v"}}]}
    )
    assert status == 200 and len(sent["messageIds"]) == 1
    status, got = rest("POST", f"/v1/{sub}:pull", {"maxMessages": 10})
    (message,) = got["receivedMessages"]
    assert message["message"]["data"] == "aGVsbG8=" and message["message"]["messageId"] == sent["messageIds"][0]
    assert message["message"]["publishTime"].endswith("Z")
    assert rest("POST", f"/v1/{sub}:acknowledge", {"ackIds": [message["ackId"]]}) == (200, {})
    status, changed = rest(
        "PATCH",
        f"/v1/{sub}",
        {"subscription": {"name": sub, "ackDeadlineSeconds": 30}, "updateMask": "ackDeadlineSeconds"},
    )
    assert status == 200 and changed["ackDeadlineSeconds"] == 30, changed
    status, page = rest("GET", f"/v1/projects/{PROJECT}/topics?pageSize=1")
    assert status == 200 and len(page["topics"]) == 1 and page["nextPageToken"]
    status, error = rest("GET", f"/v1/{name}-nowhere")
    assert status == 404 and error["error"]["status"] == "NOT_FOUND", error
    status, error = rest("POST", f"/v1/{sub}:pull", {"maxMessage": 10})
    assert status == 400 and error["error"]["status"] == "INVALID_ARGUMENT" and "maxMessage" in json.dumps(error)
    packed = gzip.compress(json.dumps({"messages": [{"data": "aGVsbG8="}]}).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    request = urllib.request.Request(f"http://{HOST}/v1/{name}%3Apublish", packed, headers, method="POST")
    if KEY:
        request.add_header("authorization", f"Bearer {KEY}")
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert len(json.load(answer)["messageIds"]) == 1
    assert rest("GET", f"/v1/{name}?fields=name&$alt=json;enum-encoding=int") == (200, {"name": name})
    assert rest("DELETE", f"/v1/{sub}") == (200, {})


def main():
    wanted, failed = set(sys.argv[1:]), 0
    for function in CASES:
        if wanted and function.__name__ not in wanted:
            continue
        start = time.monotonic()
        try:
            function()
            word = "ok"
        except Exception:
            failed += 1
            word = "FAILED"
            traceback.print_exc()
        print(f"{word:6} {function.__name__} ({time.monotonic() - start:.1f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
