# The extended protocol as psycopg uses it. Prints how many checks passed.
import datetime, decimal, json, sys
import psycopg

port = sys.argv[1]
def connect(secret="lvd_acme", **more):
    return psycopg.connect(host="127.0.0.1", port=port, user="anna", password=secret, dbname="levada", **more)

checks = 0
def check(actual, expected):
    global checks
    assert actual == expected, f"{actual!r} is not {expected!r}"
    checks += 1

UTC = datetime.timezone.utc
ROW = (1, 5, decimal.Decimal("19.99"), 0.1, True, datetime.date(2024, 10, 4),
       datetime.datetime(2024, 10, 4, 0, 0, 0, 123456, tzinfo=UTC), "plain")
SELECT = "SELECT order_id, pieces, price, ratio, paid, day, placed, note FROM silver.orders"

with connect() as db:
    # Results in text and in binary.
    for binary in (False, True):
        rows = db.execute(SELECT + " ORDER BY order_id", binary=binary).fetchall()
        assert [type(v) for v in rows[0]] == [type(v) for v in ROW], rows[0]
        check(rows[0], ROW)
        assert rows[1][1] is None and rows[2][4] is None and rows[2][7] is None
        assert rows[2][2] == decimal.Decimal("1234567.89") and rows[1][3] == 1e20

    # Parameters of every type, in text and in binary.
    where = " WHERE order_id = {0} AND pieces = {0} AND price = {0} AND ratio = {0} AND paid = {0} AND day = {0} AND placed = {0} AND note = {0}"
    for mark in ("%s", "%t", "%b"):
        check(db.execute(SELECT + where.format(mark), ROW).fetchall(), [ROW])
    check(db.execute("SELECT note FROM silver.orders WHERE note = %s", ("'; DROP TABLE x; --",)).fetchall(), [])
    check(db.execute("SELECT order_id FROM silver.orders WHERE order_id = ANY(ARRAY[%s, %s]) ORDER BY 1", (1, 3)).fetchall(), [(1,), (3,)])
    check(db.execute("SELECT %s::bigint + 1, %s::text", (41, None)).fetchone(), (42, None))

    # Prepared once, run often.
    seen = [db.execute("SELECT count(*) FROM silver.numbers WHERE n < %s", (i,), prepare=True).fetchone()[0] for i in range(20)]
    check(seen, list(range(20)))

    # A server-side cursor, described before it is read; with parameters, in both formats.
    for binary in (False, True):
        with db.cursor("portions", binary=binary) as cursor:
            cursor.itersize = 700
            cursor.execute("SELECT n FROM silver.numbers WHERE n >= %s ORDER BY n", (5,))
            assert cursor.description[0].name == "n"
            assert [n for (n,) in cursor] == list(range(5, 10_000))

with connect(autocommit=True) as db:
    # Pipelines: one failure skips to the next synchronisation.
    with db.pipeline():
        a, b = db.execute("SELECT 1 AS x"), db.execute("SELECT 2 AS x")
    check([a.fetchone(), b.fetchone()], [(1,), (2,)])
    states = []
    for sql, params in [("SELECT * FROM silver.nothing WHERE x = %s", (1,)), ("SELECT %s::bigint", ("x",)),
                        ("DELETE FROM silver.orders WHERE order_id = %s", (1,))]:
        try:
            db.execute(sql, params)
        except psycopg.Error as error:
            states.append(error.sqlstate)
    assert states[0] == "42P01" and states[1][:2] in ("22", "42") and states[2] == "25006", states
    check(db.execute("SELECT count(*) FROM silver.orders").fetchone(), (3,))

print(json.dumps({"checks": checks}))
