#!/bin/sh
# Creates the topics, their dead-letter topics and each tenant's subscriptions:
#   <topic>-<tenant>-worker   the tenant's events, in order by key, five attempts, then dead letter
#   <topic>-<tenant>-dlq      what the tenant's workers refused
# What exists already stays as it is, so it may run again, also after a tenant was added.
#   TENANTS="a b"                     other tenants than those of lib.sh
#   MIN_BACKOFF, MAX_BACKOFF          of a second delivery (10s, 600s)
#   PUBSUB_ENABLE_DLQ=false           no dead-letter policy: what fails comes again and again
set -eu
. "$(dirname -- "$0")/lib.sh"

for topic in $topics; do
    call platform - PUT "$project/topics/$topic" '{}' >/dev/null
    call platform - PUT "$dlq_project/topics/$topic-dlq" '{}' >/dev/null
    dead_letter=
    if [ "${PUBSUB_ENABLE_DLQ:-true}" = true ]; then
        dead_letter='"deadLetterPolicy": {
            "deadLetterTopic": "projects/'"$dlq_project/topics/$topic-dlq"'",
            "maxDeliveryAttempts": 5
        },'
    fi
    for tenant in $tenants; do
        # Narrowed to the tenant, the subscription becomes that tenant's own: its keys find it,
        # those of others do not, and the server holds back foreign messages even without the
        # filter.
        call platform "$tenant" PUT "$project/subscriptions/$topic-$tenant-worker" '{
            "topic": "projects/'"$project/topics/$topic"'",
            "filter": "attributes.tenant_id = \"'"$tenant"'\"",
            '"$dead_letter"'
            "retryPolicy": {
                "minimumBackoff": "'"${MIN_BACKOFF:-10s}"'",
                "maximumBackoff": "'"${MAX_BACKOFF:-600s}"'"
            },
            "ackDeadlineSeconds": 600,
            "messageRetentionDuration": "604800s",
            "expirationPolicy": {},
            "enableMessageOrdering": true
        }' >/dev/null
        call platform "$tenant" PUT "$dlq_project/subscriptions/$topic-$tenant-dlq" '{
            "topic": "projects/'"$dlq_project/topics/$topic-dlq"'",
            "filter": "attributes.tenant_id = \"'"$tenant"'\"",
            "labels": {"levada-dead-letter-details": "true"},
            "ackDeadlineSeconds": 60,
            "messageRetentionDuration": "604800s",
            "expirationPolicy": {}
        }' >/dev/null
        echo "$topic-$tenant-worker, $topic-$tenant-dlq"
    done
done
