//! Servers beside a demo, on its database, that are killed.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::*;

/// A `tenantry serve` on any free port, killed with this value.
pub struct Serving {
    pub child: Child,
    pub address: String,
}

impl Serving {
    /// As a supervisor does: as long as the database recovers it does not start.
    pub fn start(config: &[(&str, impl AsRef<OsStr>)]) -> Self {
        let began = Instant::now();
        loop {
            match Self::try_start(config) {
                Ok(serving) => return serving,
                Err(log) => assert!(began.elapsed().as_secs() < 120, "{log}"),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The same; what it says from then on is given when it has ended.
    pub fn start_with_log(config: &[(&str, impl AsRef<OsStr>)]) -> (Self, JoinHandle<String>) {
        Self::try_start_with_log(config).unwrap_or_else(|log| panic!("{log}"))
    }

    fn try_start(config: &[(&str, impl AsRef<OsStr>)]) -> Result<Self, String> {
        Self::try_start_with_log(config).map(|(serving, _)| serving)
    }

    fn try_start_with_log(
        config: &[(&str, impl AsRef<OsStr>)],
    ) -> Result<(Self, JoinHandle<String>), String> {
        let mut child = tenantry(&["serve"])
            .envs(config.iter().map(|(key, value)| (key, value)))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let mut said = String::new();
        let line = loop {
            match log.next() {
                Some(line) if line.contains("address=") => break line,
                Some(line) => said.push_str(&line),
                None => {
                    let _ = child.wait();
                    return Err(said);
                }
            }
        };
        // Whatever else it says must not fill the pipe.
        let rest = std::thread::spawn(move || log.map(|line| line + "\n").collect());
        let address = line.split("address=").nth(1).unwrap();
        let serving = Self {
            address: address.split_whitespace().next().unwrap().to_owned(),
            child,
        };
        Ok((serving, rest))
    }

    /// The status of an answer; `None` when there is none.
    pub fn get(address: &str, token: &str, path: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(address).ok()?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        write!(stream, "{head}Authorization: Bearer {token}\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split_whitespace().nth(1)?.parse().ok()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
    }

    /// Waits until it has ended; how it did.
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub fn end(self, signal: &str) {
        self.signal(signal);
        self.ended();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits for what another process does, for as long as a loaded machine may take.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        // Another process does the work: there is no clock of ours to move.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The settings of a server or a command on the database of a demo that is up.
pub fn beside(data: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("TENANTRY_PROFILE", "development".to_owned()),
        ("TENANTRY__DATABASE__URL", url(data, "tenantry_app")),
        ("TENANTRY__DATABASE__PLATFORM_URL", url(data, "tenantry_platform")),
        (
            "TENANTRY__AUTH__SIGNING_KEY_FILE",
            data.join("signing-key.pem").to_str().unwrap().to_owned(),
        ),
        ("TENANTRY__SERVER__PORT", "0".to_owned()),
        ("TENANTRY__LIMITS__ENABLED", "false".to_owned()),
    ]
}

/// The one row of a query, as a superuser sees it.
pub fn row<R>(data: &Path, sql: &str) -> R
where
    R: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
{
    use sqlx::Connection as _;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut admin = sqlx::PgConnection::connect(&url(data, "postgres")).await.unwrap();
        sqlx::query_as(sqlx::AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut admin)
            .await
            .unwrap()
    })
}
