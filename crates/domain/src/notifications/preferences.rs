use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::Duration;
use serde::{Deserialize, Serialize};

use crate::kernel::name::named_enum;
use crate::kernel::{Check, Invalid, Patch, StoreError, Time, UserId, pointer_segment};
use crate::notifications::digest::Rhythm;
use crate::notifications::notice_type::{MailDefault, NoticeType};
use crate::notifications::unsubscribe::UnsubscribeFrom;

named_enum! {
    /// How notifications of a type are mailed to a user.
    pub enum MailChoice {
        /// Not at all.
        Off = "off",
        /// Each in a mail of its own, at once.
        Instant = "instant",
        /// In a daily digest.
        Daily = "daily",
        /// In a weekly digest.
        Weekly = "weekly",
    }
}

impl MailChoice {
    /// The digest in which notifications are mailed.
    pub const fn rhythm(self) -> Option<Rhythm> {
        match self {
            Self::Off | Self::Instant => None,
            Self::Daily => Some(Rhythm::Daily),
            Self::Weekly => Some(Rhythm::Weekly),
        }
    }
}

/// What a user has chosen of a type. What is absent has its default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Whether notifications are in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_app: Option<bool>,
    /// How they are mailed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailChoice>,
}

/// What holds for notifications of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effective {
    /// Whether they are in the list.
    pub in_app: bool,
    /// How they are mailed.
    pub mail: MailChoice,
    /// Whether the event is mailed to admins in any case, so that no notification is.
    pub mail_fixed: bool,
}

/// A change of a [`Choice`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChoicePatch {
    /// See [`Choice::in_app`].
    pub in_app: Patch<bool>,
    /// See [`Choice::mail`].
    pub mail: Patch<MailChoice>,
}

/// A change of preferences, by the names of types. `None` gives a type its defaults.
pub type PreferencesPatch = BTreeMap<String, Option<ChoicePatch>>;

/// What a user wants to be notified of, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preferences {
    /// Whose preferences they are.
    pub user_id: UserId,
    /// What was chosen, by the names of types.
    pub choices: BTreeMap<String, Choice>,
    /// Whether a link has ended digests, also of types that are added later.
    pub digests_off: bool,
    /// How many mails in succession the mail server has refused for good.
    pub refusals: u32,
    /// A keyed digest of the address that was refused.
    pub refused_address: Option<Vec<u8>>,
    /// Since when no notifications are mailed, because the address was refused. They are again after [`Preferences::STOPPED_DAYS`].
    pub mail_stopped_at: Option<Time>,
    /// When they were stored first.
    pub created_at: Time,
    /// When they were last changed.
    pub updated_at: Time,
    /// Counts the changes, from 1; 0 of what was never stored.
    pub version: i64,
}

impl Preferences {
    /// After how many refused mails in succession no more are sent.
    pub const MOST_REFUSALS: u32 = 3;

    /// After how many days a refused address is tried again. One more refusal stops its mail for as long.
    pub const STOPPED_DAYS: i64 = 30;

    /// The defaults of a user.
    pub const fn new(user_id: UserId, now: Time) -> Self {
        Self {
            user_id,
            choices: BTreeMap::new(),
            digests_off: false,
            refusals: 0,
            refused_address: None,
            mail_stopped_at: None,
            created_at: now,
            updated_at: now,
            version: 0,
        }
    }

    /// What holds for a type. `digest` is what the tenant has set for types that are mailed in a digest.
    pub fn effective(&self, notice: &NoticeType, digest: MailChoice) -> Effective {
        let choice = self.choices.get(notice.name).copied().unwrap_or_default();
        let chosen = |default| choice.mail.unwrap_or(default);
        let (mail, mail_fixed) = match notice.mail {
            MailDefault::Off => (chosen(MailChoice::Off), false),
            MailDefault::Instant => (chosen(MailChoice::Instant), false),
            MailDefault::Digest if self.digests_off => (chosen(MailChoice::Off), false),
            MailDefault::Digest => (chosen(digest), false),
            MailDefault::SentOtherwise => (MailChoice::Instant, true),
        };
        Effective {
            in_app: choice.in_app.unwrap_or(true),
            mail,
            mail_fixed,
        }
    }

