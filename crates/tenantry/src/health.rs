//! What operators are told by `GET /health/detailed`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use serde_json::{Value, json};
use tenantry_domain::kernel::{Clock, StoreError, SystemScope};
use tenantry_domain::operations::JobQueue as _;
use tenantry_domain::usage::{CallSpool as _, SpoolTrouble};
use tenantry_http::{Component, ComponentState, Readiness, Seen};
use tenantry_mail::TalliedMailer;
use tenantry_persistence::{PgJobQueue, Pool, vitals};
use tenantry_redis::Redis;
use tenantry_system::{CacheStats, CachedConfigurations, CachedDirectory, CachedFlags, FileSpool};

use crate::boot::Booted;
use crate::config::Configuration;
use crate::guard::Guard;

/// Readiness with everything that can be asked how it is.
pub fn with_components(
    readiness: Readiness,
    config: &Configuration,
    booted: &Booted,
    guard: &Arc<Guard>,
) -> Readiness {
    let database = Database {
        migrations: config.extension.schema.names,
        runtime: booted.runtime.clone(),
        platform: booted.platform.clone(),
    };
    let jobs = Jobs {
        queue: PgJobQueue::new(booted.platform.clone()),
        clock: Arc::clone(&booted.app.ports.clock),
    };
    let caches = Caches {
        directory: Arc::clone(&booted.cache),
        configurations: Arc::clone(&booted.configurations),
        flags: Arc::clone(&booted.flags),
    };
    readiness
        .with_component("database", true, Arc::new(database))
        .with_component("redis", false, Arc::new(RedisSeen(booted.redis.clone())))
        .with_component("jobs", false, Arc::new(jobs))
        .with_component("mail", false, Arc::new(MailSeen::new(config, booted)))
        .with_component("caches", false, Arc::new(caches))
        .with_component("spool", false, Arc::new(SpoolSeen(Arc::clone(&booted.calls))))
        .with_component("disk", false, Arc::new(Disk::of(&config.metering.spool_dir)))
        .with_component("memory", false, Arc::new(Memory))
        .with_component("guard", false, Arc::<Guard>::clone(guard))
}

struct Database {
    /// The names of the migrations that this program knows.
    migrations: fn() -> Vec<String>,
    runtime: Pool,
    platform: Pool,
}

impl Database {
    async fn seen(&self) -> Result<Seen, StoreError> {
        let asked = Instant::now();
        self.runtime.ping().await?;
        let latency_ms = milliseconds(asked.elapsed());
        let because = SystemScope::because("an operator asks how the database is");
        let vitals = vitals(&self.platform, because).await?;
        let ours = (self.migrations)();
        let pending = ours
            .iter()
            .filter(|name| !vitals.migrations.contains(name))
            .count();
        let state = if pending == 0 {
            ComponentState::Ok
        } else {
            ComponentState::Degraded
        };
        let facts = json!({
            "latency_ms": latency_ms,
            "pool": {"open": self.runtime.open(), "max": self.runtime.max_size()},
            "migrations": {"applied": vitals.migrations.len(), "pending": pending},
            "replication_lag_ms": vitals.replication_lag_ms,
        });
        Ok(Seen::new(state, facts))
    }
}

#[async_trait]
impl Component for Database {
    async fn look(&self) -> Seen {
        self.seen().await.unwrap_or_else(|error| down(&error))
    }
}

struct RedisSeen(Option<Redis>);

#[async_trait]
impl Component for RedisSeen {
    async fn look(&self) -> Seen {
        let Some(redis) = &self.0 else {
            return Seen::new(ComponentState::Off, json!({}));
        };
        let asked = Instant::now();
        match redis.probe().await {
            Ok(()) => {
                let latency_ms = milliseconds(asked.elapsed());
                Seen::new(ComponentState::Ok, json!({ "latency_ms": latency_ms }))
            }
            Err(away) => down(&away),
        }
    }
}

