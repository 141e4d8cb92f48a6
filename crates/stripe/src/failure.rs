use std::collections::HashMap;

use stripe::{IdempotencyKey, RequestStrategy, StripeError, StripeRequest};
use stripe_shared::{ApiErrors, ApiErrorsType};
use tenantry_domain::billing::ProviderError;

use crate::StripePayments;

impl StripePayments {
    /// Asks for something.
    pub(crate) async fn ask<R>(&self, request: &R) -> Result<R::Output, ProviderError>
    where
        R: StripeRequest + Sync,
        R::Output: miniserde::Deserialize,
    {
        self.ask_expecting(Expected::Nothing, request).await
    }

    /// The same, for callers that expect a refusal.
    pub(crate) async fn ask_expecting<R>(
        &self,
        expected: Expected,
        request: &R,
    ) -> Result<R::Output, ProviderError>
    where
        R: StripeRequest + Sync,
        R::Output: miniserde::Deserialize,
    {
        let request = request.customize().request_strategy(RequestStrategy::Once);
        let sent = request.send(&self.client).await;
        sent.map_err(|error| expected.failure(&error))
    }

    /// Changes something: once, however often it is asked for with this key.
    pub(crate) async fn change<R>(&self, key: &str, request: &R) -> Result<R::Output, ProviderError>
    where
        R: StripeRequest + Sync,
        R::Output: miniserde::Deserialize,
    {
        self.change_expecting(Expected::Nothing, key, request).await
    }

    /// The same, for callers that expect a refusal.
    pub(crate) async fn change_expecting<R>(
        &self,
        expected: Expected,
        key: &str,
        request: &R,
    ) -> Result<R::Output, ProviderError>
    where
        R: StripeRequest + Sync,
        R::Output: miniserde::Deserialize,
    {
        self.try_change(key, request)
            .await?
            .map_err(|error| expected.failure(&error))
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

/// The refusals of Stripe that a caller has an answer to. They are logged with the level DEBUG, all other failures with WARN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// None.
    Nothing,
    /// The object may not be there.
    Missing,
    /// The object may not be there, or in a state that does not allow it.
    Refusal,
}

impl Expected {
    /// What Stripe's answer means for the caller.
    pub(crate) fn failure(self, error: &StripeError) -> ProviderError {
        let failure = meaning(error);
        if self.covers(&failure) {
            tracing::debug!(error = %failure, "Stripe refused a request, as expected");
        } else {
            tracing::warn!(error = %failure, "a request to Stripe failed");
        }
        failure
    }

    const fn covers(self, failure: &ProviderError) -> bool {
        match failure {
            ProviderError::NotFound(_) => matches!(self, Self::Missing | Self::Refusal),
            ProviderError::Refused(_) => matches!(self, Self::Refusal),
            ProviderError::Unavailable(_) | ProviderError::Unauthenticated | ProviderError::Unreadable(_) => {
                false
            }
        }
    }
}

/// What Stripe's answer means for a caller that expects no failure.
pub fn failure(error: &StripeError) -> ProviderError {
    Expected::Nothing.failure(error)
}

fn meaning(error: &StripeError) -> ProviderError {
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
pub fn of_tenant(tenant: tenantry_domain::kernel::TenantId) -> HashMap<String, String> {
    HashMap::from([(TENANT.to_owned(), tenant.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_expected_refusals_are_no_fault() {
        let missing = ProviderError::NotFound("it".into());
        let refused = ProviderError::Refused("it".into());
        let covered = |expected: Expected| (expected.covers(&missing), expected.covers(&refused));
        assert_eq!(covered(Expected::Nothing), (false, false));
        assert_eq!(covered(Expected::Missing), (true, false));
        assert_eq!(covered(Expected::Refusal), (true, true));
        for fault in [
            ProviderError::Unavailable("it".into()),
            ProviderError::Unauthenticated,
            ProviderError::Unreadable("it".into()),
        ] {
            assert!(!Expected::Refusal.covers(&fault), "{fault}");
        }
    }
}
