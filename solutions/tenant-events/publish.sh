#!/bin/sh
# Publishes the events of a file (events/catalogue.jsonl without one) over the Pub/Sub API:
# one JSON envelope a line, whose fields become attributes and whose payload becomes the data.
# Each goes out under the key of its tenant, or under LEVADA_KEY where that is set. Events that
# the server refuses are named, the others are published, and the exit code is 1.
#   ./publish.sh [FILE]
set -eu
. "$(dirname -- "$0")/lib.sh"

file=${1:-$here/events/catalogue.jsonl}
python3 "$here/workers/envelope.py" "$file" | {
    published=0 refused=0
    while IFS='	' read -r tenant topic body; do
        if call "$tenant" - POST "$project/topics/$topic:publish" "$body" >/dev/null; then
            published=$((published + 1))
        else
            refused=$((refused + 1))
        fi
    done
    echo "$published published, $refused refused"
    [ "$refused" = 0 ] && [ "$published" != 0 ]
}
