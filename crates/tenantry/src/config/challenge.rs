use serde::{Deserialize, Serialize};
use tenantry_domain::identity::ChallengePurpose;

use super::range::in_range;
use super::{ConfigurationError, Profile, Secret};

/// What keeps programs from signing up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Challenge {
    /// Who verifies that a client has answered a challenge.
    pub provider: ChallengeProvider,
    /// Which requests need one: `sign_up`, `register`, `forgot_password`, `discover`.
    pub purposes: Vec<String>,
    /// Of a proof of work: how many zero bits, and how many minutes a challenge lives.
    pub difficulty: u8,
    pub minutes: u32,
    /// Of siteverify: the provider's address, the keys of the account, the hosts that have the widget, and the timeout.
    pub url: String,
    pub secret: Secret,
    pub site_key: String,
    pub hostnames: Vec<String>,
    pub timeout_ms: u64,
    /// Whether requests are accepted while the provider does not answer.
    pub fail_open: bool,
}

/// Who verifies challenges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChallengeProvider {
    /// No request needs one.
    #[default]
    None,
    /// The server itself.
    ProofOfWork,
    /// hCaptcha, Turnstile or reCAPTCHA.
    Siteverify,
}

impl Default for Challenge {
    fn default() -> Self {
        Self {
            provider: ChallengeProvider::None,
            purposes: vec!["sign_up".into(), "register".into()],
            difficulty: 18,
            minutes: 5,
            url: String::new(),
            secret: Secret::default(),
            site_key: String::new(),
            hostnames: Vec::new(),
            timeout_ms: 5_000,
            fail_open: false,
        }
    }
}

impl Challenge {
    pub(super) fn check(&self, profile: Profile) -> Result<(), ConfigurationError> {
        in_range(&[
            ("signup.challenge.difficulty", self.difficulty.into(), 1, 32),
            ("signup.challenge.minutes", self.minutes.into(), 1, 60),
            ("signup.challenge.timeout_ms", self.timeout_ms, 100, 20_000),
        ])?;
        let wrong = |key: &'static str, problem: &str| Err(ConfigurationError::invalid(key, problem));
        let known = self
            .purposes
            .iter()
            .all(|name| ChallengePurpose::parse(name).is_some());
        if !known || (self.purposes.is_empty() && self.provider != ChallengeProvider::None) {
            let problem = "must be a list of sign_up, register, forgot_password and discover";
            return wrong("signup.challenge.purposes", problem);
        }
        if self.provider != ChallengeProvider::Siteverify {
            return Ok(());
        }
        if self.secret.is_empty() {
            return wrong("signup.challenge.secret", "is required for siteverify");
        }
        if self.site_key.is_empty() {
            return wrong("signup.challenge.site_key", "is required for siteverify");
        }
        let url = self.url.parse::<url::Url>().ok().filter(url::Url::has_host);
        match url.as_ref().map(url::Url::scheme) {
            Some("https") => Ok(()),
            Some("http") if profile != Profile::Production => Ok(()),
            _ => wrong(
                "signup.challenge.url",
                "must be the https address of siteverify, for example https://api.hcaptcha.com/siteverify",
            ),
        }
    }
}
