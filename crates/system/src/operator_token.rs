use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tenantry_domain::identity::TokenError;
use tenantry_domain::kernel::{Clock, IdSource};
use tenantry_domain::operations::{OperatorClaims, OperatorTokens};

use crate::access_token::{TokenKind, at};
use crate::{AccessTokensError, SigningKeyRing};

/// How long an operator's token lives. There is nothing to refresh it with: whoever works longer logs in again.
const LIFETIME_SECONDS: i64 = 900;

/// Operators' access tokens, made like users' ([`JwtAccessTokens`](crate::JwtAccessTokens)) and with the same keys.
///
/// What keeps the two apart is the audience, which is `<audience of users>-admin`: neither is accepted where the other
/// belongs. Claims: `iss aud sub iat exp jti epoch factor_at`; there is no tenant in them.
pub struct JwtOperatorTokens(TokenKind);

impl JwtOperatorTokens {
    /// `keys` signs and verifies. `audience` is the one of users' tokens.
    ///
    /// # Errors
    /// [`AccessTokensError`].
    pub fn new(
        keys: Arc<SigningKeyRing>,
        issuer: String,
        audience: &str,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Result<Self, AccessTokensError> {
        TokenKind::new(keys, issuer, (audience, "-admin"), clock, ids).map(Self)
    }
}

impl OperatorTokens for JwtOperatorTokens {
    fn sign(&self, claims: &OperatorClaims) -> String {
        let claims = WireClaims {
            iss: self.0.issuer(),
            aud: self.0.audience(),
            sub: claims.operator.to_string(),
            iat: claims.issued_at.timestamp(),
            exp: claims.expires_at.timestamp(),
            jti: self.0.jti(),
            epoch: claims.epoch,
            factor_at: claims.factor_at.map(|at| at.timestamp()),
        };
        self.0.sign(&claims)
    }

    fn verify(&self, token: &str) -> Result<OperatorClaims, TokenError> {
        let claims: Option<WireClaims> = self.0.authentic(token);
        let claims = claims.ok_or(TokenError::Invalid)?;
        let read = claims.read().ok_or(TokenError::Invalid)?;
        self.0.in_time(claims.iat, read.expires_at)?;
        Ok(read)
    }

    fn lifetime_seconds(&self) -> i64 {
        LIFETIME_SECONDS
    }
}

/// The claims as they travel; all but `factor_at` are required, and one of a user's is not there.
#[derive(Serialize, Deserialize)]
struct WireClaims {
    iss: String,
    aud: String,
    sub: String,
    iat: i64,
    exp: i64,
    jti: String,
    epoch: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    factor_at: Option<i64>,
}

impl WireClaims {
    fn read(&self) -> Option<OperatorClaims> {
        Some(OperatorClaims {
            operator: self.sub.parse().ok()?,
            epoch: self.epoch,
            factor_at: self.factor_at.map(at).map_or(Some(None), |at| at.map(Some))?,
            issued_at: at(self.iat)?,
            expires_at: at(self.exp)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use tenantry_domain::identity::{AccessClaims, AccessTokens as _, AuthMethods};
    use tenantry_domain::kernel::{Role, Time};
    use uuid::Uuid;

    use super::*;
    use crate::{JwtAccessTokens, SigningKey, SystemIds};

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
        let clock = Arc::new(Then(now));
        JwtOperatorTokens::new(ring(key), "t".into(), "api", clock, Arc::new(SystemIds)).unwrap()
    }

    fn ring(key: &SigningKey) -> Arc<SigningKeyRing> {
        Arc::new(SigningKeyRing::new(vec![key.clone()], Arc::new(Then(start()))).unwrap())
    }

    fn claims() -> OperatorClaims {
        OperatorClaims {
            epoch: 3,
            factor_at: Some(start() - TimeDelta::seconds(30)),
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
        let at = |now| tokens(&key, now).verify(&token);
        let seconds = TimeDelta::seconds;
        assert_eq!(at(claims().expires_at + seconds(29)), Ok(claims()));
        assert_eq!(at(claims().expires_at + seconds(30)), Err(TokenError::Expired));
        assert_eq!(at(start() - seconds(30)), Ok(claims()));
        assert_eq!(at(start() - seconds(31)), Err(TokenError::Invalid));
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
            let users =
                JwtAccessTokens::new(ring(&key), "t".into(), audience.into(), 900, clock, ids).unwrap();
            let user = users.sign(&AccessClaims {
                tenant: Uuid::from_u128(1).into(),
                user: Uuid::from_u128(7).into(),
                session: Uuid::from_u128(2).into(),
                role: Role::Admin,
                factor_at: None,
                methods: AuthMethods::PASSWORD,
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
