use sha2::{Digest as _, Sha256};

use crate::identity::Email;
use crate::kernel::{TenantId, UserId};
use crate::notifications::digest::Rhythm;
use crate::notifications::notice_type::{MailDefault, NoticeType};

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

    /// What a token carries: a digest of what it ends and of the address that got it. So a token that was mailed to a former address of the
    /// user ends nothing.
    pub fn tag(self, email: &Email) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.as_str());
        hash.update([0]);
        hash.update(email.as_str());
        hash.finalize().into()
    }

    /// Whether a rhythm of mails is ended with the digests.
    pub const fn ends(self, rhythm: Option<Rhythm>) -> bool {
        matches!((self, rhythm), (Self::Digests, Some(_)))
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

    use super::*;

    #[test]
    fn tags_differ_by_what_they_end_and_by_address() {
        let emails = ["ada@example.com", "bob@example.com"].map(|text| Email::stored(text.into()));
        let all: Vec<_> = UnsubscribeFrom::all().collect();
        let tags: BTreeSet<_> = all
            .iter()
            .flat_map(|from| emails.iter().map(move |email| from.tag(email)))
            .collect();
        assert_eq!(tags.len(), 2 * all.len());
        assert!(!all.contains(&UnsubscribeFrom::Type("security.alert")));
    }
}
