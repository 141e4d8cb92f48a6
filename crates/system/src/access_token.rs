use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tenantry_domain::identity::{
    AccessClaims, AccessTokens, AuthMethods, LONGEST_TOKEN_SECONDS, TOKEN_LEEWAY_SECONDS, TokenError,
};
use tenantry_domain::kernel::{Clock, IdSource, Role, TenantId, Time};

use crate::{SigningKey, SigningKeyRing};

/// Access tokens as JWTs after RFC 9068 (`typ: at+jwt`), signed with Ed25519 (`alg: EdDSA`, RFC 8037).
///
/// Claims: `iss aud sub tid sid role iat exp jti`, ids as hyphenated UUIDs, times in whole seconds; once a second factor was
/// given in the session also `mfa_at`, the time of it, and `amr` (RFC 8176). RFC
/// 9068 also asks for `client_id`, which is left out: there is no registry of clients to name one from.
/// Verification follows RFC 8725: algorithm and type are fixed, the key is one of ours by its `kid`, issuer
/// and audience are exactly ours, every claim is there and of its type.
pub struct JwtAccessTokens {
    tokens: TokenKind,
    lifetime_seconds: i64,
}

impl JwtAccessTokens {
    /// `keys` signs and verifies. `lifetime_seconds` is 1 to 3600; 900
    /// or less is advisable, because a token stays valid by itself until then, whatever becomes of its
    /// session.
    ///
    /// # Errors
    /// [`AccessTokensError`].
    pub fn new(
        keys: Arc<SigningKeyRing>,
        issuer: String,
        audience: String,
        lifetime_seconds: i64,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Result<Self, AccessTokensError> {
        let tokens = TokenKind::new(keys, issuer, (&audience, ""), clock, ids)?;
        if !(1..=LONGEST_TOKEN_SECONDS).contains(&lifetime_seconds) {
            return Err(AccessTokensError::Lifetime(lifetime_seconds));
        }
        Ok(Self {
            tokens,
            lifetime_seconds,
        })
    }
}

/// Tokens of one kind: what keeps it apart from others is the audience.
pub(crate) struct TokenKind {
    keys: Arc<SigningKeyRing>,
    issuer: String,
    audience: String,
    validation: Validation,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
}

impl TokenKind {
    /// `keys` signs and verifies. The audience is the one of users' tokens with what this kind adds to it.
    ///
    /// # Errors
    /// [`AccessTokensError::Nameless`].
    pub(crate) fn new(
        keys: Arc<SigningKeyRing>,
        issuer: String,
        (of_users, added): (&str, &str),
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Result<Self, AccessTokensError> {
        if issuer.is_empty() || of_users.is_empty() {
            return Err(AccessTokensError::Nameless);
        }
        let audience = format!("{of_users}{added}");
        let validation = validation(&issuer, &audience);
        Ok(Self {
            keys,
            issuer,
            audience,
            validation,
            clock,
            ids,
        })
    }

    pub(crate) fn issuer(&self) -> String {
        self.issuer.clone()
    }

    pub(crate) fn audience(&self) -> String {
        self.audience.clone()
    }

    /// A fresh `jti`.
    pub(crate) fn jti(&self) -> String {
        self.ids.uuid().to_string()
    }

    pub(crate) fn sign(&self, claims: &impl Serialize) -> String {
        signed(&self.keys.signing(), claims)
    }

    /// What a token of this kind claims, whenever it is or was valid.
    pub(crate) fn authentic<C: DeserializeOwned>(&self, token: &str) -> Option<C> {
        authentic(token, &self.keys, &self.validation)
    }

    /// Checks that a token is valid now; it begins in Unix seconds.
    pub(crate) fn in_time(&self, begins: i64, expires_at: Time) -> Result<(), TokenError> {
        in_time(begins, expires_at, self.clock.now())
    }
}

/// Checks that a token is valid at a time; it begins in Unix seconds. Clocks may differ by [`TOKEN_LEEWAY_SECONDS`].
fn in_time(begins: i64, expires_at: Time, now: Time) -> Result<(), TokenError> {
    if begins > now.timestamp().saturating_add(TOKEN_LEEWAY_SECONDS) {
        return Err(TokenError::Invalid);
    }
    not_expired(expires_at, now)
}

/// Checks that a token has not expired, with the same leeway.
pub(crate) fn not_expired(expires_at: Time, now: Time) -> Result<(), TokenError> {
    let expired = now - expires_at >= TimeDelta::seconds(TOKEN_LEEWAY_SECONDS);
    if expired { Err(TokenError::Expired) } else { Ok(()) }
}

/// What a token with a good signature, issuer and audience claims, whenever it is or was valid.
fn authentic<C: DeserializeOwned>(token: &str, keys: &SigningKeyRing, validation: &Validation) -> Option<C> {
    if token.len() > LONGEST {
        return None;
    }
    let header = decode_header(token).ok()?;
    // What `crit` names must be understood or the token refused (RFC 7515 section 4.1.11); we
    // understand nothing.
    if header.typ.as_deref() != Some(TYPE) || header.crit.is_some() || brings_a_key(&header) {
        return None;
    }
    // A name is compared with those of our keys, and used for nothing else.
    let key = keys.accepted(&header.kid?)?;
    // The library compares issuer and audience. It would also take a list that has ours in it; our
    // types, one text each, do not.
    decode::<C>(token, key.public(), validation)
        .ok()
        .map(|data| data.claims)
}

/// Returns whether a header contains a key or says where to find one. Our tokens do not, so such a token is not ours; nothing
/// of it is followed (RFC 8725 section 3.10).
fn brings_a_key(header: &Header) -> bool {
    let chain = header.x5c.is_some() || header.x5u.is_some();
    chain || header.jwk.is_some() || header.jku.is_some() || header.x5t.is_some() || header.x5t_s256.is_some()
}

/// A token of the type that [`authentic`] asks for.
fn signed(key: &SigningKey, claims: &impl Serialize) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(TYPE.into());
    header.kid = Some(key.kid().into());
    encode(&header, claims, key.private()).expect("an Ed25519 key signs every text")
}

impl AccessTokens for JwtAccessTokens {
    fn sign(&self, claims: &AccessClaims) -> String {
        let claims = WireClaims {
            iss: self.tokens.issuer(),
            aud: self.tokens.audience(),
            sub: claims.user.to_string(),
            tid: claims.tenant.to_string(),
            sid: claims.session.to_string(),
            role: claims.role,
            iat: claims.issued_at.timestamp(),
            exp: claims.expires_at.timestamp(),
            jti: self.tokens.jti(),
            nbf: None,
            mfa_at: claims.factor_at.map(|at| at.timestamp()),
            amr: claims.factor_at.map(|_| amr(claims.methods)),
        };
        self.tokens.sign(&claims)
    }

