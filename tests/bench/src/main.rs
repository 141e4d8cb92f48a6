//! `make bench`: how fast the server is, beside pgbench with the same statements in the same minute.

mod flame;
mod flatness;
mod ground;
mod guard;
mod life;
mod load;
mod redis;
mod report;
mod scenario;
mod server;
mod sink;
mod webhooks;
mod yardstick;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tenantry_domain::kernel::{Clock as _, Time};
use tenantry_system::SystemClock;

use crate::ground::{Ground, Size, say};
use crate::load::{CONNECTIONS, Measured};
use crate::redis::Redis;
use crate::report::{Fairness, Overload, Report, Row, WrongLogins};
use crate::scenario::Scenario;
use crate::server::{Server, Used};

/// Whatever goes wrong ends the bench, with one line.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures the release build on a private PostgreSQL; figures are medians of interleaved rounds.
#[derive(Debug, Parser)]
#[command(
    after_help = "Example: make bench-quick\n         make bench ARGS='--only list_10,fairness --rounds 5'"
)]
struct Args {
    /// Fewer and shorter rounds, and no 100,000 tenants: under five minutes once the data are there.
    #[arg(long)]
    quick: bool,
    /// Only these scenarios, with a comma between them; `flatness`, `fairness`, `login_fairness`, `wrong_logins`, `overload`,
    /// `guard`, `export`, `purge`, `audit_cost` and `webhooks` are nine more.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How many rounds; 3, or 2 when quick.
    #[arg(long)]
    rounds: Option<usize>,
    /// How long each part of a round takes, in seconds; 8, or 3 when quick.
    #[arg(long)]
    seconds: Option<u64>,
    /// How many tenants have a thousand tasks; 1,000.
    #[arg(long)]
    tenants: Option<usize>,
    /// How many further tenants have ten; 99,000, or none when quick.
    #[arg(long)]
    small_tenants: Option<usize>,
    /// How many tasks the tenant has that is exported and purged; 1,000,000, or 50,000 when quick.
    #[arg(long)]
    purge_rows: Option<usize>,
    /// Measures nothing, and draws what the server does under the list of ten into this file (SVG).
    #[arg(long, value_name = "FILE")]
    flame: Option<PathBuf>,
    /// The program to measure.
    #[arg(long, default_value = "target/release/tenantry")]
    program: PathBuf,
    /// Where data, scripts and results go.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
}

/// What is measured beside the scenarios.
const FLATNESS: &str = "flatness";
const FAIRNESS: &str = "fairness";
const LOGIN_FAIRNESS: &str = "login_fairness";
const WRONG_LOGINS: &str = "wrong_logins";
const OVERLOAD: &str = "overload";
const GUARD: &str = "guard";
const EXPORT: &str = "export";
const PURGE: &str = "purge";
const AUDIT_COST: &str = "audit_cost";
const WEBHOOKS: &str = "webhooks";

/// How many wrong logins a second are asked for, by connections that pause for two seconds before each.
const WRONG_LOGINS_ASKED: usize = 500;
const WRONG_LOGINS_PAUSE_SECONDS: usize = 2;

/// How many connections there are for each that full load has, when there are too many.
const TOO_MANY: usize = 64;

impl Args {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    fn size(&self) -> Size {
        Size {
            tenants: self.tenants.unwrap_or(1_000),
            tasks: 1_000,
            small_tenants: self.small_tenants.unwrap_or(if self.quick { 0 } else { 99_000 }),
        }
    }

    fn purge_rows(&self) -> usize {
        let usual = if self.quick { 50_000 } else { 1_000_000 };
        self.purge_rows.unwrap_or(usual).max(1)
    }

    /// The folder of the data, which take minutes to make and are used again.
    fn data(&self) -> String {
        match (self.tenants, self.small_tenants) {
            (None, None) => if self.quick { "quick" } else { "full" }.to_owned(),
            _ => format!("{}-{}", self.size().tenants, self.size().small_tenants),
        }
    }

