//! What commands say to the person who runs them; the only place that prints.

use std::sync::OnceLock;

use tenantry_domain::kernel::Time;

static PROGRAM: OnceLock<&str> = OnceLock::new();

/// The name of this program, for hints with commands.
pub fn program() -> &'static str {
    PROGRAM.get().copied().unwrap_or("tenantry")
}

/// Sets the name of this program, once.
pub fn name_program(name: &'static str) {
    PROGRAM.get_or_init(|| name);
}

/// A moment as commands print it: RFC 3339 in UTC, to the second.
pub fn moment(at: Time) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

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