struct Jobs {
    queue: PgJobQueue,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Component for Jobs {
    async fn look(&self) -> Seen {
        let because = SystemScope::because("an operator asks how the queue is");
        match self.queue.census(because).await {
            Ok(census) => {
                let oldest = census
                    .oldest_queued
                    .map(|at| (self.clock.now() - at).as_seconds_f64());
                let facts = json!({
                    "queued": census.queued, "running": census.running, "parked": census.parked,
                    "dead": census.dead, "oldest_queued_seconds": oldest.map(|age| age.max(0.0)),
                });
                Seen::new(ComponentState::Ok, facts)
            }
            Err(error) => down(&error),
        }
    }
}

/// How the last mails went. Nothing is sent to find out.
struct MailSeen {
    configured: bool,
    mailer: Arc<TalliedMailer>,
}

impl MailSeen {
    fn new(config: &Configuration, booted: &Booted) -> Self {
        Self {
            configured: !config.mail.smtp.host.is_empty(),
            mailer: Arc::clone(&booted.mailer),
        }
    }
}

#[async_trait]
impl Component for MailSeen {
    async fn look(&self) -> Seen {
        let stats = self.mailer.stats();
        let (state, transport) = match (self.configured, stats.goes_out()) {
            (false, _) => (ComponentState::Off, "log"),
            (true, true) => (ComponentState::Ok, "smtp"),
            (true, false) => (ComponentState::Degraded, "smtp"),
        };
        let (failed_at, problem) = stats.last_failure.unzip();
        let facts = json!({
            "transport": transport, "last_success": stats.last_success,
            "last_failure": failed_at, "problem": problem,
        });
        Seen::new(state, facts)
    }
}

struct Caches {
    directory: Arc<CachedDirectory>,
    configurations: Arc<CachedConfigurations>,
    flags: Arc<CachedFlags>,
}

#[async_trait]
impl Component for Caches {
    async fn look(&self) -> Seen {
        let facts = json!({
            "directory": facts(self.directory.stats()),
            "settings": facts(self.configurations.stats()),
            "flags": facts(self.flags.stats()),
        });
        Seen::new(ComponentState::Ok, facts)
    }
}

fn facts(cache: CacheStats) -> Value {
    json!({"hits": cache.hits, "loads": cache.loads, "entries": cache.entries})
}

/// Calls on their way into the ledger.
struct SpoolSeen(Arc<FileSpool>);

#[async_trait]
impl Component for SpoolSeen {
    async fn look(&self) -> Seen {
        let tally = self.0.tally();
        let state = match tally.trouble {
            None => ComponentState::Ok,
            Some(_) => ComponentState::Degraded,
        };
        let facts = json!({
            "pending": tally.pending, "remembered": tally.remembered, "lost": tally.lost,
            "reason": tally.trouble.map(SpoolTrouble::as_str),
        });
        Seen::new(state, facts)
    }
}

/// The file system of the folder that the server writes to: that of the spool, where there is one.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Without a spool, the folder that the server works in.
    fn of(spool: &Path) -> Self {
        let is_off = spool.as_os_str().is_empty();
        let folder = if is_off { Path::new(".") } else { spool };
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Of a folder that is made with the first call the nearest one that exists.
    fn statvfs(folder: &Path) -> rustix::io::Result<rustix::fs::StatVfs> {
        let there = folder.ancestors().find(|part| part.exists());
        rustix::fs::statvfs(there.unwrap_or(Path::new(".")))
    }
}

#[async_trait]
impl Component for Disk {
    async fn look(&self) -> Seen {
        // The call may hang with the file system, so it must not do so on a thread that serves.
        let folder = self.folder.clone();
        let asked = tokio::task::spawn_blocking(move || Self::statvfs(&folder));
        match asked.await {
            Ok(Ok(disk)) => {
                let facts = json!({
                    "free_bytes": disk.f_bavail.saturating_mul(disk.f_frsize),
                    "total_bytes": disk.f_blocks.saturating_mul(disk.f_frsize),
                });
                Seen::new(ComponentState::Ok, facts)
            }
            Ok(Err(error)) => down(&error),
            Err(error) => down(&error),
        }
    }
}

struct Memory;

#[async_trait]
impl Component for Memory {
    async fn look(&self) -> Seen {
        Seen::new(ComponentState::Ok, json!({ "resident_bytes": resident_bytes() }))
    }
}

/// What the process has in memory; `None` where the system does not say it in this way.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn down(error: &dyn std::fmt::Display) -> Seen {
    Seen::new(ComponentState::Down, json!({ "reason": error.to_string() }))
}

/// To the microsecond.
fn milliseconds(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file system of processes has no blocks.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn disk_is_the_file_system_of_the_spool() {
        let seen = async |spool: &str| Disk::of(Path::new(spool)).look().await.facts["total_bytes"].as_u64();
        assert!(seen("").await > Some(0));
        for spool in ["/proc/self", "/proc/self/fd/not/there"] {
            assert_eq!(seen(spool).await, Some(0), "{spool}");
        }
    }
}