    /// Applies a change, all of it or nothing. A user who changes anything gets mail again that was stopped; one who chooses a digest, or the
    /// default of a mail, gets digests again of types that are added later.
    ///
    /// # Errors
    /// `unknown_notification_type`, and `mail_fixed` for a type that is mailed to admins in any case; pointers are below `/notifications`.
    pub fn apply(&mut self, patch: PreferencesPatch, now: Time) -> Result<(), Invalid> {
        let mut check = Check::new();
        let mut choices = self.choices.clone();
        let mut digests_off = self.digests_off;
        for (name, change) in patch {
            let pointer = format!("/notifications/{}", pointer_segment(&name));
            let Some(notice) = NoticeType::find(&name) else {
                let detail = "must be a type that GET /api/v1/auth/me/preferences lists";
                check.fail(&pointer, "unknown_notification_type", detail);
                continue;
            };
            let mut choice = choices.remove(&name).unwrap_or_default();
            let change = change.unwrap_or(ChoicePatch {
                in_app: Patch::Clear,
                mail: Patch::Clear,
            });
            let is_fixed = notice.mail == MailDefault::SentOtherwise;
            check.require(
                !is_fixed || !matches!(change.mail, Patch::Set(_)),
                &format!("{pointer}/mail"),
                "mail_fixed",
                "must be absent: this is mailed to all admins",
            );
            digests_off &= match &change.mail {
                Patch::Keep => true,
                Patch::Clear => false,
                Patch::Set(mail) => mail.rhythm().is_none(),
            };
            change.in_app.apply(&mut choice.in_app);
            change.mail.apply(&mut choice.mail);
            if choice != Choice::default() {
                choices.insert(name, choice);
            }
        }
        check.verdict()?;
        self.choices = choices;
        self.digests_off = digests_off;
        self.resume_mail();
        self.touch(now);
        Ok(())
    }

    /// Ends the mails that a link is about, whatever the tenant has set at present: a later change of its settings brings none back. Returns
    /// whether that changes anything.
    pub fn unsubscribe(&mut self, from: UnsubscribeFrom, now: Time) -> bool {
        let ended = NoticeType::all().iter().filter(|notice| match from {
            UnsubscribeFrom::Type(name) => notice.name == name,
            UnsubscribeFrom::Digests => self.is_for_digests(notice),
        });
        let ended: Vec<_> = ended
            .filter(|notice| notice.mail != MailDefault::SentOtherwise)
            .collect();
        let ends_digests = from == UnsubscribeFrom::Digests && !self.digests_off;
        self.digests_off |= ends_digests;
        let mut is_changed = ends_digests;
        for notice in ended {
            let choice = self.choices.entry(notice.name.to_owned()).or_default();
            is_changed |= choice.mail != Some(MailChoice::Off);
            choice.mail = Some(MailChoice::Off);
        }
        if is_changed {
            self.touch(now);
        }
        is_changed
    }

    /// Whether notifications of a type are in digests, by choice or where the setting of the tenant says so.
    fn is_for_digests(&self, notice: &NoticeType) -> bool {
        match self.choices.get(notice.name).and_then(|choice| choice.mail) {
            Some(mail) => mail.rhythm().is_some(),
            None => notice.mail == MailDefault::Digest,
        }
    }

    /// Notes that the mail server has refused a mail to an address for good.
    pub fn note_refusal(&mut self, address: &[u8], now: Time) {
        if self.refused_address.as_deref() != Some(address) {
            self.resume_mail();
        }
        self.refused_address = Some(address.to_vec());
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals >= Self::MOST_REFUSALS && !self.is_stopped_for(address, now) {
            self.mail_stopped_at = Some(now);
        }
        self.touch(now);
    }

    /// Notes that the mail server has taken a mail. Returns whether that changes anything.
    pub fn note_acceptance(&mut self, now: Time) -> bool {
        let is_changed = self.refusals > 0;
        if is_changed {
            self.resume_mail();
            self.touch(now);
        }
        is_changed
    }

    /// Whether no mail is sent to an address, which is given as its keyed digest. Another address than the one that was refused gets mail.
    pub fn is_stopped_for(&self, address: &[u8], now: Time) -> bool {
        let end = self
            .mail_stopped_at
            .map(|since| since + Duration::days(Self::STOPPED_DAYS));
        end.is_some_and(|end| now < end) && self.refused_address.as_deref() == Some(address)
    }

    fn resume_mail(&mut self) {
        self.refusals = 0;
        self.refused_address = None;
        self.mail_stopped_at = None;
    }

    const fn touch(&mut self, now: Time) {
        self.updated_at = now;
        self.version += 1;
    }
}

/// Preferences of the users of the scope's tenant.
#[async_trait]
pub trait NoticePreferences: Send {
    /// The preferences of a user; `None` when nothing was ever chosen.
    async fn find(&mut self, user: UserId) -> Result<Option<Preferences>, StoreError>;

    /// Stores preferences of version 1, which are new, or of a later version.
    async fn store(&mut self, preferences: &Preferences) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn now() -> Time {
        "2026-01-31T12:00:00Z".parse().unwrap()
    }

    fn preferences() -> Preferences {
        Preferences::new(Uuid::from_u128(1).into(), now())
    }

    fn patch(name: &str, in_app: Patch<bool>, mail: Patch<MailChoice>) -> PreferencesPatch {
        [(name.to_owned(), Some(ChoicePatch { in_app, mail }))].into()
    }

