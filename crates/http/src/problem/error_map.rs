//! What each error of the use cases is to a client: one readable match each, without a wildcard arm.

use actix_web::http::header;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tenantry_billing::billing::BillingError;
use tenantry_billing::billing::{billing_oversight::OversightError, provider_event::ReceiveError};
use tenantry_billing::usage::UsageReason;
use tenantry_billing::usage::quota::QuotaReason;
use tenantry_domain::billing::ProviderError;
use tenantry_domain::events::EventConsumer;
use tenantry_domain::identity::ChallengeError;
use tenantry_domain::identity::{ApiKey, CustomRole, PasswordError, TokenError};
use tenantry_domain::kernel::{ErrorCode, Failure, Invalid, KeyTaken, StoreError, counted};
use tenantry_domain::operations::QuotaRefusal;
use tenantry_domain::tenant::{CustomDomain, Denied, Refused};
use tenantry_domain::usage::QuotaExceeded;
use tenantry_domain::webhooks::WebhookEndpoint;
use tenantry_tenancy::admin::operator::OperatorError;
use tenantry_tenancy::admin::operator_job::OperatorJobReason;
use tenantry_tenancy::admin::operator_rows::RowReason;
use tenantry_tenancy::archive::export::ExportReason;
use tenantry_tenancy::customization::setting::SettingReason;
use tenantry_tenancy::events::consumer::ConsumerReason;
use tenantry_tenancy::flags::{flag::FlagReason, flag_definition::DefinitionReason};
use tenantry_tenancy::identity::{
    account::AccountError,
    api_key::ApiKeyReason,
    auth::AuthError,
    custom_role::CustomRoleReason,
    invitation::InvitationReason,
    mfa::{MfaError, Pending},
    passkey::PasskeyError,
    user::UserReason,
    workspace::DiscoverError,
    workspace_switch::SwitchError,
};
use tenantry_tenancy::plans::{NotInPlan, RequiredPlans};
use tenantry_tenancy::step_up::RECENT_SECONDS;
use tenantry_tenancy::tenant::TenantReason;
use tenantry_tenancy::tenant::custom_domain::DomainReason;
use tenantry_tenancy::tenant::support_access::SupportReason;
use tenantry_tenancy::tenant::{access::AccessError, lifecycle::LifecycleReason, provision::SignUpError};
use tenantry_tenancy::webhooks::delivery::DeliveryReason;
use tenantry_tenancy::webhooks::endpoint::WebhookEndpointReason;
use tenantry_tenancy::work::{project::ProjectReason, reference::ReferenceReason};
use tenantry_tenancy::{NoReason, OwnReason, Stale, UseCaseError};

use crate::extract::api_key;
use crate::problem::error::INVALID_TOKEN;
use crate::{ApiError, Excess, FactorNeeded, PlanProblem, QuotaProblem};

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if let Some(invalid) = error.invalid() {
            return Self::from(invalid).caused_by(error);
        }
        let answer = Self::new(ErrorCode::from(&error));
        let answer = if let StoreError::Exclusion(rule) = &error {
            answer.with_detail(format!("Another row excludes this one: rule `{rule}`."))
        } else if error == StoreError::Key(KeyTaken::Unreadable) {
            answer.with_detail("The request was done, and its answer can no longer be read.")
        } else {
            answer
        };
        answer.caused_by(error)
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        StoreError::from(error).into()
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Forbidden | Refused::Suspended => Self::new(refused.into()),
            Refused::FactorRequired => Self::factor_needed(FactorNeeded::Recent {
                max_age: RECENT_SECONDS,
            })
            .with_detail(
                "Give a code of the second factor at POST /auth/mfa/step-up, or log in with a passkey, and send the request again with \
                 the new access token.",
            ),
            Refused::OperatorFactorRequired => Self::factor_needed(FactorNeeded::Recent {
                max_age: RECENT_SECONDS,
            })
            .with_detail(
                "Give a code of the second factor at POST /admin/mfa/step-up, and send the request again with the new access token.",
            ),
            Refused::FactorMissing => Self::factor_needed(FactorNeeded::Enrollment {
                max_age: RECENT_SECONDS,
            })
            .with_detail("This request is not allowed without a second factor of your own. Enroll one at POST /auth/mfa/enroll."),
            Refused::LoginRequired => Self::new(ErrorCode::Forbidden).with_detail(
                "This session began more than 10 minutes ago. Log in again, and send the request with the new access token.",
            ),
            Refused::FactorTooNew => Self::new(ErrorCode::Forbidden).with_detail(
                "Your second factor was enabled less than 24 hours ago, which is too recent for this request.",
            ),
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure.cause {
            Some(error) => error.into(),
            None if failure.fields.is_empty() => Self::new(failure.code),
            None => Invalid(failure.fields).into(),
        }
    }
}

