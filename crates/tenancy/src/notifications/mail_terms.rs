//! What decides whether and how a user is notified: what the tenant has set, what the user has chosen, and the custom role.

use tenantry_domain::identity::{CustomRole, User};
use tenantry_domain::kernel::{StoreError, UserId};
use tenantry_domain::notifications::{DigestSchedule, MailChoice, Preferences};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Tenant;

use crate::Cx;
use crate::customization::product_settings::{DIGEST_HOUR, EMAIL_DIGEST};
use crate::customization::setting;

/// The settings of a tenant that mails of notifications depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct MailTerms {
    /// How types are mailed that are mailed in a digest by default.
    pub digest: MailChoice,
    /// The hour of digests in the time zone of the tenant.
    hour: u32,
}

impl MailTerms {
    /// Of the tenant of the context. A service without the settings mails no digests by default.
    pub async fn of(cx: &Cx) -> Result<Self, StoreError> {
        Ok(Self {
            digest: setting::find(cx, &EMAIL_DIGEST).await?.unwrap_or(MailChoice::Off),
            hour: setting::find(cx, &DIGEST_HOUR).await?.unwrap_or(8),
        })
    }

    /// When digests of the tenant are due.
    pub fn schedule(&self, tenant: &Tenant) -> DigestSchedule {
        DigestSchedule::new(&tenant.settings.timezone, self.hour)
    }
}

/// The preferences of a user, or the defaults.
pub(super) async fn preferences_of(
    cx: &Cx,
    work: &mut Work,
    user: UserId,
) -> Result<Preferences, StoreError> {
    let found = work.notice_preferences().find(user).await?;
    Ok(found.unwrap_or_else(|| Preferences::new(user, cx.now())))
}

/// The same, locked until the transaction ends. The lock is on the user: there may be no preferences yet.
pub(super) async fn preferences_for_update(
    cx: &Cx,
    work: &mut Work,
    user: UserId,
) -> Result<Preferences, StoreError> {
    work.users().find_for_update(user).await?;
    let found = work.notice_preferences().find(user).await?;
    Ok(found.unwrap_or_else(|| Preferences::new(user, cx.now())))
}

/// The custom role of a user.
pub(super) async fn role_of(work: &mut Work, user: &User) -> Result<Option<CustomRole>, StoreError> {
    match &user.custom_role {
        Some(name) => work.custom_roles().find(name).await,
        None => Ok(None),
    }
}
