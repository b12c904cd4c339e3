#!/bin/sh
# Runs the whole project in a temporary folder on free ports, and checks what came of it: once
# with `levada up --dev`, which asks for no key, and once as in production, where every caller has
# a key of its own. Nothing is left behind.
#   ./test.sh [dev] [keys]
set -eu
source=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
LEVADA=$(command -v "${LEVADA:-levada}") || { echo "no levada: put it into PATH, or name it in LEVADA" >&2; exit 2; }
export LEVADA
unset LEVADA_URL LEVADA_KEY TENANT_ID TENANTS WORKER WORKER_DB

server='' folder=$(mktemp -d) wrong=0
stop() {
    [ -z "$server" ] && return
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=''
}
trap 'stop; rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM

start() {
    rm -f .levada/run.json
    # shellcheck disable=SC2086 # no word, or one
    "$LEVADA" up . $dev --listen 127.0.0.1:0 --postgres off >up.log 2>&1 &
    server=$!
    for _ in $(seq 300); do
        [ -s .levada/run.json ] && curl -fs -o /dev/null "$(url)/readyz" && return
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    cat up.log >&2
    exit 1
}

url() { sed -n 's/.*"url" *: *"\([^"]*\)".*/\1/p' .levada/run.json; }

# expect WHAT WANTED GOT
expect() {
    if [ "$2" = "$3" ]; then
        echo "  ok    $1"
    else
        echo "  WRONG $1: wanted $2, got $3"
        wrong=1
    fi
}

# status KEY PATH [JSON]: the status of a call of the Pub/Sub API.
status() {
    curl -s -o /dev/null -w '%{http_code}' "$(url)/v1/projects/$2" -H "authorization: Bearer $1" \
        ${3:+-H 'content-type: application/json' --data-binary "$3"}
}

# ends COMMAND ...: its exit code.
ends() {
    if "$@" >out.log 2>&1; then echo 0; else echo $?; fi
}

event() {
    printf '{"event_type": "%s", "tenant_id": "%s", "event_id": "%s", "payload": {"%s": "x"}}\n' "$@"
}

subscription='living-twin/subscriptions/living-twin-user-events-tenant-123-worker'
pull='{"maxMessages": 1, "returnImmediately": true}'

only_with_keys() {
    acme=$(cat keys/acme.key)
    expect "without a key nothing is told" 401 "$(status none "$subscription")"
    expect "a tenant's key makes no topics" 403 "$(LEVADA_KEY=$acme ends ./setup.sh >/dev/null; sed -n 's/.* answered \([0-9]*\).*/\1/p' out.log)"
    expect "a tenant's key does not find another tenant's subscription" 404 "$(status "$acme" "$subscription:pull" "$pull")"
    event user.login tenant-123 forged user_id >forged.jsonl
    expect "a tenant's key does not publish for another" 1 "$(LEVADA_KEY=$acme ends ./publish.sh forged.jsonl)"
    expect "and is told why" 1 "$(grep -c 'answered 403' out.log)"
    event user.login globex unknown user_id >unknown.jsonl
    expect "events of an undeclared tenant are refused" 1 "$(LEVADA_KEY=$(cat keys/platform.key) ends ./publish.sh unknown.jsonl)"
}

only_in_dev() {
    event user.login globex unknown user_id >unknown.jsonl
    expect "in development any tenant may publish; its events are kept, and no worker gets them" 0 \
        "$(ends ./publish.sh unknown.jsonl)"
    published=unknown.jsonl
}

by_hand() {
    line='{"messageId": "1", "attributes": {"tenant_id": "globex", "event_type": "user.login", "event_id": "x"}, "json": {"user_id": "x"}}'
    said=$(echo "$line" | TENANT_ID=acme WORKER_DB=:memory: workers/handle.py 2>/dev/null)
    expect "a worker refuses an event of another tenant" 1 "$(echo "$said" | grep -c '"dead_letter", "reason": "tenant mismatch: this worker serves `acme`, the event is of `globex`"')"
    said=$(echo "$line" | LEVADA_SUBSCRIPTION=projects/$subscription TENANT_ID=acme WORKER_DB=:memory: \
        ends workers/handle.py)
    expect "a worker that was started on another tenant's subscription touches nothing" 75 "$said"
}

check() {
    # shellcheck disable=SC2086 # no name, or one
    python3 test/check.py "$PWD" "$LEVADA" --once $published "$@" || wrong=1
}

round() {
    cp -R "$source" "$folder/$1" && cd "$folder/$1"
    rm -rf .levada keys state
    dev='' published=''
    [ "$1" = dev ] && dev=--dev
    echo "$1: set up"
    start
    [ "$1" = keys ] && ./keys.sh >/dev/null
    export MIN_BACKOFF=1s MAX_BACKOFF=1s LOG_LEVEL=WARNING
    expect "10 pairs of subscriptions" 10 "$(./setup.sh | wc -l | tr -d ' ')"
    expect "setting up again changes nothing" 10 "$(./setup.sh | wc -l | tr -d ' ')"
    by_hand
    if [ "$1" = keys ]; then only_with_keys; else only_in_dev; fi

    echo "$1: the catalogue twice, bad events, a restart, workers that fail at first"
    ./publish.sh >/dev/null
    ./publish.sh >/dev/null
    ./publish.sh events/bad.jsonl >/dev/null
    stop
    start
    cat >flaky.sh <<'END'
#!/bin/sh
# Fails the first time on each subscription, as if the world had a hiccup.
mark=state/$(basename "$LEVADA_SUBSCRIPTION").tried
[ -e "$mark" ] || { : >"$mark"; echo "not now" >&2; exit 75; }
exec workers/handle.py
END
    chmod +x flaky.sh
    WORKER=$PWD/flaky.sh ./work.sh --exit-idle-s 4 2>work.log || { cat work.log; wrong=1; }
    expect "each of 10 workers gave something back" 10 "$(grep -c 'acked, [1-9][0-9]* retried' work.log)"
    check

    echo "$1: a worker that always fails, then its dead letter sent again"
    event system.error acme poison component >poison.jsonl
    ./publish.sh poison.jsonl >/dev/null
    TENANT_ID=acme WORKER=false ./work.sh --exit-idle-s 4 2>work.log || { cat work.log; wrong=1; }
    expect "five attempts" 5 "$(./deadletters.sh list acme | sed -n 's/.*"attempts": \([0-9]*\), "reason": "5 deliveries failed".*"poison".*/\1/p')"
    ./deadletters.sh resend acme >/dev/null
    expect "no dead letter of acme is left" 0 "$(./deadletters.sh list acme | wc -l | tr -d ' ')"
    ./work.sh --exit-idle-s 3 2>work.log || { cat work.log; wrong=1; }
    RESENT=acme check poison.jsonl

    if [ "$1" = keys ]; then
        query='select distinct tenant_id from gold.event_activity'
        expect "a tenant's key sees its own rows only" '"rows":[["acme"]]' \
            "$(LEVADA_KEY=$(cat keys/acme.key) "$LEVADA" sql --json "$query" | grep -o '"rows":[^}]*\]\]')"
    fi
    stop
    cd "$source"
}

for mode in ${*:-dev keys}; do
    case $mode in
        dev | keys) round "$mode" ;;
        *) echo "usage: ./test.sh [dev] [keys]" >&2; exit 2 ;;
    esac
done
[ "$wrong" = 0 ] && echo "all is well"
exit "$wrong"
