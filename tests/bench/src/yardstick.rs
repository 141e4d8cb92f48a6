//! What PostgreSQL itself does in the same minute: pgbench with the same statements.

use std::path::Path;

use tokio::process::Command;

use crate::Failure;
use crate::load::CONNECTIONS;

/// Transactions in a second, with queries as text (`simple`) or `prepared`.
pub async fn run(url: &str, sql: &str, mode: &str, script: &Path, seconds: u64) -> Result<f64, Failure> {
    std::fs::write(script, sql)?;
    let pgbench = tenantry_devdb::find_binaries()?.join("pgbench");
    let output = Command::new(pgbench)
        .args([
            "-n",
            "-M",
            mode,
            "-j",
            "1",
            "-c",
            &CONNECTIONS.to_string(),
            "-T",
            &seconds.to_string(),
            "-f",
        ])
        .arg(script)
        .arg(url)
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    rate.ok_or_else(|| format!("pgbench: {}", String::from_utf8_lossy(&output.stderr)).into())
}
