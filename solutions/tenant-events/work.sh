#!/bin/sh
# Runs the workers: one `levada work` for each topic and tenant, until SIGTERM or ctrl-c, which
# lets them finish what they hold. What is given here goes to each of them.
#   TENANT_ID=acme ./work.sh            the workers of one tenant (all tenants without it)
#   ./work.sh --exit-idle-s 5           end when nothing came for so long
#   MAX_CONCURRENT_MESSAGES, WORKER_TIMEOUT, LOG_LEVEL      as in README.md
# Programs of one's own take the place of workers/handle.py with WORKER.
set -eu
. "$(dirname -- "$0")/lib.sh"

mkdir -p "$here/state"
pids=
for tenant in ${TENANT_ID:-$tenants}; do
    for topic in $topics; do
        TENANT_ID=$tenant WORKER_DB=$here/state/$tenant.db LEVADA_KEY=$(key_of "$tenant") \
            "$levada" work --subscription "projects/$project/subscriptions/$topic-$tenant-worker" \
            --concurrency "${MAX_CONCURRENT_MESSAGES:-5}" --batch 10 \
            --timeout-s "${WORKER_TIMEOUT:-600}" "$@" -- "${WORKER:-$here/workers/handle.py}" &
        pids="$pids $!"
    done
done
# shellcheck disable=SC2086 # a list of numbers
trap 'kill $pids 2>/dev/null || true' TERM
trap : INT # ctrl-c reaches the workers by itself; a second signal would cut them short

status=0
for pid in $pids; do
    until wait "$pid"; do
        code=$?
        kill -0 "$pid" 2>/dev/null && continue # a signal ended the waiting, not the worker
        status=$code
        break
    done
done
exit "$status"
