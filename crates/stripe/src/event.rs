//! What Stripe tells of: whether it was Stripe, and what has happened to what.
//!
//! The signature is Stripe's scheme `v1`: the header `Stripe-Signature: t=<Unix
//! seconds>,v1=<hex>[,v1=<hex>…]` holds HMAC-SHA256 over `<t>.<body>` under the endpoint's secret as it
//! stands. The body is read as far as it is needed only, so that one of another API version, or of an event
//! that nobody knows yet, is understood as well.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use chrono::{DateTime, Duration, Utc};
use serde_json::Value;
use tenantry_domain::billing::{CustomerRef, EventRef, ForgedEvent, ProviderEvent, SubscriptionRef};
use tenantry_domain::kernel::Time;

/// How far a signature's time may be from ours, either way (as in Stripe's own libraries).
const TOLERANCE: Duration = Duration::seconds(300);

/// No sender has more signatures than it has secrets.
const MOST_SIGNATURES: usize = 32;

/// The secrets of endpoints.
pub struct Secrets(Vec<hmac::Key>);

impl Secrets {
    pub fn new(secrets: &[String]) -> Self {
        // An empty secret would be everybody's.
        let given = secrets.iter().filter(|secret| !secret.is_empty());
        Self(
            given
                .map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
                .collect(),
        )
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Secrets").field(&self.0.len()).finish()
    }
}

/// Reads a message, once it is certain that one of the secrets' owners has sent it, and now.
pub fn read(secrets: &Secrets, body: &[u8], header: &str, now: Time) -> Result<ProviderEvent, ForgedEvent> {
    let signed = Signed::parse(header).ok_or(ForgedEvent::Header)?;
    if !signed.is_of(secrets, body) {
        return Err(ForgedEvent::Signature);
    }
    let at = DateTime::from_timestamp(signed.at, 0).ok_or(ForgedEvent::Time)?;
    if (now - at).abs() > TOLERANCE {
        return Err(ForgedEvent::Time);
    }
    let body: Value = serde_json::from_slice(body).map_err(|_| ForgedEvent::Body)?;
    event(&body).ok_or(ForgedEvent::Body)
}

/// What the header says.
struct Signed<'a> {
    at: i64,
    /// As it was signed.
    at_text: &'a str,
    signatures: Vec<[u8; 32]>,
}

impl<'a> Signed<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let mut at_text = None;
        let mut signatures = Vec::new();
        for part in header.split(',') {
            match part.split_once('=')? {
                ("t", text) if at_text.is_none() => at_text = Some(text),
                ("t", _) => return None,
                ("v1", hex) => signatures.extend(unhex(hex)),
                // Other schemes are not ours to judge.
                _ => {}
            }
        }
        let at_text = at_text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
        let counts = (1..=MOST_SIGNATURES).contains(&signatures.len());
        counts.then_some(Self {
            at: at_text.parse().ok()?,
            at_text,
            signatures,
        })
    }

    /// Whether one of the signatures is that of the body under one of the secrets; takes as long whichever it
    /// is.
    fn is_of(&self, secrets: &Secrets, body: &[u8]) -> bool {
        let mut holds = false;
        for key in &secrets.0 {
            let mut context = hmac::Context::with_key(key);
            context.update(self.at_text.as_bytes());
            context.update(b".");
            context.update(body);
            let tag = context.sign();
            for signature in &self.signatures {
                holds |= verify_slices_are_equal(tag.as_ref(), signature).is_ok();
            }
        }
        holds
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}

/// What an event says, of the first generation or of the second, which names the object only.
pub fn event(body: &Value) -> Option<ProviderEvent> {
    let thin = body.get("related_object").unwrap_or(&Value::Null);
    let object = body
        .get("data")
        .and_then(|data| data.get("object"))
        .unwrap_or(&Value::Null);
    let kind = text(object, "object").or_else(|| text(thin, "type"));
    let id = text(object, "id").or_else(|| text(thin, "id"));
    let of = |name: &str| reference(object, name).or_else(|| id.filter(|_| kind == Some(name)));
    let details = object
        .get("parent")
        .and_then(|parent| parent.get("subscription_details"));
    let subscription = of("subscription").or_else(|| details.and_then(|of| reference(of, "subscription")));
    Some(ProviderEvent {
        id: EventRef::parse(text(body, "id")?)?,
        kind: text(body, "type")?.to_owned(),
        created_at: moment(body.get("created")?)?,
        object: kind.map(str::to_owned),
        object_id: id.map(str::to_owned),
        customer: of("customer").and_then(CustomerRef::parse),
        subscription: subscription.and_then(SubscriptionRef::parse),
    })
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}

/// An object that is named by its id, or stands there itself.
fn reference<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    let value = value.get(name)?;
    value.as_str().or_else(|| text(value, "id"))
}

/// Unix seconds, or RFC 3339 in events of the second generation.
fn moment(value: &Value) -> Option<Time> {
    match value {
        Value::Number(number) => DateTime::from_timestamp(number.as_i64()?, 0),
        Value::String(text) => Some(DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc)),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
