//! Links that end mails of notifications, without a login.

use std::sync::Arc;

use serde_json::json;
use tenantry_domain::kernel::{Invalid, Language, Line, Permission, SystemScope, UserId};
use tenantry_domain::notifications::UnsubscribeFrom;

use crate::notifications::inbox::NotificationError;
use crate::notifications::mail_terms::preferences_for_update;
use crate::{Cx, Origin, Tenancy};

const BECAUSE: SystemScope = SystemScope::because("the recipient of a mail ends mails like it");

/// What the bearer of a link sees.
#[derive(Debug, Clone)]
pub struct Unsubscription {
    cx: Cx,
    user: UserId,
    /// What the link ends.
    pub from: UnsubscribeFrom,
    /// The language of the tenant.
    pub language: Language,
    /// The name of the tenant.
    pub tenant: Line,
}

/// Opens a link, which changes nothing: mail programs look at links before people do.
///
/// # Errors
/// `/query/token` for a token that was not issued here, or of an address that the user does not have any more; those of the store.
pub async fn open(
    app: &Arc<Tenancy>,
    token: &str,
    origin: Origin,
) -> Result<Unsubscription, NotificationError> {
    let presented = app.ports.unsubscribe_tokens.read(token).ok_or_else(unusable)?;
    let entered = Cx::enter(app, BECAUSE, presented.tenant).await?;
    let cx = entered.ok_or_else(unusable)?.with_origin(origin);
    let (tenant, user) = cx
        .read(async |work| {
            let tenant = work.tenants().current().await?;
            let user = work.users().find(presented.user).await?;
            Ok::<_, NotificationError>(tenant.zip(user).ok_or_else(unusable)?)
        })
        .await?;
    let seal = app.ports.seal.as_ref();
    let from = UnsubscribeFrom::all().find(|from| from.has_tag(seal, &user.email, &presented.tag));
    Ok(Unsubscription {
        cx,
        user: user.id,
        from: from.ok_or_else(unusable)?,
        language: Language::of(&tenant.settings.locale),
        tenant: Line::of(&tenant.name),
    })
}

/// Ends the mails. Repeated, it changes nothing. It also works in a suspended tenant.
///
/// # Errors
/// [`NotificationError`].
pub async fn end_mails(of: &Unsubscription) -> Result<(), NotificationError> {
    let cx = &of.cx;
    cx.require(Permission::KeepNotifications)?;
    cx.write(async |work| {
        let mut preferences = preferences_for_update(cx, work, of.user).await?;
        if !preferences.unsubscribe(of.from, cx.now()) {
            return Ok(());
        }
        work.notice_preferences().store(&preferences).await?;
        let (action, details) = (
            "notification_preferences.unsubscribed",
            json!({"from": of.from.as_str()}),
        );
        let entry = cx.security(action, "user", Some(of.user.uuid()), details);
        Ok(work.audit().record(entry).await?)
    })
    .await
}

fn unusable() -> Invalid {
    let detail = "must be the token of a link in a mail that was sent to the present address of a user";
    Invalid::one("/query/token", "invalid_token", detail)
}
