use actix_web::{
    Error, HttpMessage, HttpRequest,
    body::{BodySize, BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{Method, StatusCode, header::HeaderMap},
    middleware::Next,
};
use tenantry_domain::kernel::ErrorCode;
use tenantry_domain::tenant::{Admission, TenantScope};
use tenantry_domain::usage::Call;
use tenantry_tenancy::Origin;
use tenantry_tenancy::tenant::access::{self, ResolvedBy};
use tenantry_tenancy::tenant::support_access;

use crate::extract::{api_key, hints, origin};
use crate::middleware::{limits, probing, quota, request::RequestContext};
use crate::ofrep::event_stream;
use crate::{Api, ApiError};

/// What authentication leaves in the extensions of a request.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    /// The proof.
    pub scope: TenantScope,
    /// From where the request came.
    pub origin: Origin,
}

/// Admits the bearer of an access token or an API key within the limits of tenant and user and the tenant's quota of calls, or answers in the route's stead. The body has not been read.
pub(crate) async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let admitted = request.extensions().contains::<Admitted>();
    if admitted {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    if let Err(error) = admit(request.request()).await {
        return Ok(request.error_response(error));
    }
    let response = next.call(request).await?.map_into_boxed_body();
    meter(&response);
    Ok(response)
}

/// Counts the call before its answer is sent, unless it was refused for being too much or failed through no fault of the
/// caller's.
fn meter(response: &ServiceResponse<BoxBody>) {
    let status = response.status();
    if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        return;
    }
    let extensions = response.request().extensions();
    let (Some(admitted), Ok(api)) = (extensions.get::<Admitted>(), Api::of(response.request())) else {
        return;
    };
    watch(response, admitted, &api);
    // What operators do is not billed.
    if admitted.scope.support_access().is_some() {
        return;
    }
    api.app.ports.calls.note(Call {
        tenant: admitted.scope.tenant(),
        // Programs are not counted as active users.
        user: admitted
            .scope
            .user()
            .filter(|_| admitted.scope.session().is_some()),
        at: api.app.ports.clock.now(),
    });
}

/// Counts what the rules of suspicious activity count: what is read, and refusals. It costs a lock that is seldom contended.
fn watch(response: &ServiceResponse<BoxBody>, admitted: &Admitted, api: &Api) {
    let (status, method) = (response.status(), response.request().method());
    let (activity, now) = (api.app.activity(), api.app.ports.clock.now());
    if probing::is_probe(response) {
        activity.note_refused(&admitted.scope, &admitted.origin, now);
    } else if status.is_success() && method == Method::GET {
        let bytes = match response.response().body().size() {
            BodySize::Sized(bytes) => bytes,
            BodySize::None | BodySize::Stream => 0,
        };
        activity.note_read(&admitted.scope, &admitted.origin, bytes, now);
    }
}

/// The same for a scope of routes. A path that leads nowhere is passed on to its 404: no handler will run.
pub(crate) async fn authenticate_known(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if request.match_pattern().is_none() {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    authenticate(request, next).await
}

async fn admit(request: &HttpRequest) -> Result<(), ApiError> {
    let api = Api::of(request)?;
    let context = RequestContext::of(request)?;
    let (credential, second) = if request.match_pattern().as_deref() == Some(event_stream::PATH) {
        let second = event_stream::second_token(request, &api)?;
        (event_stream::credential(request, &api)?, second)
    } else {
        (api_key::presented(request.headers(), &api)?, None)
    };
    let hints = hints::read(request, &api)?;
    let origin = origin::of(request, &api);
    let admission = api_key::admit(request, &api, &credential, &origin, context.id.clone()).await?;
    context.identify(&admission.scope);
    // Before the mismatch, which leaves an entry in the audit log each time.
    limits::take_of_tenant(request, &api, &admission).await?;
    enter_as_support(request, &api, &admission, &origin).await?;
    access::agree(&api.app, &admission, &hints, &origin).await?;
    if let Some(second) = second {
        access::agree_with_token(&api.app, &admission, &second, &origin).await?;
    }
    if admission.scope.support_access().is_none() {
        quota::take_call(request, &api, &admission).await?;
    }
    let mut extensions = request.extensions_mut();
    extensions.insert(ResolvedBy::Credential);
    extensions.insert(Admitted {
        scope: admission.scope,
        origin,
    });
    Ok(())
}

/// Records a request of an operator with support access in the tenant, before it is done or refused for its address or for the tenant that it
/// names, and checks the address. Requests of others are left alone.
pub(crate) async fn enter_as_support(
    request: &HttpRequest,
    api: &Api,
    admission: &Admission,
    origin: &Origin,
) -> Result<(), ApiError> {
    if admission.scope.support_access().is_none() {
        return Ok(());
    }
    let pattern = request.match_pattern().unwrap_or_default();
    let operation = format!("{} {pattern}", method_of(request));
    let named: Vec<_> = request.match_info().iter().map(|(_, value)| value).collect();
    let entity = named.join(" ");
    support_access::note_use(&api.app, &admission.scope, origin, (&operation, &entity)).await?;
    Ok(access::check_address(&api.app, admission, origin).await?)
}

/// The method as it is recorded. Any word is a method, so those that no route has are one.
fn method_of(request: &HttpRequest) -> &str {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ];
    if known.contains(request.method()) {
        request.method().as_str()
    } else {
        "OTHER"
    }
}

/// The token of `Authorization: Bearer …` (RFC 6750 section 2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let unauthenticated = || ApiError::new(ErrorCode::Unauthenticated);
    let given = hints::single(headers, "Authorization")?.ok_or_else(unauthenticated)?;
    let (scheme, token) = given.split_once(' ').ok_or_else(unauthenticated)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        Ok(token)
    } else {
        Err(unauthenticated())
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn token_of(values: &[&str]) -> Result<String, ErrorCode> {
        let mut request = TestRequest::default();
        for value in values {
            request = request.append_header(("Authorization", *value));
        }
        bearer(request.to_http_request().headers())
            .map(str::to_owned)
            .map_err(|error| error.code())
    }

    #[test]
    fn reads_one_bearer_token() {
        assert_eq!(token_of(&["Bearer abc"]), Ok("abc".into()));
        assert_eq!(token_of(&["bearer  abc"]), Ok("abc".into()));
        assert_eq!(token_of(&[]), Err(ErrorCode::Unauthenticated));
        assert_eq!(token_of(&["Basic abc"]), Err(ErrorCode::Unauthenticated));
        assert_eq!(token_of(&["Bearer "]), Err(ErrorCode::Unauthenticated));
        assert_eq!(
            token_of(&["Bearer a", "Bearer b"]),
            Err(ErrorCode::InvalidRequest)
        );
    }
}
