use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use deadpool_redis::redis;

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
        let (process, port) = on_a_free_port(authority.folder(), |port| {
            let files = ["--tls-cert-file", "server.crt", "--tls-key-file", "server.key"];
            let clients = ["--tls-ca-cert-file", "ca.crt", "--tls-auth-clients", "no"];
            let port = port.to_string();
            let listen = ["--tls-port", &port, "--bind", "127.0.0.1"];
            spawn(authority.folder(), &[&listen[..], &files, &clients].concat())
        });
        Self {
            process,
            authority,
            port,
        }
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
        let deadline = Instant::now() + Duration::from_secs(60);
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

/// A Redis Cluster of two nodes, each with half of the slots; killed with this value.
#[derive(Debug)]
pub struct ClusterServer {
    nodes: [(Child, u16); 2],
    folder: PathBuf,
}

impl ClusterServer {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn start() -> Self {
        let folder = folder("redis-cluster");
        let nodes = ["0", "1"].map(|name| {
            let place = folder.join(name);
            fs::create_dir(&place).unwrap();
            on_a_free_port(&place, |port| {
                let (own, bus) = (port.to_string(), free_port().to_string());
                let listen = ["--port", &own, "--bind", "127.0.0.1", "--cluster-port", &bus];
                let cluster = ["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"];
                spawn(&place, &[&listen[..], &cluster].concat())
            })
        });
        let cluster = Self { nodes, folder };
        cluster.tell(0, "CLUSTER ADDSLOTSRANGE 0 8191");
        cluster.tell(1, "CLUSTER ADDSLOTSRANGE 8192 16383");
        // Of itself a node says `<id> <host>:<port>@<bus> ...`.
        let itself = cluster.tell(1, "CLUSTER NODES");
        let (_, bus) = itself.split_once('@').unwrap();
        let bus: String = bus.chars().take_while(char::is_ascii_digit).collect();
        let port = cluster.nodes[1].1;
        cluster.tell(0, &format!("CLUSTER MEET 127.0.0.1 {port} {bus}"));
        until("the cluster has all slots", || {
            (0..2).all(|node| cluster.tell(node, "CLUSTER INFO").contains("cluster_state:ok"))
        });
        cluster
    }

    /// Where its first node is.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.nodes[0].1)
    }

    /// Gives one of the nodes a command; its answer.
    pub fn tell(&self, node: usize, command: &str) -> String {
        ask(self.nodes[node].1, command)
    }
}

impl Drop for ClusterServer {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(|(process, _)| end(process));
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A master, a replica and the Sentinel that watches them, under the name `mymaster`; killed with this value.
#[derive(Debug)]
pub struct Sentinels {
    processes: [Child; 3],
    folder: PathBuf,
    sentinel: u16,
}

impl Sentinels {
    /// Starts them, and waits until the Sentinel knows the replica.
    ///
    /// # Panics
    /// When they do not answer in time.
    pub fn start() -> Self {
        let folder = folder("redis-sentinel");
        let place = |name: &str| {
            let place = folder.join(name);
            fs::create_dir(&place).unwrap();
            place
        };
        let (master_dir, replica_dir, sentinel_dir) = (place("master"), place("replica"), place("sentinel"));
        let (master, at_master) = on_a_free_port(&master_dir, |port| {
            spawn(&master_dir, &["--port", &port.to_string(), "--bind", "127.0.0.1"])
        });
        let (replica, _) = on_a_free_port(&replica_dir, |port| {
            let of = format!("127.0.0.1 {at_master}");
            let port = port.to_string();
            let arguments = ["--port", &port, "--bind", "127.0.0.1", "--replicaof", &of];
            spawn(
                &replica_dir,
                &[&arguments[..], &["--repl-diskless-sync-delay", "0"]].concat(),
            )
        });
        let (sentinel, at_sentinel) = on_a_free_port(&sentinel_dir, |port| {
            let settings = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {at_master} 1\n\
                 sentinel down-after-milliseconds mymaster 2000\nsentinel failover-timeout mymaster 3000\n"
            );
            fs::write(sentinel_dir.join("sentinel.conf"), settings).unwrap();
            spawn_with(&sentinel_dir, &["sentinel.conf", "--sentinel"])
        });
        Self {
            processes: [master, replica, sentinel],
            folder,
            sentinel: at_sentinel,
        }
    }

    /// Where the Sentinel is.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.sentinel)
    }

    /// Makes the replica the master, and the master a replica.
    ///
    /// # Panics
    /// When that does not happen in time.
    pub fn fail_over(&self) {
        let former = self.master();
        until("the Sentinel begins", || {
            ask(self.sentinel, "SENTINEL FAILOVER mymaster") == "ok"
        });
        until("there is another master", || self.master() != former);
    }

    /// The port of the present master.
    pub fn master(&self) -> u16 {
        let answer = ask(self.sentinel, "SENTINEL GET-MASTER-ADDR-BY-NAME mymaster");
        let mut numbers = answer
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok());
        numbers.next_back().unwrap()
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        // The Sentinel first, so that it changes nobody's part any more.
        self.processes.iter_mut().rev().for_each(end);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A server that takes connections, and its port. Somebody else may take a port in between; then another one is tried.
fn on_a_free_port(folder: &Path, start: impl Fn(u16) -> Child) -> (Child, u16) {
    for _ in 0..10 {
        let port = free_port();
        let mut process = start(port);
        let deadline = Instant::now() + Duration::from_secs(60);
        while process.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return (process, port);
            }
            assert!(Instant::now() < deadline, "Redis does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    panic!("Redis does not start in {}", folder.display())
}

fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}

/// What a server answers to a command, as text.
fn ask(port: u16, command: &str) -> String {
    let mut words = command.split(' ');
    let mut asked = redis::cmd(words.next().unwrap());
    for word in words {
        asked.arg(word);
    }
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let answer = client
        .get_connection()
        .and_then(|mut connection| asked.query::<redis::Value>(&mut connection));
    answer.map_or_else(|error| error.to_string(), |answer| format!("{answer:?}"))
}

fn spawn(folder: &Path, listen: &[&str]) -> Child {
    let plain = ["--port", "0", "--save", "", "--appendonly", "no"];
    spawn_with(folder, &[&plain[..], listen].concat())
}

fn spawn_with(folder: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| {
        panic!("{error}: run scripts/ensure redis (Debian: `apt-get install redis-server`)")
    })
}
