//! Which trace spans belong to.

use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tenantry_tenancy::{NoTraces, Traces};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::config::{OtlpSignal, Tracing};

/// The port of the use cases.
pub fn port(config: &Tracing) -> Arc<dyn Traces> {
    if config.sends(OtlpSignal::Traces) {
        Arc::new(OtelTraces)
    } else {
        Arc::new(NoTraces)
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
