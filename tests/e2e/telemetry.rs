//! Traces and metrics of the built binary, as a receiver made of OpenTelemetry's own Python
//! package decodes them.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use levada_testkit::wait::Look;
use levada_testkit::{Answer, Connection, Request, eventually, program, python};
use serde_json::{Value, json};

use crate::world::{SOON, World, event};

const SETTINGS: &str = "name: shop\ntenants: [acme]\npubsub:\n  projects:\n    - shared-events\n";
const ORDERS: &str = "shared-events/topics/orders";
const WORKER: &str = "shared-events/subscriptions/worker";

/// The receiver, as a process of its own.
struct Receiver {
    child: Child,
    address: String,
}

impl Receiver {
    fn start() -> Result<Self> {
        let mut child = Command::new(python::interpreter()?)
            .arg(program::workspace().join("tests/python/otlp_receiver.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        let out = child.stdout.take().context("it prints its address")?;
        BufReader::new(out).read_line(&mut address)?;
        ensure!(!address.is_empty(), "the receiver did not start");
        Ok(Self { child, address: address.trim().to_owned() })
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn get(&self, path: &str) -> Result<Value> {
        Connection::open(&self.address)?.send(&Request::get(path))?.expect(200)?.json()
    }

    fn behave(&self, behaviour: &Value) -> Result<()> {
        Connection::open(&self.address)?.send(&Request::post("/behave").json(behaviour))?.expect(200)?;
        Ok(())
    }

    /// Spans with that value of an attribute, once there are so many of them.
    fn await_spans(&self, attribute: &str, value: &Value, count: usize) -> Result<Vec<Value>> {
        eventually(&format!("{count} spans with {attribute} {value}"), SOON, || {
            let all = self.get("/spans")?;
            let all = all.as_array().context("a list")?;
            let found: Vec<Value> =
                all.iter().filter(|span| span["attributes"][attribute] == *value).cloned().collect();
            ensure!(found.len() <= count, "more spans than expected: {found:?}");
            Ok(match found.len() == count {
                true => Look::Done(found),
                false => Look::NotYet(format!("{} of {}", found.len(), all.len())),
            })
        })
    }

    fn faultless(&self) -> Result<Value> {
        let state = self.get("/state")?;
        ensure!(state["faults"] == json!([]), "{}", state["faults"]);
        Ok(state)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn call(world: &World, method: &str, path: &str, body: &Value) -> Result<Answer> {
    let request = Request::new(method, &format!("/v1/projects/{path}")).json(body).key(&world.admin);
    world.send(&request)?.expect(200)
}

fn start(endpoint: &str, more: &[(&str, &str)]) -> Result<World> {
    let mut env = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
    ];
    env.extend(more);
    let world = World::of(&[("levada.yaml", SETTINGS)], &env)?;
    call(&world, "PUT", ORDERS, &json!({}))?;
    call(&world, "PUT", WORKER, &json!({ "topic": format!("projects/{ORDERS}") }))?;
    Ok(world)
}

fn publish(world: &World, attributes: &Value) -> Result<String> {
    let body = json!({ "messages": [{ "data": "aGVsbG8=", "attributes": attributes }] });
    let answer = call(world, "POST", &format!("{ORDERS}:publish"), &body)?.json()?;
    Ok(answer["messageIds"][0].as_str().context("an id")?.to_owned())
}

/// The next message of a subscription.
fn pull(world: &World, subscription: &str) -> Result<Value> {
    eventually("a message", SOON, || {
        let body = json!({ "maxMessages": 1 });
        let answer = call(world, "POST", &format!("{subscription}:pull"), &body)?.json()?;
        Ok(match answer["receivedMessages"].get(0) {
            Some(received) => Look::Done(received.clone()),
            None => Look::NotYet("none".to_owned()),
        })
    })
}

fn acknowledge(world: &World, subscription: &str, received: &Value) -> Result<()> {
    let body = json!({ "ackIds": [received["ackId"]] });
    call(world, "POST", &format!("{subscription}:acknowledge"), &body)?;
    Ok(())
}

fn of_kind<'a>(spans: &'a [Value], kind: &str) -> Result<&'a Value> {
    spans.iter().find(|span| span["kind"] == kind).with_context(|| format!("no {kind} among {spans:?}"))
}

fn has(span: &Value, expected: &Value) -> Result<()> {
    for (name, value) in expected.as_object().context("an object")? {
        ensure!(span["attributes"][name] == *value, "{name} is not {value} in {span}");
    }
    Ok(())
}

#[test]
fn a_message_is_one_trace_from_publish_to_acknowledgement() -> Result<()> {
    let receiver = Receiver::start()?;
    let world = start(
        &receiver.endpoint(),
        &[
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_SERVICE_NAME", "shop-events"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
        ],
    )?;
    let attributes =
        json!({ "tenant_id": "acme", "correlation_id": "order-7", "event_type": "order.created" });
    let id = publish(&world, &attributes)?;
    let received = pull(&world, WORKER)?;
    ensure!(received["message"]["attributes"] == attributes, "it does not come as it went: {received}");
    acknowledge(&world, WORKER, &received)?;

    let spans = receiver.await_spans("levada.correlation_id", &json!("order-7"), 2)?;
    let (publish_span, process) =
        (of_kind(&spans, "SPAN_KIND_PRODUCER")?, of_kind(&spans, "SPAN_KIND_CONSUMER")?);
    ensure!(publish_span["trace"] == process["trace"], "{spans:?}");
    ensure!(process["parent"] == publish_span["id"] && publish_span["parent"] == "", "{spans:?}");
    ensure!(publish_span["name"] == "publish shared-events/orders", "{publish_span}");
    ensure!(process["name"] == "process shared-events/worker", "{process}");
    let both = json!({
        "messaging.system": "levada", "messaging.destination.name": "shared-events/orders",
        "messaging.message.id": id, "messaging.message.conversation_id": "order-7",
        "messaging.message.body.size": 5, "levada.tenant_id": "acme", "levada.event_type": "order.created",
    });
    has(publish_span, &both)?;
    has(process, &both)?;
    has(publish_span, &json!({ "messaging.operation.type": "send" }))?;
    has(
        process,
        &json!({
            "messaging.operation.type": "process", "levada.outcome": "acked", "levada.delivery_attempt": 1,
            "messaging.destination.subscription.name": "shared-events/worker",
        }),
    )?;
    let time = |span: &Value, name: &str| span[name].as_u64().context("a time");
    ensure!(time(process, "end_ns")? >= time(process, "start_ns")?);
    ensure!(time(process, "start_ns")? >= time(publish_span, "start_ns")?, "{spans:?}");
    let resource = &process["resource"];
    ensure!(resource["service.name"] == "shop-events" && resource["levada.project"] == "shop", "{resource}");
    ensure!(resource["deployment.environment"] == "test", "{resource}");

    // Another message of the same correlation: the same trace. One that is given back says so.
    publish(&world, &attributes)?;
    let received = pull(&world, WORKER)?;
    let back = json!({ "ackIds": [received["ackId"]], "ackDeadlineSeconds": 0 });
    call(&world, "POST", &format!("{WORKER}:modifyAckDeadline"), &back)?;
    let spans = receiver.await_spans("levada.correlation_id", &json!("order-7"), 4)?;
    ensure!(spans.iter().all(|span| span["trace"] == publish_span["trace"]), "{spans:?}");
    let nacked = spans.iter().filter(|span| span["attributes"]["levada.outcome"] == "nacked").count();
    ensure!(nacked == 1, "{spans:?}");

    let state = receiver.faultless()?;
    ensure!(state["headers"]["authorization"] == "Bearer hunter2", "{state}");
    ensure!(state["headers"]["content-encoding"] == "gzip", "{state}");
    ensure!(!world.levada.log_tail().contains("hunter2"), "a secret is in the log");
    Ok(())
}

#[test]
fn an_event_of_the_gateway_is_followed_too() -> Result<()> {
    const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let receiver = Receiver::start()?;
    let world = start(&receiver.endpoint(), &[])?;
    let subscription = "shop/subscriptions/all";
    call(&world, "PUT", subscription, &json!({ "topic": "projects/shop/topics/events" }))?;

    // The client's trace: its span, the request's, the publish's, the delivery's.
    let first = event("acme", "order.created", "e1", json!({}));
    let request = Request::post("/v1/events").key(&world.admin).header("traceparent", SENT).json(&first);
    world.send(&request)?.expect(202)?;
    let received = pull(&world, subscription)?;
    acknowledge(&world, subscription, &received)?;
    let spans = receiver.await_spans("levada.event_type", &json!("order.created"), 2)?;
    let (publish, process) = (of_kind(&spans, "SPAN_KIND_PRODUCER")?, of_kind(&spans, "SPAN_KIND_CONSUMER")?);
    let server = receiver.await_spans("http.route", &json!("/v1/events"), 1)?.remove(0);
    ensure!(server["trace"] == "4bf92f3577b34da6a3ce929d0e0e4736" && server["parent"] == "00f067aa0ba902b7");
    ensure!(server["attributes"]["http.response.status_code"] == 202, "{server}");
    ensure!(publish["trace"] == server["trace"] && publish["parent"] == server["id"], "{publish} {server}");
    ensure!(process["trace"] == server["trace"] && process["parent"] == publish["id"], "{process} {publish}");
    has(publish, &json!({ "messaging.destination.name": "shop/events", "levada.tenant_id": "acme" }))?;
    // What goes on from the event's own context is below its publish.
    let context = received["message"]["attributes"]["traceparent"].as_str().unwrap_or_default();
    ensure!(context.contains(publish["id"].as_str().unwrap_or("?")), "{context}");

    // Without a client's trace it is that of the correlation id, linked to the request.
    for id in ["e2", "e3"] {
        let mut second = event("acme", "order.paid", id, json!({}));
        second["correlation_id"] = json!("order-8");
        world.publish(&world.admin, &[second])?;
    }
    let spans = receiver.await_spans("levada.event_type", &json!("order.paid"), 2)?;
    ensure!(spans[0]["trace"] == spans[1]["trace"] && spans[0]["id"] != spans[1]["id"], "{spans:?}");
    let servers = receiver.await_spans("http.route", &json!("/v1/events"), 3)?;
    let linked = |span: &Value| {
        let link = &span["links"][0];
        servers.iter().any(|server| server["trace"] == link["trace"] && server["id"] == link["id"])
    };
    ensure!(spans.iter().all(linked), "{spans:?} {servers:?}");
    receiver.faultless()?;
    Ok(())
}

/// A figure of `/metrics`, by its whole name with labels.
fn figure(world: &World, name: &str) -> Result<Option<f64>> {
    let text = world.send(&Request::get("/metrics").key(&world.admin))?.expect(200)?.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|value| Ok(value.parse()?)).transpose()
}

#[test]
fn metrics_are_those_of_the_metrics_page() -> Result<()> {
    let receiver = Receiver::start()?;
    let world = start(&receiver.endpoint(), &[("OTEL_TRACES_EXPORTER", "none")])?;
    for _ in 0..7 {
        publish(&world, &json!({ "tenant_id": "acme" }))?;
    }
    let told = |metric: &Value, label: (&str, &str)| {
        let points = metric["points"].as_array().cloned().unwrap_or_default();
        points.into_iter().find(|point| label.0.is_empty() || point["attributes"][label.0] == label.1)
    };
    // The topic's label is the log's own name of it.
    let published = eventually("the counter of published messages", SOON, || {
        let metric = receiver.get("/metrics")?["levada_bus_published_total"].clone();
        let points = metric["points"].as_array().cloned().unwrap_or_default();
        Ok(match points.iter().find(|point| point["value"] == 7) {
            Some(point) => Look::Done((metric.clone(), point.clone())),
            None => Look::NotYet(format!("{points:?}")),
        })
    })?;
    let (metric, point) = published;
    ensure!(metric["kind"] == "sum" && metric["monotonic"] == true, "{metric}");
    ensure!(metric["description"].as_str().is_some_and(|text| text.contains("accepted")), "{metric}");
    let topic = point["attributes"]["topic"].as_str().context("a topic")?;
    let page = figure(&world, &format!("levada_bus_published_total{{topic=\"{topic}\"}}"))?;
    ensure!(page == Some(7.0), "{page:?}");
    ensure!(point["start_ns"].as_u64() < point["time_ns"].as_u64(), "{point}");

    let bytes = &receiver.get("/metrics")?["levada_bus_published_bytes_total"];
    ensure!(bytes["unit"] == "By", "{bytes}");
    let page = figure(&world, &format!("levada_bus_published_bytes_total{{topic=\"{topic}\"}}"))?;
    let point = told(bytes, ("topic", topic)).context("a point")?;
    ensure!(point["value"].as_f64() == page, "{point} {page:?}");

    let route = "levada_http_request_duration_seconds";
    let histogram = &receiver.get("/metrics")?[route];
    ensure!(histogram["kind"] == "histogram" && histogram["unit"] == "s", "{histogram}");
    let point = told(histogram, ("", "")).context("a point")?;
    let count: u64 = point["buckets"].as_array().context("buckets")?.iter().filter_map(Value::as_u64).sum();
    ensure!(point["count"] == count && count > 0, "{point}");
    ensure!(receiver.get("/spans")? == json!([]), "traces are off");
    receiver.faultless()?;
    Ok(())
}

fn await_log(world: &World, text: &str) -> Result<()> {
    eventually(&format!("`{text}` in the log"), SOON, || {
        let log = world.levada.log_tail();
        Ok(if log.contains(text) { Look::Done(()) } else { Look::NotYet(log) })
    })
}

#[test]
fn a_collector_that_refuses_for_a_while_gets_everything_once() -> Result<()> {
    let receiver = Receiver::start()?;
    receiver.behave(&json!({ "status": 503, "retry_after": "1" }))?;
    let mut world = start(&receiver.endpoint(), &[])?;
    for n in 0..5 {
        publish(&world, &json!({ "tenant_id": "acme", "correlation_id": "held", "n": n.to_string() }))?;
    }
    eventually("requests are refused", SOON, || {
        let refused = receiver.get("/state")?["refused"]["traces"].as_u64().unwrap_or(0);
        Ok(if refused >= 2 { Look::Done(()) } else { Look::NotYet(refused.to_string()) })
    })?;
    receiver.behave(&json!({ "status": 200, "retry_after": null }))?;
    receiver.await_spans("levada.correlation_id", &json!("held"), 5)?;
    let failed = figure(&world, "levada_telemetry_exports_failed_total{signal=\"traces\"}")?;
    ensure!(failed.is_some_and(|failed| failed >= 2.0), "{failed:?}");
    await_log(&world, "telemetry is exported again")?;

    // What was not sent yet goes out when the server stops.
    publish(&world, &json!({ "tenant_id": "acme", "correlation_id": "last" }))?;
    let status = world.levada.terminate(Duration::from_secs(30))?;
    ensure!(status.success(), "{}", world.levada.log_tail());
    receiver.await_spans("levada.correlation_id", &json!("last"), 1)?;
    receiver.await_spans("levada.correlation_id", &json!("held"), 5)?;
    receiver.faultless()?;
    Ok(())
}

#[test]
fn a_collector_that_is_not_there_costs_nothing_but_spans() -> Result<()> {
    // Taken and given back: nobody listens there.
    let nowhere = format!("http://{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    let mut world =
        start(&nowhere, &[("OTEL_BSP_MAX_QUEUE_SIZE", "8"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")])?;
    for _ in 0..50 {
        publish(&world, &json!({ "tenant_id": "acme" }))?;
    }
    let dropped = figure(&world, "levada_telemetry_spans_dropped_total{reason=\"queue_full\"}")?;
    ensure!(dropped.is_some_and(|dropped| dropped >= 30.0), "{dropped:?}");
    await_log(&world, "telemetry cannot be exported")?;
    let status = world.levada.terminate(Duration::from_secs(30))?;
    ensure!(status.success(), "{}", world.levada.log_tail());
    Ok(())
}

#[test]
fn a_setting_that_would_not_be_followed_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("levada.yaml"), "name: shop\n")?;
    crate::world::build()?;
    let output = Command::new(program::binary()?)
        .args(["up", crate::world::text(dir.path()), "--otlp-endpoint", "http://127.0.0.1:4317"])
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{said}");
    ensure!(said.contains("OTEL_EXPORTER_OTLP_PROTOCOL") && said.contains("4318"), "{said}");
    Ok(())
}
