//! Challenges that keep programs from signing up, registering and asking for links.

use std::sync::Arc;

use chrono::Duration;
use sha2::{Digest as _, Sha256};
use tenantry_domain::identity::{
    ChallengeError, ChallengeOffer, ChallengePurpose, SPENT_MINUTES, SpentChallenges,
};
use tenantry_domain::kernel::SystemScope;

use crate::{Cx, Origin, Tenancy};

/// A client's response to a challenge, where the request has one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChallengeResponse(pub Option<String>);

/// Returns what a client needs to answer the challenge of a request; `None` for a request that needs none.
pub fn offer(app: &Arc<Tenancy>, purpose: ChallengePurpose) -> Option<ChallengeOffer> {
    let challenges = app.ports.challenges.as_ref()?;
    let needs = challenges.purposes.contains(&purpose);
    needs.then(|| challenges.verifier.offer(purpose))
}

/// Verifies the response to the challenge of a request, when the request needs one. A response is accepted once, whatever
/// becomes of the request.
///
/// # Errors
/// [`ChallengeError`].
pub(crate) async fn check(
    cx: &Cx,
    purpose: ChallengePurpose,
    response: &ChallengeResponse,
) -> Result<(), ChallengeError> {
    check_from(cx.app(), cx.origin(), purpose, response).await
}

/// Does what [`check`] does for a request that is of no tenant.
pub(crate) async fn check_from(
    app: &Tenancy,
    origin: &Origin,
    purpose: ChallengePurpose,
    response: &ChallengeResponse,
) -> Result<(), ChallengeError> {
    let Some(challenges) = &app.ports.challenges else {
        return Ok(());
    };
    if !challenges.purposes.contains(&purpose) {
        return Ok(());
    }
    let given = response.0.as_deref().filter(|text| !text.is_empty());
    let given = given.ok_or(ChallengeError::Missing)?;
    let address = origin.address();
    let verified = match challenges.verifier.verify(purpose, given, address).await {
        Err(ChallengeError::Unavailable(reason)) if challenges.fail_open => {
            tracing::warn!(
                reason,
                purpose = purpose.as_str(),
                "accepted without a verified challenge"
            );
            Ok(())
        }
        Err(error @ (ChallengeError::Unavailable(_) | ChallengeError::Unverified(_))) => {
            tracing::error!(
                reason = %error,
                purpose = purpose.as_str(),
                "a challenge cannot be verified"
            );
            Err(error)
        }
        verified => verified,
    };
    verified?;
    match &challenges.spent {
        Some(spent) => spend(app, spent.as_ref(), given).await,
        None => Ok(()),
    }
}

/// Stores that a response was accepted, and refuses one that was before: a provider, or one that is away, may accept it again.
async fn spend(app: &Tenancy, spent: &dyn SpentChallenges, response: &str) -> Result<(), ChallengeError> {
    let now = app.ports.clock.now();
    let expires_at = now + Duration::minutes(SPENT_MINUTES);
    let because = SystemScope::because("a response to a challenge was accepted");
    let hash = Sha256::digest(response.as_bytes()).into();
    match spent.spend(because, hash, expires_at, now).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(ChallengeError::Refused("was used already")),
        Err(error) => {
            tracing::error!(%error, "an accepted response to a challenge cannot be stored");
            Err(ChallengeError::Unverified(error.to_string()))
        }
    }
}
