use tenantry_domain::identity::{InvitationTokens, IssuedInvitation, PresentedInvitation};
use tenantry_domain::kernel::{InvitationId, TenantId};

use crate::secret;
use crate::signed_token::TokenKeys;

/// Tokens of invitations that authenticate themselves: `inv_`, then tenant, invitation, 256 random bits and a MAC.
pub struct HmacInvitationTokens(TokenKeys);

impl HmacInvitationTokens {
    /// Makes and reads tokens with this secret, which nothing else is made with.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(TokenKeys::new("inv_", secret))
    }

    /// Also reads tokens made with an earlier secret, so that changing it voids no invitation.
    #[must_use]
    pub fn reading(mut self, earlier: &[u8; 32]) -> Self {
        self.0.read_also(earlier);
        self
    }
}

impl InvitationTokens for HmacInvitationTokens {
    fn issue(&self, tenant: TenantId, invitation: InvitationId) -> IssuedInvitation {
        let ids = [tenant.uuid(), invitation.uuid()];
        let token = self.0.sign(ids, &secret::random());
        let hash = secret::sha256(token.as_bytes());
        IssuedInvitation { token, hash }
    }

    fn read(&self, token: &str) -> Option<PresentedInvitation> {
        let [tenant, invitation] = self.0.read(token)?.ids;
        Some(PresentedInvitation {
            tenant: tenant.into(),
            invitation: invitation.into(),
            hash: secret::sha256(token.as_bytes()),
        })
    }
}

#[cfg(test)]
mod tests {
    use tenantry_domain::identity::RefreshTokens as _;

    use super::*;
    use crate::HmacRefreshTokens;

    const ID: &str = "0190f3a1-0000-7000-8000-000000000001";

    #[test]
    fn token_reads_back_and_is_random() {
        let tokens = HmacInvitationTokens::new(&[7; 32]);
        let (tenant, invitation) = (ID.parse().unwrap(), ID.parse().unwrap());
        let issued = tokens.issue(tenant, invitation);
        let read = tokens.read(&issued.token).unwrap();
        assert_eq!(
            (read.tenant, read.invitation, read.hash),
            (tenant, invitation, issued.hash)
        );
        assert!(issued != tokens.issue(tenant, invitation));
        let other = HmacInvitationTokens::new(&[8; 32]);
        assert!(other.read(&issued.token).is_none());
        assert!(other.reading(&[7; 32]).read(&issued.token).is_some());
    }

    #[test]
    fn refresh_token_is_no_invitation_and_no_rubbish_is() {
        let (tokens, refresh) = (
            HmacInvitationTokens::new(&[7; 32]),
            HmacRefreshTokens::new(&[7; 32]),
        );
        let issued = tokens.issue(ID.parse().unwrap(), ID.parse().unwrap()).token;
        let session = refresh.first(ID.parse().unwrap(), ID.parse().unwrap()).token;
        assert!(refresh.read(&issued).is_none());
        let cut = &issued[..issued.len() - 1];
        for text in [
            &session,
            "",
            "inv_",
            "inv_\u{fc}",
            cut,
            &format!("{issued}A"),
            &issued.to_uppercase(),
        ] {
            assert!(tokens.read(text).is_none(), "{text}");
        }
    }
}
