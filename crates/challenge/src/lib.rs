//! Verifies challenges of a provider: the adapter of [`tenantry_domain::identity::ChallengeVerifier`] to the siteverify protocol,
//! which hCaptcha, Turnstile and reCAPTCHA have in common. Also asks a list of breached passwords: the adapter of
//! [`tenantry_domain::identity::BreachedPasswords`] to the range protocol of Have I Been Pwned.
#![deny(missing_docs)]

mod breached_passwords;

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde::Deserialize;
use tenantry_domain::identity::{ChallengeError, ChallengeOffer, ChallengePurpose, ChallengeVerifier};
use tokio::sync::Semaphore;
use url::Url;
use url::form_urlencoded::Serializer;

pub use breached_passwords::{PasswordRanges, PasswordRangesConfig};

/// How the provider is reached.
#[derive(Clone)]
pub struct SiteVerifyConfig {
    /// Where responses are verified, for example `https://challenges.cloudflare.com/turnstile/v0/siteverify`.
    pub url: Url,
    /// The secret of the account.
    pub secret: String,
    /// The public key of the widget.
    pub site_key: String,
    /// The host names of the pages that have the widget; every one when empty.
    pub hostnames: Vec<String>,
    /// How long a verification may take.
    pub timeout: Duration,
}

/// Verifies the tokens of widgets at their provider.
pub struct SiteVerify {
    config: SiteVerifyConfig,
    client: reqwest::Client,
    /// Bounds the calls that are under way.
    places: Semaphore,
}

impl SiteVerify {
    /// A verifier. It does not call the provider yet.
    ///
    /// # Errors
    /// Why there is no HTTP client.
    pub fn new(config: SiteVerifyConfig) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: client(config.timeout)?,
            config,
            places: Semaphore::new(AT_ONCE),
        })
    }

    fn form(&self, response: &str, address: Option<IpAddr>) -> String {
        let mut form = Serializer::new(String::new());
        form.append_pair("secret", &self.config.secret)
            .append_pair("response", response);
        if let Some(address) = address {
            form.append_pair("remoteip", &address.to_string());
        }
        form.finish()
    }

    async fn ask(&self, response: &str, address: Option<IpAddr>) -> Result<Verdict, ChallengeError> {
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| unverified(format!("{AT_ONCE} verifications are under way")))?;
        let request = self.client.post(self.config.url.clone());
        let request = request
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(self.form(response, address));
        // An error of the client names the address, which has no secret in it.
        let answer = request
            .send()
            .await
            .map_err(|error| unavailable(describe(&error)))?;
        let status = answer.status();
        if status.is_server_error() {
            return Err(unavailable(format!("the provider answered {status}")));
        }
        if !status.is_success() {
            return Err(unverified(format!("the provider answered {status}")));
        }
        read(answer).await
    }
}

#[async_trait]
impl ChallengeVerifier for SiteVerify {
    fn offer(&self, _: ChallengePurpose) -> ChallengeOffer {
        ChallengeOffer::Widget {
            site_key: self.config.site_key.clone(),
        }
    }

    /// The provider accepts a token once, and says so of later attempts.
    async fn verify(
        &self,
        purpose: ChallengePurpose,
        response: &str,
        address: Option<IpAddr>,
    ) -> Result<(), ChallengeError> {
        let verdict = self.ask(response, address).await?;
        if !verdict.success {
            return Err(refusal(purpose, &verdict.error_codes));
        }
        let expected = &self.config.hostnames;
        let hostname = verdict.hostname.unwrap_or_default();
        if expected.is_empty() || expected.iter().any(|name| name.eq_ignore_ascii_case(&hostname)) {
            return Ok(());
        }
        tracing::info!(
            hostname,
            purpose = purpose.as_str(),
            "a challenge was answered on another site"
        );
        Err(ChallengeError::Refused("was given on another site"))
    }
}

/// What the provider answers. Providers add members of their own.
#[derive(Debug, Deserialize)]
struct Verdict {
    success: bool,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default, rename = "error-codes")]
    error_codes: Vec<String>,
}

/// How many verifications may be under way at once.
const AT_ONCE: usize = 64;
/// The longest answer, in bytes.
const LONGEST: usize = 65_536;
/// The codes that say that the configuration is wrong, or that the provider failed. A token may cause some of them, so none
/// of them means that the provider is away.
const OURS: [&str; 7] = [
    "missing-input-secret",
    "invalid-input-secret",
    "sitekey-secret-mismatch",
    "not-using-dummy-passcode",
    "bad-request",
    "internal-error",
    "invalid-keys",
];
/// The codes that say that a token is too old, or was verified before.
const SPENT: [&str; 4] = [
    "timeout-or-duplicate",
    "expired-input-response",
    "already-seen-response",
    "invalid-or-already-seen-response",
];

fn refusal(purpose: ChallengePurpose, codes: &[String]) -> ChallengeError {
    let has = |list: &[&str]| codes.iter().any(|code| list.contains(&code.as_str()));
    tracing::debug!(
        ?codes,
        purpose = purpose.as_str(),
        "the provider refused a challenge"
    );
    if has(&OURS) {
        return unverified(format!("the provider refused the request: {}", codes.join(", ")));
    }
    if has(&SPENT) {
        return ChallengeError::Refused("has expired or was used already");
    }
    ChallengeError::Refused("is not valid")
}

async fn read(answer: reqwest::Response) -> Result<Verdict, ChallengeError> {
    let body = body(answer, LONGEST).await;
    let body = body.map_err(|error| unavailable(describe(&error)))?;
    let body = body.ok_or_else(|| unverified("the provider's answer is too long".into()))?;
    serde_json::from_slice(&body).map_err(|error| unverified(format!("the provider's answer: {error}")))
}

/// A client that calls the configured address and no other: a secret, or a part of one, is in its requests.
fn client(timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .timeout(timeout)
        .connect_timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

/// The body of an answer; `None` when it is longer than so many bytes, of which no more is read.
async fn body(mut answer: reqwest::Response, most: usize) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await? {
        body.extend_from_slice(&part);
        if body.len() > most {
            return Ok(None);
        }
    }
    Ok(Some(body))
}

/// An error with its causes: the first line alone does not say that it was the timeout.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The provider was not reached, did not answer in time, or failed.
fn unavailable(reason: String) -> ChallengeError {
    ChallengeError::Unavailable(reason)
}

/// The provider was not asked, or its answer is none: clients may have caused that.
fn unverified(reason: String) -> ChallengeError {
    ChallengeError::Unverified(reason)
}
