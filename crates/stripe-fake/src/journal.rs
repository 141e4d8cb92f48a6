//! What changed a fake, a line each in a file. One that is started over the same file does it all again, at the same times, and
//! so has the same objects under the same ids.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use crate::params::Params;

/// A call that changed something.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When, in Unix seconds of the fake's clock.
    pub at: i64,
    /// How far the clock was ahead afterwards, in seconds.
    pub ahead: i64,
    /// `POST`.
    pub method: String,
    /// `/v1/customers`, or `/_fake/clock/advance`.
    pub path: String,
    /// Its idempotency key.
    pub key: Option<String>,
    /// What was said with it.
    pub params: Params,
}

/// What a file has of an earlier fake.
#[derive(Debug)]
pub struct Earlier {
    /// What each of its ids has in it.
    pub run: String,
    /// Its calls, the oldest first.
    pub entries: Vec<Entry>,
}

/// The file.
#[derive(Debug)]
pub struct Journal(File);

impl Journal {
    /// Opens the file, which is made where there is none. A last line that is not whole, as after a crash, is cut off; so is
    /// what follows a line that cannot be read.
    pub fn open(path: &Path, run: &str) -> io::Result<(Self, Earlier)> {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let (whole, earlier) = read(&text);
        let end = u64::try_from(whole).map_err(io::Error::other)?;
        if whole < text.len() {
            let (path, bytes) = (path.display(), text.len() - whole);
            tracing::warn!(%path, bytes, "the end of the fake's file cannot be read and is cut off");
            file.set_len(end)?;
        }
        file.seek(SeekFrom::Start(end))?;
        let mut journal = Self(file);
        if let Some(earlier) = earlier {
            return Ok((journal, earlier));
        }
        journal.write(&json!({ "run": run }))?;
        let (run, entries) = (run.to_owned(), Vec::new());
        Ok((journal, Earlier { run, entries }))
    }

    /// Adds a call.
    pub fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let Entry {
            at,
            ahead,
            method,
            path,
            key,
            params,
        } = entry;
        self.write(&json!({
            "at": at, "ahead": ahead, "method": method, "path": path, "key": key, "params": params.value(),
        }))
    }

    /// Writes a line in one call, so that a process that is killed leaves a part of it at the most.
    fn write(&mut self, line: &Value) -> io::Result<()> {
        self.0.write_all(format!("{line}\n").as_bytes())
    }
}

/// What can be read of a file, and how many bytes that is.
fn read(text: &[u8]) -> (usize, Option<Earlier>) {
    let mut lines = text
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"));
    let head = lines.next().and_then(|line| Some((line.len(), run_of(line)?)));
    let Some((mut whole, run)) = head else {
        return (0, None);
    };
    let mut entries = Vec::new();
    for line in lines {
        let Some(entry) = Entry::read(line) else { break };
        entries.push(entry);
        whole += line.len();
    }
    (whole, Some(Earlier { run, entries }))
}

fn run_of(line: &[u8]) -> Option<String> {
    let head: Value = serde_json::from_slice(line).ok()?;
    head["run"].as_str().map(str::to_owned)
}

impl Entry {
    fn read(line: &[u8]) -> Option<Self> {
        let it: Value = serde_json::from_slice(line).ok()?;
        Some(Self {
            at: it["at"].as_i64()?,
            ahead: it["ahead"].as_i64()?,
            method: it["method"].as_str()?.to_owned(),
            path: it["path"].as_str()?.to_owned(),
            key: it["key"].as_str().map(str::to_owned),
            params: Params::of(it["params"].as_object()?.clone()),
        })
    }
}
