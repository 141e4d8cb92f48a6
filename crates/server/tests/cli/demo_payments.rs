//! The demo that is paid through the fake of Stripe: what a person at a terminal sees of it.

use std::fs::File;
use std::time::{Duration, Instant};

use super::*;

/// `tenantry dev --stripe fake` with its log in a file.
struct Demo {
    dev: Dev,
    token: String,
    fake: String,
    log: PathBuf,
}

impl Demo {
    fn start(folder: &Path, run: u32) -> Self {
        let log = folder.join(format!("log-{run}"));
        let mut child = tenantry(&["dev", "--stripe", "fake", "--data-dir", folder.to_str().unwrap()])
            .env("TENANTRY__SERVER__PORT", "0")
            .env("TENANTRY__MAIL__LOG_CONTENTS", "true")
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let address = said(&mut stdout, "Tenantry is at http://");
        let fake = said(&mut stdout, "A stand-in for Stripe is at http://");
        let dev = Dev::of(child, stdout, address);
        Self {
            token: dev.login("acme"),
            dev,
            fake,
            log,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn at_fake(&self, method: &str, path: &str) -> String {
        let (status, body) = request(&self.fake, (method, path), "", "");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Waits for something, up to a deadline that fails the test.
    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "{what} did not come about:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn tenant(&self) -> String {
        self.dev.get(&self.token, "/api/v1/tenant")
    }

    #[track_caller]
    fn is_quiet(&self) {
        for level in ["WARN", "ERROR"] {
            assert!(!self.log().contains(level), "{}", self.log());
        }
    }

    fn is_subscribed(&self) -> bool {
        self.at_fake("GET", "/_fake/subscriptions").contains("trialing")
            && self.tenant().contains("\"plan\":\"pro\"")
    }
}

/// The ids of the objects in a list.
fn ids(list: &str) -> Vec<String> {
    let list: serde_json::Value = serde_json::from_str(list).unwrap();
    let objects = list.as_array().unwrap().iter();
    objects
        .map(|one| one["id"].as_str().unwrap().to_owned())
        .collect()
}

/// The address in the line that begins like this.
fn said(stdout: &mut BufReader<std::process::ChildStdout>, beginning: &str) -> String {
    let mut line = String::new();
    while !line.starts_with(beginning) {
        line.clear();
        assert!(
            stdout.read_line(&mut line).unwrap() > 0,
            "it ended before it said {beginning}"
        );
    }
    let rest = line.trim_start_matches(beginning);
    rest.split_whitespace().next().unwrap().to_owned()
}

/// The starts are quiet, moving the clock of the fake leads to a mail, and a second run over the same data has the same customers, the
/// same clock and what was owed.
#[test]
fn demo_over_the_fake_is_quiet_and_follows_its_clock() {
    let folder = Folder::new("demo-payments");
    let demo = Demo::start(&folder.0, 1);
    demo.until("the subscription of acme", Demo::is_subscribed);
    demo.is_quiet();
    let (customers, subscriptions) = ("/_fake/customers", "/_fake/subscriptions");
    for customer in ids(&demo.at_fake("GET", customers)) {
        demo.at_fake("POST", &format!("/_fake/customers/{customer}/card?card=declines"));
    }
    demo.at_fake("POST", "/_fake/clock/advance?days=16");
    demo.until("the failed payment", |demo| {
        demo.dev
            .get(&demo.token, "/api/v1/billing")
            .contains("\"state\":\"grace\"")
    });
    demo.at_fake("POST", "/_fake/clock/advance?days=15");
    demo.until("the suspension", |demo| {
        demo.tenant().contains("\"status\":\"suspended\"")
    });
    let here = format!("http://{}/", demo.dev.address);
    demo.until("the mail", |demo| {
        let log = demo.log();
        log.contains("admin@acme.example") && log.contains(&here)
    });
    let before = [customers, subscriptions].map(|path| ids(&demo.at_fake("GET", path)));
    assert!(before.iter().all(|ids| !ids.is_empty()));
    assert_eq!(demo.dev.stop(), Some(0));

    let demo = Demo::start(&folder.0, 2);
    let after = [customers, subscriptions].map(|path| ids(&demo.at_fake("GET", path)));
    assert_eq!(after, before);
    assert!(demo.tenant().contains("\"status\":\"suspended\""));
    demo.is_quiet();
    for invoice in ids(&demo.at_fake("GET", "/_fake/invoices")) {
        let path = format!("/_fake/invoices/{invoice}/pay");
        request(&demo.fake, ("POST", &path), "", "");
    }
    demo.until("the end of what was owed", |demo| {
        demo.tenant().contains("\"status\":\"active\"")
    });
    assert_eq!(demo.dev.stop(), Some(0));
}
