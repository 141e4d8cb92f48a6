//! What is measured while requests are served, in the text formats of Prometheus and OpenMetrics.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderMap},
    web::{Data, ServiceConfig},
};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
pub use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tenantry_domain::kernel::{ErrorCode, TenantId};
use tenantry_domain::operations::Decision;

use crate::extract::operator_ctx;
use crate::{Answer, Api, Endpoint};

/// How many tenants are named; the others are not told apart, so that there are not more series with more tenants.
const NAMED_TENANTS: usize = 20;

/// Upper bounds of the histogram of durations, in seconds.
const BOUNDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// What is measured of the requests, and whatever else is registered: pools, caches, limits.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Answered, Counter>,
    durations: Family<Route, Histogram, fn() -> Histogram>,
    refusals: Family<Problem, Counter>,
    decisions: Family<Decided, Counter>,
    violations: Family<Violated, Counter>,
    refused_connections: Counter,
    busiest: Mutex<Busiest>,
}

/// Which value it is: one that only grows, or one that goes up and down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// Since the start.
    Total(u64),
    /// Time since the start, told in seconds.
    TotalTime(Duration),
    /// At present.
    Level(f64),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: Cow<'static, str>,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Problem {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    class: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Violated {
    policy: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    method: Cow<'static, str>,
    route: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let requests = Family::default();
        let refusals = Family::default();
        let durations: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BOUNDS));
        let mut registry = Registry::with_prefix("tenantry");
        registry.register(
            "http_requests",
            "Requests answered, by route template and status",
            requests.clone(),
        );
        registry.register(
            "http_problems",
            "Requests answered with an error, by its code",
            refusals.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "How long requests took, by route template",
            durations.clone(),
        );
        let (decisions, violations) = (Family::default(), Family::default());
        registry.register(
            "rate_limit_decisions",
            "Decisions about requests of tenants' users, and of addresses with a credential",
            Family::clone(&decisions),
        );
        registry.register(
            "rate_limit_violations",
            "Limits that refused requests would have exceeded",
            Family::clone(&violations),
        );
        let refused_connections = Counter::default();
        registry.register(
            "http_connections_refused",
            "Connections closed at once, as their network has too many open",
            refused_connections.clone(),
        );
        Self {
            refusals,
            refused_connections,
            decisions,
            violations,
            registry: Mutex::new(registry),
            requests,
            durations,
            busiest: Mutex::new(Busiest::default()),
        }
    }
}

impl Metrics {
    /// Adds something that is read with each scrape. A total's name gets the suffix `_total`.
    pub fn register(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> Reading + Send + Sync + 'static,
    ) {
        let reader = Reader {
            name,
            help,
            read: Box::new(read),
        };
        self.registry().register_collector(Box::new(reader));
    }

    /// Adds what is read with each scrape and has labels: each value with its names and values. Their number must not
    /// grow with customers.
    pub fn register_labelled(
        &self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        read: impl Fn() -> Labelled + Send + Sync + 'static,
    ) {
        let reader = LabelledReader {
            name,
            help,
            kind,
            read: Box::new(read),
        };
        self.registry().register_collector(Box::new(reader));
    }

    /// A rate limit decided about a request.
    pub(crate) fn decided(&self, class: &'static str, decision: &Decision) {
        let outcome = if decision.allowed() { "allowed" } else { "refused" };
        self.decisions.get_or_create(&Decided { class, outcome }).inc();
        let violated = decision
            .allowances()
            .iter()
            .filter(|allowance| allowance.violated);
        for allowance in violated {
            let policy = allowance.rule.key.policy();
            self.violations.get_or_create(&Violated { policy }).inc();
        }
    }

    /// A request was answered. `route` is the template of its path; paths that lead nowhere have none, so that nobody
    /// makes series by guessing.
    pub(crate) fn answered(
        &self,
        method: &str,
        route: Option<String>,
        status: u16,
        took: Duration,
        tenant: Option<TenantId>,
    ) {
        let (method, route) = (known(method), route.unwrap_or_default());
        let whole = Route {
            method: method.clone(),
            route: route.clone(),
        };
        self.durations.get_or_create(&whole).observe(took.as_secs_f64());
        let answered = Answered {
            method,
            route,
            status,
        };
        self.requests.get_or_create(&answered).inc();
        if let Some(tenant) = tenant {
            let mut busiest = self.busiest.lock().unwrap_or_else(PoisonError::into_inner);
            busiest.count(tenant);
        }
    }

    /// A request was answered with this error.
    pub(crate) fn refused(&self, code: ErrorCode) {
        let problem = Problem { code: code.as_str() };
        self.refusals.get_or_create(&problem).inc();
    }

    /// A connection was closed at once, as its network has too many open.
    pub(crate) fn refused_connection(&self) {
        self.refused_connections.inc();
    }

