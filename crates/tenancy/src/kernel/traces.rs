use tracing::Span;

/// Traces that go beyond this process: a request's may begin with its caller, and a job's go on with the request that
/// asked for it. In the words of W3C Trace Context.
pub trait Traces: std::fmt::Debug + Send + Sync {
    /// Makes a span that has just begun a part of the trace that a `traceparent` names; nonsense is passed over.
    fn adopt(&self, span: &Span, trace_parent: &str);

    /// The `traceparent` of the present span, when it is traced.
    fn trace_parent(&self) -> Option<String>;
}

/// No traces: what is asked for costs nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoTraces;

impl Traces for NoTraces {
    fn adopt(&self, _: &Span, _: &str) {}

    fn trace_parent(&self) -> Option<String> {
        None
    }
}
