/// Every error code of the API, with its status, title and explanation.
macro_rules! error_codes {
    ($($name:ident = $code:literal, $status:literal, $title:literal, $about:literal;)*) => {
        /// A stable error code of the API. Clients may branch on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = $about] $name,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the code as responses have it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// Returns the HTTP status of the code.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Returns a short title, the same for every occurrence (RFC 9457 section 3.1.3).
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// Returns what the code means and what to do, for the page that `type` links to.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$name => $about,)* }
            }
        }
    };
}

error_codes! {
    MalformedJson = "malformed_json", 400, "Malformed JSON", "The request body is not valid JSON. Check the syntax and Content-Length.";
    InvalidRequest = "invalid_request", 400, "Invalid request", "The request breaks a rule of HTTP or of this API outside of its body, for example by a header that cannot be read.";
    InvalidCursor = "invalid_cursor", 400, "Invalid cursor", "A cursor is valid for the list, the filter and the tenant that it was returned for. Start again without a cursor.";
    ValidationFailed = "validation_failed", 422, "Validation failed", "One or more fields are invalid. `errors` names each with a JSON pointer.";
    UnknownField = "unknown_field", 422, "Unknown field", "The body or the query has a field that this endpoint does not accept. Unknown fields are never ignored silently.";
    TenantRequired = "tenant_required", 400, "Tenant required", "Name the tenant by a credential, X-Tenant-ID, X-Tenant-Slug, the subdomain, a custom domain, or tenant_slug in the body of endpoints that accept it.";
    TenantNotFound = "tenant_not_found", 404, "Tenant not found", "The tenant that the request names does not exist.";
    TenantMismatch = "tenant_mismatch", 403, "Tenant mismatch", "Headers, host, body and credential must all name the same tenant. With a credential, the attempt is recorded in its tenant's audit log.";
    TenantGone = "tenant_gone", 410, "Tenant deleted", "The tenant was deleted. Its data cannot be read or changed. The operator can restore it until it is purged.";
    TenantSuspended = "tenant_suspended", 403, "Tenant suspended", "The tenant is suspended and read-only. It cannot write until it is resumed.";
    Unauthenticated = "unauthenticated", 401, "Authentication required", "Send a valid access token as `Authorization: Bearer …`.";
    TokenExpired = "token_expired", 401, "Access token expired", "Get a new access token with the refresh token.";
    TokenRevoked = "token_revoked", 401, "Token revoked", "The session, the link, the invitation or the support access has ended, or the user was deactivated or removed. Log in again, or ask for another one.";
    InvalidCredentials = "invalid_credentials", 401, "Invalid credentials", "The tenant has no active user with this e-mail address and password.";
    AccountLocked = "account_locked", 429, "Account locked", "Too many wrong passwords or codes in a row. Wait for as many seconds as `Retry-After` says. A trusted device is not held up, nor is a new login after `POST /api/v1/auth/reset-password`.";
    MfaRequired = "mfa_required", 401, "Second factor required", "The account has a second factor. At a login: finish it with `mfa_token` and a code at `POST /auth/mfa/verify`. At other requests (status 403): give a code at `POST /auth/mfa/step-up` (operators at `POST /admin/mfa/step-up`), or log in with a passkey, and send the request again with the new access token.";
    PasskeysUnavailable = "passkeys_unavailable", 404, "Passkeys unavailable", "This server does not offer passkeys: its operator has not set `auth.passkeys.rp_id`. Log in with a password.";
    ExportsUnavailable = "exports_unavailable", 404, "Exports unavailable", "This server does not offer exports: its operator has not set `archive.directory`. Sending the request again does not help.";
    DomainsUnavailable = "domains_unavailable", 404, "Custom domains unavailable", "This server does not offer custom domains: its operator has not set `domains.edge`. Tenants are reached under their subdomains.";
    EmailNotVerified = "email_not_verified", 403, "E-mail address not verified", "The tenant only lets users with a verified e-mail address log in. `POST /api/v1/auth/resend-verification` sends a link.";
    MailboxProofRequired = "mailbox_proof_required", 403, "Mailbox proof required", "The session does not show that the caller reads the mailbox of the account, since its password was not chosen through a mailed link. Ask for a link with `POST /api/v1/auth/forgot-password`, choose a password with it, log in, and send the request again.";
    ChallengeRequired = "challenge_required", 403, "Challenge required", "This request needs the response to a challenge: get one at `GET /api/v1/auth/challenge`, and send the response in `Challenge-Response`. A response is accepted once.";
    ChallengeUnavailable = "challenge_unavailable", 503, "Challenge unavailable", "The response to the challenge cannot be verified now. Get another challenge and send the request again later.";
    BypassReasonRequired = "bypass_reason_required", 400, "Bypass reason required", "A read across tenants needs its reason in `X-Bypass-Reason`: 10 to 500 characters. The reason is recorded.";
    Forbidden = "forbidden", 403, "Forbidden", "The role of the user or operator, the scopes of the API key, the networks of the tenant's security policy or the terms of a support access do not allow this request.";
    NotFound = "not_found", 404, "Not found", "The resource does not exist, or this credential cannot see it.";
    MethodNotAllowed = "method_not_allowed", 405, "Method not allowed", "The path exists, but does not accept this method. `Allow` lists the accepted methods.";
    NotAcceptable = "not_acceptable", 406, "Not acceptable", "The response is not available in a format that `Accept` allows.";
    RequestTimeout = "request_timeout", 408, "Request timeout", "The head or the body of the request took too long to arrive, and the connection is closed. Send the request again.";
    PayloadTooLarge = "payload_too_large", 413, "Payload too large", "Send a smaller body.";
    RangeNotSatisfiable = "range_not_satisfiable", 416, "Range not satisfiable", "The range lies behind the end of the file. `Content-Range` says how long it is.";
    UriTooLong = "uri_too_long", 414, "URI too long", "A URL may have up to 8,192 bytes. Send long values in the body.";
    HeadersTooLarge = "headers_too_large", 431, "Headers too large", "Send fewer or shorter headers.";
    UnsupportedMediaType = "unsupported_media_type", 415, "Unsupported media type", "Send a body of a type that the endpoint accepts, such as `application/json`. `Accept` lists them.";
    SlugTaken = "slug_taken", 409, "Slug taken", "Another tenant has this slug. Choose a different one.";
    SubdomainTaken = "subdomain_taken", 409, "Subdomain taken", "Another tenant has this subdomain. Choose a different one.";
    EmailTaken = "email_taken", 409, "E-mail address taken", "Another user of this tenant has this e-mail address, is invited with it, or had it until lately.";
    Conflict = "conflict", 409, "Conflict", "The request conflicts with the current state, for example because the name is in use.";
    LastAdmin = "last_admin", 409, "Last admin", "The last active admin without a custom role cannot be removed, demoted, deactivated or given a custom role. Make another user an admin without a custom role first.";
    RegistrationPending = "registration_pending", 409, "Registration pending", "The user registered and has not proven the e-mail address yet. Until then the role and the address stay as they are. Wait for the proof, deactivate or delete the user, or invite the address.";
    StaleVersion = "stale_version", 412, "Stale version", "The resource has changed since the version in `If-Match`, or exists already and `If-None-Match` excludes it. Read it again and repeat the change.";
    PlanFeatureRequired = "plan_feature_required", 403, "Plan feature required", "The tenant's plan does not include this feature.";
    PlanLimitReached = "plan_limit_reached", 403, "Plan limit reached", "The tenant's plan does not allow more of these.";
    PlanRequiresPayment = "plan_requires_payment", 403, "Plan requires payment", "The plan has a price, and payments are not configured here. Sign up without a plan, or ask the operator for this one.";
    UnknownMeter = "unknown_meter", 422, "Unknown meter", "No meter has this name. `GET /api/v1/usage/summary` lists the meters.";
    MeterReserved = "meter_reserved", 422, "Reserved meter", "The server counts this meter itself. Clients cannot record usage of it or reserve units of it.";
    UsageConflict = "usage_conflict", 409, "Usage conflict", "Another event has this key, or the event is already invalidated. A key identifies one event.";
    UsageTooOld = "usage_too_old", 422, "Usage too old", "Usage is accepted within 24 hours, and up to 90 days with `backfill=true`.";
    UsageInFuture = "usage_in_future", 422, "Usage in the future", "The time of an event may be up to 5 minutes ahead of the server's clock.";
    BillingUnavailable = "billing_unavailable", 503, "Billing unavailable", "The payment provider does not respond, or payments are not set up on this server; `detail` says which. Other endpoints work.";
    NoSubscription = "no_subscription", 409, "No subscription", "The tenant has no active subscription. Start one with a checkout.";
    BillingCustomerGone = "billing_customer_gone", 409, "Billing customer gone", "The payment provider no longer has the customer. Start a checkout or open the portal to create a new one.";
    WebhookSignatureInvalid = "webhook_signature_invalid", 400, "Invalid webhook signature", "The payment provider did not sign this request, or signed it more than five minutes ago.";
    QuotaExceeded = "quota_exceeded", 429, "Quota exceeded", "Wait for the next period or raise the quota.";
    RateLimited = "rate_limited", 429, "Rate limited", "Too many requests. Wait for as many seconds as `Retry-After` says.";
    IdempotencyKeyReused = "idempotency_key_reused", 422, "Idempotency key reused", "An idempotency key identifies one request. Use a new key for a new request.";
    IdempotencyInProgress = "idempotency_in_progress", 409, "Idempotent request in progress", "The first request with this key is still running. Wait and send the request again.";
    Unavailable = "unavailable", 503, "Service unavailable", "Try again after as many seconds as `Retry-After` says.";
    Internal = "internal", 500, "Internal error", "The error is logged under the request id.";
}

impl ErrorCode {
    /// Returns the code with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}
