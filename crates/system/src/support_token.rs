use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tenantry_domain::identity::TokenError;
use tenantry_domain::kernel::{Clock, IdSource, TenantId};
use tenantry_domain::tenant::{SupportClaims, SupportLevel, SupportTokens};

use crate::access_token::{TokenKind, at};
use crate::{AccessTokensError, SigningKeyRing};

/// Operators' access tokens for one tenant, made like users' ([`JwtAccessTokens`](crate::JwtAccessTokens)) and with the same keys.
///
/// The audience is `<audience of users>-support`, so another service that accepts tokens of users by the published keys accepts none of
/// these. Claims: `iss aud sub tid act scope iat exp jti`. The subject is the access that the tenant has given; who acts with it is in
/// `act` (RFC 8693 section 4.1).
pub struct JwtSupportTokens(TokenKind);

impl JwtSupportTokens {
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
        TokenKind::new(keys, issuer, (audience, "-support"), clock, ids).map(Self)
    }
}

impl SupportTokens for JwtSupportTokens {
    fn sign(&self, claims: &SupportClaims) -> String {
        let claims = WireClaims {
            iss: self.0.issuer(),
            aud: self.0.audience(),
            sub: claims.access.to_string(),
            tid: claims.tenant.to_string(),
            act: ActingParty {
                sub: claims.operator.to_string(),
                epoch: claims.epoch,
            },
            scope: scope(claims.level).to_owned(),
            iat: claims.issued_at.timestamp(),
            exp: claims.expires_at.timestamp(),
            jti: self.0.jti(),
        };
        self.0.sign(&claims)
    }

    fn verify(&self, token: &str) -> Result<SupportClaims, TokenError> {
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
    act: ActingParty,
    scope: String,
    iat: i64,
    exp: i64,
    jti: String,
}

/// The operator who acts.
#[derive(Serialize, Deserialize)]
struct ActingParty {
    sub: String,
    epoch: i64,
}

const fn scope(level: SupportLevel) -> &'static str {
    match level {
        SupportLevel::Read => "support:read",
        SupportLevel::Write => "support:write",
    }
}

impl WireClaims {
    fn read(&self) -> Option<SupportClaims> {
        let level = SupportLevel::ALL
            .iter()
            .copied()
            .find(|level| scope(*level) == self.scope)?;
        Some(SupportClaims {
            tenant: self.tid.parse().ok()?,
            access: self.sub.parse().ok()?,
            operator: self.act.sub.parse().ok()?,
            epoch: self.act.epoch,
            level,
            issued_at: at(self.iat)?,
            expires_at: at(self.exp)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use chrono::TimeDelta;
    use serde_json::{Value, json};
    use tenantry_domain::identity::AccessTokens as _;
    use tenantry_domain::kernel::Time;
    use tenantry_domain::operations::OperatorTokens as _;
    use uuid::Uuid;

    use super::*;
    use crate::{JwtAccessTokens, JwtOperatorTokens, SigningKey, SystemIds};

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

    fn tokens(key: &SigningKey, now: Time) -> JwtSupportTokens {
        let clock = Arc::new(Then(now));
        JwtSupportTokens::new(ring(key), "t".into(), "api", clock, Arc::new(SystemIds)).unwrap()
    }

    fn claims() -> SupportClaims {
        SupportClaims {
            tenant: Uuid::from_u128(1).into(),
            access: Uuid::from_u128(2).into(),
            operator: Uuid::from_u128(3).into(),
            epoch: 4,
            level: SupportLevel::Read,
            issued_at: start(),
            expires_at: start() + TimeDelta::minutes(5),
        }
    }

    #[test]
    fn what_is_signed_verifies_and_names_the_acting_party() {
        let key = SigningKey::generate();
        let token = tokens(&key, start()).sign(&claims());
        assert_eq!(tokens(&key, start()).verify(&token), Ok(claims()));
        let body = token.split('.').nth(1).unwrap();
        let body: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap();
        assert_eq!(
            body["act"],
            json!({"sub": "00000000-0000-0000-0000-000000000003", "epoch": 4})
        );
        assert_eq!(
            (&body["aud"], &body["scope"]),
            (&json!("api-support"), &json!("support:read"))
        );
        let late = tokens(&key, start() + TimeDelta::hours(1));
        assert_eq!(late.verify(&token), Err(TokenError::Expired));
        assert_eq!(late.issued_to(&token), Some(claims().tenant));
    }

    #[test]
    fn the_three_kinds_of_tokens_are_not_accepted_for_one_another() {
        let key = SigningKey::generate();
        let clock = || Arc::new(Then(start()));
        let users = JwtAccessTokens::new(
            ring(&key),
            "t".into(),
            "api".into(),
            900,
            clock(),
            Arc::new(SystemIds),
        );
        let operators =
            JwtOperatorTokens::new(ring(&key), "t".into(), "api", clock(), Arc::new(SystemIds)).unwrap();
        let support = tokens(&key, start());
        let token = support.sign(&claims());
        assert_eq!(users.unwrap().verify(&token), Err(TokenError::Invalid));
        assert_eq!(operators.verify(&token), Err(TokenError::Invalid));
        let other = tokens(&SigningKey::generate(), start());
        assert_eq!(other.verify(&token), Err(TokenError::Invalid));
        assert_eq!(other.issued_to(&token), None);
    }
}
