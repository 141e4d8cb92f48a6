//! The portal: pages on which an admin manages endpoints of webhooks, opened with a token that opens nothing else.

use chrono::Duration;
use serde_json::json;
use tenantry_domain::kernel::{Invalid, Permission, Time};
use tenantry_domain::tenant::{PORTAL_TOKEN_SECONDS, PortalClaims, Refused};

use crate::customization::product_settings::{DEFAULT_SESSION_IDLE_MINUTES, SESSION_IDLE_MINUTES};
use crate::customization::setting;
use crate::kernel::step_up::RecentFactor;
use crate::webhooks::acting;
use crate::{Cx, UseCaseError};

/// How long a portal token lives when its issuer does not say it, in seconds.
pub const DEFAULT_PORTAL_SECONDS: i64 = 900;

/// Errors of the use case that issues portal tokens.
pub type PortalError = UseCaseError;

/// A portal token. It is stored nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedPortalToken {
    /// The token, for `Authorization: Bearer`.
    pub token: String,
    /// For how many seconds it is accepted.
    pub expires_in: i64,
    /// Until when it is accepted.
    pub expires_at: Time,
}

/// Issues a portal token in the name of the caller, who is an admin in a session. It ends with the session, and with the caller's role.
///
/// The factor is asked for here, since the bearer of the token, who has none to give, sees the secrets of new endpoints.
///
/// # Errors
/// [`PortalError`].
pub async fn open(cx: &Cx, expires_in: Option<i64>) -> Result<IssuedPortalToken, PortalError> {
    cx.require(Permission::OpenWebhookPortal)?;
    let issuer = cx.scope().user().zip(cx.scope().session());
    let (user, session) = issuer.ok_or(Refused::Forbidden)?;
    let _: RecentFactor = cx.require_recent_factor().await??;
    let expires_in = expires_in.unwrap_or(DEFAULT_PORTAL_SECONDS);
    if !PORTAL_TOKEN_SECONDS.contains(&expires_in) {
        let detail = "must be 60 to 3600 seconds";
        return Err(Invalid::one("/expires_in", "out_of_range", detail).into());
    }
    // An unused session is idle by then, which only its refresh would notice.
    let idle = setting::find(cx, &SESSION_IDLE_MINUTES).await?;
    let idle = idle.unwrap_or(DEFAULT_SESSION_IDLE_MINUTES);
    let expires_in = expires_in.min(i64::from(idle) * 60);
    let claims = PortalClaims {
        tenant: cx.scope().tenant(),
        user,
        session,
        issued_at: cx.now(),
        expires_at: cx.now() + Duration::seconds(expires_in),
    };
    cx.write(async |work| {
        acting::hold(cx, work).await??;
        let details = json!({ "expires_at": claims.expires_at });
        let event = cx.security("webhooks.portal_opened", "user", Some(user.uuid()), details);
        Ok::<_, PortalError>(work.audit().record(event).await?)
    })
    .await?;
    Ok(IssuedPortalToken {
        token: cx.ports().portal_tokens.sign(&claims),
        expires_in,
        expires_at: claims.expires_at,
    })
}
