use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::state::Shared;

/// How webhooks reach their endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Each once, in the order in which things happened.
    InOrder,
    /// What happened shortly one after another in another order, the same for the same seed.
    Reordered(u64),
    /// Each twice: once in order, once more after the others.
    Duplicated,
    /// The next so many never arrive; the list of events has them all the same.
    Lost(u32),
}

/// A webhook that is to be sent.
#[derive(Debug, Clone)]
pub struct Parcel {
    pub url: String,
    pub secret: String,
    pub body: String,
}

/// The header `Stripe-Signature` for a body, signed at a moment (Unix seconds).
pub fn sign(secret: &str, at: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(at.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    let tag = context.sign();
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at},v1={hex}")
}

/// Delivers what there is to tell, for ever.
pub async fn deliver(shared: Arc<Shared>) {
    loop {
        shared.something_to_tell().await;
        // What happens together is to be there together, so that it can be put into another order.
        tokio::time::sleep(Duration::from_millis(10)).await;
        for parcel in shared.parcels() {
            if !persist(&shared, &parcel).await {
                shared.given_up();
            }
        }
        shared.told();
    }
}

/// Sends a webhook until it is taken, a few times at most.
async fn persist(shared: &Shared, parcel: &Parcel) -> bool {
    let mut wait = shared.webhook_backoff;
    for attempt in 1..=shared.webhook_attempts.max(1) {
        let sent = tokio::time::timeout(Duration::from_secs(10), send(shared, parcel)).await;
        match sent {
            Ok(Ok(status)) if (200..300).contains(&status) => return true,
            outcome => tracing::debug!(?outcome, attempt, url = %parcel.url, "a webhook was not taken"),
        }
        if attempt < shared.webhook_attempts {
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }
    false
}

async fn send(shared: &Shared, parcel: &Parcel) -> Result<u16, String> {
    let unusable = |error: &dyn std::fmt::Display| error.to_string();
    let url = url::Url::parse(&parcel.url).map_err(|error| unusable(&error))?;
    let host = url.host_str().ok_or("the address has no host")?;
    let port = url.port_or_known_default().unwrap_or(80);
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| unusable(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| unusable(&error))?;
    let driver = tokio::spawn(connection);
    let signature = sign(&parcel.secret, shared.signing_time(), parcel.body.as_bytes());
    let request = hyper::Request::post(&url[url::Position::BeforePath..])
        .header("host", format!("{host}:{port}"))
        .header("content-type", "application/json; charset=utf-8")
        .header("user-agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)")
        .header("stripe-signature", signature)
        .body(Full::new(Bytes::from(parcel.body.clone())))
        .map_err(|error| unusable(&error))?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| unusable(&error));
    drop(sender);
    driver.abort();
    Ok(answer?.status().as_u16())
}

/// Puts things into another order, the same for the same seed (SplitMix64, Fisher-Yates).
pub fn shuffle<T>(things: &mut [T], seed: u64) {
    let mut state = seed;
    for last in (1..things.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        let bound = u64::try_from(last).unwrap_or(u64::MAX - 1) + 1;
        let other = usize::try_from(word % bound).unwrap_or(0);
        things.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_stripes() {
        let body = br#"{"id":"evt_test_webhook","object":"event"}"#;
        let header = sign("whsec_test_secret", 1_492_774_577, body);
        let tag = "88a022085c6bdb887b02cb26ff76dd681234d9675c0f22844059f55552a8883a";
        assert_eq!(header, format!("t=1492774577,v1={tag}"));
    }

    #[test]
    fn another_order_has_the_same_things() {
        let mut things: Vec<u32> = (0..20).collect();
        shuffle(&mut things, 7);
        let mut again: Vec<u32> = (0..20).collect();
        shuffle(&mut again, 7);
        assert_eq!(things, again);
        assert_ne!(things, (0..20).collect::<Vec<_>>());
        things.sort_unstable();
        assert_eq!(things, (0..20).collect::<Vec<_>>());
    }
}