impl From<Invalid> for ApiError {
    fn from(Invalid(errors): Invalid) -> Self {
        let unknown = !errors.is_empty()
            && errors
                .iter()
                .all(|error| error.code == ErrorCode::UnknownField.as_str());
        let code = if unknown {
            ErrorCode::UnknownField
        } else {
            ErrorCode::ValidationFailed
        };
        let detail = match errors.len() {
            1 => "1 field is not valid".to_owned(),
            count => format!("{count} fields are not valid"),
        };
        Self::new(code).with_detail(detail).with_errors(errors)
    }
}

impl From<NotInPlan> for ApiError {
    fn from(refused: NotInPlan) -> Self {
        let sentence = refused.to_string();
        let (code, plan) = match refused {
            NotInPlan::Feature { feature, plans } => {
                let plan = PlanProblem {
                    feature: Some(feature),
                    ..of_plans(plans)
                };
                (ErrorCode::PlanFeatureRequired, plan)
            }
            NotInPlan::Seats {
                allowed,
                used,
                current,
            } => {
                let plan = PlanProblem {
                    limit: Some("seats"),
                    allowed: Some(allowed.seats.into()),
                    used: Some(used),
                    ..of_plans(RequiredPlans {
                        current,
                        required: Vec::new(),
                    })
                };
                (ErrorCode::PlanLimitReached, plan)
            }
            NotInPlan::Limit {
                limit,
                allowed,
                used,
                plans,
            } => {
                let plan = PlanProblem {
                    limit: Some(limit),
                    allowed: Some(allowed),
                    used: Some(used),
                    ..of_plans(plans)
                };
                (ErrorCode::PlanLimitReached, plan)
            }
        };
        let mut capital = sentence.chars();
        let sentence = capital.next().map(|first| first.to_ascii_uppercase()).into_iter();
        Self::new(code)
            .with_detail(sentence.chain(capital).chain(['.']).collect::<String>())
            .with_excess(Excess::Plan(plan))
    }
}

fn of_plans(plans: RequiredPlans) -> PlanProblem {
    PlanProblem {
        feature: None,
        limit: None,
        allowed: None,
        used: None,
        current_plan: plans.current,
        required_plans: plans.required,
    }
}

impl From<QuotaExceeded> for ApiError {
    fn from(exceeded: QuotaExceeded) -> Self {
        of_quota(exceeded, None)
    }
}

/// `batch` is the index of the first event of a list that does not fit, and how many fit.
fn of_quota(exceeded: QuotaExceeded, batch: Option<(usize, usize)>) -> ApiError {
    let wait = exceeded.retry_after_seconds();
    ApiError::new(ErrorCode::QuotaExceeded)
        .with_detail(format!("The quota does not allow it: {exceeded}."))
        .with_header(header::RETRY_AFTER, wait.into())
        .with_excess(Excess::Quota(QuotaProblem {
            meter: exceeded.meter.to_string(),
            limit: exceeded.limit,
            used: exceeded.used,
            resets_at: exceeded.resets_at,
            index: batch.map(|(index, _)| index),
            fitting: batch.map(|(_, fitting)| fitting),
        }))
}

impl From<QuotaRefusal> for ApiError {
    fn from(refusal: QuotaRefusal) -> Self {
        match refusal {
            QuotaRefusal::Exceeded(exceeded) => exceeded.into(),
            QuotaRefusal::Denied(denied) => denied.into(),
        }
    }
}

impl From<QuotaReason> for ApiError {
    fn from(reason: QuotaReason) -> Self {
        match reason {
            QuotaReason::UnknownMeter(_) => Self::new(ErrorCode::NotFound),
            QuotaReason::Reserved(meter) => Self::new(ErrorCode::MeterReserved)
                .with_detail(format!("Nothing of {meter} is reserved from outside.")),
            QuotaReason::Exceeded(exceeded) => exceeded.into(),
            QuotaReason::Ended(ended) => Self::new(ErrorCode::Conflict)
                .with_detail(format!("The reservation is {} already.", ended.0.as_str())),
        }
    }
}

impl From<ApiKeyReason> for ApiError {
    fn from(reason: ApiKeyReason) -> Self {
        match reason {
            ApiKeyReason::TooMany => Self::new(ErrorCode::Conflict).with_detail(format!(
                "The tenant has {} API keys, which is the maximum: revoke one first.",
                ApiKey::MOST
            )),
            ApiKeyReason::FormerSecret => Self::new(ErrorCode::Forbidden).with_detail(
                "This secret of the API key was replaced. Only the present secret rotates the key.",
            ),
            ApiKeyReason::OfAnother => Self::new(ErrorCode::Forbidden).with_detail(
                "The API key belongs to another user, who alone may rotate it. Revoke it with DELETE, and create a key of your own.",
            ),
            ApiKeyReason::Expired => Self::new(ErrorCode::Conflict)
                .with_detail("The API key has expired: change `expires_at` first."),
        }
    }
}

