use std::time::Duration;

use async_trait::async_trait;
use reqwest::StatusCode;
use reqwest::header::{HeaderName, USER_AGENT};
use sha1::{Digest as _, Sha1};
use tenantry_domain::identity::{BreachedPasswords, NotCompared, Password};
use tokio::sync::Semaphore;
use url::Url;

use crate::{body, client, describe};

/// How a list of breached passwords is reached.
#[derive(Debug, Clone)]
pub struct PasswordRangesConfig {
    /// The address before `/range/`, for example `https://api.pwnedpasswords.com`.
    pub url: Url,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// Compares passwords with a list of breached ones by the range protocol of Have I Been Pwned, which self-hosted copies of the list speak,
/// too. The list gets the first five hexadecimal digits of the SHA-1 of a password, which hundreds of passwords have in common, and
/// answers with the rest of each of these hashes. Answers are padded, so that their length says nothing either.
pub struct PasswordRanges {
    base: String,
    client: reqwest::Client,
    /// Bounds the calls that are under way.
    places: Semaphore,
}

impl PasswordRanges {
    /// Makes a client of the list. It does not call the list yet.
    ///
    /// # Errors
    /// Why there is no HTTP client.
    pub fn new(config: &PasswordRangesConfig) -> Result<Self, reqwest::Error> {
        Ok(Self {
            base: config.url.as_str().trim_end_matches('/').to_owned(),
            client: client(config.timeout)?,
            places: Semaphore::new(AT_ONCE),
        })
    }

    /// The rest of the hashes that begin with a prefix, each with a count, as text.
    async fn range(&self, prefix: &str) -> Result<String, NotCompared> {
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| NotCompared(format!("{AT_ONCE} questions are under way")))?;
        let request = self.client.get(format!("{}/range/{prefix}", self.base));
        let request = request.header(PADDING, "true").header(USER_AGENT, "tenantry");
        // The path has a part of the hash in it, so errors are written without the address.
        let failed = |error: reqwest::Error| NotCompared(describe(&error.without_url()));
        let answer = request.send().await.map_err(failed)?;
        if answer.status() != StatusCode::OK {
            return Err(NotCompared(format!("the list answered {}", answer.status())));
        }
        let body = body(answer, LONGEST).await.map_err(failed)?;
        let body = body.ok_or_else(|| NotCompared("the answer of the list is too long".into()))?;
        String::from_utf8(body).map_err(|_| NotCompared("the answer of the list is no text".into()))
    }
}

#[async_trait]
impl BreachedPasswords for PasswordRanges {
    async fn contains(&self, password: &Password) -> Result<bool, NotCompared> {
        let digest = Sha1::digest(password.reveal().as_bytes());
        let hash: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        let (prefix, suffix) = hash.split_at(PREFIX_DIGITS);
        has(&self.range(prefix).await?, suffix)
    }
}

/// Whether an answer has the rest of a hash with a count. Rows of padding have a count of zero.
fn has(range: &str, suffix: &str) -> Result<bool, NotCompared> {
    let mut is_there = false;
    for line in range.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let row = line
            .split_once(':')
            .filter(|(rest, _)| rest.len() == suffix.len());
        let row = row.and_then(|(rest, count)| Some((rest, count.trim().parse::<u64>().ok()?)));
        let (rest, count) = row.ok_or_else(|| NotCompared("the answer of the list is no range".into()))?;
        is_there |= count > 0 && rest.eq_ignore_ascii_case(suffix);
    }
    Ok(is_there)
}

/// How many questions may be under way at once.
const AT_ONCE: usize = 8;
/// The longest answer, in bytes. One of Have I Been Pwned has some 40,000, or 60,000 with padding.
const LONGEST: usize = 1_048_576;
/// How many digits of the hash the list gets.
const PREFIX_DIGITS: usize = 5;
/// Asks for rows of padding.
const PADDING: HeaderName = HeaderName::from_static("add-padding");