    /// A name that is no scenario's would measure nothing and say so nowhere.
    fn check(&self, size: Size) -> Result<(), Failure> {
        let scenarios = scenario::all(size).into_iter();
        let mut names: Vec<_> = scenarios.map(|scenario| scenario.name).collect();
        names.extend([
            scenario::with_shared_limits(size).name,
            scenario::with_api_keys(size).name,
            FLATNESS,
            FAIRNESS,
            LOGIN_FAIRNESS,
            OVERLOAD,
            GUARD,
            EXPORT,
            PURGE,
            AUDIT_COST,
            WEBHOOKS,
        ]);
        match self.only.iter().find(|only| !names.contains(&only.as_str())) {
            Some(unknown) => Err(format!("--only {unknown}: there are {}", names.join(", ")).into()),
            None => Ok(()),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match bench(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nbench: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(args: &Args) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.folder)?;
    let folder = args.folder.canonicalize()?;
    let size = args.size();
    args.check(size)?;
    let ground = Ground::prepare(&folder.join(args.data()), size).await?;
    let redis = Redis::start(&folder).await?;
    let tokens = folder.join("tokens.lua");
    let bench = Bench {
        args,
        ground: &ground,
        folder: &folder,
        redis: redis.url(),
        tokens: ground.tokens(0..size.tenants + size.small_tenants)?,
    };
    load::write_tokens(&bench.tokens, &tokens)?;
    let server = bench.start(&[]).await?;
    if let Some(picture) = &args.flame {
        flame::draw(&bench, &server, &tokens, picture).await?;
        drop(server);
        return Ok(ground.cluster.stop().await?);
    }
    let report = bench.report(server, &tokens).await?;
    std::fs::write(folder.join("latest.json"), serde_json::to_string_pretty(&report)?)?;
    std::fs::write(folder.join("latest.svg"), report.picture())?;
    writeln!(std::io::stdout(), "{}\n\n{}", report.machine, report.table())?;
    say(&format!("wrote {}", folder.join("latest.json").display()));
    drop(redis);
    Ok(ground.cluster.stop().await?)
}

struct Bench<'a> {
    args: &'a Args,
    ground: &'a Ground,
    folder: &'a Path,
    /// Where Redis is.
    redis: String,
    /// One of each tenant.
    tokens: Vec<String>,
}

impl Bench<'_> {
    /// Measures what is wanted, and stops the server.
    async fn report(&self, server: Server, tokens: &Path) -> Result<Report, Failure> {
        let size = self.args.size();
        let mut rows = self.measure_all(&server, scenario::reads(size), tokens).await?;
        let by_key = scenario::with_api_keys(size);
        if self.args.wants(by_key.name) {
            let keys = self.folder.join("keys.lua");
            load::write_tokens(&self.ground.api_keys(0..size.tenants), &keys)?;
            rows.push(self.measure(&server, &by_key, &keys).await?);
        }
        let rss_mb = server::resident_mib(server.process());
        // Not at the start either, when the server has its upkeep to do.
        let fairness = self.wanted(FAIRNESS, self.fairness(tokens)).await?;
        rows.extend(self.measure_all(&server, scenario::others(size), tokens).await?);
        let rss_after_all_mb = server::resident_mib(server.process());
        let login_fairness = self.wanted(LOGIN_FAIRNESS, self.login_fairness(tokens)).await?;
        let wrong_logins = self.wrong_logins(&server, tokens);
        let wrong_logins = self.wanted(WRONG_LOGINS, wrong_logins).await?;
        let overload = self.wanted(OVERLOAD, self.overload(tokens)).await?;
        let needs_large = [EXPORT, PURGE, AUDIT_COST]
            .iter()
            .any(|name| self.args.wants(name));
        if needs_large {
            self.prepare_large().await?;
        }
        let export = self.wanted(EXPORT, self.export()).await?;
        let startup_ms = server.startup.as_millis();
        drop(server);
        let audit_cost = self.wanted(AUDIT_COST, self.audit_cost(tokens)).await?;
        let webhooks = self.wanted(WEBHOOKS, self.webhooks()).await?;
        // It also takes the large tenant away again.
        let purge = if needs_large {
            Some(self.purge().await?)
        } else {
            None
        };
        let guard = self.wanted(GUARD, guard::measure(&self.ground.app_url())).await?;
        let shared = scenario::with_shared_limits(size);
        if self.args.wants(shared.name) {
            let sharing = self.start(&[("TENANTRY__LIMITS__SHARED", "true")]).await?;
            rows.push(self.measure(&sharing, &shared, tokens).await?);
        }
        let flatness = if self.args.wants(FLATNESS) && (!self.args.quick || !self.args.only.is_empty()) {
            let (flatness, measured) = flatness::measure(self, tokens).await?;
            rows.extend(measured);
            Some(flatness)
        } else {
            None
        };
        Ok(Report {
            machine: machine(),
            size,
            scenarios: rows,
            flatness,
            fairness,
            login_fairness,
            wrong_logins,
            overload,
            guard,
            export,
            purge,
            audit_cost,
            webhooks,
            rss_mb,
            rss_after_all_mb,
            startup_ms,
        })
    }