impl From<CustomRoleReason> for ApiError {
    fn from(reason: CustomRoleReason) -> Self {
        let conflict = |detail: String| Self::new(ErrorCode::Conflict).with_detail(detail);
        match reason {
            CustomRoleReason::NameTaken => conflict("Another role has this name.".into()),
            CustomRoleReason::TooMany => conflict(format!(
                "The tenant has {} custom roles, which is the maximum: delete one first.",
                CustomRole::MOST
            )),
            CustomRoleReason::InUse { users, invitations } => conflict(format!(
                "The role is in use by {} and {}: give them another one, or revoke the invitations, first.",
                counted(&users, "user"),
                counted(&invitations, "invitation")
            )),
        }
    }
}

impl From<ConsumerReason> for ApiError {
    fn from(reason: ConsumerReason) -> Self {
        match reason {
            ConsumerReason::TooMany => Self::new(ErrorCode::Conflict).with_detail(format!(
                "The tenant has {} consumers of events, which is the maximum: delete one first.",
                EventConsumer::MOST
            )),
        }
    }
}

impl From<DomainReason> for ApiError {
    fn from(reason: DomainReason) -> Self {
        let conflict = |detail: String| Self::new(ErrorCode::Conflict).with_detail(detail);
        match reason {
            DomainReason::NotSetUp => Self::new(ErrorCode::DomainsUnavailable),
            DomainReason::Claimed => conflict("The tenant has this domain already.".into()),
            DomainReason::TooMany => conflict(format!(
                "The tenant has {} domains, which is the maximum: delete one first.",
                CustomDomain::MOST
            )),
            DomainReason::Held => conflict(
                "The domain is proven, but another tenant of this service holds it. It is released when it is deleted there, or \
                 when the TXT record of that tenant has been missing for 7 days."
                    .into(),
            ),
            DomainReason::Released => conflict("The domain was released: claim it again.".into()),
            DomainReason::TooSoon(seconds) => Self::new(ErrorCode::RateLimited)
                .with_detail(format!("The domain was checked just now. Try again in {seconds} seconds."))
                .with_header(header::RETRY_AFTER, seconds.into()),
            DomainReason::TooManyChecks(seconds) => Self::new(ErrorCode::RateLimited)
                .with_detail(format!("The tenant has asked for too many checks of domains. Try again in {seconds} seconds."))
                .with_header(header::RETRY_AFTER, seconds.into()),
        }
    }
}

impl From<WebhookEndpointReason> for ApiError {
    fn from(reason: WebhookEndpointReason) -> Self {
        let conflict = |detail: String| Self::new(ErrorCode::Conflict).with_detail(detail);
        match reason {
            WebhookEndpointReason::TooMany => conflict(format!(
                "The tenant has {} webhook endpoints, which is the maximum: delete one first.",
                WebhookEndpoint::MOST
            )),
            WebhookEndpointReason::Unreadable => conflict(
                "The secrets of the endpoint cannot be opened by any key of the server: delete the endpoint and create another."
                    .into(),
            ),
        }
    }
}

impl From<DeliveryReason> for ApiError {
    fn from(reason: DeliveryReason) -> Self {
        match reason {
            DeliveryReason::Disabled => Self::new(ErrorCode::Conflict)
                .with_detail("The webhook endpoint is disabled: enable it with PATCH, then send again."),
        }
    }
}

impl From<Stale> for ApiError {
    fn from(stale: Stale) -> Self {
        Self::new(ErrorCode::StaleVersion).with_detail(stale.to_string())
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Invalid => Self::new(ErrorCode::Unauthenticated)
                .with_detail("The access token is not valid.")
                .with_header(header::WWW_AUTHENTICATE, INVALID_TOKEN),
            TokenError::Expired => Self::new(ErrorCode::TokenExpired),
        }
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Token(error) => error.into(),
            Denied::ApiKey(_) => api_key::refused(),
            Denied::Address => Self::new(ErrorCode::Forbidden).with_detail(
                "The security policy of the tenant does not allow requests from your address. Use a network that it allows, or ask an \
                 admin of the tenant.",
            ),
            Denied::Store(error) => error.into(),
            denied => Self::new(ErrorCode::from(&denied)),
        }
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Denied(denied) => denied.into(),
            AccessError::TenantRequired => Self::new(ErrorCode::TenantRequired),
            AccessError::Mismatch => Self::new(ErrorCode::TenantMismatch),
            AccessError::Store(error) => error.into(),
        }
    }
}

