//! Enrichment against a real server that is well, down, slow and lying.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;
use levada_config::model::{Enrich, Field, FieldType, Owner};
use levada_core::{Backoff, Clock, Egress, EgressRule, ManualClock, SourceName, TenantId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Breakers, EnrichContext, EnrichStep};
use crate::rows;
use crate::steps::{BuildError, Passed, Transform};

/// What the server does with the n-th request (from 0) for a path.
type Script = Arc<dyn Fn(usize, &str) -> Reply + Send + Sync>;

enum Reply {
    Json(&'static str),
    Status(&'static str, &'static str),
    Long(usize),
    /// Never answers.
    Hang,
    /// Closes the connection.
    Drop,
}

struct Server {
    url: String,
    calls: Arc<AtomicUsize>,
}

impl Server {
    async fn start(script: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let calls = Arc::new(AtomicUsize::new(0));
        let (count, script): (_, Script) = (Arc::clone(&calls), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (count, script) = (Arc::clone(&count), Arc::clone(&script));
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                    let n = count.fetch_add(1, Ordering::SeqCst);
                    let (status, body) = match script(n, &path) {
                        Reply::Json(body) => ("200 OK", body.to_owned()),
                        Reply::Status(status, body) => (status, body.to_owned()),
                        Reply::Long(bytes) => ("200 OK", format!("{{\"x\":\"{}\"}}", "y".repeat(bytes))),
                        Reply::Hang => std::future::pending().await,
                        Reply::Drop => return,
                    };
                    let response = format!(
                        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLocation: /elsewhere\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    let _ = stream.write_all(response.as_bytes()).await;
                });
            }
        });
        Self { url, calls }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn field(name: &str, kind: FieldType, required: bool) -> Field {
    let path = vec![name.to_owned()];
    Field {
        name: SourceName::new(name).expect("a name"),
        path,
        kind,
        numbers: None,
        required,
        description: None,
    }
}

fn config(url: &str) -> Enrich {
    Enrich {
        name: SourceName::new("weather").expect("a name"),
        url: format!("{url}/at/{{station}}"),
        bearer_secret: None,
        fields: vec![field("temp", FieldType::Float64, true), field("sky", FieldType::String, false)],
        ttl: Duration::from_secs(300),
        timeout: Duration::from_secs(20),
        concurrency: 4,
        attempts: 3,
        breaker_failures: 5,
        breaker_open: Duration::from_secs(60),
        optional: false,
    }
}

struct Bench {
    step: EnrichStep,
    clock: Arc<ManualClock>,
}

impl Bench {
    fn new(config: &Enrich) -> Self {
        Self::of(config, &Owner::Shared, Egress::default()).expect("a step")
    }

    fn of(config: &Enrich, owner: &Owner, egress: Egress) -> Result<Self, BuildError> {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let context = EnrichContext {
            clock: clock.clone() as Arc<dyn Clock>,
            jitter: Arc::new(|| 0.5),
            secrets: Arc::new(|name| (name == "token").then(|| "s3cret".to_owned())),
            backoff: Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(2) },
            breakers: Breakers::default(),
            egress,
            cache_entries: 1000,
            answer_bytes: 1000,
        };
        let step = EnrichStep::new(config, &input(&[]).schema(), owner, &context)?;
        Ok(Self { step, clock })
    }

    /// `station=temp` of rows that pass, then `station code xattempts` of faults.
    async fn run(&self, stations: &[Option<&str>]) -> Vec<String> {
        let Passed { batch, faults } = self.step.run(input(stations)).await.expect("no defect");
        assert_eq!(batch.schema_ref(), self.step.schema());
        let station = batch.column(0).as_string::<i32>();
        let temp = batch.column_by_name("temp").expect("a column").as_primitive::<Float64Type>().clone();
        let passed = (0..batch.num_rows()).map(|at| {
            let value = if temp.is_null(at) { "null".into() } else { temp.value(at).to_string() };
            format!("{}={value}", station.value(at))
        });
        let faulty = faults.iter().map(|f| {
            assert!(f.stage == "enrich:weather" && !f.reason.is_empty());
            format!("{} {} x{}", stations[f.row as usize].unwrap_or("-"), f.code, f.attempts)
        });
        passed.chain(faulty).collect()
    }
}

fn input(stations: &[Option<&str>]) -> RecordBatch {
    let column: ArrayRef = Arc::new(StringArray::from(stations.to_vec()));
    let batch = RecordBatch::try_from_iter_with_nullable([("station", column, true)]).expect("a batch");
    rows::attach(&batch, (0..).take(stations.len()).collect()).expect("a batch")
}

