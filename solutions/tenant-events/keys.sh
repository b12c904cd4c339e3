#!/bin/sh
# Makes the keys that production needs, each with no more rights than its work asks for:
#   keys/platform.key   all tenants, role engineer: creates topics and subscriptions
#   keys/<tenant>.key   one tenant, role service: publishes, pulls, acknowledges
# A key that lies there already is kept. It needs the admin key: LEVADA_KEY, or the one in
# .levada/admin.key.
set -eu
. "$(dirname -- "$0")/lib.sh"

umask 077
mkdir -p "$here/keys"

# make NAME TENANTS ROLE: TENANTS is a JSON value, a list of tenants or "all".
make() {
    file="$here/keys/$1.key"
    [ -s "$file" ] && return
    answer=$(curl -sS "$LEVADA_URL/v1/keys" --config /dev/fd/3 \
        --data-binary '{"name": "'"$1"'", "tenants": '"$2"', "roles": ["'"$3"'"]}' 3<<END
header = "authorization: Bearer ${LEVADA_KEY:-$(cat "$here/.levada/admin.key")}"
header = "content-type: application/json"
END
    )
    key=$(printf '%s' "$answer" | sed -n 's/.*"key" *: *"\([^"]*\)".*/\1/p')
    [ -n "$key" ] || { echo "no key was made for $1: $answer" >&2; exit 1; }
    printf '%s\n' "$key" >"$file"
    echo "keys/$1.key: tenants $2, role $3"
}

make platform '"all"' engineer
for tenant in $tenants; do
    make "$tenant" '["'"$tenant"'"]' service
done