impl From<ChallengeError> for ApiError {
    fn from(error: ChallengeError) -> Self {
        match error {
            ChallengeError::Missing => Self::new(ErrorCode::ChallengeRequired),
            ChallengeError::Refused(why) => Self::new(ErrorCode::ChallengeRequired).with_detail(format!(
                "The response to the challenge {why}. Get another challenge and send the request again."
            )),
            ChallengeError::Unavailable(_) | ChallengeError::Unverified(_) => {
                Self::new(ErrorCode::ChallengeUnavailable).caused_by(error)
            }
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Refused(refused) => refused.into(),
            AuthError::Invalid(invalid) => invalid.into(),
            AuthError::InvalidCredentials => Self::new(ErrorCode::InvalidCredentials),
            AuthError::FactorRequired(pending) => factor_required(pending).with_detail(
                "Send mfa_token and a code to POST /auth/mfa/verify. When methods is enroll, send it to \
                 POST /auth/mfa/required/enroll. When methods has passkey, a login at /auth/passkeys/login does without either.",
            ),
            AuthError::WrongCode => MfaError::WrongCode.into(),
            AuthError::FactorUnreadable => MfaError::Unreadable.into(),
            AuthError::Locked(seconds) => locked(seconds, WAYS_IN),
            AuthError::EmailNotVerified => Self::new(ErrorCode::EmailNotVerified),
            AuthError::InvalidRefresh => Self::new(ErrorCode::TokenRevoked),
            AuthError::SessionOutlived(days) => Self::new(ErrorCode::TokenRevoked).with_detail(format!(
                "A session lasts for at most {days} days from its login, however often it is refreshed. Log in again."
            )),
            AuthError::InvalidInvitation => Self::new(ErrorCode::TokenRevoked).with_detail(
                "The invitation was accepted or revoked, has expired, or its token is not valid. Ask for a new invitation.",
            ),
            AuthError::RegistrationClosed => {
                Self::new(ErrorCode::Forbidden).with_detail("The tenant does not allow self-registration.")
            }
            AuthError::RegistrationNeedsFactor => Self::new(ErrorCode::Forbidden).with_detail(
                "Members of the tenant need a second factor, which a registration does not set up. Ask an admin for an invitation.",
            ),
            AuthError::Challenge(error) => error.into(),
            AuthError::EmailTaken => Self::new(ErrorCode::EmailTaken),
            AuthError::Password(error) => error.into(),
            // Whoever registers is a stranger yet: the tenant's plan and numbers are none of their business.
            AuthError::NotInPlan(_) => Self::new(ErrorCode::PlanLimitReached),
            AuthError::Store(error) => error.into(),
        }
    }
}

impl From<DiscoverError> for ApiError {
    fn from(error: DiscoverError) -> Self {
        match error {
            DiscoverError::Invalid(invalid) => invalid.into(),
            DiscoverError::Challenge(error) => error.into(),
            DiscoverError::Store(error) => error.into(),
        }
    }
}

impl From<SwitchError> for ApiError {
    fn from(error: SwitchError) -> Self {
        match error {
            SwitchError::Refused(refused) => refused.into(),
            SwitchError::Own(error) => error.into(),
            SwitchError::Unproven => Self::new(ErrorCode::MailboxProofRequired),
            SwitchError::NotFound => Self::new(ErrorCode::TenantNotFound).with_detail(
                "No tenant with this slug has an active account that you can switch to: with your address, verified, and no younger than the \
                 link with which you chose your password here. When the account there is younger, ask for a new link with \
                 POST /auth/forgot-password and choose a password, or log in there.",
            ),
            SwitchError::Login(error) => error.into(),
            SwitchError::Store(error) => error.into(),
        }
    }
}

/// The answer to a login that waits for its second factor.
fn factor_required(pending: Pending) -> ApiError {
    ApiError::factor_needed(FactorNeeded::AtLogin {
        mfa_token: URL_SAFE_NO_PAD.encode(pending.token),
        methods: pending.methods,
        expires_in: pending.expires_in,
    })
}

/// The answer to a request that takes the password in a session of more than ten minutes.
fn password_needed() -> ApiError {
    let detail = "is required: the session began more than 10 minutes ago";
    Invalid::one("/password", "required", detail).into()
}

/// What a user can do who does not want to wait.
const WAYS_IN: &str = "on a trusted device, or reset the password";

