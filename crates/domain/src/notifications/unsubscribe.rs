use crate::identity::Email;
use crate::kernel::{Seal, TenantId, UserId};
use crate::notifications::notice_type::{MailDefault, NoticeType};

/// What the digests of tags are made for.
const PLACE: &str = "link to unsubscribe";

/// Which mails a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnsubscribeFrom {
    /// Those of one type.
    Type(&'static str),
    /// The digests, of every type that is mailed in one.
    Digests,
}

impl UnsubscribeFrom {
    /// Everything that a link can end.
    pub fn all() -> impl Iterator<Item = Self> {
        let types = NoticeType::all().iter();
        let mailed = types.filter(|one| one.mail != MailDefault::SentOtherwise);
        mailed.map(|one| Self::Type(one.name)).chain([Self::Digests])
    }

    /// Its name, which the tag is made of. No type has the name of the digests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Type(name) => name,
            Self::Digests => "digests",
        }
    }

    /// What a token carries: a keyed digest of what it ends and of the address that got it. So a token that was mailed to a former address of
    /// the user ends nothing, and one that is read in a log does not help to guess the address.
    pub fn tag(self, seal: &dyn Seal, email: &Email) -> [u8; 32] {
        seal.digest(PLACE, self.tagged(email).as_bytes())
    }

    /// Whether a token carries it.
    pub fn has_tag(self, seal: &dyn Seal, email: &Email, tag: &[u8; 32]) -> bool {
        seal.is_digest(PLACE, self.tagged(email).as_bytes(), tag)
    }

    fn tagged(self, email: &Email) -> String {
        format!("{} {}", self.as_str(), email.as_str())
    }
}

/// What a token of a link says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentedUnsubscribe {
    /// The tenant whose mail has the link.
    pub tenant: TenantId,
    /// The user who got the mail.
    pub user: UserId,
    /// See [`UnsubscribeFrom::tag`].
    pub tag: [u8; 32],
}

/// Issues and recognizes the tokens of links to unsubscribe. They are signed and not stored, and end mails and nothing else; so they work
/// for as long as the address and the key do.
pub trait UnsubscribeTokens: Send + Sync {
    /// The token that ends these mails to a user.
    fn issue(&self, token: &PresentedUnsubscribe) -> String;

    /// What a token says; `None` when it was not issued here.
    fn read(&self, token: &str) -> Option<PresentedUnsubscribe>;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Digests of a key.
    struct Keyed(u8);

    impl Seal for Keyed {
        fn seal(&self, _: &str, plain: &[u8]) -> Vec<u8> {
            plain.to_vec()
        }

        fn open(&self, _: &str, sealed: &[u8]) -> Option<Vec<u8>> {
            Some(sealed.to_vec())
        }

        fn digest(&self, place: &str, plain: &[u8]) -> [u8; 32] {
            let mut hash = Sha256::new();
            hash.update([self.0]);
            hash.update(place);
            hash.update(plain);
            hash.finalize().into()
        }

        fn is_digest(&self, place: &str, plain: &[u8], digest: &[u8; 32]) -> bool {
            self.digest(place, plain) == *digest
        }

        fn is_current(&self, _: &str, _: &[u8]) -> bool {
            true
        }

        fn new_data_key(&self, _: &str) -> Vec<u8> {
            Vec::new()
        }

        fn with_data_key(&self, _: &str, _: &[u8]) -> Option<Arc<dyn Seal>> {
            None
        }
    }

    #[test]
    fn tags_differ_by_what_they_end_by_address_and_by_key() {
        let seals = [Keyed(1), Keyed(2)];
        let emails = ["ada@example.com", "bob@example.com"].map(|text| Email::stored(text.into()));
        let all: Vec<_> = UnsubscribeFrom::all().collect();
        let tags: BTreeSet<_> = all
            .iter()
            .flat_map(|from| emails.iter().map(move |email| (from, email)))
            .flat_map(|(from, email)| seals.iter().map(move |seal| from.tag(seal, email)))
            .collect();
        assert_eq!(tags.len(), 4 * all.len());
        let (from, email) = (UnsubscribeFrom::Digests, &emails[0]);
        assert!(from.has_tag(&seals[0], email, &from.tag(&seals[0], email)));
        assert!(!from.has_tag(&seals[1], email, &from.tag(&seals[0], email)));
        assert!(!all.contains(&UnsubscribeFrom::Type("security.alert")));
    }
}
