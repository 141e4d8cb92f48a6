//! The program that is measured, as it runs in production.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Failure;
use crate::ground::Ground;

/// Where it listens.
pub const ADDRESS: &str = "127.0.0.1:18080";

/// A running server.
pub struct Server {
    child: Child,
    /// How long it took from being started to being ready.
    pub startup: Duration,
}

/// Calls that wait in the spool.
const PENDING: &str = "tenantry_metering_spool_pending";

/// Tenants with entries of the audit log that are not chained.
const UNCHAINED: &str = "tenantry_audit_chain_waiting_tenants";

/// The settings of the server and of commands beside it. Writes the plan file into the folder.
pub fn environment(
    ground: &Ground,
    redis: &str,
    folder: &Path,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let plans = folder.join("plans.toml");
    std::fs::write(&plans, crate::scenario::plans())?;
    let port = ADDRESS.rsplit(':').next().unwrap_or_default();
    Ok(vec![
        ("TENANTRY__SERVER__PORT", port.to_owned()),
        ("TENANTRY__DATABASE__URL", ground.app_url()),
        ("TENANTRY__DATABASE__PLATFORM_URL", ground.platform_url()),
        ("TENANTRY__DATABASE__POOL_SIZE", "8".to_owned()),
        ("TENANTRY__AUTH__SIGNING_KEY", ground.key.to_pem()),
        // Every request is held to its limits, and none reaches them.
        ("TENANTRY__LIMITS__FACTOR", "1000".to_owned()),
        ("TENANTRY__LIMITS__SHARED", "false".to_owned()),
        ("TENANTRY__REDIS__URL", redis.to_owned()),
        ("TENANTRY__PLANS__FILE", plans.display().to_string()),
        (
            "TENANTRY__METERING__SPOOL_DIR",
            ground.spool.display().to_string(),
        ),
    ])
}

impl Server {
    /// Starts the program on the ground, with further settings, and waits until it is ready.
    pub async fn start(
        program: &Path,
        ground: &Ground,
        redis: &str,
        settings: &[(&str, &str)],
        log: &Path,
    ) -> Result<Self, Failure> {
        if TcpStream::connect(ADDRESS).await.is_ok() {
            return Err(format!("something listens on {ADDRESS} already").into());
        }
        let began = Instant::now();
        let folder = log.parent().ok_or("the log lies in no folder")?.to_owned();
        let log = File::create(log)?;
        let mut child = Command::new(program)
            .arg("serve")
            .envs(environment(ground, redis, &folder)?)
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        while !is_ready().await {
            if let Some(status) = child.try_wait()? {
                return Err(format!("the server ended with {status}: see target/bench/server.log").into());
            }
            if began.elapsed() > Duration::from_secs(30) {
                return Err("the server is not ready after 30 seconds: see target/bench/server.log".into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(Self {
            child,
            startup: began.elapsed(),
        })
    }

    /// Waits until all calls are in the ledger; how many there were when it began.
    pub async fn caught_up(&self) -> Result<u64, Failure> {
        let began = Instant::now();
        let waiting = gauge(PENDING).await?;
        while gauge(PENDING).await? > 0 {
            if began.elapsed() > Duration::from_secs(600) {
                return Err(
                    "calls are not in the ledger after ten minutes: see target/bench/server.log".into(),
                );
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(waiting)
    }

    /// Waits until every entry of the audit log is chained.
    pub async fn chained(&self) -> Result<(), Failure> {
        let began = Instant::now();
        while gauge(UNCHAINED).await? > 0 {
            if began.elapsed() > Duration::from_secs(600) {
                return Err("entries are not chained after ten minutes: see target/bench/server.log".into());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn is_ready() -> bool {
    let answer = get("/health/readiness").await;
    answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The present value of a metric without labels.
async fn gauge(name: &str) -> Result<u64, Failure> {
    let metrics = get("/metrics").await?;
    let value = |line: &str| {
        line.strip_prefix(name)?
            .strip_prefix(' ')?
            .trim()
            .parse::<f64>()
            .ok()
    };
    let found = metrics.lines().find_map(value);
    Ok(found.ok_or_else(|| format!("/metrics does not tell of {name}"))? as u64)
}

async fn get(path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(ADDRESS).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {ADDRESS}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// What processes have used of the processor, in microseconds since they began.
#[derive(Debug)]
pub struct Used {
    server: u64,
    postgres: HashMap<String, u64>,
}

impl Used {
    /// At present, of the server and of all processes of the PostgreSQL whose data lie in the folder.
    pub fn now(server: u32, postgres: &Path) -> Self {
        let postmaster = std::fs::read_to_string(postgres.join("pg/postmaster.pid")).unwrap_or_default();
        let postmaster = postmaster.lines().next().unwrap_or_default().to_owned();
        let all: Vec<_> = processes().collect();
        let server = all.iter().find(|one| one.id == server.to_string());
        let server = server.map_or(0, |one| one.used);
        let of_postgres = |one: &Process| one.id == postmaster || one.parent == postmaster;
        let postgres = all.into_iter().filter(of_postgres);
        Self {
            server,
            postgres: postgres.map(|one| (one.id, one.used)).collect(),
        }
    }

    /// What was used between two moments, by the server and by the processes of PostgreSQL that are still there: those of
    /// pgbench's last round may be ending just now.
    pub fn since(&self, before: &Self) -> (u64, u64) {
        let each = self.postgres.iter().map(|(id, used)| {
            let before = before.postgres.get(id).copied().unwrap_or(0);
            used.saturating_sub(before)
        });
        (self.server.saturating_sub(before.server), each.sum())
    }
}

/// Resident memory of a process, in MiB.
pub fn resident_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1_024
}

struct Process {
    id: String,
    parent: String,
    used: u64,
}

/// proc(5), `/proc/[pid]/stat`: the parent is field 4, user and system time are 14 and 15, in ticks of 10 ms.
fn processes() -> impl Iterator<Item = Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let id = entry.file_name().into_string().ok()?;
        id.parse::<u32>().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some(Process {
            id,
            parent: (*fields.get(1)?).to_owned(),
            used: ticks * 10_000,
        })
    })
}