/// The answer while an account waits after wrong guesses.
fn locked(seconds: i64, ways_in: &str) -> ApiError {
    ApiError::new(ErrorCode::AccountLocked)
        .with_detail(format!(
            "Too many wrong passwords or codes in a row. Try again in {seconds} seconds, {ways_in}."
        ))
        .with_header(header::RETRY_AFTER, seconds.into())
}

impl From<MfaError> for ApiError {
    fn from(error: MfaError) -> Self {
        let conflict = |detail| Self::new(ErrorCode::Conflict).with_detail(detail);
        match error {
            MfaError::Refused(refused) => refused.into(),
            MfaError::InvalidToken => Self::new(ErrorCode::TokenRevoked)
                .with_detail("The mfa_token is not valid, or not any more. Log in again."),
            MfaError::WrongCode => Self::new(ErrorCode::InvalidCredentials)
                .with_detail("The code is wrong or was used already. Send the present code of the app, or a recovery code."),
            MfaError::Unreadable => Self::new(ErrorCode::InvalidCredentials).with_detail(
                "The code cannot be checked: the server has lost the key to the secret of your app. Send a recovery code instead, or \
                 ask an admin to reset your second factor.",
            ),
            MfaError::WrongPassword => {
                Self::new(ErrorCode::InvalidCredentials).with_detail("The password is wrong.")
            }
            MfaError::Locked(seconds) => locked(seconds, WAYS_IN),
            MfaError::PasswordRequired => password_needed(),
            MfaError::AlreadyEnabled => {
                conflict("The user has a second factor. Disable it before you enroll another one.")
            }
            MfaError::Required => conflict("The tenant requires a second factor of this user."),
            MfaError::Own => conflict("Users disable their own second factor with POST /auth/mfa/disable."),
            MfaError::NoSuchUser => Self::new(ErrorCode::NotFound),
            MfaError::NotEnrolled => {
                conflict("The user has no second factor. Enroll one with POST /auth/mfa/enroll.")
            }
            MfaError::Password(error) => error.into(),
            MfaError::Store(error) => error.into(),
        }
    }
}

impl From<PasskeyError> for ApiError {
    fn from(error: PasskeyError) -> Self {
        let conflict = |detail| Self::new(ErrorCode::Conflict).with_detail(detail);
        match error {
            PasskeyError::Refused(refused) => refused.into(),
            PasskeyError::Invalid(invalid) => invalid.into(),
            PasskeyError::Unavailable => Self::new(ErrorCode::PasskeysUnavailable),
            PasskeyError::LoginEnded => Self::new(ErrorCode::TokenRevoked)
                .with_detail("The token is not valid, was used, or has expired. Begin the login again."),
            PasskeyError::RegistrationEnded => {
                conflict("The token is not valid in this session, was used, or has expired. Begin the registration again.")
            }
            PasskeyError::PasswordNeeded => password_needed(),
            PasskeyError::Locked(seconds) => locked(seconds, WAYS_IN),
            PasskeyError::WrongPassword => {
                Self::new(ErrorCode::InvalidCredentials).with_detail("The password is wrong.")
            }
            PasskeyError::NotAccepted => Self::new(ErrorCode::InvalidCredentials)
                .with_detail("The tenant has no active user with this passkey, or the response of the authenticator is not accepted."),
            PasskeyError::EmailNotVerified => Self::new(ErrorCode::EmailNotVerified),
            PasskeyError::TooMany => conflict("The user has ten passkeys, and no more are allowed. Remove one first."),
            PasskeyError::AlreadyRegistered => conflict("The passkey is registered already."),
            PasskeyError::LastFactor => conflict(
                "The tenant requires a second factor of this user, and this is the last one. Add another one first.",
            ),
            PasskeyError::NotFound => Self::new(ErrorCode::NotFound),
            PasskeyError::Password(error) => error.into(),
            PasskeyError::Store(error) => error.into(),
        }
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Refused(refused) => refused.into(),
            AccountError::Invalid(invalid) => invalid.into(),
            AccountError::InvalidCredentials => Self::new(ErrorCode::InvalidCredentials)
                .with_detail("The password is not that of the account."),
            AccountError::Locked(seconds) => locked(seconds, WAYS_IN),
            AccountError::PasswordNeeded => password_needed(),
            AccountError::NotFound => Self::new(ErrorCode::NotFound),
            AccountError::Inactive => Self::new(ErrorCode::Conflict)
                .with_detail("The user is deactivated. Activate the user first."),
            AccountError::Challenge(error) => error.into(),
            // As for a caller who registers.
            AccountError::NotInPlan(_) => Self::new(ErrorCode::PlanLimitReached),
            AccountError::EmailTaken => Self::new(ErrorCode::EmailTaken),
            AccountError::ChangedTooOften => Self::new(ErrorCode::Conflict).with_detail(
                "The address was changed five times in seven days. Wait until it can be changed again.",
            ),
            AccountError::AskedTooOften => Self::new(ErrorCode::Conflict).with_detail(
                "Ten links to confirm an address were sent within a day. Wait until the next day.",
            ),
            AccountError::Password(error) => error.into(),
            AccountError::Store(error) => error.into(),
        }
    }
}

