use actix_web::{HttpRequest, HttpResponse, web::ServiceConfig};
use serde::Deserialize;
use tenantry_domain::identity::Password;
use tenantry_tenancy::admin::operator_password;
use utoipa::ToSchema;

use crate::extract::operator_permission as may;
use crate::v1::admin::mfa::attempt_of_caller;
use crate::v1::admin::operator::OperatorLoggedInView;
use crate::{Answer, Body, Endpoint, OperatorCtx};

/// The present password of an operator and the new one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeOperatorPassword, examples(json!({
    "current_password": "correct horse battery staple", "new_password": "a staple of batteries",
})))]
pub(crate) struct ChangeOperatorPasswordBody {
    current_password: String,
    #[schema(min_length = 12, max_length = 128)]
    new_password: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::operator("/admin/change-password").post(change));
}

/// Change an operator's own password
///
/// Ends the operator's tokens, logins that wait for a second factor, and accesses to tenants. The access token of the answer takes the place
/// of the present one, and expires when that does. The new password does not expire. A wrong present password, and one that has
/// expired, is 401 `invalid_credentials` and counts as a failed login. With a recent second factor of an operator who has one.
#[utoipa::path(
    post, path = "/api/v1/admin/change-password", operation_id = "change_operator_password", tag = "Operators",
    request_body = ChangeOperatorPasswordBody,
    responses((status = 200, description = "The new access token and the operator.", body = OperatorLoggedInView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "account_locked", "rate_limited", "invalid_credentials"]))),
)]
pub(crate) async fn change(
    cx: OperatorCtx<may::ChangeOwnPassword>,
    http: HttpRequest,
    body: Body<ChangeOperatorPasswordBody>,
) -> Answer {
    let attempt = attempt_of_caller(&cx, &http).await?;
    let current = Password::presented(body.0.current_password);
    let outcome = operator_password::change(&cx, current, body.0.new_password).await;
    let login = attempt.settle(outcome).await?;
    Ok(HttpResponse::Ok().json(OperatorLoggedInView::from(login)))
}
