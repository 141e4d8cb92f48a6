use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;

use crate::kernel::{StoreError, SystemScope, Time};

/// A request without a credential that a challenge can protect from programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChallengePurpose {
    /// Creating a tenant.
    SignUp,
    /// Registering as a user of a tenant.
    Register,
    /// Asking for a link to reset a password.
    ForgotPassword,
    /// Asking for the list of workspaces of an address.
    Discover,
}

impl ChallengePurpose {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::SignUp, Self::Register, Self::ForgotPassword, Self::Discover];

    /// The name on the wire and in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignUp => "sign_up",
            Self::Register => "register",
            Self::ForgotPassword => "forgot_password",
            Self::Discover => "discover",
        }
    }

    /// Returns the purpose of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text)
    }
}

/// What a client needs to answer a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChallengeOffer {
    /// A proof of work: the client looks for a `nonce` such that the SHA-256 of `challenge.nonce` begins with that many zero
    /// bits, and responds with `challenge.nonce`.
    ProofOfWork {
        /// The challenge, for one request.
        challenge: String,
        /// How many zero bits.
        difficulty: u8,
        /// When it expires.
        expires_at: Time,
    },
    /// The widget of a provider, whose token is the response.
    Widget {
        /// The public key of the widget.
        site_key: String,
    },
}

/// Why a request was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// The request has no response to a challenge.
    #[error("the request has no response to a challenge")]
    Missing,
    /// The response is wrong; what is wrong with it.
    #[error("the response to the challenge {0}")]
    Refused(&'static str),
    /// The response could not be verified, since the verifier was not reached or failed; why, for the log. A request is
    /// accepted all the same where [`Challenges::fail_open`] says so.
    #[error("the response to the challenge could not be verified: {0}")]
    Unavailable(String),
    /// The response could not be verified, for a reason that clients can cause: by what they send, or by sending much of it.
    /// No request is accepted then. Why, for the log.
    #[error("the response to the challenge was not verified: {0}")]
    Unverified(String),
}

/// For how long an accepted response of a provider is kept, in minutes: longer than providers accept one, which is five at most.
pub const SPENT_MINUTES: i64 = 60;

/// Verifies that a client has answered a challenge.
#[async_trait]
pub trait ChallengeVerifier: Send + Sync {
    /// Returns what a client needs to answer a challenge for that purpose.
    fn offer(&self, purpose: ChallengePurpose) -> ChallengeOffer;

    /// Verifies a response, which is accepted once. `address` is the client's.
    ///
    /// # Errors
    /// [`ChallengeError::Refused`], [`ChallengeError::Unavailable`], [`ChallengeError::Unverified`].
    async fn verify(
        &self,
        purpose: ChallengePurpose,
        response: &str,
        address: Option<IpAddr>,
    ) -> Result<(), ChallengeError>;
}

/// Which requests need a challenge, and who verifies the responses.
#[derive(Clone)]
pub struct Challenges {
    /// Verifies them.
    pub verifier: Arc<dyn ChallengeVerifier>,
    /// The requests that need one.
    pub purposes: BTreeSet<ChallengePurpose>,
    /// Whether requests are accepted while the verifier is away ([`ChallengeError::Unavailable`]). Any text is a response then.
    pub fail_open: bool,
    /// Where accepted responses are stored, so that each is accepted once by all servers together. `None` for a verifier that stores them
    /// itself.
    pub spent: Option<Arc<dyn SpentChallenges>>,
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenges")
            .field("purposes", &self.purposes)
            .field("fail_open", &self.fail_open)
            .finish_non_exhaustive()
    }
}

/// The challenges that were answered, until they expire.
#[async_trait]
pub trait SpentChallenges: Send + Sync {
    /// Stores that a challenge was answered. Returns whether it was the first time.
    async fn spend(
        &self,
        because: SystemScope,
        challenge: [u8; 32],
        expires_at: Time,
        now: Time,
    ) -> Result<bool, StoreError>;
}
