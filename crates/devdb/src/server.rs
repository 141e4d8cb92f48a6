use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use crate::account::run;
use crate::files::{self, PAUSE};
use crate::folder::Folder;
use crate::{DevDbError, Durability};

const PATIENCE: Duration = Duration::from_secs(60);
const LAUNCHES: u32 = 5;

/// The programs of one PostgreSQL version, at work on one data folder.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) binaries: PathBuf,
    pub(crate) folder: Folder,
    pub(crate) durability: Durability,
}

/// Where a ready server listens.
#[derive(Debug, Clone)]
pub(crate) struct Listening {
    pub(crate) port: u16,
    pub(crate) socket_dir: PathBuf,
}

enum State {
    Stopped,
    /// Starting, recovering or stopping.
    Changing,
    Ready(Listening),
}

/// How an attempt to start went.
enum Launch {
    Started,
    /// Somebody took the port between our look and the server's.
    PortTaken(String),
    /// The remains of a killed server, or a server started by somebody else a moment ago.
    InTheWay(String),
    Failed(String),
}

impl Server {
    /// The superuser's password, made on first use.
    pub(crate) fn password(&self) -> Result<String, DevDbError> {
        let path = self.folder.password();
        if let Some(password) = files::read_if_there(&path)?.filter(|password| !password.is_empty()) {
            return Ok(password);
        }
        if self.folder.cluster().exists() {
            return Err(DevDbError::PasswordMissing { path });
        }
        let password = files::random_hex()?;
        files::replace_file(&path, &password, |partial| self.folder.account.give(partial))?;
        Ok(password)
    }

    /// Makes the cluster when there is none. Says whether it did.
    pub(crate) fn init(&self) -> Result<bool, DevDbError> {
        let (cluster, partial) = (self.folder.cluster(), self.folder.partial_cluster());
        if cluster.exists() {
            return Ok(false);
        }
        let mut output = self.initdb(&partial, "--locale=C.UTF-8")?;
        if !output.status.success() {
            // Not every system has that locale; plain C sorts the same way.
            output = self.initdb(&partial, "--no-locale")?;
        }
        if !output.status.success() {
            return Err(DevDbError::InitFailed {
                path: cluster,
                output: said(&output),
            });
        }
        // Only a complete cluster gets the name, so an initdb killed half way leaves nothing to trip over.
        std::fs::rename(&partial, &cluster).map_err(DevDbError::file(&cluster))?;
        Ok(true)
    }

    /// Starts the server, or finds it running, and waits until it is ready.
    pub(crate) fn ensure_running(&self) -> Result<Listening, DevDbError> {
        let deadline = Instant::now() + PATIENCE;
        let mut port = self.former_port().map_or_else(free_port, Ok)?;
        let mut collisions = 0;
        loop {
            match self.state()? {
                State::Ready(listening) => return self.remember(listening),
                State::Changing if Instant::now() > deadline => return Err(self.not_ready()),
                State::Changing => std::thread::sleep(PAUSE),
                State::Stopped => match self.launch(port)? {
                    Launch::Started => {}
                    Launch::PortTaken(_) if collisions < LAUNCHES => {
                        collisions += 1;
                        port = free_port()?;
                    }
                    Launch::InTheWay(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                    Launch::PortTaken(tail) | Launch::InTheWay(tail) | Launch::Failed(tail) => {
                        return Err(DevDbError::StartFailed {
                            log: self.folder.log(),
                            tail,
                        });
                    }
                },
            }
        }
    }

    /// Stops the server in an orderly way, open connections or not. Fine when none runs.
    pub(crate) fn stop(&self) -> Result<(), DevDbError> {
        if !self.folder.cluster().exists() || matches!(self.state()?, State::Stopped) {
            return Ok(());
        }
        let mut command = self.folder.account.command(self.binaries.join("pg_ctl"));
        command.args([
            "stop",
            "--silent",
            "--wait",
            "--mode=fast",
            "--timeout=60",
            "--pgdata",
        ]);
        let output = run(command.arg(self.folder.cluster()))?;
        if output.status.success() || matches!(self.state()?, State::Stopped) {
            return Ok(());
        }
        Err(DevDbError::StopFailed {
            path: self.folder.root.clone(),
            output: said(&output),
        })
    }

    fn initdb(&self, target: &Path, locale: &str) -> Result<Output, DevDbError> {
        if target.exists() {
            std::fs::remove_dir_all(target).map_err(DevDbError::file(target))?;
        }
        files::make_dir(target, 0o700)?;
        self.folder.account.give(target)?;
        let mut command = self.folder.account.command(self.binaries.join("initdb"));
        command.args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            locale,
        ]);
        if self.durability == Durability::Throwaway {
            command.arg("--no-sync");
        }
        command.arg("--pwfile").arg(self.folder.password());
        run(command.arg("--pgdata").arg(target))
    }

    fn launch(&self, port: u16) -> Result<Launch, DevDbError> {
        let socket_dir = self.folder.make_socket_dir()?;
        // A killed server's lock on its socket names a process id, which by now may be somebody else's or
        // a zombie's. No server runs, and no other uses this directory, so nothing here is in use.
        files::empty_dir(&socket_dir)?;
        let log = self.folder.log();
        if files::make_private_file(&log)?.is_some() {
            self.folder.account.give(&log)?;
        }
        let written_before = std::fs::metadata(&log).map_or(0, |found| found.len());
        let mut command = self.folder.account.command(self.binaries.join("pg_ctl"));
        command
            .args(["start", "--silent", "--wait", "--timeout=60", "--pgdata"])
            .arg(self.folder.cluster());
        command.arg("--log").arg(&log);
        command
            .arg("--options")
            .arg(settings(self.durability, port, &socket_dir));
        let output = run(&mut command)?;
        if output.status.success() {
            return Ok(Launch::Started);
        }
        let log_text = files::text_from(&log, written_before);
        if log_text.trim().is_empty() {
            return Ok(Launch::Failed(said(&output)));
        }
        Ok(diagnose(&log_text))
    }

    /// Reads `postmaster.pid`, and removes it when it is certain that no server stands behind it.
    fn state(&self) -> Result<State, DevDbError> {
        let path = self.folder.cluster().join("postmaster.pid");
        let Some(text) = files::read_if_there(&path)? else {
            return Ok(State::Stopped);
        };
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let pid = lines.first().and_then(|line| line.parse().ok());
        if !pid.map_or(Ok(false), |pid| self.is_our_server(pid))? {
            // PostgreSQL itself refuses to start when the file is empty or when its process id now
            // belongs to some other process, as after a reboot or in a container.
            files::remove_if_there(&path)?;
            return Ok(State::Stopped);
        }
        let port = lines.get(3).and_then(|line| line.parse().ok());
        match (port, lines.get(4), lines.get(7)) {
            // A server that is just being killed still has its file and its process, but does not answer.
            (Some(port), Some(dir), Some(&"ready")) if answers(port) => Ok(State::Ready(Listening {
                port,
                socket_dir: PathBuf::from(dir),
            })),
            _ => Ok(State::Changing),
        }
    }

    /// A server's current folder is its cluster. Where there is no `/proc`, its name has to do.
    fn is_our_server(&self, pid: u32) -> Result<bool, DevDbError> {
        let account = self.folder.account;
        if Path::new("/proc/self/cwd").exists() {
            // As the server's user, because root in a container may not look into others' processes.
            let output = run(account.command("readlink").arg(format!("/proc/{pid}/cwd")))?;
            let found = String::from_utf8_lossy(&output.stdout);
            return Ok(Path::new(found.trim_end_matches('\n')) == self.folder.cluster());
        }
        let output = run(account
            .command("ps")
            .args(["-p", &pid.to_string(), "-o", "comm="]))?;
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim()
            .ends_with("postgres"))
    }

    /// The port of the last run, so that a URL somebody noted down stays true.
    fn former_port(&self) -> Option<u16> {
        let port: u16 = files::read_if_there(&self.folder.port()).ok()??.parse().ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|_| port)
    }

    fn remember(&self, listening: Listening) -> Result<Listening, DevDbError> {
        files::replace_file(&self.folder.port(), &listening.port.to_string(), |_| Ok(()))?;
        Ok(listening)
    }

    fn not_ready(&self) -> DevDbError {
        DevDbError::NotReady {
            path: self.folder.root.clone(),
        }
    }
}

