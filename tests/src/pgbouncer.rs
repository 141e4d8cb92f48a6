use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::server::{PASSWORD, Server};

/// A PgBouncer in transaction mode before the tests' server, on a port of its own; stopped with this value.
#[derive(Debug)]
pub struct PgBouncer {
    process: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl PgBouncer {
    /// Starts one that opens at most so many server connections for each role and database.
    ///
    /// `settings` are further lines of its configuration.
    ///
    /// # Panics
    /// When it is not installed, saying what to install.
    pub fn start(server_connections: u32, settings: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let program = program();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tenantry-pgbouncer-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        // Somebody else may be faster in taking a port that was found free; then PgBouncer ends at once.
        for _ in 0..20 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let config = configure(&folder, address, server_connections, settings);
            let process = spawn(&program, &config);
            let mut bouncer = Self {
                process,
                address,
                folder: folder.clone(),
            };
            if bouncer.answers() {
                return bouncer;
            }
        }
        panic!(
            "PgBouncer does not start: {}",
            fs::read_to_string(folder.join("log")).unwrap_or_default()
        );
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// A URL of the server with a pooler's address in place of the server's.
    pub fn route(url: &str, pooler: SocketAddr) -> String {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_once('/').unwrap();
        let (user, _) = authority.rsplit_once('@').unwrap();
        // It speaks no TLS; what the server's URL asks for is between it and the server.
        let database = path.split('?').next().unwrap();
        format!("{scheme}://{user}@{pooler}/{database}?sslmode=disable")
    }

    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    // Debian puts it where only root looks.
    let folders = on_path
        .into_iter()
        .chain(["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"].map(PathBuf::from));
    let mut programs = folders.map(|folder| folder.join("pgbouncer"));
    programs.find(|program| program.is_file()).unwrap_or_else(|| {
        panic!(
            "PgBouncer is not installed: run scripts/ensure pgbouncer (Debian: `apt-get install pgbouncer`)"
        )
    })
}

/// As root it refuses to run, so it changes to an unprivileged user, who has to be able to read its files.
fn spawn(program: &Path, config: &Path) -> Child {
    let mut command = Command::new(program);
    command.arg("-q");
    if is_root() {
        command.args(["-u", "nobody"]);
    }
    command
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    String::from_utf8_lossy(&id.stdout).trim() == "0"
}

fn configure(folder: &Path, address: SocketAddr, server_connections: u32, settings: &[&str]) -> PathBuf {
    let url = Server::get().admin_url("postgres");
    let authority = url.split_once("://").unwrap().1.split('/').next().unwrap();
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    let (host, port) = server.rsplit_once(':').unwrap_or((server, "5432"));
    let users = folder.join("users");
    let log = folder.join("log");
    let user = |name: &str| format!("\"{name}\" \"{PASSWORD}\"\n");
    fs::write(
        &users,
        format!("{}{}", user("tenantry_app"), user("tenantry_platform")),
    )
    .unwrap();
    fs::write(&log, "").unwrap();
    let text = format!(
        "[databases]\n* = host={host} port={port}\n\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\n\
         unix_socket_dir =\nauth_type = trust\nauth_file = {}\nlogfile = {}\npool_mode = transaction\n\
         default_pool_size = {server_connections}\nmax_client_conn = 500\n{}\n",
        address.ip(),
        address.port(),
        users.display(),
        log.display(),
        settings.join("\n"),
    );
    let config = folder.join("pgbouncer.ini");
    fs::write(&config, text).unwrap();
    for (path, mode) in [
        (folder, 0o755),
        (users.as_path(), 0o644),
        (log.as_path(), 0o666),
        (&config, 0o644),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    config
}
