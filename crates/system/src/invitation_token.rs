use tenantry_domain::identity::{
    InvitationTokens, IssuedInvitation, PresentedInvitation, RefreshTokens as _,
};
use tenantry_domain::kernel::{InvitationId, SessionId, TenantId};

use crate::{HmacRefreshTokens, secret};

/// Tokens of invitations. They have the form of refresh tokens ([`HmacRefreshTokens`]), made with a secret of their own and
/// named `inv_`: tenant, invitation, 256 random bits and a MAC over those. Neither kind is accepted for the other.
pub struct HmacInvitationTokens(HmacRefreshTokens);

impl HmacInvitationTokens {
    /// Makes and reads tokens with this secret, which nothing else is made with.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(HmacRefreshTokens::new(secret))
    }

    /// Also reads tokens made with an earlier secret, so that changing it voids no invitation.
    #[must_use]
    pub fn reading(self, earlier: &[u8; 32]) -> Self {
        Self(self.0.reading(earlier))
    }
}

const PREFIX: &str = "inv_";
const INNER: &str = "rt_";

impl InvitationTokens for HmacInvitationTokens {
    fn issue(&self, tenant: TenantId, invitation: InvitationId) -> IssuedInvitation {
        let inner = self.0.first(tenant, SessionId::from(invitation.uuid()));
        let body = inner.token.strip_prefix(INNER).unwrap_or(&inner.token);
        let token = format!("{PREFIX}{body}");
        let hash = secret::sha256(token.as_bytes());
        IssuedInvitation { token, hash }
    }

    fn read(&self, token: &str) -> Option<PresentedInvitation> {
        let inner = format!("{INNER}{}", token.strip_prefix(PREFIX)?);
        let read = self.0.read(&inner)?;
        Some(PresentedInvitation {
            tenant: read.tenant,
            invitation: read.session.uuid().into(),
            hash: secret::sha256(token.as_bytes()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
