use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use tenantry_domain::kernel::ErrorCode;
use tenantry_tenancy::admin::operator_rows::REASON_LENGTH;
use utoipa::{
    IntoParams,
    openapi::{
        ObjectBuilder, Required, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
    },
};

use crate::ApiError;
use crate::extract::hints;

/// The header that says why an operator reads rows of tenants.
const HEADER: &str = "X-Bypass-Reason";

/// Why an operator reads rows of tenants: mandatory, and stored with the read.
#[derive(Debug, Clone)]
pub(crate) struct BypassReason(pub String);

impl FromRequest for BypassReason {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(read(request))
    }
}

fn read(request: &HttpRequest) -> Result<BypassReason, ApiError> {
    let reason = hints::single(request.headers(), HEADER)?.unwrap_or_default();
    if reason.is_empty() {
        return Err(ApiError::new(ErrorCode::BypassReasonRequired));
    }
    Ok(BypassReason(reason.to_owned()))
}

impl IntoParams for BypassReason {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(*REASON_LENGTH.start()))
            .max_length(Some(*REASON_LENGTH.end()))
            .examples([serde_json::json!("ticket 4711: a user cannot log in")]);
        let header = ParameterBuilder::new()
            .name(HEADER)
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .description(Some(
                "Why the rows are read. It is written to the operators' log. With `tenant_id` the audit log of this tenant shows it, too. Without, \
                 the logs of the tenants whose rows are shown have only the id of the entry in the operators' log.",
            ))
            .schema(Some(text.build()));
        vec![header.build()]
    }
}