impl From<OperatorError> for ApiError {
    fn from(error: OperatorError) -> Self {
        let conflict = |detail| Self::new(ErrorCode::Conflict).with_detail(detail);
        match error {
            OperatorError::Invalid(invalid) => invalid.into(),
            OperatorError::InvalidCredentials => Self::new(ErrorCode::InvalidCredentials)
                .with_detail("There is no active operator with this address and password."),
            OperatorError::FactorRequired(pending) => factor_required(pending).with_detail(
                "Send mfa_token and a code to POST /admin/mfa/verify. When methods is enroll, send it to \
                 POST /admin/mfa/required/enroll.",
            ),
            OperatorError::InvalidToken => MfaError::InvalidToken.into(),
            OperatorError::WrongCode => MfaError::WrongCode.into(),
            OperatorError::WrongPassword => MfaError::WrongPassword.into(),
            OperatorError::Locked(seconds) => locked(
                seconds,
                "from a network of an earlier login, or have the password reset on the server",
            ),
            OperatorError::AlreadyEnabled => {
                conflict("The operator has a second factor. Disable it before you enroll another one.")
            }
            OperatorError::FactorNeeded => conflict("Operators need a second factor on this server."),
            OperatorError::NotEnrolled => conflict(
                "The operator has no second factor. Operators enroll their own with POST /admin/mfa/enroll.",
            ),
            OperatorError::NotFound => Self::new(ErrorCode::NotFound),
            OperatorError::Refused(refused) => refused.into(),
            OperatorError::Stale(stale) => stale.into(),
            OperatorError::OwnFactor => {
                conflict("Operators disable their own second factor with POST /admin/mfa/disable.")
            }
            OperatorError::LastOwner => {
                conflict("The operator is the last active owner. Make another operator an owner first.")
            }
            OperatorError::EmailTaken => {
                Self::new(ErrorCode::EmailTaken).with_detail("Another operator has this address.")
            }
            OperatorError::Password(error) => error.into(),
            OperatorError::Store(error) => error.into(),
        }
    }
}

impl From<ExportReason> for ApiError {
    fn from(reason: ExportReason) -> Self {
        let conflict = |detail: String| Self::new(ErrorCode::Conflict).with_detail(detail);
        match reason {
            ExportReason::NotSetUp => Self::new(ErrorCode::ExportsUnavailable),
            ExportReason::UnderWay => {
                conflict("Another export of the tenant is under way. Wait until it is ready.".to_owned())
            }
            ExportReason::TooMany(kept) => conflict(format!(
                "{kept} exports of the tenant are kept already. Wait until one of them has expired."
            )),
            ExportReason::NotReady => {
                conflict("The export is not ready yet. Read it again later.".to_owned())
            }
            ExportReason::WrongLink => Self::new(ErrorCode::NotFound)
                .with_detail("The link is wrong, or its time is over. Read the export again for a new one."),
            ExportReason::File(error) => {
                tracing::error!(%error, "the archive of an export cannot be read");
                Self::new(ErrorCode::Internal)
            }
        }
    }
}

impl From<LifecycleReason> for ApiError {
    fn from(reason: LifecycleReason) -> Self {
        match reason {
            LifecycleReason::InvalidTransition(refused) => {
                let detail = refused.to_string();
                let detail = detail.strip_prefix('t').map_or(detail.clone(), |rest| format!("T{rest}."));
                Self::new(ErrorCode::Conflict).with_detail(detail)
            }
            LifecycleReason::NameInUse => Self::new(ErrorCode::Conflict).with_detail(
                "A name of the tenant's rows is in use by a row that was added since the deletion, so the tenant stays deleted. Remove that row in the database and restore again, or purge the tenant.",
            ),
            LifecycleReason::ArchivesElsewhere => Self::new(ErrorCode::Unavailable).with_detail(
                "The tenant may have archives of exports, and this server keeps none: its operator has not set `archive.directory`.",
            ),
        }
    }
}

impl From<SupportReason> for ApiError {
    fn from(reason: SupportReason) -> Self {
        let detail = match reason {
            SupportReason::Transition(refused) => format!("Not possible: {refused}."),
            SupportReason::AlreadyOpen => {
                "You have an open support access to the tenant. Use or withdraw it first.".to_owned()
            }
        };
        Self::new(ErrorCode::Conflict).with_detail(detail)
    }
}

