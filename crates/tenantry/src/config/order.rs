use super::{Configuration, ConfigurationError};

impl Configuration {
    /// What must be in order in the configuration: a deadline that lies behind another is never met.
    pub(super) fn check_order(&self) -> Result<(), ConfigurationError> {
        let (database, http) = (&self.database, &self.http);
        let request = ("http.request_timeout_ms", http.request_timeout_ms);
        let statement = ("database.statement_timeout_ms", database.statement_timeout_ms);
        let acquire = ("database.acquire_timeout_ms", database.acquire_timeout_ms);
        let connect = ("database.connect_timeout_ms", database.connect_timeout_ms);
        let below = [acquire, connect, ("redis.timeout_ms", self.redis.timeout_ms)];
        for (key, value) in below {
            if value >= request.1 {
                return Err(out_of_order((key, value), "less than", request));
            }
        }
        let pool = ("database.pool_size", database.pool_size as u64);
        let not_above = [
            (("http.body_timeout_ms", http.body_timeout_ms), request),
            (statement, request),
            (("database.lock_timeout_ms", database.lock_timeout_ms), statement),
            (("database.per_tenant", database.per_tenant as u64), pool),
            (
                (
                    "http.event_streams_per_tenant",
                    http.event_streams_per_tenant as u64,
                ),
                ("http.event_streams", http.event_streams as u64),
            ),
            (
                ("cache.alone_ttl_ms", self.cache.alone_ttl_ms),
                ("cache.ttl_ms", self.cache.ttl_ms),
            ),
        ];
        for (less, more) in not_above {
            // 0 leaves the statement's timeout to the role, so there is nothing to compare with.
            if less.1 > more.1 && more != (statement.0, 0) {
                return Err(out_of_order(less, "at most", more));
            }
        }
        Ok(())
    }
}

/// A complaint that names both settings.
fn out_of_order(key: (&'static str, u64), relation: &str, other: (&'static str, u64)) -> ConfigurationError {
    let problem = format!("must be {relation} {} ({}), is {}", other.0, other.1, key.1);
    ConfigurationError::invalid(key.0, problem)
}