const WARM: Reply = Reply::Json(r#"{"temp": 20, "sky": "clear", "more": [1]}"#);

#[tokio::test]
async fn a_key_is_asked_once_and_remembered_until_its_time_is_over() {
    let server = Server::start(|_, path| match path {
        "/at/none" => Reply::Status("404 Not Found", ""),
        _ => WARM,
    })
    .await;
    let bench = Bench::new(&config(&server.url));
    let stations = [Some("JFK"), Some("none"), Some("JFK"), Some("LGA"), None];
    let want = ["JFK=20", "JFK=20", "LGA=20", "none enrich-not-found x1", "- enrich-key-missing x1"];
    assert_eq!(bench.run(&stations).await, want);
    assert_eq!(server.calls(), 3);
    assert_eq!(bench.run(&stations).await, want);
    assert_eq!(server.calls(), 3, "answers and their absence are cached");
    bench.clock.advance(Duration::from_secs(301));
    bench.run(&stations).await;
    assert_eq!(server.calls(), 6);
}

#[tokio::test]
async fn an_optional_enrichment_lets_rows_pass_without() {
    let server = Server::start(|_, _| Reply::Status("404 Not Found", "")).await;
    let bench = Bench::new(&Enrich { optional: true, ..config(&server.url) });
    assert_eq!(bench.run(&[Some("JFK"), None]).await.len(), 2);
    let Passed { batch, faults } = bench.step.run(input(&[Some("JFK"), None])).await.expect("no defect");
    assert!(faults.is_empty());
    assert_eq!(batch.column_by_name("temp").map(|c| c.null_count()), Some(2));
}

#[tokio::test]
async fn a_passing_failure_is_tried_again() {
    let server = Server::start(|n, _| match n {
        0 => Reply::Status("503 Service Unavailable", ""),
        1 => Reply::Drop,
        _ => WARM,
    })
    .await;
    let bench = Bench::new(&config(&server.url));
    assert_eq!(bench.run(&[Some("JFK")]).await, ["JFK=20"]);
    assert_eq!(server.calls(), 3);
}

#[tokio::test]
async fn a_service_that_is_down_is_left_alone_and_probed_once() {
    let healthy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_healthy = Arc::clone(&healthy);
    let server = Server::start(move |_, _| match is_healthy.load(Ordering::SeqCst) {
        true => WARM,
        false => Reply::Status("500 Internal Server Error", ""),
    })
    .await;
    let bench = Bench::new(&Enrich { concurrency: 1, ..config(&server.url) });
    let stations = [Some("A"), Some("B"), Some("C"), Some("D")];
    let got = bench.run(&stations).await;
    let want = [
        "A enrich-unavailable x3",
        "B enrich-unavailable x2",
        "C enrich-unavailable x0",
        "D enrich-unavailable x0",
    ];
    assert_eq!(got, want);
    assert_eq!(server.calls(), 5, "five failures open the breaker");
    bench.run(&stations).await;
    assert_eq!(server.calls(), 5);
    bench.clock.advance(Duration::from_secs(61));
    bench.run(&stations).await;
    assert_eq!(server.calls(), 6, "one probe, which fails");
    bench.clock.advance(Duration::from_secs(61));
    healthy.store(true, Ordering::SeqCst);
    assert_eq!(
        bench.run(&stations).await,
        ["A=20", "B=20", "C=20", "D=20"],
        "the probe opens the way for all"
    );
    assert_eq!(server.calls(), 10);
}

#[tokio::test]
async fn nobody_listening_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let bench = Bench::new(&config(&url));
    assert_eq!(bench.run(&[Some("JFK")]).await, ["JFK enrich-unavailable x3"]);
}

#[tokio::test]
async fn a_slow_service_is_not_waited_for() {
    let server = Server::start(|_, _| Reply::Hang).await;
    let slow = Enrich { timeout: Duration::from_millis(40), attempts: 2, ..config(&server.url) };
    let bench = Bench::new(&slow);
    assert_eq!(bench.run(&[Some("JFK")]).await, ["JFK enrich-unavailable x2"]);
    assert_eq!(server.calls(), 2);
}

