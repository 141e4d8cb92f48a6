//! From outside: Stripe's own Python library calls what stands in for Stripe, and reads what that signs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tenantry_stripe_fake::{FakeConfig, StripeFake};
use tenantry_tests::outside;

/// The Python that `scripts/ensure-stripe` has installed Stripe's library for.
fn python() -> Option<PathBuf> {
    let fetched = outside::installed("stripe/fetched", "ensure-stripe")?;
    Some(fetched.with_file_name("bin").join("python"))
}

/// Runs a script of `tests/stripe` and returns what it prints.
fn run(python: &Path, script: &str, arguments: &[&str], input: &[u8]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stripe");
    let mut child = Command::new(python)
        .arg(folder.join(script))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap().trim().to_owned()
}

#[test]
fn stripes_own_library_finds_its_way_around() {
    let Some(python) = python() else { return };
    let fake = StripeFake::start(FakeConfig::default()).unwrap();
    let seen = run(&python, "calls.py", &[fake.url(), fake.secret_key()], b"");
    let seen: Value = serde_json::from_str(&seen).unwrap();
    let expected = json!({
        "same_customer": true,
        "found_by_lookup_key": true,
        "status": "trialing",
        "quantities": [3, null],
        "value": "25",
        "duplicate": "duplicate_meter_event",
        "reused": 400,
        "missing": "resource_missing",
        "pages": true,
        "preview": 8_700,
        "checkout": "open",
        "kinds": [
            "billing.meter.created", "customer.created", "customer.subscription.created",
            "invoice.created", "invoice.finalized", "invoice.paid", "invoice.payment_succeeded",
            "price.created", "product.created",
        ],
    });
    assert_eq!(seen, expected);
}

/// One webhook as it arrives: its signature and its body.
fn received(listener: &TcpListener) -> (String, Vec<u8>) {
    let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut signature, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some(("stripe-signature", value)) => value.clone_into(&mut signature),
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None if line.trim_end().is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .unwrap();
    (signature, body)
}

#[test]
fn stripes_own_library_believes_its_webhooks() {
    let Some(python) = python() else { return };
    let fake = StripeFake::start(FakeConfig::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/webhooks/stripe", listener.local_addr().unwrap());
    fake.webhook_to(&url, "whsec_outside");
    run(&python, "calls.py", &[fake.url(), fake.secret_key()], b"");
    let (signature, mut body) = received(&listener);
    let read = |secret: &str, body: &[u8]| run(&python, "read.py", &[secret, &signature], body);
    assert_eq!(read("whsec_outside", &body), "customer.created");
    assert_eq!(read("whsec_other", &body), "forged");
    body.push(b' ');
    assert_eq!(read("whsec_outside", &body), "forged");
}
