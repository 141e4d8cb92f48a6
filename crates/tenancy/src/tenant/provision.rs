//! Sign-up: a tenant, its settings, its first admin and their session, in one transaction.

use std::sync::Arc;

use serde_json::json;
use tenantry_domain::identity::{
    ChallengeError, ChallengePurpose, Email, NewUser, Password, PasswordError, User,
};
use tenantry_domain::kernel::{Check, Constraint, Invalid, RequestId, Role, StoreError, SystemScope, UserId};
use tenantry_domain::operations::OperatorPermission;
use tenantry_domain::tenant::{Denied, NewTenant, Refused, Slug, Tenant, TenantSelector};

use crate::identity::account_link;
use crate::identity::challenge::{self, ChallengeResponse};
use crate::identity::first_password;
use crate::identity::new_password;
use crate::identity::session::SessionRules;
use crate::identity::session_start::{self, LoggedIn};
use crate::kernel::carries_store_error::carries_store_error;
use crate::{Changed, Cx, OperatorCx, Origin, Tenancy};

/// The first admin of a new tenant.
#[derive(Debug, Clone)]
pub struct NewAdmin {
    /// Their address.
    pub email: String,
    /// The admin's name; 1 to 120 characters.
    pub full_name: String,
    /// Their password; generated when absent.
    pub password: Option<String>,
}

/// A tenant that was signed up.
#[derive(Debug, Clone)]
pub struct SignedUp {
    /// The admin, logged in.
    pub login: LoggedIn,
    /// The password, when it was generated; this is the only time it is seen.
    pub generated_password: Option<Password>,
}

/// Why there is no new tenant; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum SignUpError {
    /// The operator does not allow sign-up.
    #[error("sign-up is not open")]
    Closed,
    /// The plan of this name has a price, and nobody takes payments here.
    #[error("the plan '{0}' has a price, and payments are not set up")]
    PlanNeedsPayment(String),
    /// The plan of this name has no price, and the operator has not opened it to sign-up.
    #[error("the plan '{0}' is not open to sign-up")]
    PlanNeedsOperator(String),
    /// Input that does not hold.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No response to a challenge was accepted.
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    /// Another tenant has the slug.
    #[error("the slug is taken")]
    SlugTaken,
    /// Another tenant has the subdomain.
    #[error("the subdomain is taken")]
    SubdomainTaken,
    /// Passwords cannot be hashed now.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}
carries_store_error!(SignUpError);

impl From<StoreError> for SignUpError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unique(Constraint::TenantSlug) => Self::SlugTaken,
            StoreError::Unique(Constraint::TenantSubdomain) => Self::SubdomainTaken,
            other => Self::Store(other),
        }
    }
}

/// Creates a tenant as anybody may where the operator allows it: on a plan that is open to sign-up, or on one that is paid to
/// the payment provider.
///
/// # Errors
/// [`SignUpError`].
pub async fn sign_up(
    cx: &Cx,
    tenant: NewTenant,
    admin: NewAdmin,
    challenge: &ChallengeResponse,
) -> Result<SignedUp, SignUpError> {
    let slug = tenant.slug.clone();
    if let Err(refused) = challenge::check(cx, ChallengePurpose::SignUp, challenge).await {
        // A request that is repeated with its idempotency key has used the response up.
        check_signed_up(cx, &slug).await?;
        return Err(refused.into());
    }
    match establish(cx, tenant, admin, (Paying::First, PasswordBy::Admin)).await {
        Err(taken @ (SignUpError::SlugTaken | SignUpError::SubdomainTaken)) => {
            check_signed_up(cx, &slug).await?;
            Err(taken)
        }
        done => done,
    }
}

/// Returns the context of a sign-up: the scope of a tenant that does not exist yet.
///
/// # Errors
/// [`SignUpError::Closed`] where the operator does not allow sign-up.
pub fn sign_up_cx(app: &Arc<Tenancy>, origin: Origin, request: RequestId) -> Result<Cx, SignUpError> {
    if !app.policy.signup_enabled {
        return Err(SignUpError::Closed);
    }
    let because = SystemScope::because("sign-up");
    Ok(Cx::new(
        Arc::clone(app),
        app.ports.gate.found(because, request),
        origin,
    ))
}

