use actix_web::web::ServiceConfig;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::identity::{RoleFilter, RoleName, User, UserFilter, UserPatch};
use tenantry_domain::kernel::{Patch, Role, UserId};
use tenantry_tenancy::Cx;
use tenantry_tenancy::identity::user::{self, AddUser, Added};
use utoipa::{IntoParams, ToSchema};

use crate::extract::page::PageParams;
use crate::v1::kernel::schema;
use crate::{
    Answer, Body, Ctx, Endpoint, Id, IdempotencyKey, IfMatch, IfNoneMatch, PageView, Paged, created, entity,
    no_content,
    permission::{EditSelf, ManageUsers, ReadUsers},
};

/// A user of a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "email": "ada@example.com", "full_name": "Ada Lovelace",
    "role": "admin", "custom_role": null, "is_active": true, "email_verified": false,
    "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z", "version": 1,
})))]
pub(crate) struct UserView {
    #[schema(value_type = Uuid)]
    id: UserId,
    email: String,
    full_name: String,
    #[schema(value_type = schema::Role)]
    role: Role,
    /// The custom role, which narrows the role.
    #[schema(required = true)]
    custom_role: Option<String>,
    /// Whether the user may log in.
    is_active: bool,
    /// Whether the e-mail address is verified.
    email_verified: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// The number of its versions; the `ETag`.
    version: i64,
}

/// A new user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AddedUser)]
pub(crate) struct AddedUserView {
    #[serde(flatten)]
    user: UserView,
    /// The generated password, which is shown once. Absent when the request had a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    password: Option<String>,
    /// When the password expires, unless it is changed before. Absent for a password that its user has chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    password_expires_at: Option<DateTime<Utc>>,
}

/// A user to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewUser, examples(json!({
    "email": "grace@example.com", "full_name": "Grace Hopper", "role": "member",
})))]
pub(crate) struct NewUserBody {
    #[schema(format = "email", max_length = 254)]
    email: String,
    #[schema(min_length = 1, max_length = 120)]
    full_name: String,
    /// `member` when absent.
    #[schema(value_type = schema::Role, required = false)]
    role: Option<Role>,
    /// The name of a custom role, which narrows the role. Needs the plan feature `custom_roles`.
    custom_role: Option<String>,
    /// When absent, a password is generated and shown once.
    #[schema(min_length = 12, max_length = 128)]
    password: Option<String>,
}

/// A change of a user. Only admins change `role`, `custom_role` and `is_active`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeUser, examples(json!({"full_name": "Ada King"})))]
pub(crate) struct ChangeUser {
    /// A new address is unverified.
    #[serde(default)]
    #[schema(value_type = String, required = false, format = "email", max_length = 254)]
    email: Patch<String>,
    #[serde(default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 120)]
    full_name: Patch<String>,
    #[serde(default)]
    #[schema(value_type = schema::Role, required = false)]
    role: Patch<Role>,
    /// The name of a custom role, which narrows the role; null: none. Needs the plan feature `custom_roles`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    custom_role: Patch<String>,
    #[serde(default)]
    #[schema(value_type = bool, required = false)]
    is_active: Patch<bool>,
}

/// Filters of users.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UserParams {
    /// Only users with this role.
    #[param(value_type = schema::Role, inline, required = false)]
    role: Option<Role>,
    /// Only active or only inactive users.
    is_active: Option<bool>,
    /// Only users with the custom role of this name.
    #[param(value_type = String, required = false, min_length = 1, max_length = 40, pattern = "^[a-z][a-z0-9_-]*$")]
    custom_role: Option<RoleName>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/users").get(list).post(create))
        .service(Endpoint::at("/users/{id}").get(read).patch(update).delete(delete));
}

