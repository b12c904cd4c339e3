# Three connections of one key; the key is revoked while they are open.
import json, os, sys, time
import psycopg

port, ready, go = sys.argv[1:4]
def connect():
    return psycopg.connect(host="127.0.0.1", port=port, user="anna", password="lvd_acme", dbname="levada")

simple, extended, suspended = connect(), connect(), connect()
seen = {"before": sum(db.execute("SELECT 1").fetchone()[0] for db in (simple, extended, suspended))}
cursor = suspended.cursor("c")
cursor.execute("SELECT n FROM silver.numbers")
cursor.fetchmany(10)
open(ready, "w").close()
while not os.path.exists(go):
    time.sleep(0.02)

def state(call):
    try:
        call()
        return "went on"
    except psycopg.Error as error:
        return error.sqlstate

seen["simple"] = state(lambda: simple.execute("SELECT 1"))
seen["extended"] = state(lambda: extended.execute("SELECT %s::bigint", (1,)))
seen["suspended"] = state(lambda: cursor.fetchmany(10))
seen["closed"] = all(db.closed for db in (simple, extended, suspended))
print(json.dumps(seen))
