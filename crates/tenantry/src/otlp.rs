//! What is common to all that is sent to an OpenTelemetry collector. The exporter's own HTTP client sends it, from threads of
//! its own: no request waits for a collector.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{FilterFn, Targets};
use tracing_subscriber::layer::Layer;

use crate::config::{OtlpSignal, Tracing};

/// How long a collector may take for one batch.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// What exports the spans and the log records of this process, once something does.
static SPANS: OnceLock<SdkTracerProvider> = OnceLock::new();
static LOGS: OnceLock<SdkLoggerProvider> = OnceLock::new();

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Returns the layer that makes spans of requests and jobs into traces; `None` where none are sent.
pub fn traces(config: &Tracing) -> Option<BoxedLayer> {
    if !config.sends(OtlpSignal::Traces) {
        return None;
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint(config, OtlpSignal::Traces))
        .with_headers(headers(config))
        .with_timeout(TIMEOUT)
        .build();
    let exporter = usable(exporter, OtlpSignal::Traces)?;
    let ratio = Sampler::TraceIdRatioBased(config.sampling_ratio);
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(ratio)))
        .with_resource(resource(config))
        .build();
    let tracer = provider.tracer("tenantry");
    // Ours only: the spans of libraries show how those work inside.
    let ours = Targets::new()
        .with_target("tenantry_http", tracing::Level::INFO)
        .with_target("tenantry_tenancy", tracing::Level::INFO);
    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_filter(ours);
    SPANS.set(provider).ok().map(|()| layer.boxed())
}

/// Returns the layer that sends log events, with the trace that they belong to; `None` where none are sent.
pub fn logs(config: &Tracing) -> Option<BoxedLayer> {
    if !config.sends(OtlpSignal::Logs) {
        return None;
    }
    let exporter = LogExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint(config, OtlpSignal::Logs))
        .with_headers(headers(config))
        .with_timeout(TIMEOUT)
        .build();
    let exporter = usable(exporter, OtlpSignal::Logs)?;
    let provider = SdkLoggerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource(config))
        .build();
    // What the exporter itself logs would be sent by it, and make it log again.
    let not_of_the_exporter = FilterFn::new(|event| {
        let target = event.target();
        !["opentelemetry", "reqwest", "hyper", "rustls"]
            .iter()
            .any(|library| target.starts_with(library))
    });
    let layer = OpenTelemetryTracingBridge::new(&provider).with_filter(not_of_the_exporter);
    LOGS.set(provider).ok().map(|()| layer.boxed())
}

/// Sends what has not been sent yet. It waits for the collector, so it runs on a thread that may.
pub async fn finish() {
    let flushed = tokio::task::spawn_blocking(|| {
        let spans = SPANS.get().map(SdkTracerProvider::shutdown);
        let logs = LOGS.get().map(SdkLoggerProvider::shutdown);
        spans.into_iter().chain(logs).find_map(Result::err)
    });
    if let Ok(Some(error)) = flushed.await {
        tracing::warn!(%error, "the last traces or logs could not be sent");
    }
}

/// Where a signal is sent.
pub fn endpoint(config: &Tracing, signal: OtlpSignal) -> String {
    let base = config.otlp_endpoint.trim_end_matches('/');
    format!("{base}/v1/{}", signal.as_str())
}

/// The headers of each request to the collector.
pub fn headers(config: &Tracing) -> HashMap<String, String> {
    config.headers().into_iter().flatten().collect()
}

fn resource(config: &Tracing) -> Resource {
    Resource::builder()
        .with_service_name(config.service_name.clone())
        .build()
}

/// The exporter; when there is none, the server runs without, and says so.
pub fn usable<T>(exporter: Result<T, impl std::fmt::Display>, signal: OtlpSignal) -> Option<T> {
    exporter
        .inspect_err(|error| crate::console::error(&format!("no {} will be sent: {error}", signal.as_str())))
        .ok()
}
