//! What commands say to the person who runs them; the only place that prints.

/// A line of the answer, on standard output. A reader that has gone away is no reason to panic.
pub fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line about how it goes, on standard error.
pub fn progress(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Why it failed, on standard error.
pub fn error(line: &str) {
    progress(&format!("error: {line}"));
}
