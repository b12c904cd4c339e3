//! The figures of `/metrics` as OTLP metrics.
//!
//! What `/metrics` answers is read back, so that both tell the same. Counters become cumulative
//! monotonic sums, histograms keep their buckets; names stay as they are, since dashboards and
//! alerts should not care by which way a figure came.

use std::collections::BTreeMap;

use crate::exposition::{Family, Kind, Sample, parse};
use crate::proto::metric::Data;
use crate::proto::number_data_point::Value;
use crate::proto::{
    CUMULATIVE, Gauge, Histogram, HistogramDataPoint, KeyValue, Metric, NumberDataPoint, Sum, Summary,
    SummaryDataPoint, ValueAtQuantile, text,
};
use crate::units::Units;

/// Points of one request; a collector takes about 20 MB.
pub const MAX_POINTS: usize = 5_000;

/// When the figures began and when they were read, in nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub start_ns: u64,
    pub now_ns: u64,
}

/// The metrics of a text in Prometheus' format, cut into lists of at most [`MAX_POINTS`] points.
pub fn metrics(exposition: &str, units: &Units, times: Times) -> Vec<Vec<Metric>> {
    let mut lists = vec![Vec::new()];
    let mut room = MAX_POINTS;
    for family in parse(exposition) {
        let mut points = points(&family, times);
        while !points.is_empty() {
            if room == 0 {
                lists.push(Vec::new());
                room = MAX_POINTS;
            }
            let rest = points.split_off(room.min(points.len()));
            room -= points.len();
            let metric = Metric {
                name: family.name.clone(),
                description: family.help.clone(),
                unit: units.of(&family.name).to_owned(),
                data: data(family.kind, points),
            };
            lists.last_mut().expect("it begins with one").push(metric);
            points = rest;
        }
    }
    lists.retain(|list| !list.is_empty());
    lists
}

enum Point {
    Number(NumberDataPoint),
    Histogram(HistogramDataPoint),
    Summary(SummaryDataPoint),
}

fn points(family: &Family, times: Times) -> Vec<Point> {
    match family.kind {
        Kind::Counter | Kind::Gauge => {
            family.samples.iter().map(|sample| Point::Number(number(family.kind, sample, times))).collect()
        }
        Kind::Histogram => grouped(family, "le").into_iter().map(|s| histogram(s, times)).collect(),
        Kind::Summary => grouped(family, "quantile").into_iter().map(|s| summary(s, times)).collect(),
    }
}

fn data(kind: Kind, points: Vec<Point>) -> Option<Data> {
    let (mut numbers, mut histograms, mut summaries) = (Vec::new(), Vec::new(), Vec::new());
    for point in points {
        match point {
            Point::Number(point) => numbers.push(point),
            Point::Histogram(point) => histograms.push(point),
            Point::Summary(point) => summaries.push(point),
        }
    }
    Some(match kind {
        Kind::Counter => {
            Data::Sum(Sum { data_points: numbers, aggregation_temporality: CUMULATIVE, is_monotonic: true })
        }
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers }),
        Kind::Histogram => {
            Data::Histogram(Histogram { data_points: histograms, aggregation_temporality: CUMULATIVE })
        }
        Kind::Summary => Data::Summary(Summary { data_points: summaries }),
    })
}

fn attributes(labels: &[(String, String)]) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| text(name, value)).collect()
}

fn number(kind: Kind, sample: &Sample, times: Times) -> NumberDataPoint {
    let whole = sample.text.parse::<i64>().ok().filter(|_| kind == Kind::Counter);
    NumberDataPoint {
        start_time_unix_nano: if kind == Kind::Counter { times.start_ns } else { 0 },
        time_unix_nano: times.now_ns,
        value: Some(whole.map_or(Value::Double(sample.value()), Value::Int)),
        attributes: attributes(&sample.labels),
    }
}

/// The samples of one distribution.
#[derive(Default)]
struct Series {
    labels: Vec<(String, String)>,
    sum: f64,
    count: u64,
    /// The value of the label that tells them apart, and the sample's.
    parts: Vec<(f64, f64)>,
}

fn grouped(family: &Family, by: &str) -> Vec<Series> {
    let mut all: BTreeMap<Vec<(String, String)>, Series> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let at = labels.iter().position(|(name, _)| name == by);
        let part = at.map(|at| labels.remove(at).1);
        let series = all.entry(labels).or_default();
        match (&*sample.suffix, part) {
            ("_sum", _) => series.sum = sample.value(),
            ("_count", _) => series.count = sample.value() as u64,
            (_, Some(part)) => series.parts.push((number_of(&part), sample.value())),
            (_, None) => {}
        }
    }
    all.into_iter().map(|(labels, series)| Series { labels, ..series }).collect()
}

/// As Prometheus writes it.
pub fn number_of(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        text => text.parse().unwrap_or(f64::NAN),
    }
}

/// Prometheus' buckets count all below their bound, OTLP's only what is not in one before.
fn histogram(mut series: Series, times: Times) -> Point {
    series.parts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut below = 0;
    let mut bucket_counts = Vec::with_capacity(series.parts.len() + 1);
    let mut explicit_bounds = Vec::with_capacity(series.parts.len());
    for (bound, count) in series.parts.into_iter().filter(|(bound, _)| bound.is_finite()) {
        let count = count as u64;
        bucket_counts.push(count.saturating_sub(below));
        explicit_bounds.push(bound);
        below = count.max(below);
    }
    bucket_counts.push(series.count.saturating_sub(below));
    Point::Histogram(HistogramDataPoint {
        start_time_unix_nano: times.start_ns,
        time_unix_nano: times.now_ns,
        count: series.count,
        sum: Some(series.sum),
        bucket_counts,
        explicit_bounds,
        attributes: attributes(&series.labels),
    })
}

