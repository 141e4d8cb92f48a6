use tenantry_domain::notifications::{PresentedUnsubscribe, UnsubscribeTokens};

use crate::signed_token::TokenKeys;

/// Tokens of links to unsubscribe that authenticate themselves: `un_`, then tenant, user, what the link ends and a MAC. Two mails about the
/// same to one address have the same token.
pub struct HmacUnsubscribeTokens(TokenKeys);

impl HmacUnsubscribeTokens {
    /// Issues and reads tokens with this secret, for example [`crate::SigningKey::derive_secret`].
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(TokenKeys::new("un_", secret))
    }

    /// Also reads tokens issued with an earlier secret, so that changing it breaks no link.
    #[must_use]
    pub fn reading(mut self, earlier: &[u8; 32]) -> Self {
        self.0.read_also(earlier);
        self
    }
}

impl UnsubscribeTokens for HmacUnsubscribeTokens {
    fn issue(&self, token: &PresentedUnsubscribe) -> String {
        self.0.sign([token.tenant.uuid(), token.user.uuid()], &token.tag)
    }

    fn read(&self, token: &str) -> Option<PresentedUnsubscribe> {
        let signed = self.0.read(token)?;
        let [tenant, user] = signed.ids;
        Some(PresentedUnsubscribe {
            tenant: tenant.into(),
            user: user.into(),
            tag: signed.bytes.get(32..64)?.try_into().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn token_reads_back_and_each_changed_byte_is_noticed() {
        let token = PresentedUnsubscribe {
            tenant: Uuid::from_u128(1).into(),
            user: Uuid::from_u128(2).into(),
            tag: [3; 32],
        };
        let old = HmacUnsubscribeTokens::new(&[7; 32]);
        let text = old.issue(&token);
        assert_eq!(old.read(&text), Some(token));
        let new = HmacUnsubscribeTokens::new(&[8; 32]);
        assert_eq!(new.read(&text), None);
        assert_eq!(new.reading(&[7; 32]).read(&text), Some(token));
        for at in 3..text.len() - 1 {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(old.read(std::str::from_utf8(&changed).unwrap()), None, "{at}");
        }
        assert!(
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        );
    }
}
