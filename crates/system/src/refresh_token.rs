use tenantry_domain::identity::{IssuedRefresh, PresentedRefresh, RefreshTokens};
use tenantry_domain::kernel::{SessionId, TenantId};

use crate::secret;
use crate::signed_token::TokenKeys;

/// Refresh tokens that authenticate themselves.
///
/// A token is `rt_` and the base64url (without padding) of 80 bytes: tenant 16, session 16, secret 32, and
/// the first 16 bytes of HMAC-SHA256 over those 64. Three things follow:
///
/// * Rubbish is recognised without the database. A used-up token revokes its session, so whoever knows a
///   session's id but not a token of it must not be able to present one: rubbish can never revoke a
///   session.
/// * The tenant is in the token, so that the session can be looked up in its tenant's scope.
/// * The child's secret is HMAC-SHA256 over `"child"` and the whole parent. The server needs to store
///   hashes only, and still answers a request repeated within the grace (two tabs, a lost answer) with the
///   same child.
///
/// The secret of a family's first token is random; without the server's key no child can be computed from it.
pub struct HmacRefreshTokens(TokenKeys);

impl HmacRefreshTokens {
    /// Makes and reads tokens with this secret, for example [`crate::SigningKey::derive_secret`].
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(TokenKeys::new(PREFIX, secret))
    }

    /// Also reads tokens made with an earlier secret, so that changing it does not end every session: their
    /// children are made with the current one.
    #[must_use]
    pub fn reading(mut self, earlier: &[u8; 32]) -> Self {
        self.0.read_also(earlier);
        self
    }

    fn issue(&self, tenant: TenantId, session: SessionId, secret: &[u8; 32]) -> IssuedRefresh {
        let token = self.0.sign([tenant.uuid(), session.uuid()], secret);
        let hash = secret::sha256(token.as_bytes());
        IssuedRefresh { token, hash }
    }
}

impl RefreshTokens for HmacRefreshTokens {
    fn first(&self, tenant: TenantId, session: SessionId) -> IssuedRefresh {
        self.issue(tenant, session, &secret::random())
    }

    fn read(&self, token: &str) -> Option<PresentedRefresh> {
        let read = self.0.read(token)?;
        let [tenant, session] = read.ids;
        let (tenant, session) = (tenant.into(), session.into());
        let child = self.issue(
            tenant,
            session,
            &secret::hmac_sha256(read.key, &[b"child", &read.bytes]),
        );
        Some(PresentedRefresh {
            tenant,
            session,
            hash: secret::sha256(token.as_bytes()),
            child,
        })
    }
}

const PREFIX: &str = "rt_";

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::signed_token::{LENGTH, TEXT, decode};

    const SECRET: [u8; 32] = [7; 32];

    fn tenant() -> TenantId {
        "0190f3a1-0000-7000-8000-000000000001".parse().unwrap()
    }

    fn session() -> SessionId {
        "0190f3a1-0000-7000-8000-000000000002".parse().unwrap()
    }

    #[test]
    fn a_first_token_reads_back() {
        let tokens = HmacRefreshTokens::new(&SECRET);
        let first = tokens.first(tenant(), session());
        assert_eq!(first.token.len(), 110);
        assert!(first.token.starts_with("rt_"));
        let read = tokens.read(&first.token).unwrap();
        assert_eq!(
            (read.tenant, read.session, read.hash),
            (tenant(), session(), first.hash)
        );
        assert_eq!(read.hash, secret::sha256(first.token.as_bytes()));
    }

    #[test]
    fn first_tokens_are_random() {
        let tokens = HmacRefreshTokens::new(&SECRET);
        assert!(tokens.first(tenant(), session()) != tokens.first(tenant(), session()));
    }

    #[test]
    fn a_token_always_has_the_same_child_of_the_same_session() {
        let tokens = HmacRefreshTokens::new(&SECRET);
        let first = tokens.first(tenant(), session());
        let child = tokens.read(&first.token).unwrap().child;
        assert!(child == tokens.read(&first.token).unwrap().child);
        assert!(child == HmacRefreshTokens::new(&SECRET).read(&first.token).unwrap().child);

        let read = tokens.read(&child.token).unwrap();
        assert_eq!(
            (read.tenant, read.session, read.hash),
            (tenant(), session(), child.hash)
        );
        assert!(read.child != child);
        assert!(child.token != first.token);
    }

    #[test]
    fn different_tokens_have_different_children() {
        let tokens = HmacRefreshTokens::new(&SECRET);
        let [one, other] = [0, 1].map(|_| tokens.read(&tokens.first(tenant(), session()).token).unwrap());
        assert!(one.child != other.child);
    }

    /// Every bit of every byte matters: ids, secret and MAC alike.
    #[test]
    fn a_token_changed_in_one_bit_is_not_ours() {
        let tokens = HmacRefreshTokens::new(&SECRET);
        let bytes = decode(PREFIX, &tokens.first(tenant(), session()).token).unwrap();
        for place in 0..LENGTH {
            for bit in 0..8 {
                let mut changed = bytes;
                changed[place] ^= 1 << bit;
                let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(changed));
                assert!(tokens.read(&text).is_none(), "byte {place}, bit {bit}");
            }
        }
    }

    /// One token has one text, or its hash would not find it.
    #[test]
    fn a_token_changed_in_one_character_is_not_ours() {
        let tokens = HmacRefreshTokens::new(&SECRET);
        let token = tokens.first(tenant(), session()).token;
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert!(
                tokens.read(std::str::from_utf8(&changed).unwrap()).is_none(),
                "character {place}"
            );
        }
        let last = token.len() - 1;
        for other in b'-'..=b'z' {
            let mut changed = token.clone().into_bytes();
            changed[last] = other;
            let text = String::from_utf8(changed).unwrap();
            assert_eq!(tokens.read(&text).is_some(), text == token, "{text}");
        }
    }

    #[test]
    fn rubbish_is_not_ours() {
        let tokens = HmacRefreshTokens::new(&SECRET);
        let token = tokens.first(tenant(), session()).token;
        for text in [
            "",
            "rt_",
            "rt",
            "ü",
            "rt_ü",
            &token[3..],
            &token[..109],
            &format!("{token}A"),
            &format!("{token}="),
            &format!(" {token}"),
            &format!("{token}\n"),
            &token.to_uppercase(),
            &token.replacen("rt_", "at_", 1),
            &format!("rt_{}", "A".repeat(TEXT)),
            &"rt_".repeat(10_000),
        ] {
            assert!(tokens.read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_token_of_another_secret_is_not_ours_unless_that_is_read_too() {
        let old = HmacRefreshTokens::new(&SECRET);
        let token = old.first(tenant(), session()).token;
        assert!(HmacRefreshTokens::new(&[8; 32]).read(&token).is_none());

        let rotated = HmacRefreshTokens::new(&[8; 32])
            .reading(&[9; 32])
            .reading(&SECRET);
        let read = rotated.read(&token).unwrap();
        assert!(HmacRefreshTokens::new(&[8; 32]).read(&read.child.token).is_some());
        assert!(old.read(&read.child.token).is_none());
        assert!(read.child == rotated.read(&token).unwrap().child);
    }
}