/// Fails with the stored answer when the tenant of this slug was created by the same request with the same idempotency
/// key. The answer is stored in that tenant.
async fn check_signed_up(cx: &Cx, slug: &str) -> Result<(), StoreError> {
    let Some(slug) = Slug::parse(slug) else {
        return Ok(());
    };
    let gate = &cx.ports().gate;
    let selector = TenantSelector::Slug(slug);
    match gate.guest(&selector, cx.scope().request().clone()).await {
        Ok(admission) => cx.in_scope(admission.scope).check_once().await,
        Err(Denied::Store(error)) => Err(error),
        Err(Denied::TenantNotFound | Denied::TenantGone) => Ok(()),
        Err(denied) => Err(StoreError::Other(denied.to_string())),
    }
}

/// Founds a tenant for the operator, whether sign-up is open or not. A password that is given is the admin's own; a generated one
/// expires.
///
/// # Errors
/// [`SignUpError`].
pub async fn found(
    app: &Arc<Tenancy>,
    because: SystemScope,
    origin: Origin,
    request: RequestId,
    tenant: NewTenant,
    admin: NewAdmin,
) -> Result<SignedUp, SignUpError> {
    let cx = Cx::new(Arc::clone(app), app.ports.gate.found(because, request), origin);
    establish(&cx, tenant, admin, (Paying::Later, PasswordBy::Admin)).await
}

/// Returns the context in which an operator creates a tenant: the scope of one that does not exist yet.
///
/// # Errors
/// [`Refused`].
pub fn operator_cx(cx: &OperatorCx) -> Result<Cx, Refused> {
    cx.require(OperatorPermission::CreateTenants)?;
    let because = SystemScope::because("an operator creates a tenant");
    let scope = cx.app().ports.gate.found(because, cx.scope().request().clone());
    Ok(cx.inside(scope))
}

/// Creates a tenant for an operator, whether sign-up is open or not, in the context of [`operator_cx`]. A request that is repeated with
/// its idempotency key fails with the stored answer, and leaves no record. The password of the admin expires: the operator knows it.
///
/// # Errors
/// [`SignUpError`].
pub async fn create_as_operator(
    cx: &OperatorCx,
    inside: &Cx,
    tenant: NewTenant,
    admin: NewAdmin,
) -> Result<SignedUp, SignUpError> {
    check_signed_up(inside, &tenant.slug).await?;
    let slug = tenant.slug.clone();
    let details = json!({"slug": tenant.slug, "name": tenant.name, "plan": tenant.plan});
    let record = cx.record("tenant.created", Some(inside.scope().tenant()), details);
    let created = cx.act(record, "tenant.creation_failed", async {
        establish(inside, tenant, admin, (Paying::Later, PasswordBy::Operator)).await
    });
    match created.await {
        Err(taken @ (SignUpError::SlugTaken | SignUpError::SubdomainTaken)) => {
            check_signed_up(inside, &slug).await?;
            Err(taken)
        }
        done => done,
    }
}

/// Whether a plan that is to be paid from its first day on is granted before it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paying {
    /// Not before.
    First,
    /// Yes: the operator has said so.
    Later,
}

/// Who chose a password that is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PasswordBy {
    /// The admin, whose own it is.
    Admin,
    /// An operator, who hands it on to the admin.
    Operator,
}

async fn establish(
    cx: &Cx,
    tenant: NewTenant,
    admin: NewAdmin,
    (paying, chosen_by): (Paying, PasswordBy),
) -> Result<SignedUp, SignUpError> {
    let mut checked = check(cx, tenant, admin).await?;
    let wanted = checked.tenant.plan.clone();
    if paying == Paying::First {
        await_payment(cx, &mut checked.tenant)?;
    }
    let password = checked
        .password
        .clone()
        .unwrap_or_else(|| cx.ports().passwords.generate());
    let hash = cx
        .ports()
        .passwords
        .hash(&cx.hashing_caller(), password.clone())
        .await?;
    let mut user =
        User::new(UserId::next(cx.ids()), checked.user, hash, cx.now()).map_err(|e| e.under("/admin"))?;
    if checked.password.is_none() || chosen_by == PasswordBy::Operator {
        user.expire_password(cx.now() + first_password::lifetime_in_new_tenant());
    }
    let generated_password = checked.password.is_none().then_some(password);
    store(cx, checked.tenant, user, &wanted, generated_password).await
}

