//! What came out: a table, JSON, and a picture.

use serde::Serialize;

use crate::ground::Size;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: String,
    pub size: Size,
    pub scenarios: Vec<Row>,
    pub flatness: Option<Flatness>,
    pub fairness: Option<Fairness>,
    /// Ten tenants with a login a second each, while another one adds users over a hundred connections.
    pub login_fairness: Option<Fairness>,
    pub wrong_logins: Option<WrongLogins>,
    pub overload: Option<Overload>,
    pub guard: Option<Guarded>,
    pub export: Option<Exported>,
    pub purge: Option<Purged>,
    pub audit_cost: Option<AuditCost>,
    pub webhooks: Option<Webhooks>,
    /// What the server has in memory after the lists, of which the goal speaks, in MiB.
    pub rss_mb: u64,
    /// The same after the last scenario, ingest with its thousand events in a request.
    pub rss_after_all_mb: u64,
    pub startup_ms: u128,
}

/// Wrong logins at one tenant, and what fifty others that read notice of them.
#[derive(Debug, Serialize)]
pub struct WrongLogins {
    /// How many a second were asked for.
    pub asked: usize,
    /// Its rate of the noise is that of the answers: wrong ones, and refusals where no place to hash was left.
    pub readers: Fairness,
    /// What the server had in memory, in MiB.
    pub rss_before_mb: u64,
    /// The same after the last round.
    pub rss_after_mb: u64,
}

impl WrongLogins {
    fn sentence(&self) -> String {
        let noise = format!("of {} wrong logins", self.asked);
        format!(
            "{}  resident memory {} MiB before, {} MiB after\n",
            self.readers.sentence("fifty quiet tenants", &noise),
            self.rss_before_mb,
            self.rss_after_mb
        )
    }
}

/// The guard's check of the database, connecting included.
#[derive(Debug, Serialize)]
pub struct Guarded {
    /// How many rules it checks.
    pub checks: usize,
    pub median_ms: f64,
    pub slowest_ms: f64,
}

/// The export of a tenant of many rows, and what fifty others that read notice of it.
#[derive(Debug, Serialize)]
pub struct Exported {
    pub rows: usize,
    /// While nobody else asks.
    pub rows_per_second: f64,
    pub readers: Fairness,
}

/// The end of a tenant of many rows.
#[derive(Debug, Serialize)]
pub struct Purged {
    pub rows: usize,
    /// To mark them as deleted.
    pub delete_seconds: f64,
    /// To erase them.
    pub purge_seconds: f64,
    pub rows_per_second: f64,
}

/// What the audit log adds to a write. All times are in microseconds, processor time of server and PostgreSQL together but for the
/// chain's.
#[derive(Debug, Serialize)]
pub struct AuditCost {
    /// To chain an entry, by the clock.
    pub chain_us: f64,
    /// A write with its entry, chained.
    pub plain_us: f64,
    /// The same, and sent to a receiver.
    pub streamed_us: f64,
    /// A write for each without the chain.
    pub chain_ratio: f64,
    /// With a receiver for each without.
    pub stream_ratio: f64,
}

/// What becomes of webhooks.
#[derive(Debug, Serialize)]
pub struct Webhooks {
    pub deliveries: usize,
    /// From events in the outbox of twenty tenants to a receiver on the same machine.
    pub per_second: f64,
    /// How many messages of one tenant fail while other tenants are watched.
    pub failing: usize,
    /// From a change of another tenant to its arrival, the change included.
    pub other_p50_ms: f64,
    pub other_p99_ms: f64,
    /// How many messages of one tenant wait in its queue.
    pub queued: usize,
    /// What the server has in memory then, in MiB.
    pub rss_mb: u64,
}

impl Webhooks {
    fn sentence(&self) -> String {
        format!(
            "\nwebhooks: {:.0} deliveries/s; beside one tenant with {} that fail: p50 {:.0} ms, p99 {:.0} ms from a change of \
             another to its arrival; {} MiB with {} in a queue\n",
            self.per_second, self.failing, self.other_p50_ms, self.other_p99_ms, self.rss_mb, self.queued
        )
    }
}

impl Exported {
    fn sentence(&self) -> String {
        let readers = &self.readers;
        format!(
            "\nexport of {} rows: {:.0} rows/s; fifty tenants that read: p99 {:.0} us alone, {:.0} us beside it, {:.2} times as long\n",
            self.rows, self.rows_per_second, readers.alone_p99_us, readers.beside_p99_us, readers.p99_ratio
        )
    }
}