/// List users
///
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/users", operation_id = "list_users", tag = "Users",
    params(UserParams, PageParams),
    responses(
        (status = 200, description = "The users, newest first.", body = PageView<UserView>, headers(("Link"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadUsers>, query: Paged<UserParams>) -> Answer {
    let filter = UserFilter {
        role: query.filter.role,
        is_active: query.filter.is_active,
        custom_role: query.filter.custom_role.clone().map(RoleFilter::Named),
    };
    let page = user::list(&cx, &filter, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(UserView::from)))
}

/// Create a user
///
/// A generated password is shown once. The password expires after `security.first_password_days` days, unless its user changes it: invite
/// users in place of choosing passwords for them. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/users", operation_id = "create_user", tag = "Users",
    params(IdempotencyKey), request_body = NewUserBody,
    responses(
        (status = 201, description = "The user.", body = AddedUserView, headers(("ETag"), ("Location"))),
    ),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "email_taken", "plan_limit_reached", "plan_feature_required"]))),
)]
pub(crate) async fn create(cx: Ctx<ManageUsers>, key: IdempotencyKey, body: Body<NewUserBody>) -> Answer {
    let create = async |cx: &Cx| user::create(cx, body.0.into()).await;
    key.once(&cx, create, |added| {
        let location = format!("/api/v1/users/{}", added.user.id);
        created(&location, Some(added.user.version), &AddedUserView::from(added))
    })
    .await
}

/// Get a user
///
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/users/{id}", operation_id = "get_user", tag = "Users",
    params(("id" = Uuid, Path), IfNoneMatch),
    responses((status = 200, description = "The user.", body = UserView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn read(cx: Ctx<ReadUsers>, id: Id<UserId>, seen: IfNoneMatch) -> Answer {
    let user = user::get(&cx, id.0).await?;
    Ok(seen.answer(user.version, &UserView::from(user)))
}

/// Update a user
///
/// A merge patch. Users may change themselves; admins may change every user. Only admins change `role`,
/// `custom_role` and `is_active`. One's own `email` is changed by `POST /auth/change-email`, which asks for the password. To change that
/// of a user whose second factor is less than 24 hours old, or who has one and registered without proving the address since, takes what `POST /users/{id}/reset-mfa` takes. Of a user who registered and has
/// not proven the address, role and address stay as they are (409 `registration_pending`).
#[utoipa::path(
    patch, path = "/api/v1/users/{id}", operation_id = "update_user", tag = "Users",
    params(("id" = Uuid, Path), IfMatch), request_body = ChangeUser,
    responses((status = 200, description = "The updated user.", body = UserView, headers(("ETag")))),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "email_taken", "last_admin", "registration_pending", "plan_feature_required"]))),
)]
pub(crate) async fn update(
    cx: Ctx<EditSelf>,
    id: Id<UserId>,
    when: IfMatch,
    body: Body<ChangeUser>,
) -> Answer {
    let user = user::update(&cx, id.0, &when.0, body.0.into()).await?;
    Ok(entity(user.version, &UserView::from(user)))
}

/// Delete a user
///
/// Ends the sessions of the user too. Minimum role: admin.
#[utoipa::path(
    delete, path = "/api/v1/users/{id}", operation_id = "delete_user", tag = "Users",
    params(("id" = Uuid, Path), IfMatch),
    responses((status = 204, description = "The user is deleted.")),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "last_admin"]))),
)]
pub(crate) async fn delete(cx: Ctx<ManageUsers>, id: Id<UserId>, when: IfMatch) -> Answer {
    user::delete(&cx, id.0, &when.0).await?;
    Ok(no_content())
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            email: user.email.as_str().to_owned(),
            full_name: user.full_name,
            role: user.role,
            custom_role: user.custom_role.map(|name| name.as_str().to_owned()),
            is_active: user.is_active,
            email_verified: user.email_verified,
            created_at: user.created_at,
            updated_at: user.updated_at,
            version: user.version,
        }
    }
}

impl From<Added> for AddedUserView {
    fn from(added: Added) -> Self {
        let password = added
            .generated_password
            .map(|password| password.reveal().to_owned());
        Self {
            password_expires_at: added.user.password_expires_at,
            user: added.user.into(),
            password,
        }
    }
}

impl From<NewUserBody> for AddUser {
    fn from(body: NewUserBody) -> Self {
        let role = body.role.unwrap_or(Role::Member);
        Self {
            email: body.email,
            full_name: body.full_name,
            role,
            custom_role: body.custom_role,
            password: body.password,
            is_own_password: false,
        }
    }
}

impl From<ChangeUser> for UserPatch {
    fn from(body: ChangeUser) -> Self {
        Self {
            email: body.email,
            full_name: body.full_name,
            role: body.role,
            custom_role: body.custom_role,
            is_active: body.is_active,
        }
    }
}
