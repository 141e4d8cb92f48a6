//! The range protocol of breached passwords, against a fake list over the wire.
#![expect(
    clippy::unwrap_used,
    reason = "in the helpers of tests too, a failure is a failed test"
)]

use std::sync::Arc;
use std::time::Duration;

use tenantry_challenge::{PasswordRanges, PasswordRangesConfig};
use tenantry_domain::identity::{BreachedPasswords as _, NotCompared, Password};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The SHA-1 of "password" is 5BAA6 and this.
const REST: &str = "1E4C9B93F3F0682250B6CF8331B7EE68FD8";
const OTHER: &str = "003D68EB55068C33ACE09247EE4C639306B";
const PATIENT: Duration = Duration::from_secs(20);

/// A list that answers each request with the next of these texts, an empty one never, and the heads of the requests.
async fn list(answers: Vec<String>) -> (String, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/copy/", listener.local_addr().unwrap());
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut request, mut buffer) = (Vec::new(), [0; 4_096]);
            while !request.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut buffer).await.unwrap();
                assert!(read > 0, "the request is cut off");
                request.extend_from_slice(&buffer[..read]);
            }
            sender.send(String::from_utf8(request).unwrap()).unwrap();
            if answer.is_empty() {
                // The connection stays open as long as the client waits.
                let _ = stream.read(&mut buffer).await;
                continue;
            }
            // A client that has read enough closes the connection.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, receiver)
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn ranges(url: &str, timeout: Duration) -> PasswordRanges {
    let url = url.parse().unwrap();
    PasswordRanges::new(&PasswordRangesConfig { url, timeout }).unwrap()
}

fn password(text: &str) -> Password {
    Password::presented(text.into())
}

async fn compared(text: &str) -> Result<bool, NotCompared> {
    let (url, _requests) = list(vec![text.to_owned()]).await;
    ranges(&url, PATIENT).contains(&password("password")).await
}

#[tokio::test]
async fn list_gets_five_digits_of_the_hash_only() {
    let body = format!("{OTHER}:3\r\n{REST}:10437277\r\n");
    let (url, mut requests) = list(vec![answer("200 OK", &body)]).await;
    let found = ranges(&url, PATIENT).contains(&password("password")).await;
    assert_eq!(found, Ok(true));
    let head = requests.recv().await.unwrap();
    assert!(head.starts_with("GET /copy/range/5BAA6 HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    assert!(head.contains("add-padding: true\r\n"), "{head}");
    assert!(!head.contains(&REST.to_lowercase()), "{head}");
}

#[tokio::test]
async fn rows_of_padding_and_of_others_are_no_breach() {
    for (body, expected) in [
        (String::new(), false),
        (format!("{OTHER}:3"), false),
        (format!("{OTHER}:3\r\n{REST}:0\r\n"), false),
        (format!("{OTHER}:0\n{}:1\n", REST.to_lowercase()), true),
    ] {
        assert_eq!(compared(&answer("200 OK", &body)).await, Ok(expected), "{body}");
    }
}

#[tokio::test]
async fn answers_that_are_no_range_compare_nothing() {
    let long = format!("{OTHER}:3\r\n").repeat(40_000);
    let elsewhere = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for text in [
        &*answer("500 Internal Server Error", ""),
        &*answer("429 Too Many Requests", ""),
        &*answer("404 Not Found", &format!("{REST}:3")),
        elsewhere,
        "nonsense\r\n\r\n",
        &*answer("200 OK", "<html>"),
        &*answer("200 OK", &format!("{REST}:many")),
        &*answer("200 OK", "ABC:3"),
        &*answer("200 OK", &long),
    ] {
        let shown: String = text.chars().take(80).collect();
        let error = compared(text).await.expect_err(&shown);
        assert!(!error.to_string().contains("5BAA6"), "{error}");
    }
}

#[tokio::test]
async fn list_that_is_silent_or_away_compares_nothing() {
    let (url, _requests) = list(vec![String::new()]).await;
    let short = ranges(&url, Duration::from_millis(50));
    let error = short.contains(&password("password")).await.unwrap_err();
    assert!(!error.to_string().contains("5BAA6"), "{error}");
    let away = ranges("http://127.0.0.1:1", PATIENT);
    assert!(away.contains(&password("password")).await.is_err());
}

/// A list that is slow holds a few requests up, and no others.
#[tokio::test]
async fn questions_beyond_the_places_are_not_asked() {
    const PLACES: usize = 8;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let ranges = Arc::new(ranges(&url, PATIENT));
    let ask = |ranges: Arc<PasswordRanges>| async move { ranges.contains(&password("password")).await };
    let slow: Vec<_> = (0..PLACES)
        .map(|_| tokio::spawn(ask(Arc::clone(&ranges))))
        .collect();
    let mut connections = Vec::new();
    while connections.len() < PLACES {
        connections.push(listener.accept().await.unwrap());
    }
    assert!(ask(ranges).await.is_err());
    slow.into_iter().for_each(|task| task.abort());
}
