//! A second tenant's key sees nothing and changes nothing: at every address of the gateway and
//! in SQL through both doors. Whatever belongs to the first tenant carries a word that must
//! not appear in any answer.

use anyhow::{Context, Result, ensure};
use levada_testkit::wait::Look;
use levada_testkit::{Answer, Request, eventually};
use serde_json::{Value, json};

use crate::world::{SOON, World, event};

/// In every name, id and payload of the first tenant.
const SECRET: &str = "xylophone";

const SHARED: &str = "\
pipeline: orders
source:
  events: {topic: orders, event_types: [\"order.*\"]}
schema: {file: schemas/orders.json}
";
const OWN: &str = "\
pipeline: xylophone_sales
source:
  events: {topic: xylophone-sales, event_types: [\"sale.*\"]}
schema: {file: schemas/orders.json}
";
const FIELDS: &str = r#"{"source_id": "orders", "version": "1", "fields": [
  {"name": "item", "type": "STRING", "mode": "REQUIRED"},
  {"name": "pieces", "type": "INT64", "mode": "REQUIRED"}
]}"#;
const MODEL: &str = "\
--! schedule: on_change 1s
--! shared: true
select tenant_id, item, sum(pieces) as pieces from silver.orders group by tenant_id, item
";
const OWN_MODEL: &str =
    "--! schedule: on_change 1s\nselect item, count(*) as n from silver.xylophone_sales group by item\n";

/// The first tenant with data in every place, and what it sees of it.
struct Scene {
    world: World,
    first: String,
    /// Keys of the second tenant, with every role between them.
    second: Vec<String>,
    first_key_id: String,
}

fn scene() -> Result<Scene> {
    let world = World::of(
        &[
            ("levada.yaml", "name: isolation\ntenants: [first, second]\n"),
            ("pipelines/orders.yaml", SHARED),
            ("schemas/orders.json", FIELDS),
            ("models/items.sql", MODEL),
            ("tenants/first/pipelines/xylophone_sales.yaml", OWN),
            ("tenants/first/schemas/orders.json", FIELDS),
            ("tenants/first/models/xylophone_items.sql", OWN_MODEL),
        ],
        &[],
    )?;
    let key = |tenant: &str, name: &str, roles: &[&str]| -> Result<(String, String)> {
        let body = json!({ "name": name, "tenants": [tenant], "roles": roles });
        let answer =
            world.send(&Request::post("/v1/keys").key(&world.admin).json(&body))?.expect(201)?.json()?;
        let text = |field: &str| answer[field].as_str().map(str::to_owned).context("a key has it");
        Ok((text("id")?, text("key")?))
    };
    let (first_key_id, first) = key("first", SECRET, &["admin", "engineer"])?;
    let second = vec![
        key("second", "all", &["admin", "engineer", "analyst", "steward", "security", "service", "client"])?
            .1,
        key("second", "engineer", &["engineer"])?.1,
        key("second", "analyst", &["analyst"])?.1,
        key("second", "client", &["client"])?.1,
    ];
    let order = |n: u64| {
        event("first", "order.placed", &format!("{SECRET}-{n}"), json!({ "item": SECRET, "pieces": n }))
    };
    let sale = |n: u64| {
        event("first", "sale.made", &format!("{SECRET}-{n}"), json!({ "item": SECRET, "pieces": n }))
    };
    let bad =
        event("first", "order.placed", &format!("{SECRET}-bad"), json!({ "item": SECRET, "pieces": SECRET }));
    let mut events: Vec<Value> = (0..20).flat_map(|n| [order(n), sale(n)]).collect();
    events.push(bad);
    world.publish(&first, &events)?;
    let own = event("second", "order.placed", "mine-1", json!({ "item": "drum", "pieces": 1 }));
    world.publish(&second[0], &[own])?;
    let scene = Scene { world, first, second, first_key_id };
    scene.world.await_count(&scene.first, "select sum(pieces) from gold.items", 190)?;
    scene.world.await_count(&scene.first, "select n from gold.xylophone_items", 20)?;
    scene.world.await_dead(&scene.first, "schema-type", 1)?;
    scene.world.await_count(&scene.second[0], "select count(*) from silver.orders", 1)?;
    Ok(scene)
}

impl Scene {
    /// What the first tenant sees; it must not change by what the second does.
    fn state(&self) -> Result<Value> {
        let count = |query: &str| self.world.count(&self.first, query);
        let messages = self.world.get(&self.first, "/v1/topics/orders/messages?limit=1000")?;
        let dead: Vec<Value> = self.world.dead_letters(&self.first)?;
        let keys = self.world.get(&self.first, "/v1/keys")?;
        Ok(json!({
            "orders": count("select count(*) from silver.orders")?,
            "sales": count("select count(*) from silver.xylophone_sales")?,
            "items": count("select count(*) from gold.items")?,
            "messages": messages["messages"].as_array().map(Vec::len),
            "dead": dead.iter().map(|d| json!([d["offset"], d["resent"]])).collect::<Vec<_>>(),
            "keys": keys["keys"].as_array().map(Vec::len),
            "key": keys["keys"].as_array().context("keys")?.iter().map(|k| k["state"].clone()).collect::<Vec<_>>(),
        }))
    }

    fn check(&self, what: &str, answer: &Answer) -> Result<()> {
        let text = answer.text().to_lowercase();
        // A refusal may repeat the name that the caller itself sent.
        let echo = answer.status >= 400 && what.to_lowercase().contains(SECRET);
        ensure!(
            echo || !text.contains(SECRET),
            "{what} shows what is another tenant's: {} {text:.3000}",
            answer.status
        );
        let headers = format!("{:?}", answer.headers).to_lowercase();
        ensure!(echo || !headers.contains(SECRET), "{what}: {headers}");
        ensure!(answer.status < 500, "{what}: {} {text}", answer.status);
        Ok(())
    }
}

#[test]
fn no_address_of_the_gateway_shows_or_changes_another_tenants_things() -> Result<()> {
    let scene = scene()?;
    let before = scene.state()?;
    let document = scene.world.send(&Request::get("/openapi.json"))?.expect(200)?.json()?;
    let paths = document["paths"].as_object().context("paths")?;
    let mut tried = 0;
    for key in &scene.second {
        for (path, methods) in paths {
            for method in methods.as_object().context("methods")?.keys() {
                for (path, body) in calls(path, method, &scene) {
                    let mut request = Request::new(&method.to_uppercase(), &path).key(key);
                    if let Some(body) = &body {
                        request = request.json(body);
                    }
                    let what = format!("{method} {path} {}", body.unwrap_or_default());
                    scene.check(&what, &scene.world.send(&request)?)?;
                    tried += 1;
                }
            }
        }
    }
    ensure!(tried > 100, "every address is tried with every key: {tried}");
    let after = scene.state()?;
    ensure!(before == after, "{before} became {after}");
    Ok(())
}

/// Of the shared pipeline, as a key sees it: what came in, out and to the dead letter, what waits.
fn figures(scene: &Scene, key: &str) -> Result<Value> {
    let answer = scene.world.get(key, "/v1/pipelines")?;
    let pipelines = answer["pipelines"].as_array().context("pipelines")?;
    let orders = pipelines.iter().find(|p| p["name"] == "orders").context("the shared pipeline")?;
    let counts = &orders["counts"];
    Ok(json!([counts["in"], counts["out"], counts["dead"], orders["backlog"]]))
}

fn await_value(what: &str, expected: &Value, look: impl Fn() -> Result<Value>) -> Result<()> {
    eventually(&format!("{what} = {expected}"), SOON, || {
        let seen = look()?;
        Ok(if seen == *expected { Look::Done(()) } else { Look::NotYet(seen.to_string()) })
    })
}

/// A page of the console for the holder of a key.
fn page(scene: &Scene, key: &str, path: &str) -> Result<String> {
    let form = Request::post("/console/sign-in")
        .bytes("application/x-www-form-urlencoded", format!("key={key}").into_bytes());
    let signed = scene.world.send(&form)?.expect(303)?;
    let cookie = signed.header("set-cookie").context("a session")?.split(';').next().unwrap_or_default();
    Ok(scene.world.send(&Request::get(path).header("cookie", cookie))?.expect(200)?.text())
}

#[test]
fn of_a_shared_pipeline_each_tenant_sees_its_own_figures_and_none_of_the_others() -> Result<()> {
    let mut scene = scene()?;
    let (first, second) = (scene.first.clone(), scene.second[1].clone());
    let admin = scene.world.admin.clone();
    let expected = [
        (&first, "first", json!([21, 20, 1, 0])),
        (&second, "second", json!([1, 1, 0, 0])),
        (&admin, "the platform", json!([22, 21, 1, 0])),
    ];
    for (key, whose, figures_of) in &expected {
        await_value(&format!("figures of {whose}"), figures_of, || figures(&scene, key))?;
    }
    // The first has a pipeline of its own, too.
    for (key, records) in [(&first, [41, 40]), (&second, [1, 1]), (&admin, [42, 41])] {
        let look =
            || scene.world.get(key, "/v1/status").map(|s| json!([s["records"]["in"], s["records"]["out"]]));
        await_value("records of the status", &json!(records), look)?;
    }
    for (key, came_in, steps) in [(&first, 21, 0), (&second, 1, 0), (&admin, 22, 1)] {
        let page = page(&scene, key, "/console/pipelines/orders")?;
        let shown = format!("<dt>In</dt><dd><span class=\"big\">{came_in}</span>");
        ensure!(page.contains(&shown), "{came_in} came in: {page}");
        let with_counts = page.matches("<dl class=\"flow\">").count();
        ensure!(with_counts == steps, "{with_counts} steps show what they did to the rows of all: {page}");
        ensure!(page.contains("<td class=\"n\" data-l=\"Rows\">"), "an epoch of their own is there: {page}");
    }
    for (key, rows, sources) in
        [(&first, 41, "2 sources"), (&second, 1, "1 source"), (&admin, 42, "2 sources")]
    {
        let zone = format!(
            "<li class=\"bronze\"><span class=\"stage\">bronze</span><span class=\"amount\" title=\"{rows}\">"
        );
        let look = || {
            let page = page(&scene, key, "/console")?;
            Ok(json!([page.contains(&zone), page.contains(&format!("{sources} · "))]))
        };
        await_value(&format!("{rows} rows of {sources} in bronze"), &json!([true, true]), look)?;
    }

    // They are part of each epoch, so they outlive a process that had no time to say good-bye.
    scene.world.levada.kill();
    scene.world.restart()?;
    for (key, whose, figures_of) in &expected {
        await_value(&format!("figures of {whose} after a kill"), figures_of, || figures(&scene, key))?;
    }
    Ok(())
}

/// Requests for an address that reach for the first tenant's things.
fn calls(path: &str, method: &str, scene: &Scene) -> Vec<(String, Option<Value>)> {
    let order =
        |tenant: &str| event(tenant, "order.placed", "xylophone-1", json!({ "item": "stolen", "pieces": 1 }));
    match (method, path) {
        ("post", "/v1/events") => vec![
            (path.into(), Some(order("first"))),
            (path.into(), Some(json!([order("first"), order("first")]))),
            ("/v1/events?topic=xylophone-sales".into(), Some(order("second"))),
            ("/v1/events?topic=orders-dlq".into(), Some(order("second"))),
        ],
        ("post", "/v1/sql") => {
            ATTEMPTS.iter().map(|sql| (path.into(), Some(json!({ "sql": sql })))).collect()
        }
        ("get", "/v1/topics/{topic}/messages") => {
            ["orders", "orders-dlq", "xylophone-sales", "xylophone-sales-dlq", "events"]
                .iter()
                .flat_map(|t| {
                    [
                        format!("/v1/topics/{t}/messages?limit=1000"),
                        format!("/v1/topics/{t}/messages?from=5&limit=1"),
                    ]
                })
                .map(|path| (path, None))
                .collect()
        }
        ("get", "/v1/dead-letters") => vec![
            (path.into(), None),
            (format!("{path}?topic=orders"), None),
            (format!("{path}?topic=orders-dlq&limit=1000"), None),
            (format!("{path}?topic=xylophone-sales"), None),
        ],
        ("post", "/v1/dead-letters/resend") => vec![
            (path.into(), Some(json!({ "topic": "orders", "offsets": [0, 1, 2] }))),
            (path.into(), Some(json!({ "topic": "orders-dlq", "all": true }))),
            (path.into(), Some(json!({ "topic": "xylophone-sales", "all": true }))),
        ],
        ("post", "/v1/keys") => vec![
            (path.into(), Some(json!({ "name": "k", "tenants": ["first"], "roles": ["analyst"] }))),
            (path.into(), Some(json!({ "name": "k", "tenants": ["second", "first"], "roles": ["analyst"] }))),
            (path.into(), Some(json!({ "name": "k", "tenants": "all", "roles": ["analyst"] }))),
        ],
        ("delete", "/v1/keys/{id}") => vec![(format!("/v1/keys/{}", scene.first_key_id), None)],
        ("post", "/v1/models/{name}/run") => vec![("/v1/models/xylophone_items/run".into(), Some(json!({})))],
        _ => vec![(path.replace("{", "").replace("}", ""), None)],
    }
}

/// Queries that reach for the first tenant's rows.
const ATTEMPTS: [&str; 26] = [
    "select * from silver.orders",
    "select * from silver.orders where tenant_id = 'first'",
    "select * from silver.orders where tenant_id = 'first' or true",
    "select * from silver.orders union all select * from silver.orders where tenant_id <> 'second'",
    "with o as (select * from silver.orders) select * from o a cross join o b",
    "select (select max(item) from silver.orders where tenant_id = 'first')",
    "select count(*), max(item), min(tenant_id) from silver.orders",
    "select * from gold.items",
    "select * from bronze.orders",
    "select * from bronze.sales",
    "select * from silver.xylophone_sales",
    "select * from gold.xylophone_items",
    "select * from bronze.xylophone_sales",
    "select * from first.silver.xylophone_sales",
    "select * from levada.silver.orders",
    "select * from information_schema.tables",
    "select * from information_schema.columns",
    "select * from information_schema.df_settings",
    "show tables",
    "show all",
    "explain select * from silver.orders",
    "explain analyze select * from silver.orders",
    "describe silver.orders",
    "select * from read_parquet('/etc/passwd')",
    "create external table t stored as csv location '/etc/passwd'",
    "set datafusion.catalog.information_schema = true",
];

#[test]
fn sql_through_the_postgres_door_is_just_as_narrow() -> Result<()> {
    let scene = scene()?;
    let before = scene.state()?;
    let more = [
        "select * from pg_catalog.pg_tables",
        "select * from pg_catalog.pg_class",
        "select * from pg_catalog.pg_namespace",
        "copy silver.orders to '/tmp/out.csv'",
        "insert into silver.orders values ('first', 'drum', 1)",
        "delete from silver.orders",
        "drop table silver.orders",
    ];
    let queries: Vec<&str> = ATTEMPTS.into_iter().chain(more).collect();
    let address = scene.world.levada.postgres.clone().context("the PostgreSQL door is off")?;
    let (host, port) = address.rsplit_once(':').context("an address has a port")?;
    for key in &scene.second {
        for database in ["levada", "second", "first"] {
            let args = [host, port, key, database, &json!(queries).to_string()];
            let answers = levada_testkit::python::run(ATTEMPT_ALL, &args)?;
            let answers = answers.as_array().context("answers")?;
            ensure!(database != "first" || answers.is_empty(), "a database of another tenant opens");
            for (query, answer) in queries.iter().zip(answers) {
                let (outcome, text) =
                    (answer[0].as_str().unwrap_or_default(), answer[1].to_string().to_lowercase());
                let echo = outcome == "error" && query.contains(SECRET);
                ensure!(echo || !text.contains(SECRET), "{query} on {database}: {text}");
                let changes =
                    ["copy", "insert", "delete", "drop", "create"].iter().any(|word| query.starts_with(word));
                ensure!(!changes || outcome == "error", "{query} is refused: {text}");
            }
        }
    }
    let after = scene.state()?;
    ensure!(before == after, "{before} became {after}");
    let seen = scene.world.psycopg(&scene.second[0], "select tenant_id, item from silver.orders")?;
    ensure!(seen == json!([["second", "drum"]]), "and what is theirs is there: {seen}");
    Ok(())
}

const ATTEMPT_ALL: &str = "
import json, sys
import psycopg
host, port, key, database, queries = sys.argv[1:]
answers = []
try:
    connection = psycopg.connect(host=host, port=port, user='test', password=key, dbname=database, autocommit=True, connect_timeout=30)
except psycopg.OperationalError as error:
    print(json.dumps([]))
    sys.exit()
for query in json.loads(queries):
    try:
        cursor = connection.execute(query)
        answers.append(['rows', cursor.fetchall() if cursor.description else []])
    except psycopg.Error as error:
        answers.append(['error', str(error)])
print(json.dumps(answers, default=str))
";
