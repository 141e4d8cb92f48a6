use serde::{Deserialize, Serialize};

use super::range::{HOUR_MS, in_range};
use super::{ConfigurationError, Secret};

/// Which database, as which roles.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// As the runtime role `tenantry_app`.
    pub url: Secret,
    /// As the directory's and operators' role `tenantry_platform`.
    pub platform_url: Secret,
    /// As `tenantry_owner`, for `tenantry migrate` only.
    pub owner_url: Secret,
    /// As an administrator, for `tenantry migrate --bootstrap` and `tenantry dev` only.
    pub admin_url: Secret,
    pub pool_size: usize,
    pub platform_pool_size: usize,
    /// How many connections one tenant may use at once; 0 = half of them, and a quarter while other tenants are there.
    pub per_tenant: usize,
    /// How many requests may wait for a connection; the next one is answered 503 at once.
    pub queue: usize,
    pub acquire_timeout_ms: u64,
    pub connect_timeout_ms: u64,
    /// How long a statement may run, how long it may wait for a lock, and how long a transaction may do nothing; 0 = as
    /// the role has it.
    pub statement_timeout_ms: u64,
    pub lock_timeout_ms: u64,
    pub idle_in_transaction_timeout_ms: u64,
    pub check_after_idle_seconds: u64,
    pub max_lifetime_seconds: u64,
    /// The URLs lead to PgBouncer in transaction mode.
    pub behind_pooler: bool,
    /// Accept URLs over a network without `sslmode=verify-full` in production. Logged at every start.
    pub allow_plaintext: bool,
}

impl Database {
    /// Whether the configuration names a database, whichever role it is for.
    pub fn is_named(&self) -> bool {
        let urls = [&self.url, &self.platform_url, &self.owner_url, &self.admin_url];
        urls.into_iter().any(|url| !url.is_empty())
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            platform_url: Secret::default(),
            owner_url: Secret::default(),
            admin_url: Secret::default(),
            pool_size: 10,
            platform_pool_size: 3,
            per_tenant: 0,
            queue: 1_000,
            acquire_timeout_ms: 5_000,
            connect_timeout_ms: 5_000,
            statement_timeout_ms: 30_000,
            lock_timeout_ms: 5_000,
            idle_in_transaction_timeout_ms: 60_000,
            check_after_idle_seconds: 30,
            max_lifetime_seconds: 1_800,
            behind_pooler: false,
            allow_plaintext: false,
        }
    }
}

impl Database {
    /// Whether each number is in its range.
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[
            ("database.pool_size", self.pool_size as u64, 1, 1_000),
            ("database.per_tenant", self.per_tenant as u64, 0, 1_000),
            ("database.queue", self.queue as u64, 1, 1_000_000),
            (
                "database.platform_pool_size",
                self.platform_pool_size as u64,
                1,
                100,
            ),
            ("database.acquire_timeout_ms", self.acquire_timeout_ms, 1, 600_000),
            ("database.connect_timeout_ms", self.connect_timeout_ms, 1, 600_000),
            (
                "database.max_lifetime_seconds",
                self.max_lifetime_seconds,
                1,
                86_400,
            ),
            (
                "database.statement_timeout_ms",
                self.statement_timeout_ms,
                0,
                HOUR_MS,
            ),
            ("database.lock_timeout_ms", self.lock_timeout_ms, 0, HOUR_MS),
            (
                "database.idle_in_transaction_timeout_ms",
                self.idle_in_transaction_timeout_ms,
                0,
                HOUR_MS,
            ),
        ])
    }
}
