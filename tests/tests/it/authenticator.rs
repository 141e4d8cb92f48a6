//! A software authenticator, which can also lie.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SystemRandom, fill};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tenantry_tests::{PASSKEY_DOMAIN, PASSKEY_ORIGIN};

const PRESENT: u8 = 0x01;
const VERIFIED: u8 = 0x04;
const BACKUP_ELIGIBLE: u8 = 0x08;
const ATTESTED: u8 = 0x40;

/// An authenticator with one credential, and what it says of itself.
pub(crate) struct Authenticator {
    /// The origin that the browser vouches for.
    pub origin: &'static str,
    /// The relying party whose hash is signed.
    pub domain: &'static str,
    /// The type of the ceremony; the right one when absent.
    pub kind: Option<&'static str>,
    /// The challenge that is signed; that of the options when absent.
    pub challenge: Option<String>,
    /// Whether the page is in a frame of another origin.
    pub cross_origin: bool,
    /// Whether it says that a user was there.
    pub present: bool,
    /// Whether it says that it has verified the user.
    pub verified: bool,
    /// The COSE algorithm that it says its key is for.
    pub algorithm: i8,
    /// Whether the signature is spoilt.
    pub spoilt: bool,
    /// The signature counter of the next signature; an authenticator that does not count says 0.
    pub counter: u32,
    id: Vec<u8>,
    handle: Value,
    pair: EcdsaKeyPair,
}

impl Authenticator {
    /// An honest one with a fresh credential.
    pub(crate) fn new() -> Self {
        let mut id = vec![0; 32];
        fill(&mut id).unwrap();
        Self {
            origin: PASSKEY_ORIGIN,
            domain: PASSKEY_DOMAIN,
            kind: None,
            challenge: None,
            cross_origin: false,
            present: true,
            verified: true,
            algorithm: -7,
            spoilt: false,
            counter: 0,
            id,
            handle: Value::Null,
            pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
        }
    }

    /// Its credential's id.
    pub(crate) fn id(&self) -> String {
        encoded(&self.id)
    }

    /// The same keys under another id, and for another user.
    pub(crate) fn pretend(&mut self, id: &str, handle: Value) {
        self.id = URL_SAFE_NO_PAD.decode(id).unwrap();
        self.handle = handle;
    }

    /// What `navigator.credentials.create()` gives for these options, as JSON.
    pub(crate) fn create(&mut self, options: &Value) -> Value {
        self.handle = options["user"]["id"].clone();
        let mut data = self.data(ATTESTED);
        data.extend([0; 16]);
        data.extend(u16::try_from(self.id.len()).unwrap().to_be_bytes());
        data.extend(&self.id);
        let point = self.pair.public_key().as_ref();
        // A map of five: kty EC2, alg, crv P-256, x and y.
        data.extend([0xA5, 0x01, 0x02, 0x03]);
        data.extend(negative(self.algorithm));
        data.extend([0x20, 0x01, 0x21, 0x58, 0x20]);
        data.extend(&point[1..33]);
        data.extend([0x22, 0x58, 0x20]);
        data.extend(&point[33..]);
        let mut object = vec![0xA3];
        object.extend(b"\x63fmt\x64none\x67attStmt\xA0\x68authData\x58");
        // CTAP has the shortest form of a length: one byte, of 24 or more.
        object.push(u8::try_from(data.len()).unwrap());
        object.extend(data);
        self.response(json!({
            "clientDataJSON": encoded(&self.client_data("webauthn.create", options)),
            "attestationObject": encoded(&object),
            "transports": ["internal"],
        }))
    }

    /// What `navigator.credentials.get()` gives for these options, as JSON.
    pub(crate) fn get(&self, options: &Value) -> Value {
        let client_data = self.client_data("webauthn.get", options);
        let data = self.data(0);
        let signed = [data.as_slice(), digest(&SHA256, &client_data).as_ref()].concat();
        let mut signature = self
            .pair
            .sign(&SystemRandom::new(), &signed)
            .unwrap()
            .as_ref()
            .to_vec();
        if self.spoilt {
            *signature.last_mut().unwrap() ^= 1;
        }
        self.response(json!({
            "clientDataJSON": encoded(&client_data),
            "authenticatorData": encoded(&data),
            "signature": encoded(&signature),
            "userHandle": self.handle,
        }))
    }

    fn response(&self, response: Value) -> Value {
        json!({
            "id": self.id(), "rawId": self.id(), "type": "public-key", "authenticatorAttachment": "platform",
            "clientExtensionResults": {}, "response": response,
        })
    }

    fn client_data(&self, kind: &str, options: &Value) -> Vec<u8> {
        let challenge = options["challenge"].as_str().unwrap();
        let challenge = self.challenge.as_deref().unwrap_or(challenge);
        let (kind, origin, cross) = (self.kind.unwrap_or(kind), self.origin, self.cross_origin);
        format!(r#"{{"type":"{kind}","challenge":"{challenge}","origin":"{origin}","crossOrigin":{cross}}}"#)
            .into_bytes()
    }

    fn data(&self, flags: u8) -> Vec<u8> {
        let flag = |holds: bool, flag: u8| if holds { flag } else { 0 };
        let flags = flags | flag(self.present, PRESENT) | flag(self.verified, VERIFIED) | BACKUP_ELIGIBLE;
        let mut data = digest(&SHA256, self.domain.as_bytes()).as_ref().to_vec();
        data.push(flags);
        data.extend(self.counter.to_be_bytes());
        data
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A negative integer in CBOR.
fn negative(number: i8) -> Vec<u8> {
    let below = (-1 - number).unsigned_abs();
    match below {
        0..24 => vec![0x20 | below],
        _ => vec![0x38, below],
    }
}