    /// What a measurement gives, where it is wanted.
    async fn wanted<T>(
        &self,
        name: &str,
        measurement: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Option<T>, Failure> {
        if !self.args.wants(name) {
            return Ok(None);
        }
        Ok(Some(measurement.await?))
    }

    fn rounds(&self) -> usize {
        self.args
            .rounds
            .unwrap_or(if self.args.quick { 2 } else { 3 })
            .max(1)
    }

    fn seconds(&self) -> u64 {
        self.args.seconds.unwrap_or(if self.args.quick { 3 } else { 8 })
    }

    /// The program, with further settings.
    async fn start(&self, settings: &[(&str, &str)]) -> Result<Server, Failure> {
        let log = self.folder.join("server.log");
        Server::start(&self.args.program, self.ground, &self.redis, settings, &log).await
    }

    /// Those of the scenarios that are wanted.
    async fn measure_all(
        &self,
        server: &Server,
        scenarios: Vec<Scenario>,
        tokens: &Path,
    ) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        for scenario in scenarios {
            if self.args.wants(scenario.name) {
                rows.push(self.measure(server, &scenario, tokens).await?);
            }
        }
        Ok(rows)
    }

    /// Rounds of the server and of pgbench in turn, so that both see the same machine.
    async fn measure(&self, server: &Server, scenario: &Scenario, tokens: &Path) -> Result<Row, Failure> {
        let script = load::script(self.folder, scenario, tokens)?;
        load::run(&script, 1, CONNECTIONS).await?;
        let mut rounds = Rounds::default();
        for _ in 0..self.rounds() {
            self.round(server, scenario, &script, &mut rounds).await?;
        }
        Ok(rounds.row(scenario.name))
    }

    /// One more round of the server, and of pgbench.
    async fn round(
        &self,
        server: &Server,
        scenario: &Scenario,
        script: &Path,
        rounds: &mut Rounds,
    ) -> Result<(), Failure> {
        let (number, of) = (rounds.runs.len() + 1, self.rounds());
        say(&format!("{}, round {number} of {of}", scenario.name));
        let postgres = self.ground.cluster.data_dir();
        let before = Used::now(server.process(), postgres);
        let run = load::run(script, self.seconds(), CONNECTIONS).await?;
        let (server, postgres) = Used::now(server.process(), postgres).since(&before);
        rounds.used.push((server, postgres, run.requests));
        rounds.runs.push(run);
        let last = (ground::FIRST + self.ground.size.tenants - 1).to_string();
        for (sql, mode, rates) in [
            (&scenario.sql, "simple", &mut rounds.simple),
            (&scenario.prepared, "prepared", &mut rounds.prepared),
        ] {
            if let Some(sql) = sql {
                let script = self.folder.join(format!("{}_{mode}.sql", scenario.name));
                let (url, sql) = (self.ground.app_url(), sql.replace(":last", &last));
                rates.push(yardstick::run(&url, &sql, mode, &script, self.seconds()).await?);
            }
        }
        Ok(())
    }

    /// Requests of fifty tenants that read.
    fn quiet_readers(&self) -> Vec<String> {
        let quiet = self.tokens.iter().skip(100).take(50);
        quiet.map(|token| load::list_of_ten(token)).collect()
    }

    /// Fifty tenants that read, beside one that reads as much as it can.
    async fn fairness(&self, tokens: &Path) -> Result<Fairness, Failure> {
        let quiet = self.quiet_readers();
        let mut noisy = scenario::all(self.ground.size)
            .into_iter()
            .find(|scenario| scenario.name == "list_10")
            .ok_or("there is no scenario list_10")?;
        (noisy.name, noisy.tenants) = ("noisy", 1);
        let script = load::script(self.folder, &noisy, tokens)?;
        self.beside(FAIRNESS, &quiet, &script, 64).await
    }

    /// Ten tenants whose admins log in, beside one that has a hundred passwords hashed at once: it adds users.
    async fn login_fairness(&self, tokens: &Path) -> Result<Fairness, Failure> {
        let quiet: Vec<_> = (0..10)
            .map(|number| load::login(ground::FIRST + 100 + number))
            .collect();
        let script = load::tolerant_script(self.folder, &scenario::add_users(), tokens)?;
        self.beside(LOGIN_FAIRNESS, &quiet, &script, 100).await
    }

    /// Fifty tenants that read, beside [`WRONG_LOGINS_ASKED`] wrong logins a second at one tenant, from one network.
    async fn wrong_logins(&self, server: &Server, tokens: &Path) -> Result<WrongLogins, Failure> {
        let (asked, pause) = (WRONG_LOGINS_ASKED, WRONG_LOGINS_PAUSE_SECONDS);
        let script = load::paced_script(self.folder, &scenario::wrong_logins(), tokens, pause * 1_000)?;
        let rss_before_mb = server::resident_mib(server.process());
        let readers = self
            .beside(WRONG_LOGINS, &self.quiet_readers(), &script, asked * pause)
            .await?;
        Ok(WrongLogins {
            asked,
            readers,
            rss_before_mb,
            rss_after_mb: server::resident_mib(server.process()),
        })
    }

