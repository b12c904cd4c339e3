//! The bus with traces keeps every promise of the bus below: the conformance suite of the port,
//! with everything sampled.

// The platform of the bus's own run of the suite.
#[allow(dead_code)]
#[path = "../../bus/tests/conformance/platform.rs"]
mod platform;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::future::BoxFuture;
use levada_bus::port::BusPort;
use levada_core::SystemClock;
use levada_telemetry::{Config, Parts, Telemetry, TracedBus, Tracer};
use levada_testkit::bus_conformance::{Platform, Running, Traits, cases, run};

/// A platform whose bus is traced.
struct Traced<P> {
    inner: P,
    tracer: Tracer,
}

impl<P: Platform> Platform for Traced<P> {
    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Running>>> {
        Box::pin(async {
            let inner = self.inner.open().await?;
            let port = Arc::new(TracedBus::new(inner.port(), self.tracer.clone()));
            Ok(Box::new(TracedRun { inner, port, tracer: self.tracer.clone() }) as Box<dyn Running>)
        })
    }
}

struct TracedRun {
    inner: Box<dyn Running>,
    port: Arc<TracedBus>,
    tracer: Tracer,
}

impl Running for TracedRun {
    fn port(&self) -> Arc<dyn BusPort> {
        self.port.clone()
    }

    fn now_ms(&self) -> i64 {
        self.inner.now_ms()
    }

    fn pass(&self, by: Duration) -> BoxFuture<'_, ()> {
        self.inner.pass(by)
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.inner.restart().await?;
            self.port = Arc::new(TracedBus::new(self.inner.port(), self.tracer.clone()));
            Ok(())
        })
    }

    fn maintain(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.maintain()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traced_bus_conforms() {
    // Nobody listens there: every span is made, none arrives.
    let config = Config::from_variables(&|_| None, Some("http://127.0.0.1:1")).expect("valid").expect("on");
    let parts = Parts {
        config,
        resource: Vec::new(),
        figures: None,
        clock: Arc::new(SystemClock::new()),
        jitter: Arc::new(|| 0.5),
    };
    let telemetry = Telemetry::start(parts).expect("an export");
    let tracer = telemetry.tracer().expect("traces are on").clone();
    let report = run(&Traced { inner: platform::Simulated::default(), tracer }, &cases()).await;
    println!("{report}");
    report.expect_green();
    assert_eq!(report.green(), cases().len());
}
