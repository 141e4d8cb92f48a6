//! The siteverify protocol, against a fake provider over the wire.
#![expect(
    clippy::unwrap_used,
    reason = "in the helpers of tests too, a failure is a failed test"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tenantry_challenge::{SiteVerify, SiteVerifyConfig};
use tenantry_domain::identity::{ChallengeError, ChallengeOffer, ChallengePurpose, ChallengeVerifier as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A provider that answers each request with the next of these texts, and the bodies of the requests.
async fn provider(answers: Vec<String>) -> (String, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/siteverify", listener.local_addr().unwrap());
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut request, mut buffer) = (Vec::new(), [0; 4_096]);
            while !is_complete(&request) {
                let read = stream.read(&mut buffer).await.unwrap();
                assert!(read > 0, "the request is cut off");
                request.extend_from_slice(&buffer[..read]);
            }
            let text = String::from_utf8(request).unwrap();
            assert!(text.starts_with("POST /siteverify HTTP/1.1\r\n"), "{text}");
            sender
                .send(text.split_once("\r\n\r\n").unwrap().1.to_owned())
                .unwrap();
            if answer.is_empty() {
                // Never answers; the connection stays open as long as the client waits.
                let _ = stream.read(&mut buffer).await;
                continue;
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, receiver)
}

fn is_complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().unwrap())
    });
    body.len() >= length.unwrap()
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn json(body: &str) -> String {
    answer("200 OK", body)
}

fn verifier(url: &str, hostnames: &[&str], timeout: Duration) -> SiteVerify {
    let settings = SiteVerifyConfig {
        url: url.parse().unwrap(),
        secret: "s3cret & more".into(),
        site_key: "site".into(),
        hostnames: hostnames.iter().map(|name| (*name).to_owned()).collect(),
        timeout,
    };
    SiteVerify::new(settings).unwrap()
}

const PATIENT: Duration = Duration::from_secs(20);

async fn verify(answer: &str, hostnames: &[&str]) -> Result<(), ChallengeError> {
    let (url, _requests) = provider(vec![answer.to_owned()]).await;
    let verifier = verifier(&url, hostnames, PATIENT);
    verifier.verify(ChallengePurpose::SignUp, "token", None).await
}

