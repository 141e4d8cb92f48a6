//! A flame graph of the server under the list of ten: where its processor time goes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;

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
    let folded = bench.folder.join("perf.folded");
    let printed = print(&samples).await?;
    let stacks = fold(&printed);
    std::fs::write(&folded, lines(&stacks))?;
    std::fs::write(picture, Frame::of(&stacks).picture())?;
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
    done(perf).await.map(|_| ())
}

/// Without the inlined functions, which perf looks up one by one for minutes.
async fn print(samples: &Path) -> Result<String, Failure> {
    let mut perf = Command::new("perf");
    perf.args(["script", "--no-inline", "--fields", "comm,ip,sym", "--input"])
        .arg(samples);
    done(perf).await
}

async fn done(mut perf: Command) -> Result<String, Failure> {
    let output = perf.stdin(Stdio::null()).output().await;
    let output = output
        .map_err(|error| format!("perf: {error}; install it (Debian: `apt-get install linux-perf`)"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "perf: {} (root, or kernel.perf_event_paranoid at 1?)",
        complaint.trim()
    )
    .into())
}

/// How often each stack was seen, outermost first, from what `perf script` prints: for each sample the name of its
/// thread, then a line for each frame, innermost first, with its address and its function, then an empty line.
fn fold(script: &str) -> BTreeMap<Vec<&str>, u64> {
    let mut folded = BTreeMap::new();
    let (mut thread, mut frames) = ("", Vec::new());
    for line in script.lines().chain([""]) {
        if line.trim().is_empty() {
            if !frames.is_empty() {
                frames.push(thread);
                frames.reverse();
                *folded.entry(std::mem::take(&mut frames)).or_default() += 1;
            }
        } else if line.starts_with(char::is_whitespace) {
            let function = line
                .trim()
                .split_once(' ')
                .map_or("[unknown]", |(_, function)| function);
            frames.push(function);
        } else {
            thread = line.trim();
        }
    }
    folded
}

/// A line for each stack, in the format that tools for flame graphs read.
fn lines(stacks: &BTreeMap<Vec<&str>, u64>) -> String {
    let line = |(stack, count): (&Vec<&str>, &u64)| {
        let frames: Vec<_> = stack.iter().map(|frame| frame.replace(';', ":")).collect();
        format!("{} {count}\n", frames.join(";"))
    };
    stacks.iter().map(line).collect()
}

/// A function in the place that it was called in, and how many samples were in it or in what it called.
#[derive(Debug, Default, PartialEq)]
struct Frame<'a> {
    samples: u64,
    callees: BTreeMap<&'a str, Frame<'a>>,
}

const WIDTH: f64 = 1_200.0;
const HEIGHT: usize = 17;

impl<'a> Frame<'a> {
    fn of(stacks: &BTreeMap<Vec<&'a str>, u64>) -> Self {
        let mut root = Self::default();
        for (stack, count) in stacks {
            let mut frame = &mut root;
            frame.samples += count;
            for function in stack {
                frame = frame.callees.entry(function).or_default();
                frame.samples += count;
            }
        }
        root
    }

    fn depth(&self) -> usize {
        self.callees
            .values()
            .map(|callee| 1 + callee.depth())
            .max()
            .unwrap_or(0)
    }

    /// The outermost functions at the bottom, each as wide as its share of all samples.
    fn picture(&self) -> String {
        let (height, all) = ((self.depth() + 3) * HEIGHT, self.samples.max(1));
        let mut svg = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}' font-family='monospace' \
             font-size='11'>\n<rect width='100%' height='100%' fill='white'/>\n<text x='6' y='14'>The server under the \
             list of ten: {all} samples. Own code is green, the database's client blue, the kernel and others \
             yellow.</text>\n"
        );
        self.draw(&mut svg, (0.0, height - HEIGHT), WIDTH / all as f64);
        svg += "</svg>\n";
        svg
    }

    fn draw(&self, svg: &mut String, (mut x, y): (f64, usize), scale: f64) {
        for (function, callee) in &self.callees {
            let width = callee.samples as f64 * scale;
            // What is narrower than this is not seen.
            if width >= 0.4 {
                let share = width / WIDTH * 100.0;
                let name = escaped(function);
                let shown: String = function.chars().take((width / 6.8) as usize).collect();
                let (fill, baseline) = (colour(function), y + HEIGHT - 5);
                // Writing into a string cannot fail.
                let _ = writeln!(
                    svg,
                    "<g><title>{name} ({} samples, {share:.1} %)</title><rect x='{x:.1}' y='{y}' width='{width:.1}' \
                     height='{}' fill='{fill}'/><text x='{:.1}' y='{baseline}'>{}</text></g>",
                    callee.samples,
                    HEIGHT - 1,
                    x + 2.0,
                    escaped(&shown)
                );
                if let Some(above) = y.checked_sub(HEIGHT) {
                    callee.draw(svg, (x, above), scale);
                }
            }
            x += width;
        }
    }
}

fn colour(function: &str) -> &'static str {
    if function.contains("tenantry") {
        "#8fce8f"
    } else if function.contains("sqlx") || function.contains("sea_") {
        "#9fc0e8"
    } else {
        "#f0d58a"
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "worker one \n\t  35 tenantry::b<T>\n\t  34 a\n\nworker one \n\t  35 tenantry::b<T>\n\t  34 a\n\n\
                          worker one \n\t  36 [unknown]\n\t  34 a\n\nother\n\t 7\n";

    #[test]
    fn equal_stacks_are_counted_from_their_outer_end() {
        let stacks = fold(SCRIPT);
        let expected = "other;[unknown] 1\nworker one;a;[unknown] 1\nworker one;a;tenantry::b<T> 2\n";
        assert_eq!(lines(&stacks), expected);
        assert_eq!(fold(""), BTreeMap::new());
    }

    #[test]
    fn a_frame_is_as_wide_as_its_share() {
        let stacks = fold(SCRIPT);
        let root = Frame::of(&stacks);
        assert_eq!((root.samples, root.depth()), (4, 3));
        let picture = root.picture();
        assert!(
            picture.contains("<title>worker one (3 samples, 75.0 %)</title><rect x='300.0'"),
            "{picture}"
        );
        assert!(
            picture.contains("<title>tenantry::b&lt;T&gt; (2 samples, 50.0 %)</title>"),
            "{picture}"
        );
        assert!(Frame::default().picture().ends_with("</svg>\n"));
    }
}
