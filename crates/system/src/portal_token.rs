use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tenantry_domain::identity::TokenError;
use tenantry_domain::kernel::{Clock, IdSource, TenantId};
use tenantry_domain::tenant::{PortalClaims, PortalTokens};

use crate::access_token::{TokenKind, at};
use crate::{AccessTokensError, SigningKeyRing};

/// What a portal token is for.
const SCOPE: &str = "webhooks";

/// Portal tokens, made like users' access tokens ([`JwtAccessTokens`](crate::JwtAccessTokens)) and with the same keys.
///
/// The audience is `<audience of users>-portal`, so another service that accepts tokens of users by the published keys accepts none of
/// these. Claims: `iss aud sub tid sid scope iat exp jti`.
pub struct JwtPortalTokens(TokenKind);

impl JwtPortalTokens {
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
        TokenKind::new(keys, issuer, (audience, "-portal"), clock, ids).map(Self)
    }
}

impl PortalTokens for JwtPortalTokens {
    fn sign(&self, claims: &PortalClaims) -> String {
        let claims = WireClaims {
            iss: self.0.issuer(),
            aud: self.0.audience(),
            sub: claims.user.to_string(),
            tid: claims.tenant.to_string(),
            sid: claims.session.to_string(),
            scope: SCOPE.to_owned(),
            iat: claims.issued_at.timestamp(),
            exp: claims.expires_at.timestamp(),
            jti: self.0.jti(),
        };
        self.0.sign(&claims)
    }

    fn verify(&self, token: &str) -> Result<PortalClaims, TokenError> {
        let claims: Option<WireClaims> = self.0.authentic(token);
        let claims = claims.ok_or(TokenError::Invalid)?;
        let read = claims.read().ok_or(TokenError::Invalid)?;
        self.0.in_time(claims.iat, read.expires_at)?;
        Ok(read)
    }

    fn issued_to(&self, token: &str) -> Option<TenantId> {
        let claims: WireClaims = self.0.authentic(token)?;
        Some(claims.read()?.tenant)
    }
}

/// The claims as they travel; all are required.
#[derive(Serialize, Deserialize)]
struct WireClaims {
    iss: String,
    aud: String,
    sub: String,
    tid: String,
    sid: String,
    scope: String,
    iat: i64,
    exp: i64,
    jti: String,
}

impl WireClaims {
    fn read(&self) -> Option<PortalClaims> {
        if self.scope != SCOPE {
            return None;
        }
        Some(PortalClaims {
            tenant: self.tid.parse().ok()?,
            user: self.sub.parse().ok()?,
            session: self.sid.parse().ok()?,
            issued_at: at(self.iat)?,
            expires_at: at(self.exp)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use tenantry_domain::identity::AccessTokens as _;
    use tenantry_domain::kernel::Time;
    use tenantry_domain::tenant::SupportTokens as _;
    use uuid::Uuid;

    use super::*;
    use crate::{JwtAccessTokens, JwtSupportTokens, SigningKey, SystemIds};

    struct Then(Time);

    impl Clock for Then {
        fn now(&self) -> Time {
            self.0
        }
    }

    fn start() -> Time {
        at(1_800_000_000).unwrap()
    }

    fn ring(key: &SigningKey) -> Arc<SigningKeyRing> {
        Arc::new(SigningKeyRing::new(vec![key.clone()], Arc::new(Then(start()))).unwrap())
    }

    fn tokens(key: &SigningKey, now: Time) -> JwtPortalTokens {
        let clock = Arc::new(Then(now));
        JwtPortalTokens::new(ring(key), "t".into(), "api", clock, Arc::new(SystemIds)).unwrap()
    }

    fn claims() -> PortalClaims {
        PortalClaims {
            tenant: Uuid::from_u128(1).into(),
            user: Uuid::from_u128(2).into(),
            session: Uuid::from_u128(3).into(),
            issued_at: start(),
            expires_at: start() + TimeDelta::minutes(15),
        }
    }

    #[test]
    fn signed_token_verifies_until_it_expires() {
        let key = SigningKey::generate();
        let token = tokens(&key, start()).sign(&claims());
        assert_eq!(tokens(&key, start()).verify(&token), Ok(claims()));
        let late = tokens(&key, start() + TimeDelta::hours(1));
        assert_eq!(late.verify(&token), Err(TokenError::Expired));
        assert_eq!(late.issued_to(&token), Some(claims().tenant));
        let other = tokens(&SigningKey::generate(), start());
        assert_eq!(other.verify(&token), Err(TokenError::Invalid));
    }

    #[test]
    fn portal_token_is_no_token_of_another_kind() {
        let key = SigningKey::generate();
        let clock = || Arc::new(Then(start()));
        let ids = Arc::new(SystemIds);
        let (issuer, audience) = ("t".to_owned(), "api".to_owned());
        let users = JwtAccessTokens::new(ring(&key), issuer, audience, 900, clock(), ids.clone()).unwrap();
        let support = JwtSupportTokens::new(ring(&key), "t".into(), "api", clock(), ids).unwrap();
        let token = tokens(&key, start()).sign(&claims());
        assert_eq!(users.verify(&token), Err(TokenError::Invalid));
        assert_eq!(support.verify(&token), Err(TokenError::Invalid));
        assert_eq!(users.issued_to(&token), None);
    }
}
