//! A Redis of the bench's own, which stores nothing.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::UnixStream;

use crate::Failure;

/// A running Redis; it ends with this value.
pub struct Redis {
    child: Child,
    socket: PathBuf,
}

impl Redis {
    /// Starts it on a socket in the folder.
    pub async fn start(folder: &Path) -> Result<Self, Failure> {
        let socket = folder.join("redis.sock");
        let _ = std::fs::remove_file(&socket);
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("redis-server: {error}; scripts/ensure redis installs it"))?;
        let redis = Self { child, socket };
        for _ in 0..500 {
            if UnixStream::connect(&redis.socket).await.is_ok() {
                return Ok(redis);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err("Redis does not start".into())
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
