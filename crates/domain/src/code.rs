/// Every error code of the API. It owns the status, the title and the explanation of each.
macro_rules! error_codes {
    ($($name:ident = $code:literal, $status:literal, $title:literal, $about:literal;)*) => {
        /// A stable error code of the API: what a client may branch on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $about] $name,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status it comes with.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// A short title, the same for every occurrence (RFC 9457 section 3.1.3).
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What it means and what to do, for the page behind `type`.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$name => $about,)* }
            }
        }
    };
}

error_codes! {
    MalformedJson = "malformed_json", 400, "The body is not valid JSON", "The request body could not be parsed as JSON. Check the syntax and the Content-Length.";
    InvalidRequest = "invalid_request", 400, "The request is not valid", "The request breaks a rule of HTTP or of this API outside of its body, for example a header that cannot be read.";
    InvalidCursor = "invalid_cursor", 400, "The cursor is not valid", "A cursor belongs to the list, the filter and the tenant it was given out for. Begin again without a cursor.";
    ValidationFailed = "validation_failed", 422, "The request is not valid", "One or more fields break a rule; `errors` names each with a JSON pointer.";
    UnknownField = "unknown_field", 422, "The request has an unknown field", "The body or the query has a field that this endpoint does not know. Unknown fields are never ignored silently.";
    TenantRequired = "tenant_required", 400, "No tenant was named", "Name the tenant by a credential, X-Tenant-ID, X-Tenant-Slug, the subdomain, or tenant_slug in the body where the endpoint has it.";
    TenantNotFound = "tenant_not_found", 404, "There is no such tenant", "The tenant that the request names does not exist.";
    TenantMismatch = "tenant_mismatch", 403, "The request names two tenants", "Headers, host, body and credential must all name one tenant. With a credential the attempt is recorded in its tenant's audit log.";
    TenantGone = "tenant_gone", 410, "The tenant has been deleted", "The tenant was deleted. Ask the operator when it should be restored.";
    TenantSuspended = "tenant_suspended", 403, "The tenant is read-only", "The tenant is suspended: reading works, writing does not until it is resumed.";
    Unauthenticated = "unauthenticated", 401, "A credential is needed", "Send a valid access token as `Authorization: Bearer …`.";
    TokenExpired = "token_expired", 401, "The access token has expired", "Get a new access token with the refresh token.";
    TokenRevoked = "token_revoked", 401, "The token has been revoked", "The session has ended, or the user was deactivated or removed. Log in again.";
    InvalidCredentials = "invalid_credentials", 401, "The credentials are not right", "The tenant has no active user with this address and password.";
    AccountLocked = "account_locked", 423, "The account is locked", "Too many failed logins. Wait, or reset the password.";
    EmailNotVerified = "email_not_verified", 403, "The address is not verified", "Follow the link in the verification mail first.";
    MfaRequired = "mfa_required", 401, "A second factor is needed", "Send the code of the authenticator app as totp_code.";
    Forbidden = "forbidden", 403, "This is not allowed", "The role of the user does not allow this.";
    NotFound = "not_found", 404, "Not found", "There is nothing here, or nothing that this credential may see.";
    MethodNotAllowed = "method_not_allowed", 405, "The method is not allowed here", "This path exists, but not with this method; see Allow.";
    NotAcceptable = "not_acceptable", 406, "Nothing acceptable can be sent", "This API speaks JSON.";
    RequestTimeout = "request_timeout", 408, "The request did not arrive in time", "The body took too long to arrive, and the connection is closed. Send the request again.";
    PayloadTooLarge = "payload_too_large", 413, "The body is too large", "Send a smaller body.";
    UnsupportedMediaType = "unsupported_media_type", 415, "The body is not JSON", "Send `Content-Type: application/json`.";
    SlugTaken = "slug_taken", 409, "The slug is taken", "Another tenant has this slug. Choose another.";
    SubdomainTaken = "subdomain_taken", 409, "The subdomain is taken", "Another tenant has this subdomain. Choose another.";
    EmailTaken = "email_taken", 409, "The address is taken", "Another user of this tenant has this e-mail address.";
    Conflict = "conflict", 409, "The request conflicts with the present state", "Something with this name or in this place exists already.";
    LastAdmin = "last_admin", 409, "A tenant needs an admin", "The last active admin cannot be removed, demoted or deactivated. Make somebody else an admin first.";
    StaleVersion = "stale_version", 412, "The resource has changed", "If-Match names a version that is no longer the present one. Read it again and decide anew.";
    PlanFeatureRequired = "plan_feature_required", 403, "The plan does not include this", "The feature needs another plan.";
    PlanLimitReached = "plan_limit_reached", 403, "The plan's limit is reached", "The plan allows no more of these.";
    UnknownMeter = "unknown_meter", 422, "There is no such meter", "Nothing of this name is metered; the summary of usage lists what is.";
    MeterReserved = "meter_reserved", 422, "The server counts this itself", "Usage of this meter cannot be recorded from outside.";
    UsageConflict = "usage_conflict", 409, "The event conflicts with an earlier one", "Another event has this key, or the event has been invalidated already. A key stands for one event.";
    UsageTooOld = "usage_too_old", 422, "The usage is too old", "Usage is recorded within 24 hours; later, up to 90 days, with `backfill=true`.";
    UsageInFuture = "usage_in_future", 422, "The usage has not happened yet", "The time of an event may be up to 5 minutes ahead of the server's.";
    BillingUnavailable = "billing_unavailable", 503, "Billing is not available", "Payments are not set up here, or the payment provider does not answer. Everything else works; try again later.";
    NoSubscription = "no_subscription", 409, "There is no subscription", "The tenant has no running subscription. Begin one with a checkout.";
    WebhookSignatureInvalid = "webhook_signature_invalid", 400, "The signature is not valid", "The message is not one of the payment provider's, or it was signed more than five minutes ago.";
    QuotaExceeded = "quota_exceeded", 429, "The quota is used up", "Wait for the period to end or raise the quota.";
    RateLimited = "rate_limited", 429, "Too many requests", "Slow down; Retry-After says for how long.";
    IdempotencyKeyReused = "idempotency_key_reused", 422, "The idempotency key was used for something else", "A key stands for one request. Use a new key for a new request.";
    IdempotencyInProgress = "idempotency_in_progress", 409, "The first request with this key is still running", "Wait and ask again.";
    Unavailable = "unavailable", 503, "The service is not available", "Try again shortly; Retry-After says when.";
    Internal = "internal", 500, "Something went wrong", "The error was logged under the request id.";
}

impl ErrorCode {
    /// The code of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}