    /// [`TokenError::Expired`] only for what was valid once: somebody else's token is
    /// [`TokenError::Invalid`], however old. A token of the future (`iat` or `nbf` more than
    /// [`TOKEN_LEEWAY_SECONDS`] ahead) is invalid; `exp` has the same leeway.
    fn verify(&self, token: &str) -> Result<AccessClaims, TokenError> {
        let claims: Option<WireClaims> = self.tokens.authentic(token);
        let claims = claims.ok_or(TokenError::Invalid)?;
        let read = claims.read().ok_or(TokenError::Invalid)?;
        let begins = claims.nbf.map_or(claims.iat, |nbf| nbf.max(claims.iat));
        self.tokens.in_time(begins, read.expires_at)?;
        Ok(read)
    }

    fn issued_to(&self, token: &str) -> Option<TenantId> {
        let claims: WireClaims = self.tokens.authentic(token)?;
        Some(claims.read()?.tenant)
    }

    fn jwks(&self) -> serde_json::Value {
        self.tokens.keys.jwks()
    }

    fn lifetime_seconds(&self) -> i64 {
        self.lifetime_seconds
    }
}

/// Why access tokens cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessTokensError {
    /// No key to sign with.
    #[error("there is no signing key")]
    NoKey,
    /// One key twice; its `kid`.
    #[error("the signing key {0} is there twice")]
    SameKey(String),
    /// Issuer or audience is empty.
    #[error("issuer and audience of access tokens must not be empty")]
    Nameless,
    /// The lifetime, in seconds, is out of range.
    #[error("access tokens must live 1 to 3600 seconds, not {0}")]
    Lifetime(i64),
}

