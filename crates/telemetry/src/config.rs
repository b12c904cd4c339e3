//! Where telemetry goes, from the variables that every OpenTelemetry program reads.
//!
//! Source: OpenTelemetry specification, "Environment variable specification" and "OpenTelemetry
//! protocol exporter". A variable that is set to something that would not be done is refused.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use crate::sampler::Sampler;

/// Most headers a signal may have.
const MAX_HEADERS: usize = 64;

/// A variable that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {reason}")]
pub struct ConfigError {
    pub variable: String,
    /// What is wrong, and with it how to mend it. Never the value of a header.
    pub reason: String,
}

/// Where one signal goes.
#[derive(Clone)]
pub struct Target {
    pub url: reqwest::Url,
    pub headers: HeaderMap,
    pub gzip: bool,
    /// Of one request.
    pub timeout: Duration,
    /// PEM of a certification authority to trust besides those of the system.
    pub certificate: Option<Vec<u8>>,
}

impl Target {
    /// Where it goes, without what may be secret.
    pub fn place(&self) -> String {
        let url = &self.url;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        let mut debug = f.debug_struct("Target");
        debug.field("place", &self.place()).field("headers", &headers).finish_non_exhaustive()
    }
}

/// What to export and where. At least one signal has a target.
#[derive(Debug, Clone)]
pub struct Config {
    pub traces: Option<Target>,
    pub metrics: Option<Target>,
    pub sampler: Sampler,
    /// Attributes of the resource; `service.name` among them.
    pub resource: Vec<(String, String)>,
    pub metric_interval: Duration,
    /// How long a span waits for others to go with.
    pub span_delay: Duration,
    /// Spans that wait.
    pub max_queue_spans: usize,
    /// Spans of one request.
    pub max_batch_spans: usize,
}

/// Looks variables up; one that is empty counts as not set.
struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The variable of a signal, else the one for all; with its name.
    fn of_signal(&self, signal: &str, rest: &str) -> Option<(String, String)> {
        let own = format!("OTEL_EXPORTER_OTLP_{signal}_{rest}");
        let common = format!("OTEL_EXPORTER_OTLP_{rest}");
        [own, common].into_iter().find_map(|name| Some((self.get(&name)?, name)))
    }

    fn number(
        &self,
        name: &str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            error(name, format!("`{text}` is no number from {} to {}", range.start(), range.end()))
        })
    }

    fn milliseconds(&self, name: &str, default_ms: u64) -> Result<Duration, ConfigError> {
        Ok(Duration::from_millis(self.number(name, default_ms, 100..=3_600_000)?))
    }
}

fn error(variable: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError { variable: variable.into(), reason: reason.into() }
}

impl Config {
    /// Reads the variables. `endpoint` stands for `OTEL_EXPORTER_OTLP_ENDPOINT`; `off` turns all
    /// export off. `None`: nothing is to be exported.
    ///
    /// # Errors
    /// The first variable that cannot be followed.
    pub fn from_variables(
        variables: &dyn Fn(&str) -> Option<String>,
        endpoint: Option<&str>,
    ) -> Result<Option<Self>, ConfigError> {
        let variables = Variables(variables);
        let is_disabled =
            variables.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if is_disabled || endpoint == Some("off") {
            return Ok(None);
        }
        let traces = target(&variables, endpoint, "TRACES", "v1/traces")?;
        let metrics = target(&variables, endpoint, "METRICS", "v1/metrics")?;
        if traces.is_none() && metrics.is_none() {
            return Ok(None);
        }
        let max_queue_spans = variables.number("OTEL_BSP_MAX_QUEUE_SIZE", 16_384, 1..=1_000_000)?;
        let max_batch_spans = variables.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1..=10_000)?;
        Ok(Some(Self {
            traces,
            metrics,
            sampler: sampler(&variables)?,
            resource: resource(&variables)?,
            metric_interval: variables.milliseconds("OTEL_METRIC_EXPORT_INTERVAL", 60_000)?,
            span_delay: variables.milliseconds("OTEL_BSP_SCHEDULE_DELAY", 5_000)?,
            max_queue_spans: usize::try_from(max_queue_spans).unwrap_or(usize::MAX),
            max_batch_spans: usize::try_from(max_batch_spans.min(max_queue_spans)).unwrap_or(usize::MAX),
        }))
    }
}

