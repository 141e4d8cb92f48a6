//! Notifications of users about events: which events notify whom, what users choose, and when digests are mailed.
//!
//! May use: `kernel`, `identity`, `events`.

mod catalogue;
mod digest;
mod mail;
mod notice_type;
mod notification;
mod preferences;
mod unsubscribe;

pub use digest::{DigestDue, DigestSchedule, Rhythm};
pub use mail::NotificationMail;
pub use notice_type::{Audience, MailDefault, NoticeType, NotifyingEvents, may_read};
pub use notification::{DueBefore, Notification, Notifications};
pub use preferences::{
    Choice, ChoicePatch, Effective, MailChoice, NoticePreferences, Preferences, PreferencesPatch,
};
pub use unsubscribe::{PresentedUnsubscribe, UnsubscribeFrom, UnsubscribeTokens};
