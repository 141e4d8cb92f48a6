use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tenantry_compose::{Credentials, PasswordHashing};
use tenantry_domain::identity::{MfaRequirement, TotpWindow};
use tenantry_passkeys::{RelyingParty, RelyingPartyError};

use super::range::in_range;
use super::{BreachedPasswords, ConfigurationError, Profile, Secret};

/// Tokens and passwords.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// The Ed25519 key that signs access tokens, PKCS#8 PEM; or a file with it.
    pub signing_key: Secret,
    pub signing_key_file: Option<PathBuf>,
    /// Files with earlier keys, whose tokens are still accepted.
    pub previous_key_files: Vec<PathBuf>,
    pub issuer: String,
    pub audience: String,
    pub access_token_minutes: i64,
    pub session_days: i64,
    /// How long a session lives from its login, however often it is refreshed.
    pub session_max_days: i64,
    /// Whether operators need a second factor. Without a value, they do in production.
    pub operator_mfa_required: Option<bool>,
    /// How many steps of 30 seconds before and after the present one a code of an authenticator app is accepted in: 0 or 1.
    pub totp_steps_around: u8,
    /// Which users of every tenant need a second factor: `off`, `admins` or `everyone`.
    pub users_mfa_minimum: MfaRequirement,
    /// The second part of the text of API keys; keys of another environment are refused.
    pub api_key_environment: String,
    /// Argon2id: memory, passes, lanes.
    pub password_memory_kib: u32,
    pub password_iterations: u32,
    pub password_lanes: u32,
    /// How many passwords are hashed at once, and how many may wait for that.
    pub password_at_once: usize,
    pub password_queue: usize,
    pub passkeys: Passkeys,
    /// What new passwords are compared with.
    pub breached_passwords: BreachedPasswords,
}

/// Who passkeys are for. Without an id there are none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Passkeys {
    /// The domain that browsers bind passkeys to.
    pub rp_id: String,
    /// Where the pages are that use them; `https://` and the id when there is none.
    pub origins: Vec<String>,
}

impl Default for Auth {
    fn default() -> Self {
        let Credentials {
            signing_key,
            signing_key_file,
            previous_key_files,
            issuer,
            audience,
            access_token_minutes,
            api_key_environment,
        } = Credentials::default();
        let hashing = PasswordHashing::default();
        Self {
            signing_key,
            signing_key_file,
            previous_key_files,
            issuer,
            audience,
            access_token_minutes,
            session_days: 30,
            session_max_days: 30,
            operator_mfa_required: None,
            totp_steps_around: TotpWindow::default().steps_around(),
            users_mfa_minimum: MfaRequirement::Off,
            api_key_environment,
            password_memory_kib: hashing.memory_kib,
            password_iterations: hashing.iterations,
            password_lanes: hashing.lanes,
            password_at_once: hashing.at_once,
            password_queue: hashing.queue,
            passkeys: Passkeys::default(),
            breached_passwords: BreachedPasswords::default(),
        }
    }
}

impl Auth {
    /// Whether operators need a second factor under a profile.
    pub(crate) fn operators_need_factor(&self, profile: Profile) -> bool {
        self.operator_mfa_required
            .unwrap_or(profile == Profile::Production)
    }

    /// Whether each number is in its range, the relying party of passkeys is one, and the list of breached passwords has an address.
    pub(super) fn check(&self, profile: Profile) -> Result<(), ConfigurationError> {
        self.passkeys.relying_party()?;
        self.breached_passwords.check(profile)?;
        in_range(&[
            (
                "auth.access_token_minutes",
                self.access_token_minutes.max(0).unsigned_abs(),
                1,
                60,
            ),
            (
                "auth.session_days",
                self.session_days.max(0).unsigned_abs(),
                1,
                365,
            ),
            (
                "auth.session_max_days",
                self.session_max_days.max(0).unsigned_abs(),
                1,
                365,
            ),
            ("auth.totp_steps_around", self.totp_steps_around.into(), 0, 1),
            ("auth.password_at_once", self.password_at_once as u64, 1, 64),
        ])
    }
}

impl Passkeys {
    /// Whose passkeys the server accepts, if any.
    pub fn relying_party(&self) -> Result<Option<RelyingParty>, ConfigurationError> {
        let of_id = |problem: &str| ConfigurationError::invalid("auth.passkeys.rp_id", problem);
        if self.rp_id.is_empty() {
            return match self.origins.as_slice() {
                [] => Ok(None),
                [..] => Err(of_id("is required when there are auth.passkeys.origins")),
            };
        }
        let at_id = [format!("https://{}", self.rp_id)];
        let origins = match self.origins.as_slice() {
            [] => at_id.as_slice(),
            origins => origins,
        };
        let party = RelyingParty::new(&self.rp_id, origins);
        party.map(Some).map_err(|error| match error {
            RelyingPartyError::Id => of_id(&error.to_string()),
            RelyingPartyError::NoOrigin | RelyingPartyError::Origin { .. } => {
                ConfigurationError::invalid("auth.passkeys.origins", error.to_string())
            }
        })
    }
}