impl From<RowReason> for ApiError {
    fn from(reason: RowReason) -> Self {
        match reason {
            RowReason::Busy => Self::new(ErrorCode::RateLimited)
                .with_detail("As many reads across tenants as this server allows at once are under way.")
                .with_header(header::RETRY_AFTER, 1.into()),
        }
    }
}

impl From<OperatorJobReason> for ApiError {
    fn from(reason: OperatorJobReason) -> Self {
        let detail = match reason {
            OperatorJobReason::InvalidTransition(refused) => {
                format!("The job cannot be changed in this way: {refused}.")
            }
            OperatorJobReason::KeyTaken => "An open job has the same key, and does the same.".to_owned(),
        };
        Self::new(ErrorCode::Conflict).with_detail(detail)
    }
}

impl From<SignUpError> for ApiError {
    fn from(error: SignUpError) -> Self {
        match error {
            SignUpError::PlanNeedsPayment(plan) => Self::new(ErrorCode::PlanRequiresPayment).with_detail(format!(
                "The plan '{plan}' has a price, and payments are not set up here. Sign up without a plan, or ask the operator."
            )),
            SignUpError::PlanNeedsOperator(plan) => Self::new(ErrorCode::Forbidden).with_detail(format!(
                "The plan '{plan}' is not open to sign-up. Sign up without a plan, or ask the operator."
            )),
            SignUpError::Closed => Self::new(ErrorCode::Forbidden).with_detail(
                "Sign-up is not open. Operators create tenants with POST /api/v1/admin/tenants.",
            ),
            SignUpError::Invalid(invalid) => invalid.into(),
            SignUpError::Challenge(error) => error.into(),
            SignUpError::SlugTaken => Self::new(ErrorCode::SlugTaken),
            SignUpError::SubdomainTaken => Self::new(ErrorCode::SubdomainTaken),
            SignUpError::Password(error) => error.into(),
            SignUpError::Store(error) => error.into(),
        }
    }
}

impl From<TenantReason> for ApiError {
    fn from(reason: TenantReason) -> Self {
        match reason {
            TenantReason::SubdomainTaken => Self::new(ErrorCode::SubdomainTaken),
        }
    }
}

impl From<SettingReason> for ApiError {
    fn from(reason: SettingReason) -> Self {
        match reason {
            SettingReason::Undefined(_) => Self::new(ErrorCode::Internal).caused_by(reason.to_string()),
        }
    }
}

impl From<InvitationReason> for ApiError {
    fn from(reason: InvitationReason) -> Self {
        match reason {
            InvitationReason::EmailTaken => Self::new(ErrorCode::EmailTaken),
            InvitationReason::AlreadyInvited => Self::new(ErrorCode::Conflict)
                .with_detail("An open invitation has this address. Send it again, or revoke it."),
            InvitationReason::NoMoreMails => Self::new(ErrorCode::Conflict).with_detail(
                "The invitation has had all its mails. Revoke it, and invite the address again.",
            ),
            InvitationReason::TooMany(seconds) => Self::new(ErrorCode::RateLimited)
                .with_detail(format!("Too many invitations. Try again in {seconds} seconds."))
                .with_header(header::RETRY_AFTER, seconds.into()),
        }
    }
}

impl From<UserReason> for ApiError {
    fn from(reason: UserReason) -> Self {
        match reason {
            UserReason::EmailTaken => Self::new(ErrorCode::EmailTaken),
            UserReason::AwaitsProof => Self::new(ErrorCode::RegistrationPending),
            UserReason::LastAdmin => Self::new(ErrorCode::LastAdmin),
            UserReason::Referenced(reference) => Self::new(ErrorCode::Conflict).with_detail(format!(
                "Nothing was erased: rows that cannot be deleted refer to rows of the user by the foreign key {reference}. \
                 Delete these rows, or let the foreign key be ON DELETE CASCADE."
            )),
            UserReason::Password(error) => error.into(),
        }
    }
}

/// One answer to the reasons that all use cases share.
impl<R: OwnReason + Into<Self>> From<UseCaseError<R>> for ApiError {
    fn from(error: UseCaseError<R>) -> Self {
        match error {
            UseCaseError::Refused(refused) => refused.into(),
            UseCaseError::Invalid(invalid) => invalid.into(),
            UseCaseError::Stale(stale) => stale.into(),
            UseCaseError::NotFound => Self::new(ErrorCode::NotFound),
            UseCaseError::NotInPlan(refused) => refused.into(),
            UseCaseError::Denied(denied) => denied.into(),
            UseCaseError::Own(reason) => reason.into(),
            UseCaseError::Store(error) => error.into(),
        }
    }
}

impl From<NoReason> for ApiError {
    fn from(reason: NoReason) -> Self {
        match reason {}
    }
}