#[tokio::test]
async fn a_lying_service_is_not_believed() {
    type Lie = (&'static str, fn() -> Reply);
    let lies: [Lie; 10] = [
        ("type", || Reply::Json(r#"{"temp": "20"}"#)),
        ("null", || Reply::Json(r#"{"temp": null}"#)),
        ("missing", || Reply::Json(r#"{"sky": "clear"}"#)),
        ("other-type", || Reply::Json(r#"{"temp": 20, "sky": 7}"#)),
        ("array", || Reply::Json("[20]")),
        ("html", || Reply::Json("<html>temp: 20</html>")),
        ("infinite", || Reply::Json(r#"{"temp": 1e999}"#)),
        ("long", || Reply::Long(5000)),
        ("redirect", || Reply::Status("302 Found", r#"{"temp": 20}"#)),
        ("accepted", || Reply::Status("202 Accepted", r#"{"temp": 20}"#)),
    ];
    let server = Server::start(move |_, path| {
        let name = path.trim_start_matches("/at/");
        lies.iter().find(|(n, _)| *n == name).map_or(WARM, |(_, lie)| lie())
    })
    .await;
    let bench = Bench::new(&config(&server.url));
    for (name, _) in lies {
        assert_eq!(bench.run(&[Some(name)]).await, [format!("{name} enrich-bad-answer x1")]);
    }
    assert_eq!(
        server.calls(),
        lies.len(),
        "asked once each, no redirect followed, and the breaker stays closed"
    );
    assert_eq!(bench.run(&[Some("JFK")]).await, ["JFK=20"]);
}

#[tokio::test]
async fn a_refusal_is_final_and_a_secret_must_exist() {
    let server = Server::start(|_, _| Reply::Status("403 Forbidden", "")).await;
    let with_secret = Enrich { bearer_secret: Some("token".into()), ..config(&server.url) };
    let bench = Bench::new(&with_secret);
    assert_eq!(bench.run(&[Some("JFK")]).await, ["JFK enrich-refused x1"]);
    let build = |config: &Enrich| {
        let context = EnrichContext {
            clock: Arc::new(ManualClock::new(0)),
            jitter: Arc::new(|| 0.0),
            secrets: Arc::new(|_| None),
            backoff: Backoff { base: Duration::ZERO, cap: Duration::ZERO },
            breakers: Breakers::default(),
            egress: Egress::default(),
            cache_entries: 1,
            answer_bytes: 1,
        };
        EnrichStep::new(config, &input(&[]).schema(), &Owner::Shared, &context)
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    assert!(build(&with_secret).is_err_and(|e| e.contains("token") && !e.contains("s3cret")));
    let unknown = Enrich { url: "http://x.example/{nowhere}".into(), ..config("http://x.example") };
    assert!(build(&unknown).is_err_and(|e| e.contains("nowhere")));
}

#[tokio::test]
async fn a_tenants_declaration_reaches_no_host_that_only_this_machine_reaches() {
    let server = Server::start(|_, _| WARM).await;
    let port: u16 = server.url.rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port");
    let acme = Owner::Tenant(TenantId::new("acme").expect("a tenant"));
    let build = |url: &str, egress: Egress| Bench::of(&config(url), &acme, egress);
    let code = |url: &str| {
        let refused = build(url, Egress::default()).err().expect("refused");
        refused.answer.expect("a problem").code
    };
    assert_eq!(code(&server.url), "egress-refused");
    assert_eq!(code("http://169.254.169.254"), "egress-refused");
    assert_eq!(code(&format!("http://2130706433:{port}")), "egress-refused");

    // A name shows where it leads only when it is asked for, and is not asked again.
    let named = format!("http://localhost:{port}");
    let bench = build(&named, Egress::default()).expect("a name is no address");
    assert_eq!(bench.run(&[Some("JFK")]).await, ["JFK egress-refused x1"]);
    assert_eq!(server.calls(), 0);
    for allowed in [Egress::new([EgressRule::host("localhost", port)]), Egress::default().with_loopback()] {
        let bench = build(&named, allowed).expect("a step");
        assert_eq!(bench.run(&[Some("JFK")]).await, ["JFK=20"]);
    }
    // What the root folder declares reaches its own host and port.
    assert_eq!(Bench::new(&config(&named)).run(&[Some("JFK")]).await, ["JFK=20"]);
}

#[tokio::test]
async fn one_tenants_failures_leave_the_breaker_of_another_closed() {
    let server = Server::start(|_, path| match path {
        "/at/bad" => Reply::Status("500 Internal Server Error", ""),
        _ => WARM,
    })
    .await;
    let breakers = Breakers::default();
    let bench = |owner: &Owner| {
        let context = EnrichContext {
            clock: Arc::new(ManualClock::new(0)),
            jitter: Arc::new(|| 0.0),
            secrets: Arc::new(|_| None),
            backoff: Backoff { base: Duration::ZERO, cap: Duration::ZERO },
            breakers: breakers.clone(),
            egress: Egress::default().with_loopback(),
            cache_entries: 1,
            answer_bytes: 1000,
        };
        EnrichStep::new(&config(&server.url), &input(&[]).schema(), owner, &context).expect("a step")
    };
    let tenant = |name: &str| Owner::Tenant(TenantId::new(name).expect("a tenant"));
    let (acme, globex) = (bench(&tenant("acme")), bench(&tenant("globex")));
    for _ in 0..2 {
        assert_eq!(acme.run(input(&[Some("bad")])).await.expect("no defect").faults.len(), 1);
    }
    assert_eq!(server.calls(), 5, "its breaker is open");
    assert_eq!(globex.run(input(&[Some("JFK")])).await.expect("no defect").batch.num_rows(), 1);
}
