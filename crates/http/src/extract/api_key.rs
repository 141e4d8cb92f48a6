//! Credentials of requests: access tokens of users, and API keys.

use std::borrow::Cow;

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderMap},
};
use tenantry_domain::identity::{ApiKeyFormat, KeyRefusal, PresentedApiKey};
use tenantry_domain::kernel::{ErrorCode, RequestId};
use tenantry_domain::tenant::{Admission, Denied};
use tenantry_tenancy::Origin;
use tenantry_tenancy::identity::api_key;
use tenantry_tenancy::tenant::access;

use crate::extract::hints;
use crate::middleware::{authenticate::bearer, limits};
use crate::problem::error::INVALID_TOKEN;
use crate::{Api, ApiError};

/// The header for an API key; `Authorization: Bearer` takes one too.
pub(crate) const HEADER: &str = "X-API-Key";

/// What a request comes with to prove who sends it.
#[derive(Debug, Clone)]
pub(crate) enum Credential<'a> {
    /// An access token, which is not verified yet.
    Token(Cow<'a, str>),
    /// An API key of the right form, of which the row is not read yet.
    Key(PresentedApiKey),
}

impl Credential<'_> {
    /// The same, independent of the request.
    pub fn into_owned(self) -> Credential<'static> {
        match self {
            Self::Token(token) => Credential::Token(Cow::Owned(token.into_owned())),
            Self::Key(key) => Credential::Key(key),
        }
    }
}

/// Whether a request comes with a credential.
pub(crate) fn is_presented(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) || headers.contains_key(HEADER)
}

/// The text of the header for API keys. A request with two credentials that differ is refused, on every route, public ones and those of
/// operators too: a server does not guess which of them counts.
///
/// # Errors
/// 401 as for a key that is not accepted.
pub(crate) fn of_header(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let key = hints::single(headers, HEADER)?;
    if key.is_some() && headers.contains_key(header::AUTHORIZATION) && Some(bearer(headers)?) != key {
        return Err(refused());
    }
    Ok(key)
}

/// The credential of a request. A key whose checksum is wrong is refused here, before anything is looked up.
pub(crate) fn presented<'a>(headers: &'a HeaderMap, api: &Api) -> Result<Credential<'a>, ApiError> {
    let Some(key) = of_header(headers)? else {
        return of_text(bearer(headers)?, api);
    };
    if ApiKeyFormat::is_claimed(key) {
        of_text(key, api)
    } else {
        Err(refused())
    }
}

fn of_text<'a>(text: &'a str, api: &Api) -> Result<Credential<'a>, ApiError> {
    if !ApiKeyFormat::is_claimed(text) {
        return Ok(Credential::Token(Cow::Borrowed(text)));
    }
    let key = api.app.policy.api_keys.read(text);
    key.map(Credential::Key).ok_or_else(refused)
}

/// Admits the bearer of a credential. The address of an operator with support access is left to the caller to check.
///
/// A key that is not cached takes from the bucket of the caller's address, and gives back unless it was a guess. So guesses
/// cost few reads of the database.
pub(crate) async fn admit(
    request: &HttpRequest,
    api: &Api,
    credential: &Credential<'_>,
    origin: &Origin,
    id: RequestId,
) -> Result<Admission, ApiError> {
    let gate = &api.app.ports.gate;
    let key = match credential {
        Credential::Token(token) => {
            let admission = gate.bearer(token, id).await?;
            // A request of an operator is recorded before it is refused.
            if admission.scope.support_access().is_none() {
                access::check_address(&api.app, &admission, origin).await?;
            }
            return Ok(admission);
        }
        Credential::Key(key) => key,
    };
    let attempt = if gate.caches_api_key(key) {
        None
    } else {
        Some(limits::take_of_unknown_key(request, api).await?)
    };
    let outcome = api_key::admit(&api.app, key, origin, id).await;
    if let (Some(attempt), Err(Denied::ApiKey(KeyRefusal::Unknown | KeyRefusal::Secret))) =
        (attempt, &outcome)
    {
        attempt.keep();
    }
    let admission = outcome?;
    access::check_address(&api.app, &admission, origin).await?;
    Ok(admission)
}

/// Whether a credential still admits, for a response that goes on for long.
pub(crate) async fn still_admits(
    api: &Api,
    credential: &Credential<'_>,
    origin: &Origin,
    id: RequestId,
) -> Result<Admission, Denied> {
    let app = &api.app;
    let admission = match credential {
        Credential::Token(token) => app.ports.gate.bearer(token, id).await?,
        Credential::Key(key) => api_key::admit(app, key, origin, id).await?,
    };
    access::check_address(app, &admission, origin).await?;
    Ok(admission)
}

/// The one answer to every key that is not accepted: unknown, revoked, expired, from another network.
pub(crate) fn refused() -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated)
        .with_detail("The API key is not valid.")
        .with_header(header::WWW_AUTHENTICATE, INVALID_TOKEN)
}
