# Finds the server and the key of this project, and calls the Pub/Sub API. Sourced by the scripts.
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
levada=${LEVADA:-levada}
project=${PUBSUB_PROJECT:-living-twin}
dlq_project=${PUBSUB_DLQ_PROJECT:-living-twin-dlq}
tenants=${TENANTS:-tenant-123 acme}
topics='living-twin-events living-twin-document-events living-twin-query-events
living-twin-user-events living-twin-system-events'

if [ -z "${LEVADA_URL:-}" ]; then
    run="$here/.levada/run.json"
    [ -r "$run" ] || { echo "no server runs on $here: start \`levada up $here\`, or set LEVADA_URL" >&2; exit 4; }
    LEVADA_URL=$(sed -n 's/.*"url" *: *"\([^"]*\)".*/\1/p' "$run")
fi
export LEVADA_URL

# key_of NAME: the key to use as NAME (`platform` or a tenant). LEVADA_KEY goes first, then what
# keys.sh made, then the admin key that `levada up` made. With `levada up --dev` none is needed.
key_of() {
    if [ -n "${LEVADA_KEY:-}" ]; then
        printf '%s\n' "$LEVADA_KEY"
    elif [ -r "$here/keys/$1.key" ]; then
        cat "$here/keys/$1.key"
    elif [ -r "$here/.levada/admin.key" ]; then
        cat "$here/.levada/admin.key"
    else
        echo none
    fi
}

# call WHO TENANT METHOD PATH [JSON]: calls the API with the key of WHO, narrowed to TENANT unless
# that is `-`, and prints the answer. PATH begins with the Pub/Sub project. What exists already
# (409) is fine. Key and body reach curl through file descriptors: no list of processes shows
# the key, and a body may be long.
call() {
    answer=$(printf '%s' "${5:-}" | curl -sS -X "$3" "$LEVADA_URL/v1/projects/$4" \
        --config /dev/fd/3 ${5:+--data-binary @-} -w '\n%{http_code}' 3<<END
header = "authorization: Bearer $(key_of "$1")"
header = "content-type: application/json"
$([ "$2" = - ] || printf 'header = "x-tenant-id: %s"' "$2")
END
    ) || return 1
    status=${answer##*
}
    case $status in
        2?? | 409) printf '%s\n' "${answer%
*}" ;;
        *) echo "$3 $4 answered $status: ${answer%
*}" >&2; return 1 ;;
    esac
}