fn sampler(variables: &Variables<'_>) -> Result<Sampler, ConfigError> {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    let Some(name) = variables.get(NAME) else { return Ok(Sampler::default()) };
    let argument = variables.get("OTEL_TRACES_SAMPLER_ARG");
    Sampler::parse(&name, argument.as_deref()).map_err(|reason| error(NAME, reason))
}

fn target(
    variables: &Variables<'_>,
    endpoint: Option<&str>,
    signal: &str,
    path: &str,
) -> Result<Option<Target>, ConfigError> {
    let exporter = format!("OTEL_{signal}_EXPORTER");
    match variables.get(&exporter).as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(other) => return Err(error(exporter, format!("`{other}` is not built in: use otlp or none"))),
    }
    let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
    let common = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let (url, name) = match (endpoint, variables.get(&own), variables.get(common)) {
        // A flag is nearer than what the environment says.
        (Some(base), _, _) => (join(base, path), "--otlp-endpoint".to_owned()),
        (None, Some(url), _) => (url, own),
        (None, None, Some(base)) => (join(&base, path), common.to_owned()),
        (None, None, None) => return Ok(None),
    };
    let url = reqwest::Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.filter(reqwest::Url::has_host).ok_or_else(|| {
        error(name, "this is no address: write it like http://collector:4318, with http or https")
    })?;
    refuse_what_is_not_done(variables, signal)?;
    let timeout = match variables.of_signal(signal, "TIMEOUT") {
        Some((_, name)) => variables.milliseconds(&name, 10_000)?,
        None => Duration::from_secs(10),
    };
    Ok(Some(Target {
        url,
        headers: headers(variables, signal)?,
        gzip: gzip(variables, signal)?,
        timeout,
        certificate: certificate(variables, signal)?,
    }))
}

fn join(base: &str, path: &str) -> String {
    format!("{}/{path}", base.trim_end_matches('/'))
}

fn refuse_what_is_not_done(variables: &Variables<'_>, signal: &str) -> Result<(), ConfigError> {
    if let Some((protocol, name)) = variables.of_signal(signal, "PROTOCOL")
        && protocol != "http/protobuf"
    {
        let reason = format!(
            "`{protocol}` is not spoken here: set http/protobuf, and the endpoint to the collector's port \
             for it, usually 4318"
        );
        return Err(error(name, reason));
    }
    for rest in ["CLIENT_KEY", "CLIENT_CERTIFICATE"] {
        if let Some((_, name)) = variables.of_signal(signal, rest) {
            return Err(error(name, "client certificates are not supported: send a token in the headers"));
        }
    }
    let (name, wish) = ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "cumulative");
    match variables.get(name) {
        Some(other) if signal == "METRICS" && !other.eq_ignore_ascii_case(wish) => Err(error(
            name,
            format!("`{other}` is not supported: sums are cumulative; let the collector convert"),
        )),
        _ => Ok(()),
    }
}

fn gzip(variables: &Variables<'_>, signal: &str) -> Result<bool, ConfigError> {
    match variables.of_signal(signal, "COMPRESSION") {
        None => Ok(false),
        Some((value, _)) if value == "none" => Ok(false),
        Some((value, _)) if value == "gzip" => Ok(true),
        Some((value, name)) => Err(error(name, format!("`{value}` is not known: use gzip or none"))),
    }
}

fn certificate(variables: &Variables<'_>, signal: &str) -> Result<Option<Vec<u8>>, ConfigError> {
    let Some((path, name)) = variables.of_signal(signal, "CERTIFICATE") else { return Ok(None) };
    let pem = std::fs::read(&path).map_err(|e| error(name, format!("`{path}` cannot be read: {e}")))?;
    Ok(Some(pem))
}

/// `name=value,name=value`, percent-encoded. Messages name the place, never a value.
fn pairs(name: &str, text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let decode =
        |text: &str| percent_decode_str(text.trim()).decode_utf8().map(|text| text.into_owned()).ok();
    let items = text.split(',').filter(|item| !item.trim().is_empty());
    let pair = |(at, item): (usize, &str)| {
        let pair = item.split_once('=').and_then(|(key, value)| Some((decode(key)?, decode(value)?)));
        pair.filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
            error(name, format!("item {} is not of the form name=value, percent-encoded", at + 1))
        })
    };
    items.enumerate().map(pair).collect()
}

