//! Traces over OTLP, when the settings name a collector.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tenantry_tenancy::{NoTraces, Traces};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Layer;

use crate::settings::Tracing;

/// How long a collector may take. Only the thread that exports waits for it, never a request.
const PATIENCE: Duration = Duration::from_secs(2);

/// What exports the spans of this process, once something does.
static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// The port of the use cases.
pub fn port(settings: &Tracing) -> Arc<dyn Traces> {
    if settings.otlp_endpoint.is_empty() {
        Arc::new(NoTraces)
    } else {
        Arc::new(OtelTraces)
    }
}

/// What makes spans of requests and jobs into traces; nothing where there is no collector.
pub fn layer(settings: &Tracing) -> Option<Box<dyn Layer<Registry> + Send + Sync>> {
    if settings.otlp_endpoint.is_empty() {
        return None;
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", settings.otlp_endpoint))
        .with_timeout(PATIENCE)
        .build();
    let exporter = match exporter {
        Ok(exporter) => exporter,
        Err(error) => {
            crate::console::error(&format!("there will be no traces: {error}"));
            return None;
        }
    };
    let ratio = Sampler::TraceIdRatioBased(settings.sampling_ratio);
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(ratio)))
        .with_resource(
            Resource::builder()
                .with_service_name(settings.service_name.clone())
                .build(),
        )
        .build();
    let tracer = provider.tracer("tenantry");
    // Ours only: the spans of libraries tell how they are made.
    let ours = Targets::new()
        .with_target("tenantry_http", tracing::Level::INFO)
        .with_target("tenantry_tenancy", tracing::Level::INFO);
    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_filter(ours);
    PROVIDER.set(provider).ok().map(|()| layer.boxed())
}

/// Sends what has not been sent yet. It waits for the collector, so it is done on a thread that may.
pub async fn finish() {
    let flushed = tokio::task::spawn_blocking(|| PROVIDER.get().map(SdkTracerProvider::shutdown));
    if let Ok(Some(Err(error))) = flushed.await {
        tracing::warn!(%error, "the last traces could not be sent");
    }
}

#[derive(Debug)]
struct OtelTraces;

impl Traces for OtelTraces {
    fn adopt(&self, span: &Span, trace_parent: &str) {
        let carrier = HashMap::from([("traceparent".to_owned(), trace_parent.to_owned())]);
        let parent = TraceContextPropagator::new().extract(&carrier);
        if parent.span().span_context().is_valid() {
            // It fails for a span that is switched off, which is no part of any trace.
            let _ = span.set_parent(parent);
        }
    }

    fn trace_parent(&self) -> Option<String> {
        let mut carrier = HashMap::new();
        TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
        carrier.remove("traceparent")
    }
}

/// A client that knows as much of HTTP as a collector in the same network needs. It blocks: the exporter has a thread of
/// its own, and no request waits for it.
#[derive(Debug)]
struct Collector;

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let status = send(&request)?;
        Ok(Response::builder().status(status).body(Bytes::new())?)
    }
}

fn send(request: &Request<Bytes>) -> Result<u16, HttpError> {
    let authority = request.uri().authority().ok_or("the endpoint has no host")?;
    let address = (authority.host(), authority.port_u16().unwrap_or(80));
    let address = address
        .to_socket_addrs()?
        .next()
        .ok_or("the host has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        request.uri().path(),
        request.body().len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(request.body())?;
    // "HTTP/1.1 200", and whatever follows is of no interest.
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    let status = std::str::from_utf8(&answer[9..])?;
    Ok(status.parse()?)
}