    /// Quiet tenants, alone and beside a noisy one, in turn: the medians of the rounds.
    async fn beside(
        &self,
        name: &str,
        quiet: &[String],
        script: &Path,
        connections: usize,
    ) -> Result<Fairness, Failure> {
        // The 99th of a hundred is told by few requests; more rounds are not for the rates, which are steadier.
        let (rounds, seconds) = (self.rounds().max(3), self.seconds().max(5));
        // Requests of the scenario before may still be under way, and the first of a tenant takes longer.
        load::steady(quiet, 2).await?;
        let mut each = Vec::new();
        for round in 1..=rounds {
            say(&format!("{name}, round {round} of {rounds}"));
            let alone = load::steady(quiet, seconds).await?;
            let (noise, beside) = tokio::join!(
                load::run(script, seconds + 1, connections),
                load::steady(quiet, seconds)
            );
            let (beside, noisy_rps) = (beside?, noise?.rate());
            each.push(Fairness::of(&alone, &beside, noisy_rps));
        }
        Ok(Fairness::median(&each))
    }
}

/// Of sorted times, the one that so many in a hundred do not exceed; in microseconds.
fn percentile(times: &[Duration], share: usize) -> f64 {
    let index = (times.len() * share / 100).min(times.len().saturating_sub(1));
    times.get(index).map_or(0.0, |time| time.as_micros() as f64)
}

impl Bench<'_> {
    /// The list of ten over as many connections as the server serves best, and then over far more: what is still answered
    /// with 200, in the median of the rounds.
    async fn overload(&self, tokens: &Path) -> Result<Overload, Failure> {
        let mut list = scenario::list("list_10", self.ground.size.tenants, 10, "");
        list.name = OVERLOAD;
        let script = load::tolerant_script(self.folder, &list, tokens)?;
        let (mut peak, mut good, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..self.rounds() {
            say(&format!("overload, round {} of {}", round + 1, self.rounds()));
            let best = load::run(&script, self.seconds(), CONNECTIONS).await?;
            let flood = load::run(&script, self.seconds(), CONNECTIONS * TOO_MANY).await?;
            let rate = |requests: u64| requests as f64 * 1e6 / flood.duration.max(1) as f64;
            peak.push(best.rate());
            good.push(rate(flood.requests.saturating_sub(flood.bad)));
            refused.push(rate(flood.bad));
        }
        let [peak_rps, good_rps, refused_rps] = [peak, good, refused].map(|rates| median(rates.into_iter()));
        Ok(Overload {
            connections: CONNECTIONS * TOO_MANY,
            peak_rps,
            good_rps,
            refused_rps,
            ratio: good_rps / peak_rps,
        })
    }
}

/// What the rounds of a scenario have shown.
#[derive(Default)]
struct Rounds {
    runs: Vec<Measured>,
    /// What the server and PostgreSQL used, in microseconds, for how many requests.
    used: Vec<(u64, u64, u64)>,
    /// Transactions of pgbench's in a second.
    simple: Vec<f64>,
    prepared: Vec<f64>,
}

impl Rounds {
    fn row(&self, name: &'static str) -> Row {
        let each = |of: fn(&Measured) -> f64| median(self.runs.iter().map(of));
        let cost = |of: fn(&(u64, u64, u64)) -> u64| {
            median(self.used.iter().map(|one| of(one) as f64 / one.2.max(1) as f64))
        };
        let rps = each(Measured::rate);
        let rate = |rates: &[f64]| (!rates.is_empty()).then(|| median(rates.iter().copied()));
        let pgbench_tps = rate(&self.simple);
        Row {
            name,
            rps,
            p50_us: each(|run| run.p50),
            p99_us: each(|run| run.p99),
            server_us: cost(|one| one.0),
            postgres_us: cost(|one| one.1),
            pgbench_tps,
            pgbench_prepared_tps: rate(&self.prepared),
            ratio: pgbench_tps.map(|tps| rps / tps),
            bad: self.runs.iter().map(|run| run.bad).sum(),
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        _ if sorted.is_empty() => 0.0,
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

/// What it ran on, and when.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get);
    let now: Time = SystemClock::new().now();
    format!("{cores} x {model}, {}", now.format("%Y-%m-%d %H:%M UTC"))
}
