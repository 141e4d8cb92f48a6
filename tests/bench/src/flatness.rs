//! Whether the list of ten takes as long over a hundred thousand tenants as over ten.
//!
//! The first request of a tenant costs more than the others: its token is verified and its membership looked up. So it is
//! measured twice, over a server that has just been started and over one that has seen every tenant, and pgbench says
//! what PostgreSQL itself loses to the larger set of data.

use std::path::Path;
use std::time::Instant;

use crate::ground::say;
use crate::report::{Flatness, Row};
use crate::scenario::{Scenario, list};
use crate::server::{Server, Used};
use crate::{Bench, Failure, Rounds, load, server};

/// How many tenants are few.
const FEW: usize = 10;

/// The longest that the settings allow; changes are announced over Redis meanwhile.
const TTL_MS: &str = "3600000";

/// The figures, and the rows of the table that they come from.
pub async fn measure(bench: &Bench<'_>, tokens: &Path) -> Result<(Flatness, [Row; 3]), Failure> {
    let size = bench.ground.size;
    let tenants = size.tenants + size.small_tenants;
    let cold = list("list_10_of_all_tenants", tenants, 10, "");
    let warm = list("list_10_of_all_warm", tenants, 10, "");
    let few = list("list_10_of_10_tenants", FEW.min(tenants), 10, "");
    let cold = rounds_of_new_servers(bench, &cold, tokens).await?;

    let entries = (2 * tenants).to_string();
    let settings = [
        ("TENANTRY__CACHE__ENTRIES", entries.as_str()),
        ("TENANTRY__CACHE__TTL_MS", TTL_MS),
    ];
    let server = bench.start(&settings).await?;
    let began = Instant::now();
    say(&format!("visiting {tenants} tenants"));
    // With the tokens of the rounds: each token is verified when it comes for the first time.
    load::visit(&bench.tokens).await?;
    say(&format!("visited in {:.0} s", began.elapsed().as_secs_f64()));
    let storing = storing(bench, &server).await?;
    // Turn and turn about, so that a machine that becomes slower does so for both.
    let scripts = [
        load::script(bench.folder, &few, tokens)?,
        load::script(bench.folder, &warm, tokens)?,
    ];
    let mut rounds = [Rounds::default(), Rounds::default()];
    for _ in 0..bench.rounds() {
        for ((scenario, script), rounds) in [&few, &warm].into_iter().zip(&scripts).zip(&mut rounds) {
            // The calls of one are not stored in the time of the other.
            server.caught_up().await?;
            bench.round(&server, scenario, script, rounds).await?;
        }
    }
    let warm_rss_mb = server::resident_mib(server.process());
    let [few, warm] = [rounds[0].row(few.name), rounds[1].row(warm.name)];
    let tps = |row: &Row| row.pgbench_tps.unwrap_or_default();
    let flatness = Flatness {
        tenants,
        few_p50_us: few.p50_us,
        cold_p50_us: cold.p50_us,
        warm_p50_us: warm.p50_us,
        warm_rss_mb,
        storing_server_us: storing.0,
        storing_postgres_us: storing.1,
        warm_rate_ratio: few.rps / warm.rps,
        pgbench_rate_ratio: tps(&few) / tps(&warm),
    };
    Ok((flatness, [few, cold, warm]))
}

/// What it costs to bring the calls of a tenant into the ledger, one call of each: the server's and PostgreSQL's time.
async fn storing(bench: &Bench<'_>, server: &Server) -> Result<(f64, f64), Failure> {
    say("storing their calls");
    let postgres = bench.ground.cluster.data_dir();
    let before = Used::now(server.process(), postgres);
    let calls = server.caught_up().await?.max(1) as f64;
    let (server, postgres) = Used::now(server.process(), postgres).since(&before);
    Ok((server as f64 / calls, postgres as f64 / calls))
}

/// Each round over a server that knows nobody yet.
async fn rounds_of_new_servers(
    bench: &Bench<'_>,
    scenario: &Scenario,
    tokens: &Path,
) -> Result<Row, Failure> {
    let script = load::script(bench.folder, scenario, tokens)?;
    let mut rounds = Rounds::default();
    for _ in 0..bench.rounds() {
        let server = bench.start(&[]).await?;
        bench.round(&server, scenario, &script, &mut rounds).await?;
        drop(server);
        // Or the next one begins with storing them.
        bench.ground.forget_calls()?;
    }
    Ok(rounds.row(scenario.name))
}
