use tenantry_domain::kernel::{StoreError, SystemScope};
use tenantry_domain::store::Mode;

use crate::Pool;
use crate::kernel::error::column;
use crate::kernel::tx::PlatformTx;

/// What a database says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Vitals {
    /// The names of the migrations that have been applied.
    pub migrations: Vec<String>,
    /// How far a replica is behind, in milliseconds: this server, when it is one, else the slowest of its own that this
    /// role may see. `None` where there is none.
    pub replication_lag_ms: Option<f64>,
}

const LAG: &str = "\
SELECT (extract(epoch FROM CASE WHEN pg_is_in_recovery()
    THEN now() - pg_last_xact_replay_timestamp()
    ELSE (SELECT max(replay_lag) FROM pg_stat_replication) END) * 1000)::float8 AS lag_ms";

/// Asks a database how it is, as the platform role.
///
/// # Errors
/// [`StoreError`].
pub async fn vitals(platform: &Pool, because: SystemScope) -> Result<Vitals, StoreError> {
    let mut tx = PlatformTx::begin(platform, because, Mode::Read).await?;
    let applied = tx
        .fetch_fixed("SELECT version FROM seaql_migrations ORDER BY version", [])
        .await?;
    let lag = tx.fetch_fixed(LAG, []).await?;
    tx.commit().await?;
    Ok(Vitals {
        migrations: applied
            .iter()
            .map(|row| column(row, "version"))
            .collect::<Result<_, _>>()?,
        replication_lag_ms: match lag.first() {
            Some(row) => column(row, "lag_ms")?,
            None => None,
        },
    })
}
