use std::sync::Arc;

use jsonwebtoken::Validation;
use serde::{Deserialize, Serialize};
use tenantry_domain::identity::TokenError;
use tenantry_domain::kernel::{Clock, IdSource};
use tenantry_domain::operations::{OperatorClaims, OperatorTokens};

use crate::access_token::{at, authentic, in_time, signed, split, validation};
use crate::{AccessTokensError, SigningKey};

/// How long an operator's token lives. There is nothing to refresh it with: whoever works longer logs in again.
const LIFETIME_SECONDS: i64 = 900;

/// Operators' access tokens, made like users' ([`JwtAccessTokens`](crate::JwtAccessTokens)) and with the same keys.
///
/// What keeps the two apart is the audience, which is `<audience of users>-admin`: neither is accepted where the other
/// belongs. Claims: `iss aud sub iat exp jti epoch`; there is no tenant in them.
pub struct JwtOperatorTokens {
    current: SigningKey,
    others: Vec<SigningKey>,
    issuer: String,
    audience: String,
    validation: Validation,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
}

impl JwtOperatorTokens {
    /// The first of `keys` signs, all of them verify. `audience` is the one of users' tokens.
    ///
    /// # Errors
    /// [`AccessTokensError`].
    pub fn new(
        keys: Vec<SigningKey>,
        issuer: String,
        audience: &str,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Result<Self, AccessTokensError> {
        if issuer.is_empty() || audience.is_empty() {
            return Err(AccessTokensError::Nameless);
        }
        let (current, others) = split(keys)?;
        let audience = format!("{audience}-admin");
        let validation = validation(&issuer, &audience);
        Ok(Self {
            current,
            others,
            issuer,
            audience,
            validation,
            clock,
            ids,
        })
    }
}

impl OperatorTokens for JwtOperatorTokens {
    fn sign(&self, claims: &OperatorClaims) -> String {
        let claims = WireClaims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: claims.operator.to_string(),
            iat: claims.issued_at.timestamp(),
            exp: claims.expires_at.timestamp(),
            jti: self.ids.uuid().to_string(),
            epoch: claims.epoch,
        };
        signed(&self.current, &claims)
    }

    fn verify(&self, token: &str) -> Result<OperatorClaims, TokenError> {
        let keys = std::iter::once(&self.current).chain(&self.others);
        let claims: Option<WireClaims> = authentic(token, keys, &self.validation);
        let claims = claims.ok_or(TokenError::Invalid)?;
        let read = claims.read().ok_or(TokenError::Invalid)?;
        in_time(claims.iat, read.expires_at, self.clock.now())?;
        Ok(read)
    }

    fn lifetime_seconds(&self) -> i64 {
        LIFETIME_SECONDS
    }
}

/// The claims as they travel; all of them are required, and one of a user's is not there.
#[derive(Serialize, Deserialize)]
struct WireClaims {
    iss: String,
    aud: String,
    sub: String,
    iat: i64,
    exp: i64,
    jti: String,
    epoch: i64,
}

impl WireClaims {
    fn read(&self) -> Option<OperatorClaims> {
        Some(OperatorClaims {
            operator: self.sub.parse().ok()?,
            epoch: self.epoch,
            issued_at: at(self.iat)?,
            expires_at: at(self.exp)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use tenantry_domain::identity::{AccessClaims, AccessTokens as _};
    use tenantry_domain::kernel::{Role, Time};
    use uuid::Uuid;

    use super::*;
    use crate::{JwtAccessTokens, SystemIds};

    struct Then(Time);

    impl Clock for Then {
        fn now(&self) -> Time {
            self.0
        }
    }

    fn start() -> Time {
        at(1_800_000_000).unwrap()
    }

    fn tokens(key: &SigningKey, now: Time) -> JwtOperatorTokens {
        let keys = vec![key.clone()];
        JwtOperatorTokens::new(keys, "t".into(), "api", Arc::new(Then(now)), Arc::new(SystemIds)).unwrap()
    }

    fn claims() -> OperatorClaims {
        OperatorClaims {
            epoch: 3,
            operator: Uuid::from_u128(7).into(),
            issued_at: start(),
            expires_at: start() + TimeDelta::seconds(LIFETIME_SECONDS),
        }
    }

    #[test]
    fn what_is_signed_verifies_until_it_expires() {
        let key = SigningKey::generate();
        let token = tokens(&key, start()).sign(&claims());
        assert_eq!(tokens(&key, start()).verify(&token), Ok(claims()));
        assert_eq!(
            tokens(&key, claims().expires_at).verify(&token),
            Err(TokenError::Expired)
        );
        let before = start() - TimeDelta::seconds(61);
        assert_eq!(tokens(&key, before).verify(&token), Err(TokenError::Invalid));
        assert_eq!(
            tokens(&SigningKey::generate(), start()).verify(&token),
            Err(TokenError::Invalid)
        );
    }

    #[test]
    fn tokens_of_users_and_of_operators_are_not_taken_for_each_other() {
        let key = SigningKey::generate();
        // Even where somebody names the audience of users like that of operators.
        for audience in ["api", "api-admin"] {
            let (clock, ids) = (Arc::new(Then(start())), Arc::new(SystemIds));
            let users = JwtAccessTokens::new(vec![key.clone()], "t".into(), audience.into(), 900, clock, ids)
                .unwrap();
            let user = users.sign(&AccessClaims {
                tenant: Uuid::from_u128(1).into(),
                user: Uuid::from_u128(7).into(),
                session: Uuid::from_u128(2).into(),
                role: Role::Admin,
                factor_at: None,
                issued_at: start(),
                expires_at: start() + TimeDelta::seconds(900),
            });
            let operators = tokens(&key, start());
            let operator = operators.sign(&claims());
            assert_eq!(users.verify(&operator), Err(TokenError::Invalid));
            if audience == "api" {
                assert_eq!(operators.verify(&user), Err(TokenError::Invalid));
            }
        }
    }
}