    #[test]
    fn choice_holds_until_it_is_cleared() {
        let (mut chosen, assigned) = (preferences(), NoticeType::find("task.assigned").unwrap());
        assert_eq!(
            chosen.effective(assigned, MailChoice::Weekly).mail,
            MailChoice::Instant
        );
        let daily = patch("task.assigned", Patch::Set(false), Patch::Set(MailChoice::Daily));
        chosen.apply(daily, now()).unwrap();
        let effective = chosen.effective(assigned, MailChoice::Weekly);
        assert_eq!(
            (effective.in_app, effective.mail, chosen.version),
            (false, MailChoice::Daily, 1)
        );
        chosen
            .apply([("task.assigned".to_owned(), None)].into(), now())
            .unwrap();
        assert!(chosen.choices.is_empty());
        assert!(chosen.effective(assigned, MailChoice::Off).in_app);
    }

    #[test]
    fn default_of_digests_is_the_setting_of_the_tenant() {
        let added = NoticeType::find("project.member_added").unwrap();
        for setting in [MailChoice::Off, MailChoice::Daily, MailChoice::Weekly] {
            assert_eq!(preferences().effective(added, setting).mail, setting);
        }
    }

    #[test]
    fn mail_that_admins_always_get_is_no_choice() {
        let mut chosen = preferences();
        let off = patch("security.alert", Patch::Keep, Patch::Set(MailChoice::Off));
        let Invalid(errors) = chosen.apply(off, now()).unwrap_err();
        assert_eq!(
            (errors[0].pointer.as_str(), errors[0].code),
            ("/notifications/security.alert/mail", "mail_fixed")
        );
        let hidden = patch("security.alert", Patch::Set(false), Patch::Keep);
        chosen.apply(hidden, now()).unwrap();
        let Invalid(errors) = chosen
            .apply([("x/y".to_owned(), None)].into(), now())
            .unwrap_err();
        assert_eq!(
            (errors[0].pointer.as_str(), errors[0].code),
            ("/notifications/x~1y", "unknown_notification_type")
        );
        assert!(!chosen.unsubscribe(UnsubscribeFrom::Type("security.alert"), now()));
    }

    /// The tenant mails no digests at the time of the click, and mails them again afterwards.
    #[test]
    fn ended_digests_stay_ended_when_the_setting_changes() {
        let added = NoticeType::find("project.member_added").unwrap();
        let mut chosen = preferences();
        assert_eq!(chosen.effective(added, MailChoice::Off).mail, MailChoice::Off);
        assert!(chosen.unsubscribe(UnsubscribeFrom::Digests, now()));
        assert!(!chosen.unsubscribe(UnsubscribeFrom::Digests, now()));
        assert_eq!(chosen.effective(added, MailChoice::Weekly).mail, MailChoice::Off);
        // A type that a later version adds has no choice.
        chosen.choices.clear();
        assert_eq!(chosen.effective(added, MailChoice::Weekly).mail, MailChoice::Off);
        let assigned = NoticeType::find("task.assigned").unwrap();
        assert_eq!(
            chosen.effective(assigned, MailChoice::Weekly).mail,
            MailChoice::Instant
        );
        chosen
            .apply([("project.member_added".to_owned(), None)].into(), now())
            .unwrap();
        assert_eq!(
            chosen.effective(added, MailChoice::Weekly).mail,
            MailChoice::Weekly
        );
        let mut of_type = preferences();
        assert!(of_type.unsubscribe(UnsubscribeFrom::Type("project.member_added"), now()));
        assert_eq!(of_type.effective(added, MailChoice::Daily).mail, MailChoice::Off);
    }

    #[test]
    fn refused_address_gets_no_more_mail_until_it_changes() {
        let mut chosen = preferences();
        for _ in 1..Preferences::MOST_REFUSALS {
            chosen.note_refusal(b"old", now());
            assert!(!chosen.is_stopped_for(b"old", now()));
        }
        chosen.note_refusal(b"old", now());
        assert!(chosen.is_stopped_for(b"old", now()) && !chosen.is_stopped_for(b"new", now()));
        // It is tried again later, and stopped again by one more refusal.
        let later = now() + Duration::days(Preferences::STOPPED_DAYS);
        assert!(chosen.is_stopped_for(b"old", later - Duration::seconds(1)));
        assert!(!chosen.is_stopped_for(b"old", later));
        chosen.note_refusal(b"old", later);
        assert!(chosen.is_stopped_for(b"old", later) && chosen.mail_stopped_at == Some(later));
        chosen.note_refusal(b"new", now());
        assert!(!chosen.is_stopped_for(b"new", now()) && chosen.refusals == 1);
        assert!(chosen.note_acceptance(now()) && !chosen.note_acceptance(now()));
        assert_eq!(chosen.refusals, 0);
    }
}