impl Purged {
    fn sentence(&self) -> String {
        format!(
            "\npurge of {} rows: {:.1} s, {:.0} rows/s; {:.1} s to delete them before\n",
            self.rows, self.purge_seconds, self.rows_per_second, self.delete_seconds
        )
    }
}

impl AuditCost {
    fn sentence(&self) -> String {
        format!(
            "\naudit log: a write takes {:.0} us, of which the chain {:.0} us, {:.2} times as long as without it; {:.0} us with a \
             stream, {:.2} times as long\n",
            self.plain_us, self.chain_us, self.chain_ratio, self.streamed_us, self.stream_ratio
        )
    }
}

/// A scenario, as the median of its rounds.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: &'static str,
    pub rps: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Processor time of a request, in microseconds.
    pub server_us: f64,
    pub postgres_us: f64,
    pub pgbench_tps: Option<f64>,
    /// With prepared statements and `set_config()` in place of SET LOCAL.
    pub pgbench_prepared_tps: Option<f64>,
    /// Requests for each transaction of pgbench's.
    pub ratio: Option<f64>,
    pub bad: u64,
}

/// How much longer the list of ten takes over many tenants than over ten.
#[derive(Debug, Serialize)]
pub struct Flatness {
    /// How many are many.
    pub tenants: usize,
    pub few_p50_us: f64,
    /// Over a server that has just been started: most requests are the first of their tenant.
    pub cold_p50_us: f64,
    /// Over one that remembers all of them.
    pub warm_p50_us: f64,
    /// In so much memory, in MiB.
    pub warm_rss_mb: u64,
    /// To store the calls of a tenant, which is done together for all since the last time.
    pub storing_server_us: f64,
    pub storing_postgres_us: f64,
    /// The warm rate over ten tenants for each request over many, to compare with pgbench's.
    pub warm_rate_ratio: f64,
    /// pgbench's rate over ten tenants for each transaction over many: what PostgreSQL itself loses.
    pub pgbench_rate_ratio: f64,
}

/// What quiet tenants with a request a second each see while another one is at full speed.
#[derive(Debug, Serialize)]
pub struct Fairness {
    pub alone_p50_us: f64,
    pub alone_p99_us: f64,
    pub beside_p50_us: f64,
    pub beside_p99_us: f64,
    /// Beside it for each alone.
    pub p99_ratio: f64,
    pub noisy_rps: f64,
}

/// The list of ten over far more connections than can be served.
#[derive(Debug, Serialize)]
pub struct Overload {
    pub connections: usize,
    /// With as many connections as are served best.
    pub peak_rps: f64,
    /// Answered with 200 while there are too many.
    pub good_rps: f64,
    /// Answered with anything else.
    pub refused_rps: f64,
    /// What is left of the peak.
    pub ratio: f64,
}

impl Fairness {
    fn sentence(&self, quiet: &str, noise: &str) -> String {
        format!(
            "\n{quiet}: p50 {:.0} us, p99 {:.0} us; beside one that sends {:.0} {noise}/s: p50 {:.0} us, p99 {:.0} us, \
             {:.2} times as long\n",
            self.alone_p50_us,
            self.alone_p99_us,
            self.noisy_rps,
            self.beside_p50_us,
            self.beside_p99_us,
            self.p99_ratio
        )
    }
}

