#!/usr/bin/env python3
"""Shows the dead letters of a subscription, or sends them to their topic again.

    letters.py list|resend SUBSCRIPTION TOPIC

LEVADA_URL and LEVADA_KEY say where and as whom. `list` prints a JSON line a letter and gives it
back; `resend` publishes it as it was before it failed, and acknowledges it only after that: a
crash between the two sends it twice, which the workers notice by its idempotency key. Letters
that come in while it runs are left for the next time, or one that fails again would go round
for ever. It takes 1,000 letters at most.
"""
import datetime
import json
import os
import sys
import time
import urllib.error
import urllib.request

# What a worker adds to a dead letter.
ADDED = ("levada.dead.", "CloudPubSubDeadLetterSource")
AT_MOST = 1000


def call(path, body):
    request = urllib.request.Request(
        f"{os.environ['LEVADA_URL']}/v1/{path}",
        data=json.dumps(body).encode(),
        headers={
            "authorization": f"Bearer {os.environ.get('LEVADA_KEY') or 'none'}",
            "content-type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"{path} answered {error.code}: {error.read().decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"{path}: {error}")


def pulled(subscription):
    """The letters that are there now, with their ack ids."""
    misses, count = 0, 0
    while misses < 3 and count < AT_MOST:
        answer = call(f"{subscription}:pull", {"maxMessages": 100, "returnImmediately": True})
        letters = answer.get("receivedMessages", [])
        misses = 0 if letters else misses + 1
        count += len(letters)
        for letter in letters:
            yield letter["ackId"], letter["message"]
        if not letters:
            time.sleep(0.1)


def shown(subscription, message):
    attributes = message.get("attributes", {})
    return {
        "subscription": subscription.rsplit("/", 1)[-1],
        "message_id": message["messageId"],
        "failed_at": message["publishTime"],
        "attempts": int(attributes.get("CloudPubSubDeadLetterSourceDeliveryCount", 1)),
        # A worker's reason, or the server's where it was delivered too often.
        "reason": attributes.get("levada.dead.reason", ""),
        "attributes": {name: value for name, value in attributes.items() if not name.startswith(ADDED)},
        "data": message.get("data", ""),
    }


def as_before(message):
    attributes = {
        name: value for name, value in message.get("attributes", {}).items() if not name.startswith(ADDED)
    }
    again = {"data": message.get("data", ""), "attributes": attributes}
    if message.get("orderingKey"):
        again["orderingKey"] = message["orderingKey"]
    return again


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def main():
    what, subscription, topic = sys.argv[1:4]
    begun, back, sent = datetime.datetime.now(datetime.timezone.utc), [], 0
    try:
        for ack_id, message in pulled(subscription):
            if what == "list" or moment(message["publishTime"]) > begun:
                back.append(ack_id)
            if what == "list":
                print(json.dumps(shown(subscription, message)))
            elif back[-1:] != [ack_id]:
                call(f"{topic}:publish", {"messages": [as_before(message)]})
                call(f"{subscription}:acknowledge", {"ackIds": [ack_id]})
                sent += 1
    finally:
        if back:
            call(f"{subscription}:modifyAckDeadline", {"ackIds": back, "ackDeadlineSeconds": 0})
    if sent:
        print(f"{sent} sent again to {topic}")


if __name__ == "__main__":
    main()
