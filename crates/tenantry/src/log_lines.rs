use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// The most lines that wait to be written. Lines beyond it are dropped and counted.
const MOST_WAITING: usize = 4_096;

/// The most bytes of one write. A pipe takes so many at once (`PIPE_BUF`), so lines of several processes stay apart.
const AT_ONCE: usize = 4_096;

/// The lines of the log, which a thread of their own writes: whoever reads them, a request never waits for the reader.
#[derive(Debug, Clone)]
pub struct Lines {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// Answered when the lines before it are written.
    Flush(SyncSender<()>),
}

impl Lines {
    /// Lines that go to `file`.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn to(file: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (queue, waiting) = sync_channel(MOST_WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&waiting, file, &counted))?;
        Ok(Self { queue, dropped })
    }

    /// Returns how many lines were dropped since the start, because their reader was too slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until the lines so far are written, at most for `timeout`. Returns whether they are.
    pub fn flush(&self, timeout: Duration) -> bool {
        let (written, done) = sync_channel(1);
        self.queue.try_send(Entry::Flush(written)).is_ok() && done.recv_timeout(timeout).is_ok()
    }
}

impl Write for &Lines {
    /// Takes a line, or drops it where the queue is full.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if self.queue.try_send(Entry::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

/// Ends when nothing can send lines any more. Lines that cannot be written, to a full disk or a closed pipe, are lost.
fn write_lines(waiting: &Receiver<Entry>, mut file: impl Write, dropped: &AtomicU64) {
    let (mut batch, mut reported) = (Vec::with_capacity(AT_ONCE), 0);
    let mut next = waiting.recv().ok();
    while let Some(entry) = next.take() {
        match entry {
            Entry::Line(line) => {
                if batch.len() + line.len() > AT_ONCE {
                    write(&mut file, &mut batch);
                }
                batch.extend_from_slice(&line);
                next = waiting.try_recv().ok();
            }
            Entry::Flush(written) => {
                write(&mut file, &mut batch);
                let _ = written.try_send(());
            }
        }
        if next.is_some() {
            continue;
        }
        write(&mut file, &mut batch);
        let lost = dropped.load(Ordering::Relaxed);
        if lost > reported {
            tracing::warn!(
                lines = lost - reported,
                "log lines dropped: their reader was too slow"
            );
            reported = lost;
        }
        next = waiting.recv().ok();
    }
}

fn write(file: &mut impl Write, batch: &mut Vec<u8>) {
    let _ = file.write_all(batch);
    batch.clear();
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn stalled_reader_blocks_no_writer_and_dropped_lines_are_counted() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let lines = Lines::to(writer).unwrap();
        let sent = 20_000;
        for number in 0..sent {
            let line = format!("line {number} {}\n", "x".repeat(100));
            (&lines).write_all(line.as_bytes()).unwrap();
        }
        let dropped = lines.dropped();
        assert!(dropped > 0);
        assert!(!lines.flush(Duration::from_millis(1)), "nobody reads");

        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        while !lines.flush(Duration::from_secs(1)) {}
        drop(lines);
        let text = reading.join().unwrap();
        let whole = text.lines().filter(|line| line.ends_with('x')).count();
        assert_eq!((text.lines().count(), whole as u64), (whole, sent - dropped));
    }
}
