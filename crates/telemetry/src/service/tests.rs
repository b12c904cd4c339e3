//! The export against a collector that the test leads.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use bytes::Bytes;
use levada_core::SystemClock;
use parking_lot::Mutex;
use prost::Message;

use super::*;
use crate::context::{SpanId, TraceId};
use crate::proto::metric::Data;
use crate::proto::number_data_point::Value as Number;
use crate::proto::{ExportServiceResponse, PartialSuccess};
use crate::span::Kind;

const PATIENCE: Duration = Duration::from_secs(60);

/// One request that came.
#[derive(Clone)]
struct Came {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// Status, `Retry-After` and body.
type Answer = (StatusCode, &'static str, Bytes);

/// A collector that answers as it is told, and then with 200.
#[derive(Clone)]
struct Collector {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    came: Arc<watch::Sender<Vec<Came>>>,
    url: String,
}

impl Collector {
    async fn start(answers: Vec<(u16, &'static str, Bytes)>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = answers
            .into_iter()
            .map(|(status, after, body)| (StatusCode::from_u16(status).unwrap(), after, body));
        let collector = Self {
            answers: Arc::new(Mutex::new(answers.collect())),
            came: Arc::new(watch::Sender::new(Vec::new())),
            url: format!("http://{}", listener.local_addr().unwrap()),
        };
        let app = Router::new().fallback(answer).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        collector
    }

    /// The requests, once there are so many.
    async fn requests(&self, count: usize) -> Vec<Came> {
        let mut came = self.came.subscribe();
        let got = tokio::time::timeout(PATIENCE, came.wait_for(|came| came.len() >= count)).await;
        got.expect("requests in time").expect("a collector").clone()
    }
}

async fn answer(
    State(collector): State<Collector>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 1], Bytes) {
    let next = collector.answers.lock().pop_front();
    collector.came.send_modify(|came| came.push(Came { path: uri.path().to_owned(), headers, body }));
    let (status, after, body) = next.unwrap_or((StatusCode::OK, "", Bytes::new()));
    (status, [("retry-after", after)], body)
}

fn start(url: &str, variables: &[(&str, &str)], figures: Option<(Render, Units)>) -> Telemetry {
    let look = |name: &str| {
        let set = variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        set.or_else(|| (name == "OTEL_BSP_SCHEDULE_DELAY").then(|| "100".to_owned()))
    };
    let config = Config::from_variables(&look, Some(url)).unwrap().unwrap();
    Telemetry::start(Parts {
        config,
        resource: vec![("service.instance.id".to_owned(), "i1".to_owned())],
        figures,
        clock: Arc::new(SystemClock::new()),
        jitter: Arc::new(|| 0.0),
    })
    .unwrap()
}

fn span(n: u64) -> Span {
    Span {
        trace: TraceId::of("test", &[]),
        id: SpanId::of("test", &[&n.to_le_bytes()]),
        parent: None,
        link: None,
        state: Box::default(),
        name: format!("span {n}").into(),
        kind: Kind::Producer,
        start_ns: n,
        end_ns: n + 1,
        attributes: vec![("n", n.into())],
        failure: None,
    }
}

fn names(body: &[u8]) -> Vec<String> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let scopes = request.resource_spans.iter().flat_map(|r| &r.scope_spans);
    scopes.flat_map(|scope| scope.spans.iter().map(|span| span.name.clone())).collect()
}

#[tokio::test]
async fn spans_go_out_together_with_headers_and_resource() {
    let collector = Collector::start(Vec::new()).await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_SERVICE_NAME", "shop"),
    ];
    let telemetry = start(&collector.url, &variables, None);
    (0..3).for_each(|n| telemetry.tracer().unwrap().emit(span(n)));
    let came = collector.requests(1).await.remove(0);
    assert_eq!(came.path, "/v1/traces");
    assert_eq!(came.headers["authorization"], "Bearer x");
    assert_eq!(came.headers["content-type"], "application/x-protobuf");
    assert_eq!(came.headers["content-encoding"], "gzip");
    let mut body = Vec::new();
    flate2::read::GzDecoder::new(&*came.body).read_to_end(&mut body).unwrap();
    assert_eq!(names(&body), ["span 0", "span 1", "span 2"]);
    let request = ExportTraceServiceRequest::decode(&*body).unwrap();
    let resource = request.resource_spans[0].resource.clone().unwrap();
    assert!(resource.attributes.contains(&text("service.name", "shop")));
    assert!(resource.attributes.contains(&text("service.instance.id", "i1")));
    telemetry.stop(PATIENCE).await;
}

#[tokio::test]
async fn what_is_worth_another_try_is_sent_again() {
    let none = Bytes::new();
    let answers = vec![(503, "0", none.clone()), (429, "0", none.clone()), (502, "0", none)];
    let collector = Collector::start(answers).await;
    let telemetry = start(&collector.url, &[], None);
    telemetry.tracer().unwrap().emit(span(7));
    let came = collector.requests(4).await;
    assert!(came.iter().all(|came| names(&came.body) == ["span 7"]));
    let drops = telemetry.drops.clone();
    telemetry.stop(PATIENCE).await;
    assert_eq!(drops.total(), 0);
    assert_eq!(collector.requests(4).await.len(), 4, "what was taken is not sent again");
}

