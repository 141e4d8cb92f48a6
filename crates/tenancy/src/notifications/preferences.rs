//! What a user wants to be notified of, and how.

use tenantry_domain::notifications::{Effective, NoticeType, Preferences, PreferencesPatch};

use crate::notifications::inbox::{NotificationError, own};
use crate::notifications::mail_terms::{MailTerms, preferences_for_update, preferences_of};
use crate::{Cx, Precondition};

/// What holds for a user: of each type, in the order of the catalogue.
#[derive(Debug, Clone)]
pub struct EffectivePreferences {
    /// What was chosen.
    pub preferences: Preferences,
    /// What holds of each type.
    pub types: Vec<(&'static NoticeType, Effective)>,
}

impl EffectivePreferences {
    fn of(preferences: Preferences, terms: MailTerms) -> Self {
        let types = NoticeType::all().iter();
        let types = types.map(|notice| (notice, preferences.effective(notice, terms.digest)));
        Self {
            types: types.collect(),
            preferences,
        }
    }
}

/// The preferences of the caller.
///
/// # Errors
/// [`NotificationError`].
pub async fn get(cx: &Cx) -> Result<EffectivePreferences, NotificationError> {
    let user = own(cx)?;
    let terms = MailTerms::of(cx).await?;
    let preferences = cx.read(async |work| preferences_of(cx, work, user).await).await?;
    Ok(EffectivePreferences::of(preferences, terms))
}

/// Changes the preferences of the caller. Mail that was stopped because the address was refused is sent again.
///
/// # Errors
/// [`NotificationError`]; see [`Preferences::apply`].
pub async fn update(
    cx: &Cx,
    when: &Precondition,
    patch: PreferencesPatch,
) -> Result<EffectivePreferences, NotificationError> {
    let user = own(cx)?;
    let terms = MailTerms::of(cx).await?;
    let patch = &patch;
    let preferences = cx
        .write(async |work| {
            let before = preferences_for_update(cx, work, user).await?;
            when.check(before.version)?;
            let mut after = before.clone();
            after.apply(patch.clone(), cx.now())?;
            work.notice_preferences().store(&after).await?;
            let (action, states) = (
                "notification_preferences.updated",
                (&before.choices, &after.choices),
            );
            let entry = cx.changed(action, "user", user.uuid(), Some(states.0), Some(states.1));
            work.audit().record(entry).await?;
            Ok::<_, NotificationError>(after)
        })
        .await?;
    Ok(EffectivePreferences::of(preferences, terms))
}
