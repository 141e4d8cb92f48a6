use std::sync::atomic::{AtomicU32, Ordering};

use tenantry_devdb::{Cluster, ClusterOptions, Durability};

use crate::TestServer;

/// A private cluster, stopped and removed when the process ends.
#[derive(Debug)]
pub struct Running(Cluster);

impl Running {
    pub async fn start() -> TestServer {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tenantry-tests-{}-{number}", std::process::id());
        let options = ClusterOptions {
            data_dir: std::env::temp_dir().join(name),
            durability: Durability::Throwaway,
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

    pub async fn log(&self) -> String {
        let path = self.0.data_dir().join("postgres.log");
        tokio::fs::read_to_string(path).await.unwrap()
    }
}
