use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::tls::{Authority, folder};

/// A Redis of the test's own that speaks TLS, with a certificate for 127.0.0.1 from an authority made for it; killed
/// with this value.
#[derive(Debug)]
pub struct TlsRedisServer {
    process: Child,
    authority: Authority,
    port: u16,
}

impl TlsRedisServer {
    /// Starts one.
    ///
    /// # Panics
    /// When it or openssl is not installed, or it does not answer in time.
    pub fn start() -> Self {
        let authority = Authority::make();
        // Somebody else may take the port in between; then the next one is tried.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let files = ["--tls-cert-file", "server.crt", "--tls-key-file", "server.key"];
            let clients = ["--tls-ca-cert-file", "ca.crt", "--tls-auth-clients", "no"];
            let port_argument = port.to_string();
            let listen = ["--tls-port", &port_argument, "--bind", "127.0.0.1"];
            let mut process = spawn(authority.folder(), &[&listen[..], &files, &clients].concat());
            let deadline = Instant::now() + Duration::from_secs(10);
            while process.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self {
                        process,
                        authority,
                        port,
                    };
                }
                assert!(Instant::now() < deadline, "Redis does not start");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("Redis does not start: can it do TLS?")
    }

    /// Where it is. Its certificate is for this address, and for no name.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The certificate of the authority that its own is from.
    pub fn authority(&self) -> PathBuf {
        self.authority.certificate()
    }
}

impl Drop for TlsRedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A Redis of the test's own, on a socket in a folder of its own, that stores nothing; killed with this value.
#[derive(Debug)]
pub struct RedisServer {
    process: Option<Child>,
    folder: PathBuf,
}

impl RedisServer {
    /// Starts one.
    ///
    /// # Panics
    /// When it is not installed, saying what to install.
    pub fn start() -> Self {
        let mut server = Self {
            process: None,
            folder: folder("redis"),
        };
        server.restart();
        server
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Ends it without a warning. What it knew is lost.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again at the same place, empty.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn restart(&mut self) {
        self.kill();
        self.process = Some(spawn(&self.folder, &["--unixsocket", "socket"]));
        let deadline = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < deadline, "Redis does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it in the middle of whatever it does: it takes connections and answers nothing.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// A connection for looking into it.
    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    fn signal(&self, signal: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn spawn(folder: &Path, listen: &[&str]) -> Child {
    let plain = ["--port", "0", "--save", "", "--appendonly", "no"];
    let mut command = Command::new("redis-server");
    command
        .args(plain)
        .args(listen)
        .current_dir(folder)
        .stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| {
        panic!("{error}: run scripts/ensure redis (Debian: `apt-get install redis-server`)")
    })
}