const TYPE: &str = "at+jwt";
/// The longest token that is looked at, in bytes; ours have about 600.
const LONGEST: usize = 4096;

/// The claims as they travel. Unknown claims are ignored (RFC 7519 section 4), these are required.
#[derive(Serialize, Deserialize)]
struct WireClaims {
    iss: String,
    aud: String,
    sub: String,
    tid: String,
    sid: String,
    role: Role,
    iat: i64,
    exp: i64,
    jti: String,
    /// Never written by us, but respected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mfa_at: Option<i64>,
    /// For clients and other services; decisions read `mfa_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    amr: Option<Vec<String>>,
}

/// The methods of a session in which a second factor was given.
fn amr(methods: AuthMethods) -> Vec<String> {
    let names = methods.names().into_iter().chain(["mfa"]);
    names.map(str::to_owned).collect()
}

impl WireClaims {
    fn read(&self) -> Option<AccessClaims> {
        // `jti` is for logs and lists of revoked tokens; it must at least be an id.
        let _: tenantry_domain::kernel::SessionId = self.jti.parse().ok()?;
        Some(AccessClaims {
            tenant: self.tid.parse().ok()?,
            user: self.sub.parse().ok()?,
            session: self.sid.parse().ok()?,
            role: self.role,
            factor_at: match self.mfa_at {
                Some(seconds) => Some(at(seconds)?),
                None => None,
            },
            methods: match &self.amr {
                Some(names) => AuthMethods::of_names(names)?,
                None => AuthMethods::PASSWORD,
            },
            issued_at: at(self.iat)?,
            expires_at: at(self.exp)?,
        })
    }
}

pub(crate) fn at(seconds: i64) -> Option<Time> {
    DateTime::from_timestamp(seconds, 0)
}

