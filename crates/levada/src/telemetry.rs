//! Traces and metrics to a collector, where one is named.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use levada_bus::port::BusPort;
use levada_config::model::Project;
use levada_core::{Clock, IdSource, RandomIds};
use levada_telemetry::{Config, Ingest, Parts, Telemetry, TracedBus, Units};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::pubsub;

/// What waits is sent for so long when the server stops.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// The export of this process; without a configuration nothing of it is there.
pub struct Export(Option<Telemetry>);

impl Export {
    /// # Errors
    /// When a certificate cannot be used.
    pub fn start(
        config: Option<Config>,
        project: &Project,
        metrics: Option<&(PrometheusHandle, Units)>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self> {
        let Some(config) = config else { return Ok(Self(None)) };
        let instance = RandomIds.uuid().to_string();
        let resource = [
            ("service.version", env!("CARGO_PKG_VERSION")),
            // Figures of two servers must not be taken for one's.
            ("service.instance.id", &instance),
            ("levada.project", &project.name),
        ];
        let figures = metrics.cloned().map(|(handle, units)| {
            let render: levada_telemetry::Render = Arc::new(move || handle.render());
            (render, units)
        });
        let telemetry = Telemetry::start(Parts {
            config,
            resource: resource.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            figures,
            clock: clock.clone(),
            jitter: Arc::new(rand::random::<f64>),
        });
        Ok(Self(Some(telemetry.context("cannot export telemetry")?)))
    }

    /// The bus whose messages are traced; where traces are off, the bus itself.
    pub fn follow(&self, bus: Arc<dyn BusPort>) -> Arc<dyn BusPort> {
        match self.0.as_ref().and_then(Telemetry::tracer) {
            Some(tracer) => Arc::new(TracedBus::new(bus, tracer.clone())),
            None => bus,
        }
    }

    /// For the events of the gateway, which go to the topics of the home project.
    pub fn ingest(&self, project: &Project) -> Option<Ingest> {
        let tracer = self.0.as_ref()?.tracer()?;
        Some(Ingest::new(tracer.clone(), pubsub::home(project)))
    }

    /// Sends what waits, for a few seconds at most.
    pub async fn stop(self) {
        if let Some(telemetry) = self.0 {
            telemetry.stop(FLUSH_WITHIN).await;
        }
    }
}
