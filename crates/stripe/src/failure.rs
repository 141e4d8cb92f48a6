use std::collections::HashMap;

use stripe::{IdempotencyKey, RequestStrategy, StripeError, StripeRequest};
use stripe_shared::{ApiErrors, ApiErrorsType};
use tenantry_domain::ProviderError;

use crate::StripePayments;

impl StripePayments {
    /// Asks for something.
    pub(crate) async fn ask<R>(&self, request: &R) -> Result<R::Output, ProviderError>
    where
        R: StripeRequest + Sync,
        R::Output: miniserde::Deserialize,
    {
        let request = request.customize().request_strategy(RequestStrategy::Once);
        request.send(&self.client).await.map_err(|error| failure(&error))
    }

    /// Changes something: once, however often it is asked for with this key.
    pub(crate) async fn change<R>(&self, key: &str, request: &R) -> Result<R::Output, ProviderError>
    where
        R: StripeRequest + Sync,
        R::Output: miniserde::Deserialize,
    {
        self.try_change(key, request)
            .await?
            .map_err(|error| failure(&error))
    }

    /// The same, for who wants to know what exactly Stripe says.
    pub(crate) async fn try_change<R>(
        &self,
        key: &str,
        request: &R,
    ) -> Result<Result<R::Output, StripeError>, ProviderError>
    where
        R: StripeRequest + Sync,
        R::Output: miniserde::Deserialize,
    {
        let key = IdempotencyKey::new(key).map_err(|error| ProviderError::Refused(error.to_string()))?;
        let request = request
            .customize()
            .request_strategy(RequestStrategy::Idempotent(key));
        Ok(request.send(&self.client).await)
    }
}

/// What Stripe's answer means for who called.
pub fn failure(error: &StripeError) -> ProviderError {
    match error {
        StripeError::Stripe(error, status) => answered(error, *status),
        StripeError::JSONDeserialize(text) => ProviderError::Unreadable(text.clone()),
        StripeError::ClientError(text) => ProviderError::Unavailable(text.clone()),
        StripeError::ConfigError(text) => ProviderError::Refused(text.clone()),
        StripeError::Timeout => ProviderError::Unavailable("no answer in time".into()),
    }
}

fn answered(error: &ApiErrors, status: u16) -> ProviderError {
    let text = said(error);
    match (status, &error.type_) {
        // Of a restricted key that may not do this, somebody has to look at the settings too.
        (401 | 403, _) => ProviderError::Unauthenticated,
        (404, _) => ProviderError::NotFound(text),
        (400, _) if code(error) == "resource_missing" => ProviderError::NotFound(text),
        // A clock here is ahead of theirs: what is too early now will not be later.
        (400, _) if code(error) == "timestamp_in_future" => ProviderError::Unavailable(text),
        // Another call with the key is under way, the object is locked, too many calls, or Stripe's own
        // trouble.
        (409 | 424 | 429 | 500.., _) | (_, ApiErrorsType::ApiError) => ProviderError::Unavailable(text),
        (
            _,
            ApiErrorsType::CardError
            | ApiErrorsType::IdempotencyError
            | ApiErrorsType::InvalidRequestError
            | ApiErrorsType::Unknown(_),
        ) => ProviderError::Refused(text),
        // The library keeps the right to learn further kinds.
        (_, _) => ProviderError::Refused(text),
    }
}

/// Stripe's word for what is wrong; empty when there is none.
pub fn code(error: &ApiErrors) -> String {
    error.code.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// The code and the sentence.
fn said(error: &ApiErrors) -> String {
    let message = error.message.as_deref().unwrap_or("no reason given");
    match code(error).as_str() {
        "" => message.to_owned(),
        code => format!("{code}: {message}"),
    }
}

/// Something that is not there is none.
pub fn found<T>(answer: Result<T, ProviderError>) -> Result<Option<T>, ProviderError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(ProviderError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The key of the metadata that says whose something is.
pub const TENANT: &str = "tenant_id";

/// The metadata that says whose something is.
pub fn of_tenant(tenant: tenantry_domain::TenantId) -> HashMap<String, String> {
    HashMap::from([(TENANT.to_owned(), tenant.to_string())])
}
