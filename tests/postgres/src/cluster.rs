use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tenantry_devdb::{Cluster, ClusterOptions, Durability};

use crate::TestServer;

/// A private cluster, stopped and removed when the process ends.
#[derive(Debug)]
pub struct Running(Cluster);

impl Running {
    pub async fn start() -> TestServer {
        Self::start_as(Durability::Throwaway).await
    }

    /// One that can become a standby, which takes a log with all that a standby needs.
    pub async fn start_durable() -> TestServer {
        Self::start_as(Durability::Durable).await
    }

    async fn start_as(durability: Durability) -> TestServer {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tenantry-tests-{}-{number}", std::process::id());
        let options = ClusterOptions {
            data_dir: folder().join(name),
            durability,
        };
        let cluster = Cluster::start(options).await.unwrap();
        cluster.stop_when_process_ends().unwrap();
        let url = cluster.admin_url("postgres");
        let (admin, _) = url.rsplit_once('/').unwrap();
        TestServer {
            admin: admin.to_owned(),
            port: cluster.port(),
            running: Self(cluster),
        }
    }

    pub async fn stop(self) {
        self.0.stop().await.unwrap();
    }

    /// Restarts it in recovery, at the same port: as a standby that follows nobody.
    pub async fn restart_as_standby(&self) {
        self.0.stop().await.unwrap();
        let data_dir = self.0.data_dir().to_owned();
        tokio::fs::write(data_dir.join("pg/standby.signal"), "")
            .await
            .unwrap();
        let durability = Durability::Durable;
        Cluster::start(ClusterOptions { data_dir, durability })
            .await
            .unwrap();
    }

    pub async fn log(&self) -> String {
        let path = self.0.data_dir().join("postgres.log");
        tokio::fs::read_to_string(path).await.unwrap()
    }
}

/// Where clusters are kept: in memory where there is plenty. Each test makes a database of 600 files and removes it, which
/// takes a file system on a disk longer than PostgreSQL needs for the test.
fn folder() -> PathBuf {
    const PLENTY_BYTES: u64 = 6 << 30;
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map(|volume| volume.f_bavail * volume.f_frsize);
    if room.unwrap_or(0).min(available_memory()) >= PLENTY_BYTES {
        return memory.to_owned();
    }
    std::env::temp_dir()
}

/// What this machine can give without swapping, in bytes; 0 where it does not say.
fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut lines = text.lines();
    let kibibytes = lines.find_map(|line| line.strip_prefix("MemAvailable:")?.strip_suffix("kB"));
    kibibytes
        .and_then(|number| number.trim().parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}
