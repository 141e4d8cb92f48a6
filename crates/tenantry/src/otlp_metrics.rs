//! What `/metrics` shows, sent to an OpenTelemetry collector. The metrics have one registry, that of Prometheus; its text is
//! translated, because the OpenTelemetry SDK sends its own instruments only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data as MetricData;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use tenantry_domain::kernel::Clock as _;
use tenantry_http::metrics::{Audience, Format, Metrics};
use tenantry_system::SystemClock;
use tokio::task::JoinHandle;

use crate::config::{OtlpSignal, Tracing};
use crate::otlp;

/// How often metrics are sent.
const EVERY: Duration = Duration::from_secs(30);

/// The metrics of this process, and the collector that they are sent to.
pub struct MetricsExport {
    metrics: Arc<Metrics>,
    client: reqwest::Client,
    request: reqwest::Request,
    service_name: String,
    /// When counting began, in nanoseconds since 1970.
    began: u64,
}

impl MetricsExport {
    /// Returns the export that the configuration asks for; `None` where metrics are not sent.
    pub fn new(config: &Tracing, metrics: &Arc<Metrics>) -> Option<Self> {
        if !config.sends(OtlpSignal::Metrics) {
            return None;
        }
        let client = reqwest::Client::builder().timeout(otlp::TIMEOUT).build();
        let built = client.and_then(|client| {
            let mut request = client.post(otlp::endpoint(config, OtlpSignal::Metrics));
            for (name, value) in otlp::headers(config) {
                request = request.header(name, value);
            }
            let request = request.header("Content-Type", "application/x-protobuf").build()?;
            Ok((client, request))
        });
        let (client, request) = otlp::usable(built, OtlpSignal::Metrics)?;
        Some(Self {
            metrics: Arc::clone(metrics),
            client,
            request,
            service_name: config.service_name.clone(),
            began: now(),
        })
    }

    /// Sends the metrics twice a minute from now on.
    pub fn start(self) -> Exporting {
        let export = Arc::new(self);
        let task = tokio::spawn(Arc::clone(&export).run());
        Exporting { export, task }
    }

    async fn run(self: Arc<Self>) {
        let mut failed = false;
        loop {
            tokio::time::sleep(EVERY).await;
            match self.send().await {
                Ok(()) => failed = false,
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::warn!(%error, "metrics could not be sent, trying again each time");
                    }
                }
            }
        }
    }

    /// What operators are shown.
    fn shown(&self) -> String {
        self.metrics.render(Audience::Operators, Format::OpenMetrics)
    }

    async fn send(&self) -> Result<(), reqwest::Error> {
        let translated = translate(&self.shown(), self.began, now());
        let body = message(&self.service_name, translated).encode_to_vec();
        let Some(mut request) = self.request.try_clone() else {
            return Ok(());
        };
        *request.body_mut() = Some(body.into());
        self.client.execute(request).await?.error_for_status().map(drop)
    }
}

/// Metrics that are sent in the background.
pub struct Exporting {
    export: Arc<MetricsExport>,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Sends the metrics for the last time.
    pub async fn finish(self) {
        self.task.abort();
        if let Err(error) = self.export.send().await {
            tracing::warn!(%error, "the last metrics could not be sent");
        }
    }
}

fn now() -> u64 {
    let now = SystemClock::new().now().timestamp_nanos_opt();
    now.unwrap_or_default().unsigned_abs()
}

fn message(service_name: &str, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let resource = Resource {
        attributes: vec![attribute("service.name", service_name)],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "tenantry".to_owned(),
        ..InstrumentationScope::default()
    };
    let scoped = ScopeMetrics {
        scope: Some(scope),
        metrics,
        ..ScopeMetrics::default()
    };
    let of_resource = ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![scoped],
        ..ResourceMetrics::default()
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![of_resource],
    }
}

/// The metrics of a text in the format of OpenMetrics.
fn translate(text: &str, began: u64, now: u64) -> Vec<Metric> {
    let mut families: Vec<Family> = Vec::new();
    let mut helps = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helps.extend(rest.split_once(' '));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            families.push(Family {
                name: name.to_owned(),
                kind: kind.to_owned(),
                samples: Vec::new(),
            });
        } else if let (Some(family), Some(sample)) = (families.last_mut(), Sample::read(line)) {
            family.samples.push(sample);
        }
    }
    let metric = |family: Family| Metric {
        description: helps
            .get(family.name.as_str())
            .map_or_else(String::new, |&help| help.to_owned()),
        name: family.name.clone(),
        data: family.data(began, now),
        ..Metric::default()
    };
    families
        .into_iter()
        .map(metric)
        .filter(|metric| metric.data.is_some())
        .collect()
}

/// The samples below one `# TYPE`.
struct Family {
    name: String,
    kind: String,
    samples: Vec<Sample>,
}

struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Family {
    fn data(self, began: u64, now: u64) -> Option<MetricData> {
        let cumulative = AggregationTemporality::Cumulative.into();
        match self.kind.as_str() {
            "counter" => Some(MetricData::Sum(Sum {
                data_points: self
                    .samples
                    .iter()
                    .map(|sample| sample.point(began, now))
                    .collect(),
                aggregation_temporality: cumulative,
                is_monotonic: true,
            })),
            "gauge" => Some(MetricData::Gauge(Gauge {
                data_points: self.samples.iter().map(|sample| sample.point(0, now)).collect(),
            })),
            "histogram" => Some(MetricData::Histogram(Histogram {
                data_points: self.histograms(began, now),
                aggregation_temporality: cumulative,
            })),
            _ => None,
        }
    }

    /// One point for each set of labels. Prometheus' buckets contain those before them, OTLP's do not.
    fn histograms(&self, began: u64, now: u64) -> Vec<HistogramDataPoint> {
        let mut points: BTreeMap<Vec<(String, String)>, HistogramDataPoint> = BTreeMap::new();
        let mut before = 0;
        for sample in &self.samples {
            let (bounds, labels): (Vec<_>, Vec<_>) =
                sample.labels.iter().cloned().partition(|(name, _)| name == "le");
            let point = points
                .entry(labels)
                .or_insert_with_key(|labels| HistogramDataPoint {
                    attributes: attributes(labels),
                    start_time_unix_nano: began,
                    time_unix_nano: now,
                    ..HistogramDataPoint::default()
                });
            let count = whole(sample.value);
            match (sample.name.rsplit('_').next(), bounds.first()) {
                (Some("sum"), _) => point.sum = Some(sample.value),
                (Some("count"), _) => point.count = count,
                (_, Some((_, bound))) => {
                    if point.bucket_counts.is_empty() {
                        before = 0;
                    }
                    point.bucket_counts.push(count.saturating_sub(before));
                    before = count;
                    point
                        .explicit_bounds
                        .extend(bound.parse::<f64>().ok().filter(|bound| bound.is_finite()));
                }
                _ => {}
            }
        }
        points.into_values().collect()
    }
}

impl Sample {
    /// Reads `name{label="value",…} number`.
    fn read(line: &str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (label, behind) = rest.trim_start_matches(',').split_once("=\"")?;
                let (value, behind) = unquoted(behind)?;
                labels.push((label.to_owned(), value));
                rest = behind;
            }
            rest = rest.strip_prefix('}')?;
        }
        // An exemplar or a moment may stand behind the number.
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Self {
            name: name.to_owned(),
            labels,
            value,
        })
    }

    fn point(&self, began: u64, now: u64) -> NumberDataPoint {
        NumberDataPoint {
            attributes: attributes(&self.labels),
            start_time_unix_nano: began,
            time_unix_nano: now,
            value: Some(Number::AsDouble(self.value)),
            ..NumberDataPoint::default()
        }
    }
}

/// The text up to the closing quote without its escapes, and what is behind the quote.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut read, mut characters) = (String::new(), text.char_indices());
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((read, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => read.push('\n'),
                other => read.push(other),
            },
            other => read.push(other),
        }
    }
    None
}

/// A count, which is exact below 2^53.
fn whole(value: f64) -> u64 {
    value as u64
}

fn attributes(labels: &[(String, String)]) -> Vec<KeyValue> {
    labels
        .iter()
        .map(|(name, value)| attribute(name, value))
        .collect()
}

fn attribute(name: &str, value: &str) -> KeyValue {
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue {
            value: Some(Any::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_gauges_and_histograms_are_translated() {
        let text = "# HELP t_requests Requests answered.\n# TYPE t_requests counter\n\
                    t_requests_total{route=\"/a{b}\\\"\\n\",status=\"200\"} 7\n\
                    # TYPE t_up gauge\nt_up 0.5\n\
                    # TYPE t_seconds histogram\n\
                    t_seconds_sum{route=\"a\"} 1.5\nt_seconds_count{route=\"a\"} 5\n\
                    t_seconds_bucket{le=\"0.1\",route=\"a\"} 2\nt_seconds_bucket{le=\"1.0\",route=\"a\"} 4\n\
                    t_seconds_bucket{le=\"+Inf\",route=\"a\"} 5\n\
                    t_seconds_sum{route=\"b\"} 9.0\nt_seconds_count{route=\"b\"} 1\n\
                    t_seconds_bucket{le=\"0.1\",route=\"b\"} 0\nt_seconds_bucket{le=\"1.0\",route=\"b\"} 0\n\
                    t_seconds_bucket{le=\"+Inf\",route=\"b\"} 1\n# EOF\n";
        let metrics = translate(text, 1, 2);
        let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["t_requests", "t_up", "t_seconds"]);
        assert_eq!(metrics[0].description, "Requests answered.");
        let Some(MetricData::Sum(sum)) = &metrics[0].data else {
            panic!("{:?}", metrics[0])
        };
        let point = &sum.data_points[0];
        assert_eq!(point.value, Some(Number::AsDouble(7.0)));
        assert_eq!(
            point.attributes,
            [attribute("route", "/a{b}\"\n"), attribute("status", "200")]
        );
        assert!(sum.is_monotonic && (point.start_time_unix_nano, point.time_unix_nano) == (1, 2));
        let Some(MetricData::Gauge(gauge)) = &metrics[1].data else {
            panic!("{:?}", metrics[1])
        };
        assert_eq!(gauge.data_points[0].value, Some(Number::AsDouble(0.5)));
        let Some(MetricData::Histogram(histogram)) = &metrics[2].data else {
            panic!("{:?}", metrics[2])
        };
        let seen: Vec<_> = histogram
            .data_points
            .iter()
            .map(|point| {
                (
                    point.count,
                    point.sum,
                    &point.bucket_counts[..],
                    &point.explicit_bounds[..],
                )
            })
            .collect();
        let bounds = &[0.1, 1.0][..];
        assert_eq!(
            seen,
            [
                (5, Some(1.5), &[2, 2, 1][..], bounds),
                (1, Some(9.0), &[0, 0, 1][..], bounds)
            ]
        );
    }

    #[test]
    fn lines_that_cannot_be_read_are_left_out() {
        for line in ["", "# EOF", "t", "t{a=\"b\" 1", "t{a=\"b} 1", "t{a} 1", "t x"] {
            assert!(Sample::read(line).is_none(), "{line}");
        }
    }
}