#[tokio::test]
async fn what_the_collector_refuses_is_counted_and_does_not_hold_up_the_rest() {
    let part = ExportServiceResponse {
        partial_success: Some(PartialSuccess { rejected: 1, error_message: "too old".to_owned() }),
    };
    let answers = vec![(400, "", Bytes::new()), (200, "", part.encode_to_vec().into())];
    let collector = Collector::start(answers).await;
    let telemetry = start(&collector.url, &[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")], None);
    (0..6).for_each(|n| telemetry.tracer().unwrap().emit(span(n)));
    let came = collector.requests(3).await;
    assert_eq!(names(&came[2].body), ["span 4", "span 5"]);
    let drops = telemetry.drops.clone();
    telemetry.stop(PATIENCE).await;
    assert_eq!((drops.of(Reason::Refused), drops.total()), (3, 3), "two of a batch, one of another");
}

#[tokio::test]
async fn a_collector_that_is_gone_costs_spans_and_nothing_else() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let variables = [("OTEL_BSP_MAX_QUEUE_SIZE", "10"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5")];
    let telemetry = start(&format!("http://{gone}"), &variables, None);
    // Without a moment for the export in between: nothing of it can wait.
    (0..100).for_each(|n| telemetry.tracer().unwrap().emit(span(n)));
    assert_eq!(telemetry.drops.of(Reason::QueueFull), 90);
    let begun = std::time::Instant::now();
    telemetry.stop(Duration::from_millis(300)).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "the stop is bounded");
}

#[tokio::test]
async fn a_stop_sends_what_waits_and_the_last_figures() {
    let collector = Collector::start(Vec::new()).await;
    let looks = Arc::new(AtomicU64::new(40));
    let counted = looks.clone();
    let render: Render = Arc::new(move || {
        format!("# TYPE a_total counter\na_total {}\n", counted.fetch_add(1, Ordering::Relaxed))
    });
    let variables = [("OTEL_BSP_SCHEDULE_DELAY", "3600000"), ("OTEL_METRIC_EXPORT_INTERVAL", "3600000")];
    let telemetry = start(&collector.url, &variables, Some((render, Units::default())));
    let count = 1_300;
    (0..count).for_each(|n| telemetry.tracer().unwrap().emit(span(n)));
    telemetry.stop(PATIENCE).await;
    let came = collector.requests(4).await;
    let sent: usize = came.iter().filter(|c| c.path == "/v1/traces").map(|c| names(&c.body).len()).sum();
    assert_eq!(sent, 1_300, "in {} requests", came.len());
    let figures = came.iter().find(|came| came.path == "/v1/metrics").expect("figures");
    assert_eq!(a_total(&figures.body), 40);
}

fn a_total(body: &[u8]) -> i64 {
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
    let Some(Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
    let Some(Number::Int(value)) = sum.data_points[0].value else { panic!("{sum:?}") };
    value
}

#[tokio::test]
async fn figures_that_were_not_taken_are_looked_at_again() {
    let collector = Collector::start(vec![(503, "0", Bytes::new())]).await;
    let looks = Arc::new(AtomicU64::new(1));
    let render: Render = Arc::new(move || {
        format!("# TYPE a_total counter\na_total {}\n", looks.fetch_add(1, Ordering::Relaxed))
    });
    let variables = [("OTEL_METRIC_EXPORT_INTERVAL", "100"), ("OTEL_TRACES_EXPORTER", "none")];
    let telemetry = start(&collector.url, &variables, Some((render, Units::default())));
    assert!(telemetry.tracer().is_none());
    let came = collector.requests(3).await;
    let values: Vec<i64> = came.iter().take(3).map(|came| a_total(&came.body)).collect();
    assert_eq!(values, [1, 2, 3]);
    telemetry.stop(PATIENCE).await;
}

#[tokio::test]
async fn a_collector_that_names_an_endless_pause_ends_neither_export() {
    // A second has to have passed: the longest pause in seconds leaves room for less.
    let answers = vec![(503, "1", Bytes::new()), (503, "18446744073709551615", Bytes::new())];
    let (traces, metrics) = (Collector::start(answers.clone()).await, Collector::start(answers).await);
    let spans = start(&traces.url, &[("OTEL_METRICS_EXPORTER", "none")], None);
    let variables = [("OTEL_METRIC_EXPORT_INTERVAL", "100"), ("OTEL_TRACES_EXPORTER", "none")];
    let render: Render = Arc::new(|| "# TYPE a_total counter\na_total 3\n".to_owned());
    let figures = start(&metrics.url, &variables, Some((render, Units::default())));
    spans.tracer().unwrap().emit(span(1));
    traces.requests(2).await;
    spans.tracer().unwrap().emit(span(2));
    assert_eq!(names(&traces.requests(3).await[2].body), ["span 2"], "the next batch goes out");
    assert_eq!(spans.drops.of(Reason::Unreachable), 1);
    assert_eq!(a_total(&metrics.requests(3).await[2].body), 3, "the next figures go out");
    spans.stop(PATIENCE).await;
    figures.stop(PATIENCE).await;
}