fn summary(mut series: Series, times: Times) -> Point {
    series.parts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let quantile = |(quantile, value): (f64, f64)| ValueAtQuantile { quantile, value };
    Point::Summary(SummaryDataPoint {
        start_time_unix_nano: times.start_ns,
        time_unix_nano: times.now_ns,
        count: series.count,
        sum: series.sum,
        quantile_values: series.parts.into_iter().map(quantile).collect(),
        attributes: attributes(&series.labels),
    })
}

#[cfg(test)]
mod tests {
    use metrics::{KeyName, NoopRecorder, Recorder, Unit};

    use super::*;
    use crate::units::KeepUnits;

    const TIMES: Times = Times { start_ns: 1, now_ns: 9 };

    fn of(text: &str) -> Vec<Metric> {
        metrics(text, &Units::default(), TIMES).concat()
    }

    #[test]
    fn counters_and_gauges_keep_their_figures_and_labels() {
        let text = "# HELP a_total What \\\\ it is\n# TYPE a_total counter\n\
            a_total{topic=\"a \\\"b\\\" {c},\\n\\\\\",x=\"1\"} 9007199254740993\n\n\
            # TYPE g gauge\ng 0.5\ng{x=\"1\"} NaN\n";
        let units = Units::default();
        let recorder = KeepUnits::new(NoopRecorder, units.clone());
        recorder.describe_counter(KeyName::from("a_total"), Some(Unit::Bytes), "".into());
        let all = metrics(text, &units, TIMES).concat();
        assert_eq!((&*all[0].name, &*all[0].description, &*all[0].unit), ("a_total", "What \\ it is", "By"));
        let Some(Data::Sum(sum)) = &all[0].data else { panic!("{all:?}") };
        assert!(sum.is_monotonic && sum.aggregation_temporality == CUMULATIVE);
        let point = &sum.data_points[0];
        assert_eq!(point.value, Some(Value::Int(9_007_199_254_740_993)), "no float in between");
        assert_eq!(point.attributes, [text_of("topic", "a \"b\" {c},\n\\"), text_of("x", "1")]);
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 9));
        let Some(Data::Gauge(gauge)) = &all[1].data else { panic!("{all:?}") };
        assert_eq!(gauge.data_points[0].value, Some(Value::Double(0.5)));
        assert_eq!(gauge.data_points.len(), 2);
    }

    fn text_of(key: &str, value: &str) -> KeyValue {
        text(key, value)
    }

    #[test]
    fn histograms_count_each_bucket_by_itself() {
        let text = "# TYPE h_seconds histogram\n\
            h_seconds_bucket{route=\"/a\",le=\"0.1\"} 2\nh_seconds_bucket{route=\"/a\",le=\"0.5\"} 5\n\
            h_seconds_bucket{route=\"/a\",le=\"+Inf\"} 6\n\
            h_seconds_sum{route=\"/a\"} 3.25\nh_seconds_count{route=\"/a\"} 6\n";
        let all = of(text);
        let Some(Data::Histogram(histogram)) = &all[0].data else { panic!("{all:?}") };
        let point = &histogram.data_points[0];
        assert_eq!(all[0].name, "h_seconds");
        assert_eq!((point.count, point.sum), (6, Some(3.25)));
        assert_eq!(point.explicit_bounds, [0.1, 0.5]);
        assert_eq!(point.bucket_counts, [2, 3, 1]);
        assert_eq!(point.attributes, [text_of("route", "/a")]);
    }

    #[test]
    fn summaries_keep_their_quantiles() {
        let all = of("# TYPE s summary\ns{quantile=\"0.5\"} 2\ns{quantile=\"0\"} 1\ns_sum 12\ns_count 4\n");
        let Some(Data::Summary(summary)) = &all[0].data else { panic!("{all:?}") };
        let point = &summary.data_points[0];
        assert_eq!((point.count, point.sum), (4, 12.0));
        let quantiles: Vec<_> = point.quantile_values.iter().map(|q| (q.quantile, q.value)).collect();
        assert_eq!(quantiles, [(0.0, 1.0), (0.5, 2.0)]);
    }

    #[test]
    fn no_list_has_too_many_points() {
        let mut text = String::from("# TYPE a_total counter\n");
        (0..MAX_POINTS * 2 + 1).for_each(|n| text.push_str(&format!("a_total{{n=\"{n}\"}} {n}\n")));
        text.push_str("# TYPE b gauge\nb 1\n");
        let lists = metrics(&text, &Units::default(), TIMES);
        let sizes: Vec<usize> = lists
            .iter()
            .map(|list| {
                list.iter()
                    .map(|metric| match &metric.data {
                        Some(Data::Sum(sum)) => sum.data_points.len(),
                        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
                        other => panic!("{other:?}"),
                    })
                    .sum()
            })
            .collect();
        assert_eq!(sizes, [MAX_POINTS, MAX_POINTS, 2]);
    }
}
