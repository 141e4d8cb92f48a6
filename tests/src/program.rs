//! The program of a service as somebody at a terminal meets it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::marker::PhantomData;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::dev_template;

/// The program of a service.
pub trait Program {
    /// Where it is.
    const PATH: &'static str;

    /// The program with these arguments, without the settings of whoever runs the tests.
    fn command(arguments: &[&str]) -> Command {
        let mut command = Command::new(Self::PATH);
        command
            .args(arguments)
            .env_remove("DATABASE_URL")
            .env_remove("REDIS_URL")
            .env_remove("TENANTRY_PROFILE")
            .env_remove("TENANTRY_DATA_DIR")
            .env(
                "TENANTRY_CONFIG_DIR",
                concat!(env!("CARGO_MANIFEST_DIR"), "/../config"),
            )
            .stdin(Stdio::null());
        command
    }
}

/// A folder of one test, removed with this value.
pub struct Folder(pub PathBuf);

impl Folder {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tenantry-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `tenantry dev` on a folder, on any free port.
#[derive(Debug)]
pub struct DevServer<P: Program> {
    /// The process.
    pub child: Child,
    /// What it has yet to say.
    pub stdout: BufReader<ChildStdout>,
    /// Host and port.
    pub address: String,
    program: PhantomData<P>,
}

impl<P: Program> DevServer<P> {
    /// Starts it; in a folder without a demo, on a copy of one that was seeded before.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// Starts it with these settings, none of which may matter to the seeding.
    pub fn start_with(data: &Path, settings: &[(&str, &str)]) -> Self {
        dev_template::prepare::<P>(data);
        Self::start_as(data, &[], settings)
    }

    /// Starts it with these arguments and settings, and waits until it says where it is. In a folder without a demo it makes one.
    pub fn start_as(data: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::spawn(data, arguments, settings, Stdio::null())
    }

    /// Starts it with these settings and appends its log, with the mails, to a file.
    pub fn start_with_log(data: &Path, settings: &[(&str, &str)], log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        Self::spawn(data, &[], settings, log.into())
    }

    fn spawn(data: &Path, arguments: &[&str], settings: &[(&str, &str)], log: Stdio) -> Self {
        let mut child = P::command(&[&["dev", "--data-dir", data.to_str().unwrap()], arguments].concat())
            .env("TENANTRY__SERVER__PORT", "0")
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("Tenantry is at http://") {
            line.clear();
            assert!(
                stdout.read_line(&mut line).unwrap() > 0,
                "it ended before it said where it is"
            );
        }
        let address = line
            .split("http://")
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned();
        Self::of(child, stdout, address)
    }

    /// One that has been started, and has said where it is.
    pub fn of(child: Child, stdout: BufReader<ChildStdout>, address: String) -> Self {
        Self {
            child,
            stdout,
            address,
            program: PhantomData,
        }
    }

    /// The command that it prints for other terminals.
    pub fn line_for_another_terminal(&mut self) -> String {
        let mut line = String::new();
        while !line.trim_start().starts_with("export PATH=") {
            line.clear();
            assert!(
                self.stdout.read_line(&mut line).unwrap() > 0,
                "there is no such line"
            );
        }
        line.trim().to_owned()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Stops it as Ctrl-C does; how it ended.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("INT");
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        self.child.wait().unwrap().code()
    }

    /// Status and body of an answer.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        request(&self.address, (method, path), headers, body)
    }

    /// The access token of a demo user.
    pub fn login(&self, tenant: &str) -> String {
        let body = format!(
            "{{\"tenant_slug\":\"{tenant}\",\"email\":\"admin@{tenant}.example\",\"password\":\"demo-password\"}}"
        );
        let (status, answer) = self.request("POST", "/api/v1/auth/login", "", &body);
        assert_eq!(status, 200, "{answer}");
        answer
            .split("\"access_token\":\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .to_owned()
    }

    /// The body of an answer, which is a success.
    pub fn get(&self, token: &str, path: &str) -> String {
        let (status, answer) = self.request("GET", path, &format!("Authorization: Bearer {token}\r\n"), "");
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

impl<P: Program> Drop for DevServer<P> {
    fn drop(&mut self) {
        // After `stop` there is nobody left; after a failed assertion there is, and PostgreSQL goes with it.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal("TERM");
            let _ = self.child.wait();
        }
    }
}

/// Status and body of an answer, in a connection of its own.
pub fn request(address: &str, (method, path): (&str, &str), headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}
