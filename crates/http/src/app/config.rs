use std::time::Duration;

/// What the operator decides about HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// The domain whose subdomains name tenants, for example `example.com`; `None` when subdomains do not.
    pub base_domain: Option<String>,
    /// How large a request body may be.
    pub body_limit_bytes: usize,
    /// From which origins browsers may call; `*` for any, none when empty.
    pub cors_origins: Vec<String>,
    /// Whether to tell browsers to insist on HTTPS.
    pub hsts: bool,
    /// Whether the last hop of `X-Forwarded-For` is the caller's address. Only right behind a proxy that sets
    /// it.
    pub trust_forwarded_for: bool,
    /// How long a request may take until its answer begins; then it is answered 503 and what it did is rolled back.
    pub request_timeout: Duration,
    /// How long a client may take to send a body.
    pub body_timeout: Duration,
    /// How long a stream of events stays open; then the client opens it again, perhaps at another server.
    pub event_stream_lifetime: Duration,
    /// After how long without an event a stream sends a comment, so that a client and its proxies know that it is alive.
    pub event_stream_heartbeat: Duration,
    /// How many streams of events all tenants together may have open here.
    pub event_streams: usize,
    /// How many of them one tenant may have open.
    pub event_streams_per_tenant: usize,
    /// Whether `/metrics` is served here; series that name tenants are for operators only.
    pub serve_metrics: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            base_domain: None,
            body_limit_bytes: 1024 * 1024,
            cors_origins: Vec::new(),
            hsts: false,
            trust_forwarded_for: false,
            request_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(15),
            event_stream_lifetime: Duration::from_secs(600),
            event_stream_heartbeat: Duration::from_secs(15),
            event_streams: 10_000,
            event_streams_per_tenant: 100,
            serve_metrics: true,
        }
    }
}
