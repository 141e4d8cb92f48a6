use serde::{Deserialize, Serialize};

/// Measurements for Prometheus.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Whether `/metrics` is served at all. Beside the API it names the busiest tenants for operators only.
    pub enabled: bool,
    /// A port of its own for it, on `server.host`; 0 = beside the API.
    pub port: u16,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            enabled: true,
            port: 0,
        }
    }
}