/// Where payments are taken, a plan with a price and without a trial is granted when it is paid; until then there is the
/// default plan. Where none are taken only an operator grants a plan with a price. A plan without a price is granted by an
/// operator, or is open to sign-up.
fn await_payment(cx: &Cx, tenant: &mut Tenant) -> Result<(), SignUpError> {
    let plans = &cx.ports().plans;
    if plans.is_open_to_signup(&tenant.plan) {
        return Ok(());
    }
    let terms = plans.terms(&tenant.plan, tenant.plan_version);
    if terms.prices.is_empty() {
        return Err(SignUpError::PlanNeedsOperator(tenant.plan.clone()));
    }
    if !cx.ports().subscriptions.takes_payments(cx) {
        return Err(SignUpError::PlanNeedsPayment(tenant.plan.clone()));
    }
    if terms.trial_days > 0 {
        return Ok(());
    }
    if let Some(default) = plans.current(plans.default_plan()) {
        tenant.plan.clone_from(&default.name);
        tenant.plan_version = default.version;
    }
    Ok(())
}

struct Checked {
    tenant: Tenant,
    user: NewUser,
    password: Option<Password>,
}

/// Says all that is wrong with tenant and admin at once.
async fn check(cx: &Cx, tenant: NewTenant, admin: NewAdmin) -> Result<Checked, Invalid> {
    let mut check = Check::new();
    let plans = &cx.ports().plans;
    let plan = tenant
        .plan
        .clone()
        .unwrap_or_else(|| plans.default_plan().to_owned());
    if !plans.offers(&plan) {
        check.fail(
            "/plan",
            "unknown_plan",
            format!("must be one of {}", plans.names().join(", ")),
        );
    }
    let version = plans.current(&plan).map_or(1, |terms| terms.version);
    let settings = cx.app().policy.default_settings.clone();
    let (slug, name) = (tenant.slug.clone(), tenant.name.clone());
    let tenant = check.take(Tenant::new(
        cx.scope().tenant(),
        tenant,
        (plan, version),
        settings,
        cx.now(),
    ));
    let email = check.take(Email::parse(&admin.email, "/admin/email"));
    check.line("/admin/full_name", admin.full_name.trim(), 1..=120);
    let names = [slug.as_str(), &name, &admin.email, &admin.full_name];
    let password = new_password::choose_given(cx.app(), admin.password, "/admin/password", &names).await;
    let password = check.take(password);
    check.verdict()?;
    let (Some(tenant), Some(email), Some(password)) = (tenant, email, password) else {
        return Err(Invalid(Vec::new()));
    };
    Ok(Checked {
        tenant,
        user: NewUser {
            email,
            full_name: admin.full_name,
            role: Role::Admin,
        },
        password,
    })
}

async fn store(
    cx: &Cx,
    tenant: Tenant,
    admin: User,
    wanted: &str,
    generated_password: Option<Password>,
) -> Result<SignedUp, SignUpError> {
    let (session, refresh_token) = session_start::new_session(cx, admin.id);
    cx.write(async |work| {
        work.tenants().insert(&tenant, &cx.first_data_key()).await?;
        work.users().insert(&admin).await?;
        work.sessions().insert(&session).await?;
        cx.record(work, Changed::created(&tenant)).await?;
        cx.record(work, Changed::created(&admin)).await?;
        account_link::verify(cx, work, &admin).await?;
        cx.ports().subscriptions.provision(cx, work, wanted).await?;
        let refresh_token = refresh_token.clone();
        let login = session_start::logged_in(
            cx,
            SessionRules::default(),
            &session,
            refresh_token,
            admin.clone(),
            tenant.clone(),
        );
        Ok::<_, SignUpError>(SignedUp {
            login,
            generated_password: generated_password.clone(),
        })
    })
    .await
}
