use std::fmt;
use std::path::{Path, PathBuf};

use crate::folder::Folder;
use crate::server::{Listening, Server, exclusively};
use crate::{DevDbError, find_binaries, watchdog};

/// Which cluster to start.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The folder of the cluster, made when it does not exist. See the crate's documentation for what
    /// lies in it.
    pub data_dir: PathBuf,
    /// Whether the data has to survive a crash of the machine.
    pub durability: Durability,
}

/// How much a cluster does to keep its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// PostgreSQL's own defaults: what is committed stays. At most 100 connections.
    Durable,
    /// As durable, with memory and checkpoints as on a server of production that has a gigabyte to spare: for measuring.
    Tuned,
    /// For tests: nothing is forced to disk, so that creating a database takes a third of the time, and a
    /// crash of the machine may corrupt the cluster. At most 300 connections.
    Throwaway,
}

/// A running private PostgreSQL server.
///
/// Dropping it leaves the server running: call [`Cluster::stop`], or [`Cluster::stop_when_process_ends`]
/// at the beginning.
pub struct Cluster {
    server: Server,
    listening: Listening,
    password: String,
    fresh: bool,
}

impl Cluster {
    /// Finds the binaries, makes the cluster when the folder has none, and starts the server, or adopts
    /// the one that already runs on that folder (left over when a former process was killed, or started
    /// by another process).
    ///
    /// Returns when the server accepts connections. Two calls for the same folder, also from two
    /// processes, wait for each other and end with the same server.
    ///
    /// # Errors
    ///
    /// Any [`DevDbError`] except [`DevDbError::StopFailed`]; a server that needs more than a minute to
    /// start counts as failed.
    pub async fn start(options: ClusterOptions) -> Result<Cluster, DevDbError> {
        tokio::task::spawn_blocking(move || start(&options)).await?
    }

    /// The URL of a database of this server for its superuser, `postgres`. The name is used as it is and
    /// must not need percent-encoding.
    #[must_use]
    pub fn admin_url(&self, database: &str) -> String {
        let (password, port) = (&self.password, self.listening.port);
        format!("postgres://postgres:{password}@127.0.0.1:{port}/{database}")
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.listening.port
    }

    /// The directory of the Unix socket; only the user who runs the server (and root) can enter it.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.listening.socket_dir
    }

    /// Where the data really is: the folder that was asked for, or one in `/var/tmp` when this process is
    /// root and the server's user cannot reach that folder.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.server.folder.root
    }

    /// The password of the user `postgres`.
    #[must_use]
    pub fn superuser_password(&self) -> &str {
        &self.password
    }

    /// Whether this start made the cluster, so that it is empty.
    #[must_use]
    pub fn fresh(&self) -> bool {
        self.fresh
    }

    /// Stops the server in an orderly way and disconnects its clients. Does nothing when it is not running.
    ///
    /// # Errors
    ///
    /// [`DevDbError::StopFailed`] when it still runs after a minute.
    pub async fn stop(&self) -> Result<(), DevDbError> {
        let server = self.server.clone();
        tokio::task::spawn_blocking(move || {
            if !server.folder.root.exists() {
                return Ok(());
            }
            let _lock = exclusively(&server.folder)?;
            server.stop()
        })
        .await?
    }

    /// For test processes: hands the cluster to a watchdog that stops it when this process ends, however
    /// it ends, and then removes the files of a [`Durability::Throwaway`] cluster that this start made.
    ///
    /// The watchdog acts on the folder, so nobody else should use the same one.
    ///
    /// # Errors
    ///
    /// [`DevDbError::Program`] when no shell can be run.
    pub fn stop_when_process_ends(&self) -> Result<(), DevDbError> {
        watchdog::arm(&self.server, self.fresh)
    }
}

impl fmt::Debug for Cluster {
    /// Leaves the password out: test failures end up in public logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Cluster")
            .field("data_dir", &self.server.folder.root)
            .field("port", &self.listening.port)
            .field("fresh", &self.fresh)
            .finish_non_exhaustive()
    }
}

fn start(options: &ClusterOptions) -> Result<Cluster, DevDbError> {
    let binaries = find_binaries()?;
    let folder = Folder::open(&options.data_dir)?;
    let _lock = exclusively(&folder)?;
    let server = Server {
        binaries,
        folder,
        durability: options.durability,
    };
    let password = server.password()?;
    let fresh = server.init()?;
    let listening = server.ensure_running()?;
    Ok(Cluster {
        server,
        listening,
        password,
        fresh,
    })
}
