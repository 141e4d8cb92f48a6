use tenantry_domain::identity::{IssuedLink, LinkTokens, PresentedLink};
use tenantry_domain::kernel::{AccountLinkId, TenantId};

use crate::secret;
use crate::signed_token::TokenKeys;

/// Tokens of links that authenticate themselves: `lt_`, then tenant, link, 256 random bits and a MAC. A caller who knows
/// the id of a link, but not its token, can neither use it up nor find out whether it exists.
pub struct HmacLinkTokens(TokenKeys);

impl HmacLinkTokens {
    /// Issues and reads tokens with this secret, for example [`crate::SigningKey::derive_secret`].
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(TokenKeys::new("lt_", secret))
    }

    /// Also reads tokens issued with an earlier secret, so that changing it breaks no link.
    #[must_use]
    pub fn reading(mut self, earlier: &[u8; 32]) -> Self {
        self.0.read_also(earlier);
        self
    }
}

impl LinkTokens for HmacLinkTokens {
    fn issue(&self, tenant: TenantId, link: AccountLinkId) -> IssuedLink {
        let token = self.0.sign([tenant.uuid(), link.uuid()], &secret::random());
        let hash = secret::sha256(token.as_bytes());
        IssuedLink { token, hash }
    }

    fn read(&self, token: &str) -> Option<PresentedLink> {
        let [tenant, link] = self.0.read(token)?.ids;
        Some(PresentedLink {
            tenant: tenant.into(),
            link: link.into(),
            hash: secret::sha256(token.as_bytes()),
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn issue(tokens: &HmacLinkTokens) -> IssuedLink {
        tokens.issue(Uuid::from_u128(1).into(), Uuid::from_u128(2).into())
    }

    #[test]
    fn an_issued_token_reads_back() {
        let tokens = HmacLinkTokens::new(&[7; 32]);
        let issued = issue(&tokens);
        let read = tokens.read(&issued.token).unwrap();
        assert_eq!(read.tenant, Uuid::from_u128(1).into());
        assert_eq!(read.link, Uuid::from_u128(2).into());
        assert_eq!(read.hash, issued.hash);
        assert!(issue(&tokens) != issued, "each has a secret of its own");
    }

    #[test]
    fn a_token_of_another_secret_or_kind_is_not_read() {
        let old = HmacLinkTokens::new(&[7; 32]);
        let token = issue(&old).token;
        assert!(HmacLinkTokens::new(&[8; 32]).read(&token).is_none());
        assert!(
            HmacLinkTokens::new(&[8; 32])
                .reading(&[7; 32])
                .read(&token)
                .is_some()
        );
        let refresh = crate::HmacRefreshTokens::new(&[7; 32]);
        assert!(tenantry_domain::identity::RefreshTokens::read(&refresh, &token).is_none());
    }
}