impl From<ReferenceReason> for ApiError {
    fn from(reason: ReferenceReason) -> Self {
        match reason {}
    }
}

impl From<ProjectReason> for ApiError {
    fn from(reason: ProjectReason) -> Self {
        Self::new(ErrorCode::Conflict).with_detail(match reason {
            ProjectReason::NameTaken => "Another project has this name.",
            ProjectReason::AlreadyMember => "The user is a member of the project already.",
            ProjectReason::OwnerStays => "The owner of a project is always a member of it.",
            ProjectReason::NotDeleted => "The project is not deleted.",
        })
    }
}

impl From<FlagReason> for ApiError {
    fn from(reason: FlagReason) -> Self {
        match reason {
            FlagReason::NotOverridable => {
                Self::new(ErrorCode::Forbidden).with_detail("The flag is not the tenant's to choose.")
            }
        }
    }
}

impl From<DefinitionReason> for ApiError {
    fn from(reason: DefinitionReason) -> Self {
        Self::new(ErrorCode::Conflict).with_detail(match reason {
            DefinitionReason::Taken => "There is a definition of that key already.".to_owned(),
            DefinitionReason::InUse(flags) => {
                format!("Rules of these flags name the segment: {}.", flags.join(", "))
            }
        })
    }
}

impl From<UsageReason> for ApiError {
    fn from(reason: UsageReason) -> Self {
        match reason {
            UsageReason::ServersOwn => Self::new(ErrorCode::Forbidden)
                .with_detail("What the server counts itself is not taken back."),
            UsageReason::TooOld => Self::new(ErrorCode::UsageTooOld)
                .with_detail("An event can be taken back for 90 days after it was accepted."),
            UsageReason::Conflict => {
                Self::new(ErrorCode::UsageConflict).with_detail("The event has been invalidated already.")
            }
            UsageReason::TooMany {
                exceeded,
                index,
                fitting,
            } => of_quota(exceeded, Some((index, fitting))),
            UsageReason::TooMuch { invalid, .. } => invalid.into(),
        }
    }
}

impl From<ProviderError> for ApiError {
    fn from(error: ProviderError) -> Self {
        match &error {
            ProviderError::Unavailable(_) | ProviderError::Unauthenticated | ProviderError::Unreadable(_) => {
                Self::new(ErrorCode::BillingUnavailable)
                    .with_detail("The payment provider does not respond as expected. Try again later.")
                    .caused_by(error)
            }
            // What the provider says of it may be about our account with it, so it is for the log.
            ProviderError::NotFound(_) | ProviderError::Refused(_) => Self::new(ErrorCode::Conflict)
                .with_detail("The payment provider refuses this.")
                .caused_by(error),
        }
    }
}

/// The answer where no payment provider is set up; trying again does not help.
fn without_payments() -> ApiError {
    ApiError::new(ErrorCode::BillingUnavailable).with_detail(
        "Payments are not set up on this server. The operator sets them up with billing.stripe.secret_key.",
    )
}

impl From<BillingError> for ApiError {
    fn from(error: BillingError) -> Self {
        let conflict = |detail| Self::new(ErrorCode::Conflict).with_detail(detail);
        match error {
            BillingError::Refused(refused) => refused.into(),
            BillingError::Invalid(invalid) => invalid.into(),
            BillingError::Stale(stale) => stale.into(),
            BillingError::Unavailable => without_payments(),
            BillingError::NoSubscription => Self::new(ErrorCode::NoSubscription),
            BillingError::AlreadySubscribed => conflict("There is a subscription already; change that one."),
            BillingError::CheckoutUnderWay => {
                conflict("Another checkout was begun at the same moment; ask again.")
            }
            BillingError::CustomerGone => Self::new(ErrorCode::BillingCustomerGone),
            BillingError::ChangeUnderWay => {
                conflict("Another change of the subscription is under way; wait a moment.")
            }
            BillingError::Gone => Self::new(ErrorCode::TenantGone),
            BillingError::Provider(error) => error.into(),
            BillingError::Store(error) => error.into(),
        }
    }
}

impl From<OversightError> for ApiError {
    fn from(error: OversightError) -> Self {
        match error {
            OversightError::Refused(refused) => refused.into(),
            OversightError::Unavailable => without_payments(),
            OversightError::Provider(error) => error.into(),
            OversightError::Store(error) => error.into(),
        }
    }
}

impl From<ReceiveError> for ApiError {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Unavailable => without_payments(),
            ReceiveError::Forged(error) => Self::new(ErrorCode::WebhookSignatureInvalid).caused_by(error),
            ReceiveError::Store(error) => error.into(),
        }
    }
}
