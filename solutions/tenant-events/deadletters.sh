#!/bin/sh
# What the workers refused, by tenant.
#   ./deadletters.sh list [TENANT]      shows it and leaves it there
#   ./deadletters.sh resend TENANT      sends all of it to its topic again, for mended workers
set -eu
. "$(dirname -- "$0")/lib.sh"

case "${1:-}" in
    list) tenants=${2:-$tenants} ;;
    resend) tenants=${2:?name the tenant whose dead letters are to be sent again} ;;
    *)
        sed -n '2,4s/^# *//p' "$0" >&2
        exit 2
        ;;
esac
for tenant in $tenants; do
    for topic in $topics; do
        LEVADA_KEY=$(key_of "$tenant") python3 "$here/workers/letters.py" "$1" \
            "projects/$dlq_project/subscriptions/$topic-$tenant-dlq" "projects/$project/topics/$topic"
    done
done
