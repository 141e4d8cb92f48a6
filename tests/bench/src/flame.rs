//! A flame graph of the server under the list of ten: where its processor time goes.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::process::Stdio;

use inferno::collapse::Collapse as _;
use inferno::collapse::perf::{Folder, Options as FolderOptions};
use inferno::flamegraph::{Options, from_reader};
use tokio::process::Command;

use crate::ground::say;
use crate::load::{self, CONNECTIONS};
use crate::server::Server;
use crate::{Bench, Failure, scenario};

/// Samples in a second: not a divisor of anything that happens at regular times.
const HERTZ: &str = "199";

/// Draws what the server does under full load into a file.
pub async fn draw(bench: &Bench<'_>, server: &Server, tokens: &Path, picture: &Path) -> Result<(), Failure> {
    let list = scenario::list("list_10", bench.ground.size.tenants, 10, "");
    let script = load::script(bench.folder, &list, tokens)?;
    load::run(&script, 1, CONNECTIONS).await?;
    let samples = bench.folder.join("perf.data");
    let (load, recorded) = tokio::join!(
        load::run(&script, bench.seconds() + 1, CONNECTIONS),
        record(server.process(), bench.seconds(), &samples)
    );
    recorded?;
    say(&format!("{:.0} requests/s while it was recorded", load?.rate()));
    let stacks = bench.folder.join("perf.txt");
    print(&samples, &stacks).await?;
    let folded = bench.folder.join("perf.folded");
    Folder::from(FolderOptions::default())
        .collapse_file(Some(&stacks), BufWriter::new(File::create(&folded)?))?;
    let mut options = Options::default();
    options.title = "The server under the list of ten".to_owned();
    let svg = BufWriter::new(File::create(picture)?);
    from_reader(&mut options, BufReader::new(File::open(&folded)?), svg)?;
    say(&format!("wrote {} and {}", picture.display(), folded.display()));
    Ok(())
}

/// Stacks are unwound from copies of them (`dwarf`), since the release build keeps no frame pointers.
async fn record(process: u32, seconds: u64, samples: &Path) -> Result<(), Failure> {
    let (process, seconds) = (process.to_string(), seconds.to_string());
    let options = [
        "record",
        "--freq",
        HERTZ,
        "--call-graph",
        "dwarf,16384",
        "--pid",
        &process,
        "--output",
    ];
    let mut perf = Command::new("perf");
    perf.args(options).arg(samples).args(["--", "sleep", &seconds]);
    done(perf.stdout(Stdio::null())).await
}

/// Without the inlined functions, which perf looks up one by one for minutes.
async fn print(samples: &Path, stacks: &Path) -> Result<(), Failure> {
    let mut perf = Command::new("perf");
    perf.args(["script", "--no-inline", "--input"]).arg(samples);
    done(perf.stdout(File::create(stacks)?)).await
}

async fn done(perf: &mut Command) -> Result<(), Failure> {
    let running = perf.stderr(Stdio::piped()).spawn();
    let running = running
        .map_err(|error| format!("perf: {error}; install it (Debian: `apt-get install linux-perf`)"))?;
    // `output()` would take standard output away from the file.
    let output = running.wait_with_output().await?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "perf: {} (root, or kernel.perf_event_paranoid at 1?)",
        complaint.trim()
    )
    .into())
}