#[tokio::test]
async fn a_token_is_verified_with_secret_and_address() {
    let (url, mut requests) = provider(vec![json(r#"{"success":true,"hostname":"app.example"}"#)]).await;
    let verifier = verifier(&url, &["app.example"], PATIENT);
    let address = "203.0.113.7".parse().ok();
    let verified = verifier
        .verify(ChallengePurpose::Register, "to&ken=1", address)
        .await;
    assert_eq!(verified, Ok(()));
    let body = requests.recv().await.unwrap();
    let form: BTreeMap<_, _> = url::form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
    let expected = [
        ("remoteip", "203.0.113.7"),
        ("response", "to&ken=1"),
        ("secret", "s3cret & more"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(form, BTreeMap::from(expected));
    let offer = verifier.offer(ChallengePurpose::SignUp);
    assert_eq!(
        offer,
        ChallengeOffer::Widget {
            site_key: "site".into()
        }
    );
}

#[tokio::test]
async fn a_token_that_the_provider_refuses_is_refused() {
    for (body, why) in [
        (
            r#"{"success":false,"error-codes":["timeout-or-duplicate"]}"#,
            "has expired or was used already",
        ),
        (
            r#"{"success":false,"error-codes":["already-seen-response"]}"#,
            "has expired or was used already",
        ),
        (
            r#"{"success":false,"error-codes":["invalid-input-response"]}"#,
            "is not valid",
        ),
        (r#"{"success":false}"#, "is not valid"),
    ] {
        assert_eq!(
            verify(&json(body), &[]).await,
            Err(ChallengeError::Refused(why)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_token_of_another_site_is_refused() {
    let refused = Err(ChallengeError::Refused("was given on another site"));
    let names = &["app.example", "www.example"];
    let own = json(r#"{"success":true,"hostname":"WWW.example"}"#);
    assert_eq!(verify(&own, names).await, Ok(()));
    for body in [
        r#"{"success":true,"hostname":"evil.example"}"#,
        r#"{"success":true,"hostname":"app.example.evil"}"#,
        r#"{"success":true,"hostname":""}"#,
        r#"{"success":true,"hostname":null}"#,
        r#"{"success":true}"#,
    ] {
        assert_eq!(verify(&json(body), names).await, refused, "{body}");
        assert_eq!(verify(&json(body), &[]).await, Ok(()), "{body}");
    }
}

#[tokio::test]
async fn failing_provider_is_unavailable() {
    for text in [
        &*answer("500 Internal Server Error", r#"{"success":true}"#),
        &*answer("503 Service Unavailable", ""),
        "nonsense\r\n\r\n",
    ] {
        let verified = verify(text, &[]).await;
        assert!(
            matches!(verified, Err(ChallengeError::Unavailable(_))),
            "{text}: {verified:?}"
        );
    }
}

/// A client may have caused these answers, so they must not count as a provider that is away.
#[tokio::test]
async fn answers_that_clients_can_cause_open_nothing() {
    let long = json(&format!(r#"{{"success":true,"x":"{}"}}"#, "x".repeat(70_000)));
    let elsewhere = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for text in [
        &*answer("400 Bad Request", r#"{"success":true}"#),
        &*answer("404 Not Found", "{}"),
        &*answer("429 Too Many Requests", "{}"),
        elsewhere,
        &*json("<html>"),
        &*json(r#"{"success":"true"}"#),
        &*json("{}"),
        &*long,
        &*json(r#"{"success":false,"error-codes":["invalid-input-secret"]}"#),
        &*json(r#"{"success":false,"error-codes":["bad-request"]}"#),
        &*json(r#"{"success":false,"error-codes":["internal-error"]}"#),
    ] {
        let verified = verify(text, &[]).await;
        assert!(
            matches!(verified, Err(ChallengeError::Unverified(_))),
            "{text}: {verified:?}"
        );
    }
}

/// Slow requests of one client must not switch the challenge off for others.
#[tokio::test]
async fn more_verifications_than_places_open_nothing() {
    const PLACES: usize = 64;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/siteverify", listener.local_addr().unwrap());
    let verifier = Arc::new(verifier(&url, &[], PATIENT));
    let verify = |verifier: Arc<SiteVerify>| async move {
        verifier.verify(ChallengePurpose::SignUp, "token", None).await
    };
    let slow: Vec<_> = (0..PLACES)
        .map(|_| tokio::spawn(verify(Arc::clone(&verifier))))
        .collect();
    let mut connections = Vec::new();
    while connections.len() < PLACES {
        connections.push(listener.accept().await.unwrap());
    }
    let verified = verify(verifier).await;
    assert!(
        matches!(verified, Err(ChallengeError::Unverified(_))),
        "{verified:?}"
    );
    slow.into_iter().for_each(|task| task.abort());
}

#[tokio::test]
async fn a_provider_that_is_silent_or_away_is_unavailable() {
    let (url, _requests) = provider(vec![String::new()]).await;
    let short = verifier(&url, &[], Duration::from_millis(50));
    let verified = short.verify(ChallengePurpose::SignUp, "token", None).await;
    let Err(ChallengeError::Unavailable(reason)) = verified else {
        panic!("{verified:?}")
    };
    assert!(!reason.contains("s3cret"), "{reason}");
    let away = verifier("http://127.0.0.1:1/siteverify", &[], PATIENT);
    let verified = away.verify(ChallengePurpose::SignUp, "token", None).await;
    assert!(
        matches!(verified, Err(ChallengeError::Unavailable(_))),
        "{verified:?}"
    );
}
