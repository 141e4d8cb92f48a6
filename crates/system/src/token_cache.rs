use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use tenantry_domain::identity::{AccessClaims, AccessTokens, TokenError};
use tenantry_domain::kernel::{Clock, TenantId};

use crate::access_token::not_expired;
use crate::single_flight::{BoundedCache, bounded_cache};

/// Access tokens whose signatures are verified once.
///
/// A verified token is known by its SHA-256, so that nothing remembered is of use to anybody. Whether it is still in time is
/// looked at each time; whether its session still stands is the directory's to say, as for any token. Tokens that were
/// refused are not remembered: whoever sends nonsense would push the good ones out.
pub struct CachedAccessTokens {
    tokens: Arc<dyn AccessTokens>,
    clock: Arc<dyn Clock>,
    verified: BoundedCache<[u8; 32], AccessClaims>,
}

impl std::fmt::Debug for CachedAccessTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedAccessTokens")
            .field("verified", &self.verified.len())
            .finish_non_exhaustive()
    }
}

impl CachedAccessTokens {
    /// Remembers at most so many of the tokens that `tokens` has verified.
    pub fn new(tokens: Arc<dyn AccessTokens>, clock: Arc<dyn Clock>, entries: u64) -> Self {
        Self {
            tokens,
            clock,
            verified: bounded_cache(entries),
        }
    }
}

impl AccessTokens for CachedAccessTokens {
    fn sign(&self, claims: &AccessClaims) -> String {
        self.tokens.sign(claims)
    }

    fn verify(&self, token: &str) -> Result<AccessClaims, TokenError> {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(claims) = self.verified.get(&key) {
            return match not_expired(claims.expires_at, self.clock.now()) {
                Ok(()) => Ok(claims),
                Err(error) => {
                    self.verified.remove(&key);
                    Err(error)
                }
            };
        }
        let claims = self.tokens.verify(token)?;
        self.verified.insert(key, claims.clone());
        Ok(claims)
    }

    fn issued_to(&self, token: &str) -> Option<TenantId> {
        self.tokens.issued_to(token)
    }

    fn jwks(&self) -> serde_json::Value {
        self.tokens.jwks()
    }

    fn lifetime_seconds(&self) -> i64 {
        self.tokens.lifetime_seconds()
    }
}
