//! One tenant with many rows: what others notice of its export, how long its purge takes, and what its audit log costs.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;

use crate::ground::{LARGE_SLUG, say};
use crate::load::{self, CONNECTIONS};
use crate::report::{AuditCost, Exported, Fairness, Purged};
use crate::scenario;
use crate::server::{Used, environment};
use crate::sink::Sink;
use crate::{Bench, Failure, median, percentile};

/// How many entries of an audit log are chained.
const ENTRIES: usize = 20_000;

/// Why the bench does what needs a reason.
const REASON: &str = "bench";

impl Bench<'_> {
    /// Runs a command of the program to its end. Returns how long it took.
    async fn command(&self, arguments: &[&str]) -> Result<Duration, Failure> {
        let began = Instant::now();
        let output = Command::new(&self.args.program)
            .args(arguments)
            .envs(environment(self.ground, &self.redis, self.folder)?)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("tenantry {}: {said}", arguments.join(" ")).into());
        }
        Ok(began.elapsed())
    }

    /// Makes the tenant with many rows anew.
    pub async fn prepare_large(&self) -> Result<(), Failure> {
        if self.ground.has_large().await? {
            self.remove_large().await?;
        }
        say(&format!("making a tenant of {} tasks", self.args.purge_rows()));
        self.ground.make_large(self.args.purge_rows()).await
    }

    /// Deletes and purges it. Returns how long each took.
    async fn remove_large(&self) -> Result<(Duration, Duration), Failure> {
        say("deleting and purging the tenant of many tasks");
        let delete = ["tenant", "delete", LARGE_SLUG, "--reason", REASON];
        let deleted = self.command(&delete).await?;
        let purge = ["tenant", "purge", LARGE_SLUG, "--confirm", "--reason", REASON];
        Ok((deleted, self.command(&purge).await?))
    }

    /// Fifty tenants that read, alone and while the large one is exported again and again, in turn: the medians of the rounds.
    pub async fn export(&self) -> Result<Exported, Failure> {
        let file = self.folder.join("large.tar");
        let file = file.to_str().ok_or("the folder's name is no text")?.to_owned();
        let export = ["tenant", "export", LARGE_SLUG, "--out", &file];
        let remove = || std::fs::remove_file(&file);
        let _ = remove();
        let seconds = self.command(&export).await?.as_secs_f64();
        let rows_per_second = self.args.purge_rows() as f64 / seconds;
        let quiet = self.quiet_readers();
        load::steady(&quiet, 2).await?;
        let mut each = Vec::new();
        for round in 1..=self.rounds() {
            say(&format!("export, round {round} of {}", self.rounds()));
            let alone = load::steady(&quiet, self.seconds().max(5)).await?;
            let steady = load::steady(&quiet, self.seconds().max(5));
            tokio::pin!(steady);
            let beside = loop {
                let _ = remove();
                tokio::select! {
                    times = &mut steady => break times?,
                    // The next one begins.
                    exported = self.command(&export) => { exported?; }
                };
            };
            each.push(Fairness::of(&alone, &beside, rows_per_second));
        }
        let _ = remove();
        Ok(Exported {
            rows: self.args.purge_rows(),
            rows_per_second,
            readers: Fairness::median(&each),
        })
    }

    /// How long it takes to erase the tenant; no server may run, which would do a part of it.
    pub async fn purge(&self) -> Result<Purged, Failure> {
        let (deleted, purged) = self.remove_large().await?;
        let rows = self.args.purge_rows();
        Ok(Purged {
            rows,
            delete_seconds: deleted.as_secs_f64(),
            purge_seconds: purged.as_secs_f64(),
            rows_per_second: rows as f64 / purged.as_secs_f64(),
        })
    }

    /// What chaining an entry takes, and what a write takes without and with a receiver of the audit log. No server may run.
    pub async fn audit_cost(&self, tokens: &std::path::Path) -> Result<AuditCost, Failure> {
        let chain_us = self.chaining().await?;
        let mut create = scenario::others(self.ground.size)
            .into_iter()
            .find(|scenario| scenario.name == "create")
            .ok_or("there is no scenario create")?;
        create.name = "audited_create";
        let script = load::script(self.folder, &create, tokens)?;
        let sink = Sink::start().await?;
        let url = sink.url();
        // A receiver without TLS is for development only. All rounds of one before those of the other: a stream that is switched on
        // again also sends what was chained meanwhile.
        let profile = ("TENANTRY_PROFILE", "development");
        let plain = [profile];
        let streamed = [
            profile,
            ("TENANTRY__AUDIT__STREAM__KIND", "http"),
            ("TENANTRY__AUDIT__STREAM__URL", url.as_str()),
        ];
        let mut costs = [Vec::new(), Vec::new()];
        for (number, settings) in [&plain[..], &streamed[..]].into_iter().enumerate() {
            for round in 1..=self.rounds() {
                let what = ["without", "with"][number];
                say(&format!(
                    "create {what} a stream, round {round} of {}",
                    self.rounds()
                ));
                let receiver = (number == 1).then_some(&sink);
                costs[number].push(self.writes(&script, settings, receiver).await?);
            }
        }
        let [plain_us, streamed_us] = costs.map(|rounds| median(rounds.into_iter()));
        Ok(AuditCost {
            chain_us,
            plain_us,
            streamed_us,
            chain_ratio: plain_us / (plain_us - chain_us).max(1.0),
            stream_ratio: streamed_us / plain_us,
        })
    }

    /// Verifying a log chains first what is not chained, so a second time takes shorter by that.
    async fn chaining(&self) -> Result<f64, Failure> {
        say(&format!("chaining {ENTRIES} entries of an audit log"));
        self.ground.add_entries(ENTRIES).await?;
        let verify = ["audit", "verify", "--tenant", LARGE_SLUG];
        let (both, verified) = (self.command(&verify).await?, self.command(&verify).await?);
        Ok(both.saturating_sub(verified).as_secs_f64() * 1e6 / ENTRIES as f64)
    }

    /// Processor time of a write in the server and PostgreSQL, in microseconds, until its entry is chained and received.
    async fn writes(
        &self,
        script: &std::path::Path,
        settings: &[(&str, &str)],
        receiver: Option<&Sink>,
    ) -> Result<f64, Failure> {
        let server = self.start(settings).await?;
        let postgres = self.ground.cluster.data_dir();
        let received = receiver.map_or(0, Sink::records);
        let before = Used::now(server.process(), postgres);
        let run = load::run(script, self.seconds(), CONNECTIONS).await?;
        server.chained().await?;
        if let Some(sink) = receiver {
            sink.until(received + run.requests).await?;
        }
        let (server, postgres) = Used::now(server.process(), postgres).since(&before);
        Ok((server + postgres) as f64 / run.requests.max(1) as f64)
    }
}

impl Fairness {
    /// Of sorted times of a round.
    pub fn of(alone: &[Duration], beside: &[Duration], noisy_rps: f64) -> Self {
        Self {
            alone_p50_us: percentile(alone, 50),
            alone_p99_us: percentile(alone, 99),
            beside_p50_us: percentile(beside, 50),
            beside_p99_us: percentile(beside, 99),
            p99_ratio: percentile(beside, 99) / percentile(alone, 99).max(1.0),
            noisy_rps,
        }
    }

    /// The median of each figure.
    pub fn median(rounds: &[Self]) -> Self {
        let of = |what: fn(&Self) -> f64| median(rounds.iter().map(what));
        Self {
            alone_p50_us: of(|round| round.alone_p50_us),
            alone_p99_us: of(|round| round.alone_p99_us),
            beside_p50_us: of(|round| round.beside_p50_us),
            beside_p99_us: of(|round| round.beside_p99_us),
            p99_ratio: of(|round| round.p99_ratio),
            noisy_rps: of(|round| round.noisy_rps),
        }
    }
}