    /// Everything that may be read by the audience, in the format.
    pub fn render(&self, audience: Audience, format: Format) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry());
        if audience == Audience::Operators {
            let busiest = self.busiest.lock().unwrap_or_else(PoisonError::into_inner);
            let end = text.trim_end().trim_end_matches("# EOF").len();
            text.truncate(end);
            text.push_str(&busiest.render());
            text.push_str("# EOF\n");
        }
        match format {
            Format::OpenMetrics => text,
            Format::Text => as_text(&text),
        }
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Get the metrics
///
/// In the text format of Prometheus, or in OpenMetrics 1.0 where `Accept` asks for it. Series that name tenants are only for
/// operators: send an operator's token. This path is not served here when metrics have a port of their own
/// (`metrics.port`).
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "System",
    responses(
        (status = 200, description = "The metrics.", content(
            (String = "text/plain; version=0.0.4; charset=utf-8"),
            (String = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        )),
    ),
    extensions(("x-errors" = json!(["unauthenticated", "token_expired", "token_revoked"]))),
)]
pub(crate) async fn metrics(request: HttpRequest, api: Data<Api>) -> Answer {
    let audience = if request.headers().contains_key(header::AUTHORIZATION) {
        operator_ctx::admit(&request).await?;
        Audience::Operators
    } else {
        Audience::Everyone
    };
    Ok(answer(&request, api.metrics(), audience))
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::anonymous("/metrics").get(metrics));
}

/// The answer to a scrape.
pub fn answer(request: &HttpRequest, metrics: &Metrics, audience: Audience) -> HttpResponse {
    let format = Format::accepted(request.headers());
    HttpResponse::Ok()
        .content_type(format.content_type())
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::VARY, "Accept"))
        .body(metrics.render(audience, format))
}

/// Who reads the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Anybody: nothing names a tenant.
    Everyone,
    /// Those who run the service.
    Operators,
}

/// How measurements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// OpenMetrics where the client prefers it, else the format that every scraper reads.
    fn accepted(headers: &HeaderMap) -> Self {
        let weight = |essence: &str| {
            let ranges = headers
                .get_all(header::ACCEPT)
                .filter_map(|value| value.to_str().ok());
            ranges
                .flat_map(|value| value.split(','))
                .filter_map(|range| {
                    let mut parts = range.split(';').map(str::trim);
                    let named = parts.next()?.eq_ignore_ascii_case(essence);
                    let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
                    named.then(|| weight.unwrap_or(1.0_f32))
                })
                .fold(0.0, f32::max)
        };
        let open_metrics = weight("application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= weight("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// OpenMetrics in the text format of Prometheus: there a counter is described under the name that its samples have, and units
/// and the end are not marked.
fn as_text(open_metrics: &str) -> String {
    let counters: HashSet<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open_metrics.len() + 6 * 2 * counters.len());
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let described = ["# HELP ", "# TYPE "].into_iter().find_map(|kind| {
            let (name, rest) = line.strip_prefix(kind)?.split_once(' ')?;
            counters.contains(name).then_some((kind, name, rest))
        });
        match described {
            Some((kind, name, rest)) => text.extend([kind, name, "_total ", rest, "\n"]),
            None => text.extend([line, "\n"]),
        }
    }
    text
}

/// A method is whatever a client writes, and each would be a series.
fn known(method: &str) -> Cow<'static, str> {
    let all = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    Cow::Borrowed(all.into_iter().find(|one| *one == method).unwrap_or("other"))
}

struct Reader {
    name: &'static str,
    help: &'static str,
    read: Box<dyn Fn() -> Reading + Send + Sync>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Values, each with the names and values of its labels.
pub type Labelled = Vec<(Vec<(&'static str, String)>, u64)>;

struct LabelledReader {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    read: Box<dyn Fn() -> Labelled + Send + Sync>,
}

impl std::fmt::Debug for LabelledReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LabelledReader")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Collector for LabelledReader {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, self.kind)?;
        for (labels, value) in (self.read)() {
            let one = metric.encode_family(&labels)?;
            if matches!(self.kind, MetricType::Counter) {
                ConstCounter::new(value).encode(one)?;
            } else {
                ConstGauge::new(value).encode(one)?;
            }
        }
        Ok(())
    }
}

impl Collector for Reader {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        match (self.read)() {
            Reading::Total(value) => {
                let total = ConstCounter::new(value);
                let metric = encoder.encode_descriptor(self.name, self.help, None, total.metric_type())?;
                total.encode(metric)
            }
            Reading::TotalTime(time) => {
                let total = ConstCounter::new(time.as_secs_f64());
                let metric = encoder.encode_descriptor(self.name, self.help, None, total.metric_type())?;
                total.encode(metric)
            }
            Reading::Level(value) => {
                let level = ConstGauge::new(value);
                let metric = encoder.encode_descriptor(self.name, self.help, None, level.metric_type())?;
                level.encode(metric)
            }
        }
    }
}

/// The tenants with the most requests, more or less: the Space-Saving algorithm (Metwally, Agrawal, El Abbadi 2005). It
/// holds a fixed number of counters; a newcomer takes over the smallest one with its count, so that whoever has more than
/// a share of `1 / NAMED_TENANTS` of all requests is among them for certain, and no count is too small.
#[derive(Debug, Default)]
struct Busiest {
    counts: HashMap<TenantId, u64>,
}