/// Makes sure that no second process works on the folder meanwhile.
pub(crate) fn exclusively(folder: &Folder) -> Result<File, DevDbError> {
    files::lock(&folder.lock())
}

fn answers(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn free_port() -> Result<u16, DevDbError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    Ok(address.map_err(DevDbError::file(Path::new("127.0.0.1")))?.port())
}

/// The server's command line. Given on each start rather than written into the cluster, so that an older
/// cluster gets newer settings too. The socket's path was chosen so that nothing here needs quoting.
fn settings(durability: Durability, port: u16, socket_dir: &Path) -> String {
    let place = [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        format!("unix_socket_directories={}", socket_dir.display()),
    ];
    let common = ["timezone=UTC", "log_timezone=UTC", "jit=off"];
    let special: &[&str] = match durability {
        Durability::Durable => &["max_connections=100", "shared_buffers=128MB"],
        Durability::Tuned => &[
            "max_connections=100",
            "shared_buffers=1GB",
            "max_wal_size=4GB",
            "checkpoint_timeout=15min",
        ],
        Durability::Throwaway => &[
            "max_connections=300",
            "shared_buffers=256MB",
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "wal_level=minimal",
            "max_wal_senders=0",
            "max_wal_size=256MB",
        ],
    };
    let all = place
        .iter()
        .map(String::as_str)
        .chain(common)
        .chain(special.iter().copied());
    all.map(|setting| format!("-c {setting}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn diagnose(log: &str) -> Launch {
    let says = |needle: &str| log.contains(needle);
    let tail = files::tail(log);
    if says("Address already in use") || says("could not create any TCP/IP sockets") {
        Launch::PortTaken(tail)
    } else if says("is still in use") || says("postmaster.pid\" already exists") {
        Launch::InTheWay(tail)
    } else {
        Launch::Failed(tail)
    }
}

fn said(output: &Output) -> String {
    let text = if output.stderr.is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    files::tail(&String::from_utf8_lossy(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_throwaway_cluster_gives_up_durability() {
        let dir = Path::new("/tmp/run");
        assert!(settings(Durability::Throwaway, 1, dir).contains("-c fsync=off"));
        for durable in [Durability::Durable, Durability::Tuned] {
            let settings = settings(durable, 1, dir);
            assert!(
                !settings.contains("fsync") && !settings.contains("synchronous_commit"),
                "{settings}"
            );
        }
    }

    #[test]
    fn a_taken_port_and_remains_are_told_apart_from_a_failure() {
        let taken = "LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use";
        assert!(matches!(diagnose(taken), Launch::PortTaken(_)));
        let remains = "FATAL:  pre-existing shared memory block (key 1, ID 2) is still in use";
        assert!(matches!(diagnose(remains), Launch::InTheWay(_)));
        let second = "FATAL:  lock file \"postmaster.pid\" already exists";
        assert!(matches!(diagnose(second), Launch::InTheWay(_)));
        let other = "FATAL:  data directory \"x\" has wrong ownership";
        assert!(matches!(diagnose(other), Launch::Failed(_)));
    }
}