/// Times are left out: the library would read the machine's clock.
fn validation(issuer: &str, audience: &str) -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use chrono::TimeDelta;
    use jsonwebtoken::EncodingKey;
    use serde_json::{Value, json};

    use super::*;
    use crate::SystemIds;

    const ISSUER: &str = "https://api.example.test";
    const AUDIENCE: &str = "tenantry";
    const USER: &str = "0190f3a1-0000-7000-8000-000000000001";
    const TENANT: &str = "0190f3a1-0000-7000-8000-000000000002";
    const SESSION: &str = "0190f3a1-0000-7000-8000-000000000003";

    struct ManualClock(Mutex<Time>);

    impl ManualClock {
        fn advance(&self, seconds: i64) {
            *self.0.lock().unwrap() += TimeDelta::seconds(seconds);
        }
    }

    impl Clock for ManualClock {
        fn now(&self) -> Time {
            *self.0.lock().unwrap()
        }
    }

    struct World {
        key: SigningKey,
        clock: Arc<ManualClock>,
        tokens: JwtAccessTokens,
    }

    fn start() -> Time {
        at(1_800_000_000).unwrap()
    }

    fn tokens(keys: Vec<SigningKey>, clock: Arc<ManualClock>) -> JwtAccessTokens {
        let keys = SigningKeyRing::new(keys, clock.clone()).unwrap();
        JwtAccessTokens::new(
            Arc::new(keys),
            ISSUER.into(),
            AUDIENCE.into(),
            900,
            clock,
            Arc::new(SystemIds),
        )
        .unwrap()
    }

    fn world() -> World {
        let key = SigningKey::generate();
        let clock = Arc::new(ManualClock(Mutex::new(start())));
        World {
            tokens: tokens(vec![key.clone()], Arc::clone(&clock)),
            key,
            clock,
        }
    }

    fn claims() -> AccessClaims {
        AccessClaims {
            tenant: TENANT.parse().unwrap(),
            user: USER.parse().unwrap(),
            session: SESSION.parse().unwrap(),
            role: Role::Member,
            factor_at: None,
            methods: AuthMethods::PASSWORD,
            issued_at: start(),
            expires_at: start() + TimeDelta::seconds(900),
        }
    }

    /// What our own token says, to be changed by a test.
    fn body() -> Value {
        let start = start().timestamp();
        json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": USER, "tid": TENANT, "sid": SESSION, "role": "member",
            "iat": start, "exp": start + 900, "jti": "0190f3a1-0000-7000-8000-000000000004",
        })
    }

    /// Any header and any claims, correctly signed by `key`.
    fn signed(key: &SigningKey, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), key.private(), Algorithm::EdDSA).unwrap();
        format!("{message}.{signature}")
    }

    fn header(key: &SigningKey) -> Value {
        json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": key.kid() })
    }

    fn part(token: &str, number: usize) -> Value {
        let text = token.split('.').nth(number).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    }

    fn public_key(key: &SigningKey) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(key.jwk()["x"].as_str().unwrap()).unwrap()
    }

    #[test]
    fn what_is_signed_verifies_and_says_the_same() {
        let World { tokens, .. } = world();
        assert_eq!(tokens.verify(&tokens.sign(&claims())), Ok(claims()));
        assert_eq!(tokens.lifetime_seconds(), 900);
    }

    #[test]
    fn header_and_claims_are_those_of_the_contract() {
        let World { tokens, key, .. } = world();
        let token = tokens.sign(&claims());
        assert!(token.len() < 1024);
        assert_eq!(part(&token, 0), header(&key));
        let (mut said, mut expected) = (part(&token, 1), body());
        let jti = said["jti"].take();
        assert_eq!(jti.as_str().unwrap().len(), 36);
        expected["jti"] = Value::Null;
        assert_eq!(said, expected);
        assert_ne!(jti, part(&tokens.sign(&claims()), 1)["jti"]);
    }

    #[test]
    fn a_token_says_when_and_how_a_factor_was_given() {
        let World { tokens, .. } = world();
        for (methods, amr) in [
            (
                AuthMethods::PASSWORD.and(AuthMethods::CODE),
                json!(["pwd", "otp", "mfa"]),
            ),
            (AuthMethods::DEVICE_PASSKEY, json!(["hwk", "user", "mfa"])),
            (AuthMethods::SYNCED_PASSKEY, json!(["swk", "user", "mfa"])),
            (
                AuthMethods::PASSWORD.and(AuthMethods::DEVICE_PASSKEY),
                json!(["pwd", "hwk", "user", "mfa"]),
            ),
        ] {
            let claims = AccessClaims {
                factor_at: Some(start() - TimeDelta::seconds(60)),
                methods,
                ..claims()
            };
            let token = tokens.sign(&claims);
            assert_eq!(tokens.verify(&token), Ok(claims));
            assert_eq!(part(&token, 1)["mfa_at"], json!(start().timestamp() - 60));
            assert_eq!(part(&token, 1)["amr"], amr);
        }
    }

    #[test]
    fn the_tests_own_signature_is_accepted() {
        let World { tokens, key, .. } = world();
        assert_eq!(tokens.verify(&signed(&key, &header(&key), &body())), Ok(claims()));
    }

    #[test]
    fn a_token_expires_30_seconds_after_exp_by_our_clock() {
        let World { tokens, clock, .. } = world();
        let token = tokens.sign(&claims());
        clock.advance(900 + 29);
        assert_eq!(tokens.verify(&token), Ok(claims()));
        clock.advance(1);
        assert_eq!(tokens.verify(&token), Err(TokenError::Expired));
        clock.advance(1);
        assert_eq!(tokens.verify(&token), Err(TokenError::Expired));
    }

    #[test]
    fn only_a_token_of_ours_can_be_expired() {
        let World { tokens, clock, .. } = world();
        let foreign = world().tokens.sign(&claims());
        let mut other = claims();
        other.role = Role::Admin;
        let (ours, others) = (tokens.sign(&claims()), tokens.sign(&other));
        let (message, _) = others.rsplit_once('.').unwrap();
        let (_, signature) = ours.rsplit_once('.').unwrap();
        let tampered = format!("{message}.{signature}");
        clock.advance(100_000);
        assert_eq!(tokens.verify(&foreign), Err(TokenError::Invalid));
        assert_eq!(tokens.verify(&tampered), Err(TokenError::Invalid));
    }

    #[test]
    fn a_token_from_the_future_is_invalid() {
        let World { tokens, key, .. } = world();
        let now = start().timestamp();
        for (claim, ahead, expected) in [
            ("iat", 29, Ok(())),
            ("iat", 30, Ok(())),
            ("iat", 31, Err(TokenError::Invalid)),
            ("nbf", 29, Ok(())),
            ("nbf", 30, Ok(())),
            ("nbf", 31, Err(TokenError::Invalid)),
            ("nbf", -1, Ok(())),
            ("iat", i64::MAX - now, Err(TokenError::Invalid)),
        ] {
            let mut body = body();
            body[claim] = json!(now + ahead);
            let outcome = tokens.verify(&signed(&key, &header(&key), &body)).map(|_| ());
            assert_eq!(outcome, expected, "{claim} {ahead} s ahead");
        }
    }

    /// CVE-2015-9235 and its kin: the verifier must not let the token choose how it is verified.
    #[test]
    fn the_algorithm_is_not_the_tokens_to_choose() {
        let World { tokens, key, .. } = world();
        let mut hs256 = Header::new(Algorithm::HS256);
        hs256.typ = Some(TYPE.into());
        hs256.kid = Some(key.kid().into());
        let secrets = [
            public_key(&key),
            key.jwk().to_string().into_bytes(),
            key.kid().into(),
            Vec::new(),
        ];
        for secret in secrets {
            let forged = encode(&hs256, &body(), &EncodingKey::from_secret(&secret)).unwrap();
            assert_eq!(tokens.verify(&forged), Err(TokenError::Invalid));
        }
        for alg in ["none", "None", "NONE", "HS256", "RS256", "ES256", "eddsa", ""] {
            let mut header = header(&key);
            header["alg"] = json!(alg);
            let token = signed(&key, &header, &body());
            assert_eq!(tokens.verify(&token), Err(TokenError::Invalid), "{alg}");
            let unsigned = &token[..=token.rfind('.').unwrap()];
            assert_eq!(
                tokens.verify(unsigned),
                Err(TokenError::Invalid),
                "{alg} unsigned"
            );
        }
    }

    #[test]
    fn a_header_other_than_ours_is_invalid() {
        let World { tokens, key, .. } = world();
        for (member, value) in [
            ("typ", json!("JWT")),
            ("typ", json!("at+JWT")),
            ("typ", Value::Null),
            ("kid", json!("unknown")),
            ("kid", json!("")),
            ("kid", Value::Null),
            ("kid", json!(1)),
            ("alg", Value::Null),
            ("crit", json!(["exp"])),
            ("crit", json!([])),
            ("crit", json!(["b64"])),
            ("kid", json!("../../../dev/null")),
            ("kid", json!("/etc/passwd")),
            ("kid", json!("x' UNION SELECT 'key' --")),
            ("kid", json!("\u{0}")),
            ("kid", json!(SigningKey::generate().kid())),
            ("kid", json!(["a"])),
            ("jku", json!("https://attacker.example/jwks.json")),
            ("x5u", json!("https://attacker.example/chain.pem")),
            ("x5c", json!(["MIIB"])),
            ("jwk", SigningKey::generate().jwk()),
        ] {
            let mut header = header(&key);
            header[member] = value.clone();
            let token = signed(&key, &header, &body());
            assert_eq!(
                tokens.verify(&token),
                Err(TokenError::Invalid),
                "{member} = {value}"
            );
        }
        for member in ["typ", "kid", "alg"] {
            let mut header = header(&key);
            header.as_object_mut().unwrap().remove(member);
            let token = signed(&key, &header, &body());
            assert_eq!(tokens.verify(&token), Err(TokenError::Invalid), "no {member}");
        }
    }

    /// A key that a token brings along is not a key of ours.
    #[test]
    fn a_key_in_the_header_is_not_believed() {
        let (World { tokens, key, .. }, attacker) = (world(), SigningKey::generate());
        let mut header = header(&key);
        header["jwk"] = attacker.jwk();
        assert_eq!(
            tokens.verify(&signed(&attacker, &header, &body())),
            Err(TokenError::Invalid)
        );
        header["kid"] = json!(attacker.kid());
        assert_eq!(
            tokens.verify(&signed(&attacker, &header, &body())),
            Err(TokenError::Invalid)
        );
    }

    #[test]
    fn every_claim_is_required_and_typed() {
        let World { tokens, key, .. } = world();
        for claim in ["iss", "aud", "sub", "tid", "sid", "role", "iat", "exp", "jti"] {
            let mut body = body();
            body.as_object_mut().unwrap().remove(claim);
            let token = signed(&key, &header(&key), &body);
            assert_eq!(tokens.verify(&token), Err(TokenError::Invalid), "no {claim}");
        }
        let simple = USER.replace('-', "");
        for (claim, value) in [
            ("iss", json!("https://elsewhere.test")),
            ("iss", json!([ISSUER])),
            ("aud", json!("elsewhere")),
            ("aud", json!([AUDIENCE])),
            ("aud", json!([AUDIENCE, "elsewhere"])),
            ("sub", json!("somebody")),
            ("sub", json!(simple)),
            ("tid", json!(format!("{{{TENANT}}}"))),
            ("tid", json!(format!("urn:uuid:{TENANT}"))),
            ("sid", Value::Null),
            ("jti", json!("x")),
            ("role", json!("owner")),
            ("role", json!("Admin")),
            ("iat", json!("1800000000")),
            ("exp", json!("1900000000")),
            ("exp", json!(1.9e9)),
            ("exp", json!(i64::MAX)),
            ("exp", json!((1_i64 << 53) + 1)),
            ("exp", json!(u64::MAX)),
            ("exp", json!(1e300)),
            ("exp", json!(-1.5)),
            ("exp", json!(true)),
            ("exp", json!([1_900_000_000])),
            ("sub", json!(1)),
            ("tid", json!([TENANT])),
            ("sid", json!({"id": SESSION})),
            ("role", json!(1)),
            ("iss", json!({"a": ISSUER})),
            ("iat", json!(-(1_i64 << 62))),
            ("exp", Value::Null),
            ("nbf", json!("now")),
        ] {
            let mut body = body();
            body[claim] = value.clone();
            let token = signed(&key, &header(&key), &body);
            assert_eq!(
                tokens.verify(&token),
                Err(TokenError::Invalid),
                "{claim} = {value}"
            );
        }
    }

    #[test]
    fn unknown_claims_are_ignored_and_double_ones_refused() {
        let World { tokens, key, .. } = world();
        let mut more = body();
        more["scope"] = json!("all");
        assert_eq!(tokens.verify(&signed(&key, &header(&key), &more)), Ok(claims()));

        let double = |text: String, member: &str| text.replacen('{', &format!("{{{member},"), 1);
        let signed = |header: String, claims: String| {
            let message = format!(
                "{}.{}",
                URL_SAFE_NO_PAD.encode(header),
                URL_SAFE_NO_PAD.encode(claims)
            );
            let signature =
                jsonwebtoken::crypto::sign(message.as_bytes(), key.private(), Algorithm::EdDSA).unwrap();
            format!("{message}.{signature}")
        };
        let (header, claims) = (header(&key).to_string(), body().to_string());
        for member in [
            r#""tid":"0190f3a1-0000-7000-8000-00000000000f""#,
            r#""exp":4000000000"#,
            r#""aud":"tenantry""#,
            r#""role":"admin""#,
        ] {
            let token = signed(header.clone(), double(claims.clone(), member));
            assert_eq!(tokens.verify(&token), Err(TokenError::Invalid), "{member}");
        }
        for member in [r#""alg":"none""#, r#""kid":"x""#, r#""typ":"JWT""#] {
            let token = signed(double(header.clone(), member), claims.clone());
            assert_eq!(tokens.verify(&token), Err(TokenError::Invalid), "{member}");
        }
    }

    #[test]
    fn a_token_changed_in_one_character_is_invalid() {
        let World { tokens, .. } = world();
        let token = tokens.sign(&claims());
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(
                tokens.verify(&changed),
                Err(TokenError::Invalid),
                "character {place}"
            );
        }
    }

    #[test]
    fn rubbish_is_invalid() {
        let World { tokens, .. } = world();
        let token = tokens.sign(&claims());
        for text in [
            "",
            ".",
            "..",
            "...",
            "a.b.c",
            "ü",
            &format!("{token}."),
            &format!("{token}.x"),
            &token[1..],
        ] {
            assert_eq!(tokens.verify(text), Err(TokenError::Invalid), "{text}");
        }
    }

    #[test]
    fn a_token_of_more_than_4096_bytes_is_not_looked_at() {
        let World { tokens, key, .. } = world();
        let padded = |length: usize| {
            let mut body = body();
            body["padding"] = json!("x".repeat(length));
            signed(&key, &header(&key), &body)
        };
        let (short, long) = (padded(2_000), padded(3_000));
        assert!(short.len() <= LONGEST && long.len() > LONGEST);
        assert_eq!(tokens.verify(&short), Ok(claims()));
        assert_eq!(tokens.verify(&long), Err(TokenError::Invalid));
    }

    #[test]
    fn a_key_can_be_rotated() {
        let World {
            tokens: before,
            key: old,
            clock,
            ..
        } = world();
        let new = SigningKey::generate();
        let during = tokens(vec![new.clone(), old.clone()], Arc::clone(&clock));
        let after = tokens(vec![new.clone()], clock);
        let (earlier, later) = (before.sign(&claims()), during.sign(&claims()));

        assert_eq!(part(&later, 0)["kid"], json!(new.kid()));
        assert_eq!(during.verify(&earlier), Ok(claims()));
        assert_eq!(during.verify(&later), Ok(claims()));
        assert_eq!(after.verify(&later), Ok(claims()));
        assert_eq!(after.verify(&earlier), Err(TokenError::Invalid));
        assert_eq!(before.verify(&later), Err(TokenError::Invalid));
        // The kid of one key does not lend its name to the other.
        assert_eq!(
            during.verify(&signed(&old, &header(&new), &body())),
            Err(TokenError::Invalid)
        );
    }

    #[test]
    fn the_key_set_has_all_public_keys_and_nothing_private() {
        let World { key: old, clock, .. } = world();
        let new = SigningKey::generate();
        let tokens = tokens(vec![new.clone(), old.clone()], clock);
        let expected = |key: &SigningKey| {
            let x = URL_SAFE_NO_PAD.encode(public_key(key));
            json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "use": "sig", "alg": "EdDSA", "kid": key.kid() })
        };
        assert_eq!(tokens.jwks(), json!({ "keys": [expected(&new), expected(&old)] }));

        // Somebody else's library can verify with what is published.
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(tokens.jwks()["keys"][0].clone()).unwrap();
        let public = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
        let outcome = decode::<Value>(tokens.sign(&claims()), &public, &validation(ISSUER, AUDIENCE));
        assert_eq!(outcome.unwrap().claims["sub"], json!(USER));
    }

    #[test]
    fn refuses_a_senseless_setup() {
        let make = |keys, issuer: &str, audience: &str, lifetime| {
            let clock = Arc::new(ManualClock(Mutex::new(start())));
            let keys = SigningKeyRing::new(keys, clock.clone()).unwrap();
            JwtAccessTokens::new(
                Arc::new(keys),
                issuer.into(),
                audience.into(),
                lifetime,
                clock,
                Arc::new(SystemIds),
            )
            .err()
        };
        let key = SigningKey::generate();
        assert_eq!(
            make(vec![key.clone()], "", "a", 900),
            Some(AccessTokensError::Nameless)
        );
        assert_eq!(
            make(vec![key.clone()], "i", "", 900),
            Some(AccessTokensError::Nameless)
        );
        for lifetime in [i64::MIN, 0, 3601] {
            let expected = Some(AccessTokensError::Lifetime(lifetime));
            assert_eq!(make(vec![key.clone()], "i", "a", lifetime), expected);
        }
        assert_eq!(make(vec![key], "i", "a", 3600), None);
    }
}