impl Busiest {
    fn count(&mut self, tenant: TenantId) {
        if let Some(count) = self.counts.get_mut(&tenant) {
            *count += 1;
            return;
        }
        let mut inherited = 0;
        if self.counts.len() >= NAMED_TENANTS
            && let Some((smallest, count)) = self.smallest()
        {
            self.counts.remove(&smallest);
            inherited = count;
        }
        self.counts.insert(tenant, inherited + 1);
    }

    fn smallest(&self) -> Option<(TenantId, u64)> {
        let all = self.counts.iter().map(|(tenant, count)| (*tenant, *count));
        all.min_by_key(|(tenant, count)| (*count, *tenant))
    }

    fn render(&self) -> String {
        let name = "tenantry_busiest_tenants_requests";
        let mut text = format!(
            "# HELP {name} Requests of the busiest tenants, at most too many by the smallest of these.\n# TYPE {name} gauge\n"
        );
        let mut all: Vec<_> = self.counts.iter().collect();
        all.sort_by_key(|(tenant, count)| (std::cmp::Reverse(**count), **tenant));
        for (tenant, count) in all {
            text += &format!("{name}{{tenant=\"{tenant}\"}} {count}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        Uuid::from_u128(number).into()
    }

    #[test]
    fn requests_are_counted_by_template_and_strange_methods_are_one() {
        let metrics = Metrics::default();
        let took = Duration::from_millis(3);
        for status in [200, 200, 404] {
            metrics.answered("GET", Some("/api/v1/tasks/{id}".into()), status, took, None);
        }
        metrics.answered("BREW", None, 405, took, None);
        metrics.register("pool_open", "Open connections", || Reading::Level(3.0));
        metrics.register("cache_hits", "Answers from memory", || Reading::Total(7));
        let text = metrics.render(Audience::Everyone, Format::OpenMetrics);
        for line in [
            r#"tenantry_http_requests_total{method="GET",route="/api/v1/tasks/{id}",status="200"} 2"#,
            r#"tenantry_http_requests_total{method="GET",route="/api/v1/tasks/{id}",status="404"} 1"#,
            r#"tenantry_http_requests_total{method="other",route="",status="405"} 1"#,
            r#"tenantry_http_request_duration_seconds_count{method="GET",route="/api/v1/tasks/{id}"} 3"#,
            r#"tenantry_http_request_duration_seconds_bucket{le="0.0025",method="GET",route="/api/v1/tasks/{id}"} 0"#,
            "tenantry_pool_open 3.0",
            "tenantry_cache_hits_total 7",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert_eq!(text.matches("# EOF").count(), 1);
    }

    #[test]
    fn tenants_are_named_for_operators_only() {
        let metrics = Metrics::default();
        metrics.answered("GET", None, 200, Duration::ZERO, Some(tenant(7)));
        let named = tenant(7).to_string();
        for format in [Format::Text, Format::OpenMetrics] {
            assert!(!metrics.render(Audience::Everyone, format).contains(&named));
            assert!(metrics.render(Audience::Operators, format).contains(&named));
        }
    }

    #[test]
    fn the_text_format_describes_counters_under_their_full_name() {
        let metrics = Metrics::default();
        metrics.answered("GET", None, 200, Duration::ZERO, None);
        metrics.register("cache_hits", "Answers from the cache", || Reading::Total(7));
        metrics.register("asking_seconds", "Time spent asking", || {
            Reading::TotalTime(Duration::from_millis(1_500))
        });
        metrics.register("pool_open", "Open connections", || Reading::Level(3.0));
        let text = metrics.render(Audience::Everyone, Format::Text);
        for line in [
            "# HELP tenantry_cache_hits_total Answers from the cache",
            "# TYPE tenantry_cache_hits_total counter",
            "tenantry_cache_hits_total 7",
            "tenantry_asking_seconds_total 1.5",
            "# TYPE tenantry_pool_open gauge",
            "# TYPE tenantry_http_request_duration_seconds histogram",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert!(!text.contains("# EOF") && text.ends_with('\n'));
    }

    #[test]
    fn the_format_is_the_one_that_accept_prefers() {
        let of = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Format::accepted(&headers)
        };
        assert_eq!(Format::accepted(&HeaderMap::new()), Format::Text);
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=0.2, text/plain", Format::Text),
            ("application/openmetrics-text; version=1.0.0", Format::OpenMetrics),
            (prometheus, Format::OpenMetrics),
        ] {
            assert_eq!(of(accept), format, "{accept}");
        }
    }

    #[test]
    fn however_many_tenants_there_are_few_are_named_and_the_busiest_is_among_them() {
        let mut busiest = Busiest::default();
        for number in 0..10_000 {
            busiest.count(tenant(1_000 + number));
            if number % 5 == 0 {
                busiest.count(tenant(1));
            }
        }
        let text = busiest.render();
        assert_eq!(
            text.lines().filter(|line| !line.starts_with('#')).count(),
            NAMED_TENANTS
        );
        assert!(busiest.counts[&tenant(1)] >= 2_000, "{text}");
    }
}
