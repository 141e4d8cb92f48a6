//! Load, made by `wrk`, and by a few clients of our own where a steady rate is wanted.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::Failure;
use crate::ground::{FIRST, PASSWORD};
use crate::scenario::Scenario;
use crate::server::ADDRESS;

/// How many connections there are at full load; pgbench has as many.
pub const CONNECTIONS: usize = 16;

/// What a run of `wrk` says.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Measured {
    pub requests: u64,
    /// In microseconds, as are the following.
    pub duration: u64,
    pub p50: f64,
    pub p99: f64,
    /// Answers with another status than the scenario's, and connections that failed.
    pub bad: u64,
}

impl Measured {
    /// Requests in a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 * 1e6 / self.duration.max(1) as f64
    }
}

/// Writes what `wrk` runs for a scenario: the tokens are in a file of their own. An answer with another status than the
/// scenario's is a mistake.
pub fn script(folder: &Path, scenario: &Scenario, tokens: &Path) -> Result<PathBuf, Failure> {
    let mixed = if scenario.name == "mixed_90_10" {
        " and status ~= 201"
    } else {
        ""
    };
    let status = scenario.status;
    let response = format!("if status ~= {status}{mixed} then print('unexpected status ' .. status) end");
    write_script(folder, scenario, tokens, &response)
}

/// The same where the server may refuse: other answers are counted and no mistake.
pub fn tolerant_script(folder: &Path, scenario: &Scenario, tokens: &Path) -> Result<PathBuf, Failure> {
    write_script(folder, scenario, tokens, "")
}

/// The same, with a pause of so many milliseconds before each request of a connection: many connections ask for a rate, and a server that
/// answers late is asked for little less.
pub fn paced_script(
    folder: &Path,
    scenario: &Scenario,
    tokens: &Path,
    pause_ms: usize,
) -> Result<PathBuf, Failure> {
    let path = tolerant_script(folder, scenario, tokens)?;
    let paced = std::fs::read_to_string(&path)? + &format!("function delay() return {pause_ms} end\n");
    std::fs::write(&path, paced)?;
    Ok(path)
}

fn write_script(
    folder: &Path,
    scenario: &Scenario,
    tokens: &Path,
    response: &str,
) -> Result<PathBuf, Failure> {
    let tokens = if scenario.tenants == 0 {
        "{''}".to_owned()
    } else {
        format!("dofile('{}')", tokens.display())
    };
    let path = folder.join(format!("{}.lua", scenario.name));
    let (request, tenants) = (&scenario.request, scenario.tenants.max(1));
    let text = format!(
        r#"local tokens = {tokens}
math.randomseed(os.time())
function request()
  local t = math.random({tenants})
  local n, k = {FIRST} + t - 1, {FIRST} + math.random(1000) - 1
  local bearer = tokens[t] == '' and '' or 'Authorization: Bearer ' .. tokens[t] .. '\r\n'
  {request}
end
function response(status)
  {response}
end
function done(summary, latency, requests)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  print(string.format('{{"requests":%d,"duration":%d,"p50":%f,"p99":%f,"bad":%d}}', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99), failed + summary.errors.status))
end
"#
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Runs `wrk` for so many seconds.
pub async fn run(script: &Path, seconds: u64, connections: usize) -> Result<Measured, Failure> {
    let output = Command::new("wrk")
        .args([
            "-t1",
            &format!("-c{connections}"),
            &format!("-d{seconds}s"),
            "--timeout",
            "10s",
            "-s",
        ])
        .arg(script)
        .arg(format!("http://{ADDRESS}"))
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with('{'));
    let line = line.ok_or_else(|| format!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    let measured: Measured = serde_json::from_str(line)?;
    if let Some(unexpected) = text.lines().find(|line| line.starts_with("unexpected")) {
        return Err(format!("{}: {unexpected}", script.display()).into());
    }
    Ok(measured)
}

/// Clients that each send one of these requests once a second; the times of their answers, sorted.
pub async fn steady(requests: &[String], seconds: u64) -> Result<Vec<Duration>, Failure> {
    let clients: Vec<_> = requests
        .iter()
        .cloned()
        .enumerate()
        .map(|(number, request)| tokio::spawn(steady_one(number, request, seconds)))
        .collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    times.sort_unstable();
    Ok(times)
}

/// One request in the name of each of these tenants, over as many connections as full load has.
pub async fn visit(tokens: &[String]) -> Result<(), Failure> {
    let share = tokens.len().div_ceil(CONNECTIONS).max(1);
    let visitors = tokens
        .chunks(share)
        .map(|tokens| tokio::spawn(visit_one(tokens.to_vec())));
    for visitor in visitors.collect::<Vec<_>>() {
        visitor.await??;
    }
    Ok(())
}

async fn visit_one(tokens: Vec<String>) -> Result<(), std::io::Error> {
    let mut stream = TcpStream::connect(ADDRESS).await?;
    stream.set_nodelay(true)?;
    for token in tokens {
        stream.write_all(list_of_ten(&token).as_bytes()).await?;
        answer(&mut stream).await?;
    }
    Ok(())
}

/// A request for ten tasks of the token's tenant.
pub fn list_of_ten(token: &str) -> String {
    format!("GET /api/v1/tasks?limit=10 HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n")
}

/// A login of the viewer of the tenant with this number.
pub fn login(number: usize) -> String {
    let body = format!(
        r#"{{"tenant_slug":"bench-{number}","email":"login@bench.example","password":"{PASSWORD}"}}"#
    );
    format!(
        "POST /api/v1/auth/login HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn steady_one(number: usize, request: String, seconds: u64) -> Result<Vec<Duration>, std::io::Error> {
    let mut stream = TcpStream::connect(ADDRESS).await?;
    stream.set_nodelay(true)?;
    // They do not all send in the same moment.
    tokio::time::sleep(Duration::from_millis(number as u64 * 19 % 1_000)).await;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut times = Vec::new();
    for _ in 0..seconds {
        ticks.tick().await;
        let began = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        answer(&mut stream).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Reads one answer whole.
async fn answer(stream: &mut TcpStream) -> Result<(), std::io::Error> {
    let mut read = Vec::new();
    loop {
        let mut some = [0; 16_384];
        let count = stream.read(&mut some).await?;
        read.extend_from_slice(&some[..count]);
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            if !head.starts_with("HTTP/1.1 200") {
                return Err(std::io::Error::other(
                    head.lines().next().unwrap_or_default().to_owned(),
                ));
            }
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            });
            if length.is_some_and(|length: usize| body.len() >= length) {
                return Ok(());
            }
        }
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Writes credentials, one for each tenant from the first on, for the scripts of `wrk`.
pub fn write_tokens(tokens: &[String], path: &Path) -> Result<(), Failure> {
    let table = format!("return {{'{}'}}", tokens.join("','"));
    Ok(std::fs::write(path, table)?)
}
