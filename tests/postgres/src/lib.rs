//! The PostgreSQL servers of tests: containers with the feature `docker`, else private clusters of the machine's own
//! binaries. However the process ends, its servers end with it.
//!
//! Only tests of the private cluster itself, and of `tenantry dev`, which is made of one, start clusters in another way.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(not(feature = "docker"))]
mod cluster;
#[cfg(feature = "docker")]
mod container;
#[cfg(any(test, feature = "docker"))]
mod remover;

#[cfg(not(feature = "docker"))]
use cluster::Running;
#[cfg(feature = "docker")]
use container::Running;

pub use tenantry_devdb::find_binaries;

/// A server of this process's own, without any database but its first and without roles but the superuser.
#[derive(Debug)]
pub struct TestServer {
    running: Running,
    port: u16,
    /// The superuser's URL up to and without the database's name.
    admin: String,
}

impl TestServer {
    /// Starts one. It takes connections when this returns.
    ///
    /// # Panics
    /// When there is neither a container engine (feature `docker`) nor PostgreSQL's binaries.
    pub async fn start() -> Self {
        Running::start().await
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's URL of a database.
    pub fn admin_url(&self, database: &str) -> String {
        format!("{}/{database}", self.admin)
    }

    /// Stops it before the process ends.
    ///
    /// # Panics
    /// When it cannot be stopped.
    pub async fn stop(self) {
        self.running.stop().await;
    }

    /// Starts one that can be restarted as a standby.
    ///
    /// # Panics
    /// When there are no binaries of PostgreSQL.
    #[cfg(not(feature = "docker"))]
    pub async fn start_durable() -> Self {
        Running::start_durable().await
    }

    /// Restarts a server of [`TestServer::start_durable`] as a standby: it takes reads only.
    ///
    /// # Panics
    /// When it does not start.
    #[cfg(not(feature = "docker"))]
    pub async fn restart_as_standby(&self) {
        self.running.restart_as_standby().await;
    }

    /// What the server has logged so far.
    ///
    /// # Panics
    /// When the log cannot be read.
    pub async fn log(&self) -> String {
        self.running.log().await
    }
}
