use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use standardwebhooks::{Webhook, WebhookError};
use tenantry_domain::webhooks::{
    CustomHeaders, SecretError, SendError, SignatureKind, SigningSecret, WebhookKeys as _, WebhookSender as _,
};
use tenantry_webhooks::StandardKeys;

use crate::support::dns::DnsServer;
use crate::support::sink::{Received, Sink, ok};
use crate::support::{PATIENT, config, delivered, name_server, outcome, request, secret, sender};

fn verify(secret: &SigningSecret, received: &Received) -> Result<(), WebhookError> {
    let webhook = Webhook::new(secret.expose()).unwrap();
    webhook.verify(received.body.as_bytes(), &received.headers)
}

/// Verifies `v1a` with another implementation of Ed25519, since the public library in Rust has only `v1`.
fn is_signed_by(public_key: &str, received: &Received) -> bool {
    let key = STANDARD
        .decode(public_key.strip_prefix("whpk_").unwrap())
        .unwrap();
    let key = VerifyingKey::from_bytes(&key.try_into().unwrap()).unwrap();
    let (id, at) = (
        received.header("webhook-id"),
        received.header("webhook-timestamp"),
    );
    let content = format!("{id}.{at}.{}", received.body);
    let signatures = received.header("webhook-signature").split(' ');
    signatures
        .filter_map(|signature| signature.strip_prefix("v1a,"))
        .any(|signature| {
            let signature = Signature::from_slice(&STANDARD.decode(signature).unwrap()).unwrap();
            key.verify_strict(content.as_bytes(), &signature).is_ok()
        })
}

#[tokio::test]
async fn message_is_a_post_that_the_public_library_verifies() {
    let mut sink = Sink::start(|_| ok()).await;
    let server = name_server("hooks.example.com", &["127.0.0.1"]);
    let config = config(&[sink.address.port()], PATIENT);
    let sender = sender(&config, &server);
    let mut request = request(&sink.url("Hooks.Example.com."), &config.rules);
    let headers = [("Authorization", "Bearer 1"), ("X-Team", "a b")];
    let headers: BTreeMap<_, _> = headers
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    request.headers = CustomHeaders::parse("", &headers).unwrap();
    request.body = r#"{"name":"é \n"}"#.to_owned();
    let secret = request.secrets[0].clone();
    let at = request.at;
    assert_eq!(outcome(&sender, request).await, delivered(200, "ok"));

    let received = sink.received().await;
    assert_eq!(received.line, "POST /hook?token=1 HTTP/1.1");
    let host = format!("hooks.example.com:{}", sink.address.port());
    for (name, value) in [
        ("host", host.as_str()),
        ("accept", "*/*"),
        ("content-type", "application/json"),
        ("user-agent", "tenantry-webhooks"),
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", at.timestamp().to_string().as_str()),
        ("authorization", "Bearer 1"),
        ("x-team", "a b"),
    ] {
        assert_eq!(received.header(name), value, "{name}");
    }
    assert_eq!(received.body, r#"{"name":"é \n"}"#);
    verify(&secret, &received).unwrap();
}

#[tokio::test]
async fn every_secret_verifies_while_they_overlap() {
    let mut sink = Sink::start(|_| ok()).await;
    let config = config(&[sink.address.port()], PATIENT);
    let sender = sender(&config, &DnsServer::start());
    let (present, former) = (secret(SignatureKind::Hmac), secret(SignatureKind::Hmac));
    let (key, other_key) = (
        StandardKeys.generate(SignatureKind::Ed25519).unwrap(),
        StandardKeys.generate(SignatureKind::Ed25519).unwrap(),
    );
    let mut request = request(&sink.url("127.0.0.1"), &config.rules);
    request.secrets = vec![present.clone(), key.secret, former.clone()];
    assert_eq!(outcome(&sender, request).await, delivered(200, "ok"));

    let received = sink.received().await;
    let signatures: Vec<_> = received.header("webhook-signature").split(' ').collect();
    let versions: Vec<_> = signatures
        .iter()
        .filter_map(|one| Some(one.split_once(',')?.0))
        .collect();
    assert_eq!(versions, ["v1", "v1a", "v1"]);
    verify(&present, &received).unwrap();
    verify(&former, &received).unwrap();
    assert!(
        verify(&secret(SignatureKind::Hmac), &received).is_err(),
        "a secret of somebody else"
    );
    assert!(is_signed_by(&key.public_key.unwrap(), &received));
    assert!(!is_signed_by(&other_key.public_key.unwrap(), &received));
}

#[tokio::test]
async fn changed_or_old_message_is_not_verified() {
    let mut sink = Sink::start(|_| ok()).await;
    let config = config(&[sink.address.port()], PATIENT);
    let sender = sender(&config, &DnsServer::start());
    let mut request = request(&sink.url("127.0.0.1"), &config.rules);
    let secret = request.secrets[0].clone();
    outcome(&sender, request.clone()).await;
    let mut received = sink.received().await;
    received.body.push(' ');
    assert!(matches!(
        verify(&secret, &received),
        Err(WebhookError::InvalidSignature)
    ));

    request.at -= std::time::Duration::from_secs(301);
    outcome(&sender, request).await;
    let received = sink.received().await;
    assert!(matches!(
        verify(&secret, &received),
        Err(WebhookError::TimestampTooOldError)
    ));
}

#[tokio::test]
async fn nothing_is_sent_without_a_usable_secret() {
    let mut sink = Sink::start(|_| ok()).await;
    let config = config(&[sink.address.port()], PATIENT);
    let sender = sender(&config, &DnsServer::start());
    let mut request = request(&sink.url("127.0.0.1"), &config.rules);
    request.secrets = vec![];
    assert_eq!(sender.send(request.clone()).await, Err(SendError::NoSecret));
    request.secrets = vec![
        secret(SignatureKind::Hmac),
        SigningSecret::stored("s3cret".into()),
    ];
    let error = sender.send(request).await.unwrap_err();
    assert_eq!(error, SendError::Secret(SecretError::Prefix));
    assert_eq!(
        error.to_string(),
        "a secret of the endpoint cannot be used: it must begin with whsec_ or whsk_"
    );
    assert_eq!((sink.more(), sink.connections()), (0, 0));
}
