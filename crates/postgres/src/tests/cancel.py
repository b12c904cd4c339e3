# A statement is cancelled from another thread; another one meets its own timeout.
import json, sys, threading, time
import psycopg

db = psycopg.connect(host="127.0.0.1", port=sys.argv[1], user="anna", password="lvd_acme", dbname="levada", autocommit=True)
ENDLESS = "SELECT sum(value % 7) FROM generate_series(1, 1000000000000)"
seen = {}

# A cancel request that meets no statement does nothing, so they are repeated until one hits.
over = threading.Event()
def cancel():
    while not over.wait(0.1):
        db.cancel_safe(timeout=10)
thread = threading.Thread(target=cancel)
thread.start()
try:
    db.execute(ENDLESS)
except psycopg.Error as error:
    seen["cancelled"] = error.sqlstate
over.set()
thread.join()

db.execute("SET statement_timeout = 200")
try:
    db.execute(ENDLESS)
except psycopg.Error as error:
    seen["timed_out"] = error.sqlstate
seen["after"] = db.execute("SELECT 1").fetchone()[0]
print(json.dumps(seen))