impl Report {
    /// For a person.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<24}{:>9}{:>10}{:>10}{:>11}{:>13}{:>13}{:>8}\n",
            "scenario", "req/s", "p50 us", "p99 us", "server us", "postgres us", "pgbench tps", "ratio"
        );
        for row in &self.scenarios {
            let tps = row
                .pgbench_tps
                .map_or_else(|| "-".into(), |tps| format!("{tps:.0}"));
            let ratio = row
                .ratio
                .map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
            text += &format!(
                "{:<24}{:>9.0}{:>10.0}{:>10.0}{:>11.0}{:>13.0}{tps:>13}{ratio:>8}\n",
                row.name, row.rps, row.p50_us, row.p99_us, row.server_us, row.postgres_us
            );
        }
        for row in &self.scenarios {
            if let Some(tps) = row.pgbench_prepared_tps {
                let ratio = row.rps / tps;
                text += &format!(
                    "\n{}, beside pgbench with prepared statements: {tps:.0} tps, ratio {ratio:.2}\n",
                    row.name
                );
            }
        }
        if let Some(flat) = &self.flatness {
            let (few, cold, warm) = (flat.few_p50_us, flat.cold_p50_us, flat.warm_p50_us);
            text += &format!(
                "\nlist of ten over {} tenants and over ten: p50 {cold:.0} us cold ({:.2} times), {warm:.0} us warm ({:.2} \
                 times), and {few:.0} us;\n  the rate over ten is {:.2} times as high when warm, pgbench's own {:.2} \
                 times; all remembered in {} MiB;\n  to store a tenant's calls of an interval takes {:.0} us of the server \
                 and {:.0} us of PostgreSQL\n",
                flat.tenants,
                cold / few,
                warm / few,
                flat.warm_rate_ratio,
                flat.pgbench_rate_ratio,
                flat.warm_rss_mb,
                flat.storing_server_us,
                flat.storing_postgres_us
            );
        }
        if let Some(fair) = &self.fairness {
            text += &fair.sentence("fifty quiet tenants", "requests");
        }
        if let Some(fair) = &self.login_fairness {
            text += &fair.sentence("logins of ten tenants", "new users");
        }
        text += &self
            .wrong_logins
            .as_ref()
            .map(WrongLogins::sentence)
            .unwrap_or_default();
        text + &self.single_figures()
    }

    /// What has no row of its own in the table.
    fn single_figures(&self) -> String {
        let mut text = String::new();
        if let Some(over) = &self.overload {
            text += &format!(
                "\n{} connections: {:.0} of {:.0} requests/s are left, ratio {:.2}; {:.0}/s are refused\n",
                over.connections, over.good_rps, over.peak_rps, over.ratio, over.refused_rps
            );
        }
        if let Some(guard) = &self.guard {
            text += &format!(
                "\nguard: {} checks of the database in {:.0} ms, {:.0} ms at most\n",
                guard.checks, guard.median_ms, guard.slowest_ms
            );
        }
        text += &self.export.as_ref().map(Exported::sentence).unwrap_or_default();
        text += &self.purge.as_ref().map(Purged::sentence).unwrap_or_default();
        text += &self
            .audit_cost
            .as_ref()
            .map(AuditCost::sentence)
            .unwrap_or_default();
        text += &self.webhooks.as_ref().map(Webhooks::sentence).unwrap_or_default();
        text += &format!(
            "\nresident memory {} MiB after the lists, {} MiB after the last scenario; ready {} ms after the start\n",
            self.rss_mb, self.rss_after_all_mb, self.startup_ms
        );
        text
    }

    /// Bars of the ratio to pgbench, for the documentation.
    pub fn picture(&self) -> String {
        let rows: Vec<_> = self.scenarios.iter().filter(|row| row.ratio.is_some()).collect();
        let height = 60 + rows.len() * 34;
        let scale = 320.0;
        let mut bars = String::new();
        for (number, row) in rows.iter().enumerate() {
            let (y, ratio) = (44 + number * 34, row.ratio.unwrap_or_default());
            bars += &format!(
                "<text x='190' y='{}' text-anchor='end'>{}</text><rect x='200' y='{y}' width='{:.0}' height='22' \
                 fill='#2f6f4f'/><text x='{:.0}' y='{}'>{ratio:.2} ({:.0} requests/s)</text>\n",
                y + 16,
                row.name,
                ratio * scale,
                ratio * scale + 208.0,
                y + 16,
                row.rps
            );
        }
        let lines: String = [0.75, 1.0]
            .map(|at| {
                let x = 200.0 + at * scale;
                format!(
                    "<line x1='{x}' x2='{x}' y1='36' y2='{}' stroke='#999' stroke-dasharray='4 3'/>\
                     <text x='{x}' y='30' text-anchor='middle' fill='#666'>{at}</text>\n",
                    height - 12
                )
            })
            .concat();
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='800' height='{height}' font-family='sans-serif' \
             font-size='13'>\n<rect width='100%' height='100%' fill='white'/>\n<text x='10' y='16'>Requests over HTTP for \
             each transaction of pgbench with the same statements</text>\n{lines}{bars}</svg>\n"
        )
    }
}
