use std::collections::BTreeMap;

use actix_web::http::header;
use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::Patch;
use tenantry_domain::notifications::{ChoicePatch, MailChoice};
use tenantry_tenancy::notifications::preferences::{self, EffectivePreferences};
use utoipa::ToSchema;

use crate::extract::etag::tag_of;
use crate::{Answer, Body, Ctx, Endpoint, IfMatch, IfNoneMatch, permission::ManageOwnAccount};

/// What the caller wants to be notified of, and how.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Preferences, examples(json!({
    "notifications": {"task.assigned": {
        "description": "A task was assigned to you.", "in_app": true, "mail": "instant", "mail_fixed": false,
    }},
    "mail_stopped_at": null, "version": 1,
})))]
pub(crate) struct PreferencesView {
    /// Each type of notifications, by its name.
    notifications: BTreeMap<&'static str, ChoiceView>,
    /// Since when no notifications are mailed, because the mail server has refused the address three times. They are again after 30
    /// days, or with a change of the preferences or of the address.
    #[schema(required = true)]
    mail_stopped_at: Option<DateTime<Utc>>,
    /// The number of changes.
    #[schema(minimum = 0)]
    version: i64,
}

/// What holds for a type of notifications.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotificationPreference)]
pub(crate) struct ChoiceView {
    /// A sentence about the type.
    description: &'static str,
    /// Whether they are in the list.
    in_app: bool,
    /// How they are mailed: `off`, `instant`, or in a digest, `daily` or `weekly`.
    #[schema(value_type = String, pattern = "^(off|instant|daily|weekly)$")]
    mail: MailChoice,
    /// Whether admins get the mail in any case, so that it cannot be chosen.
    mail_fixed: bool,
}

/// A merge patch of preferences.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangePreferences, examples(json!({"notifications": {"task.assigned": {"mail": "daily"}}})))]
pub(crate) struct ChangeBody {
    /// Choices by the names of types. Null gives a type its defaults.
    #[schema(value_type = BTreeMap<String, ChoiceBody>)]
    notifications: BTreeMap<String, Option<ChoiceBody>>,
}

/// A merge patch of what was chosen of a type. Null gives a field its default.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeNotificationPreference)]
pub(crate) struct ChoiceBody {
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    in_app: Patch<bool>,
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^(off|instant|daily|weekly)$")]
    mail: Patch<MailChoice>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::at("/auth/me/preferences").get(read).patch(update));
}

/// Get own preferences
///
/// What the credential's user is notified of, and how. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/auth/me/preferences", operation_id = "get_preferences", tag = "Notifications",
    params(IfNoneMatch),
    responses((status = 200, description = "The preferences.", body = PreferencesView, headers(("ETag")))),
    security(("bearer" = [])),
)]
pub(crate) async fn read(cx: Ctx<ManageOwnAccount>, seen: IfNoneMatch) -> Answer {
    let view = PreferencesView::from(preferences::get(&cx).await?);
    Ok(seen.answer_of(view.version, &view))
}

/// Change own preferences
///
/// A merge patch: what is absent is unchanged, and null gives a type or a field its default. An unknown type is 422
/// `unknown_notification_type`, and the mail of a type that all admins get in any case is 422 `mail_fixed`. Also possible in a suspended
/// tenant. Minimum role: viewer.
#[utoipa::path(
    patch, path = "/api/v1/auth/me/preferences", operation_id = "update_preferences", tag = "Notifications",
    params(IfMatch), request_body = ChangeBody,
    responses((status = 200, description = "The preferences.", body = PreferencesView, headers(("ETag")))),
    security(("bearer" = [])),
)]
pub(crate) async fn update(cx: Ctx<ManageOwnAccount>, when: IfMatch, body: Body<ChangeBody>) -> Answer {
    let patch = body.0.notifications.into_iter();
    let patch = patch.map(|(name, choice)| (name, choice.map(ChoicePatch::from)));
    let changed = preferences::update(&cx, &when.0, patch.collect()).await?;
    let view = PreferencesView::from(changed);
    Ok(HttpResponse::Ok()
        .insert_header((header::ETAG, tag_of(view.version, &view)))
        .json(view))
}

impl From<ChoiceBody> for ChoicePatch {
    fn from(body: ChoiceBody) -> Self {
        Self {
            in_app: body.in_app,
            mail: body.mail,
        }
    }
}

impl From<EffectivePreferences> for PreferencesView {
    fn from(all: EffectivePreferences) -> Self {
        let choices = all.types.into_iter().map(|(notice, effective)| {
            let view = ChoiceView {
                description: notice.about,
                in_app: effective.in_app,
                mail: effective.mail,
                mail_fixed: effective.mail_fixed,
            };
            (notice.name, view)
        });
        Self {
            notifications: choices.collect(),
            mail_stopped_at: all.preferences.mail_stopped_at,
            version: all.preferences.version,
        }
    }
}