fn headers(variables: &Variables<'_>, signal: &str) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::new();
    let Some((text, variable)) = variables.of_signal(signal, "HEADERS") else { return Ok(headers) };
    for (at, (name, value)) in pairs(&variable, &text)?.into_iter().enumerate() {
        let pair = HeaderName::try_from(&name).ok().zip(HeaderValue::try_from(&value).ok());
        let Some((name, mut value)) = pair.filter(|_| at < MAX_HEADERS) else {
            return Err(error(variable, format!("item {} is no valid header", at + 1)));
        };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn resource(variables: &Variables<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    const VARIABLE: &str = "OTEL_RESOURCE_ATTRIBUTES";
    const NAME: &str = "service.name";
    let mut attributes = match variables.get(VARIABLE) {
        Some(text) => pairs(VARIABLE, &text)?,
        None => Vec::new(),
    };
    if let Some(name) = variables.get("OTEL_SERVICE_NAME") {
        attributes.retain(|(key, _)| key != NAME);
        attributes.push((NAME.to_owned(), name));
    } else if !attributes.iter().any(|(key, _)| key == NAME) {
        attributes.push((NAME.to_owned(), "levada".to_owned()));
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::Root;

    fn of(variables: &[(&str, &str)], flag: Option<&str>) -> Result<Option<Config>, ConfigError> {
        let look =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Config::from_variables(&look, flag)
    }

    #[test]
    fn nothing_is_exported_without_an_endpoint() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        assert!(of(&[], None).unwrap().is_none());
        assert!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], None).unwrap().is_none());
        assert!(of(&[endpoint, ("OTEL_SDK_DISABLED", "true")], None).unwrap().is_none());
        assert!(of(&[endpoint], Some("off")).unwrap().is_none());
        let metrics = of(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], None).unwrap().unwrap();
        assert!(metrics.traces.is_none() && metrics.metrics.is_some());
    }

    #[test]
    fn paths_are_added_to_the_common_endpoint_only() {
        let places = |variables: &[(&str, &str)], flag| {
            let config = of(variables, flag).unwrap().unwrap();
            [config.traces, config.metrics].map(|t| t.map(|t| t.url.to_string()).unwrap_or_default())
        };
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/otlp/");
        assert_eq!(places(&[base], None), ["http://c:4318/otlp/v1/traces", "http://c:4318/otlp/v1/metrics"]);
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t/in");
        assert_eq!(places(&[base, own], None), ["https://t/in", "http://c:4318/otlp/v1/metrics"]);
        assert_eq!(places(&[own], None), ["https://t/in", ""]);
        let flag = places(&[base], Some("http://d:1"));
        assert_eq!(flag, ["http://d:1/v1/traces", "http://d:1/v1/metrics"]);
    }

    #[test]
    fn everything_standard_is_read() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@c:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2, x-scope = a%2Cb"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-other=1"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2500"),
            ("OTEL_SERVICE_NAME", "shop"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment=a%20b"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
        ];
        let config = of(&variables, None).unwrap().unwrap();
        let traces = config.traces.clone().unwrap();
        assert_eq!(traces.headers["authorization"], "Bearer hunter2");
        assert_eq!(traces.headers["x-scope"], "a,b");
        assert!(traces.gzip);
        assert_eq!(traces.timeout, Duration::from_millis(2_500));
        let metrics = config.metrics.clone().unwrap();
        assert_eq!((metrics.headers.len(), metrics.timeout), (1, Duration::from_secs(10)));
        assert_eq!(config.sampler, Sampler::following_parents(Root::Ratio(0.5)));
        assert_eq!(config.metric_interval, Duration::from_secs(1));
        let expected = [("deployment.environment", "a b"), ("service.name", "shop")];
        assert_eq!(config.resource, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        let debug = format!("{config:?}");
        assert!(debug.contains("authorization") && !debug.contains("hunter2"), "{debug}");
        assert!(!debug.contains("secret"), "{debug}");
    }

    #[test]
    fn what_would_not_be_done_is_refused_by_name() {
        let cases = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "key.pem", "headers"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/does/not/exist.pem", "cannot be read"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta", "cumulative"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "ok=1,broken", "item 2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret", "item 1"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318", "http://collector:4318"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0", "100"),
            ("OTEL_TRACES_SAMPLER", "xray", "always_on"),
            ("OTEL_METRICS_EXPORTER", "prometheus", "otlp"),
        ];
        for (name, value, mend) in cases {
            let error = of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), (name, value)], None).unwrap_err();
            assert_eq!(error.variable, name);
            assert!(error.reason.contains(mend), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let error = of(&[], Some("nowhere")).unwrap_err();
        assert_eq!(error.variable, "--otlp-endpoint");
    }
}
