//! Rate limits, and how they are told: the fields of draft-ietf-httpapi-ratelimit-headers.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use actix_web::{
    Error, HttpMessage, HttpRequest,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method,
        header::{self, HeaderName, HeaderValue},
    },
    middleware::Next,
};
use tenantry_domain::identity::Email;
use tenantry_domain::kernel::{ErrorCode, IdSource, Network, StoreError, TenantId, UserId};
use tenantry_domain::operations::{
    Account, AccountName, AccountRates, Allowance, BucketKey, ClientAddress, Decision, Demand, OperatorScope,
    Rate, RateBook, RateLimiter, TenantRates,
};
use tenantry_domain::tenant::{Actor, Admission};
use tenantry_tenancy::Cx;
use tenantry_tenancy::identity::known_network;
use tokio::{runtime::Handle, task::JoinHandle};

use crate::extract::origin;
use crate::{Api, ApiError};

/// What requests cost when no row of [`COSTS`] says otherwise.
const READ: u32 = 1;
const WRITE: u32 = 2;

/// What a request takes from each of its buckets, where that is not [`READ`] or [`WRITE`]. Whatever hashes a
/// password takes a core for tens of milliseconds, and founding a tenant leaves the most behind. Billing costs a unit for
/// each call of the payment provider, those of the job that it leaves behind included.
const COSTS: [(Method, &str, u32); 41] = [
    // They are POST for the sake of their bodies, and read only.
    (Method::POST, "/ofrep/v1/evaluate/flags", READ),
    (Method::POST, "/ofrep/v1/evaluate/flags/{key}", READ),
    (Method::POST, "/api/v1/auth/refresh", 1),
    (Method::POST, "/api/v1/auth/login", 2),
    (Method::POST, "/api/v1/admin/login", 2),
    (Method::POST, "/api/v1/auth/register", 3),
    (Method::POST, "/api/v1/auth/mfa/enroll", 5),
    (Method::POST, "/api/v1/auth/mfa/disable", 5),
    (Method::POST, "/api/v1/admin/change-password", 5),
    (Method::POST, "/api/v1/admin/mfa/enroll", 5),
    (Method::POST, "/api/v1/admin/mfa/disable", 5),
    (Method::POST, "/api/v1/auth/passkeys/registration", 5),
    (Method::POST, "/api/v1/auth/change-password", 5),
    (Method::POST, "/api/v1/auth/change-email", 4),
    (Method::POST, "/api/v1/auth/reset-password", 3),
    (Method::POST, "/api/v1/auth/discover", 3),
    (Method::POST, "/api/v1/auth/switch-tenant", 3),
    (Method::POST, "/api/v1/tenants", 5),
    (Method::POST, "/api/v1/users", 5),
    // They send mail to an address that the caller chooses, or hash a password.
    (Method::POST, "/api/v1/invitations", 5),
    (Method::POST, "/api/v1/invitations/{id}/resend", 5),
    (Method::POST, "/api/v1/invitations/accept", 3),
    // The second asks name servers that the caller chooses; the first makes one more domain that can be asked about at once.
    (Method::POST, "/api/v1/tenant/domains", 5),
    (Method::POST, "/api/v1/tenant/domains/{id}/verify", 10),
    (Method::POST, "/api/v1/webhooks/endpoints", 3),
    (Method::POST, "/api/v1/webhooks/endpoints/{id}/rotate-secret", 3),
    (Method::POST, "/api/v1/webhooks/portal", 3),
    (Method::DELETE, "/api/v1/projects/{id}", 3),
    // They count many rows, or queue up to 10,000 messages.
    (Method::GET, "/api/v1/webhooks/endpoints/{id}/stats", 5),
    (Method::POST, "/api/v1/webhooks/endpoints/{id}/recover", 20),
    // Each sends a request to where the tenant says.
    (Method::POST, "/api/v1/webhooks/endpoints/{id}/test", 5),
    (
        Method::POST,
        "/api/v1/webhooks/messages/{id}/endpoints/{endpoint_id}/resend",
        5,
    ),
    // They read the whole log.
    (Method::GET, "/api/v1/audit-events/export", 20),
    (Method::GET, "/api/v1/audit-events/verify", 20),
    (Method::GET, "/api/v1/billing", 2),
    (Method::GET, "/api/v1/billing/preview", 5),
    (Method::POST, "/api/v1/billing/checkout", 12),
    (Method::POST, "/api/v1/billing/portal", 4),
    (Method::POST, "/api/v1/billing/subscription", 8),
    (Method::POST, "/api/v1/billing/subscription/cancel", 5),
    (Method::POST, "/api/v1/billing/subscription/resume", 5),
];

/// Below this the payment provider is asked. It allows all tenants together so many calls, so each tenant has a bucket for
/// these requests beside its others.
const BILLING: &str = "/api/v1/billing";

/// Recorded usage costs as much as its body is long: events are small and there may be a thousand in a body.
const BY_LENGTH: (Method, &str) = (Method::POST, "/api/v1/usage/events");

/// Of such a body a unit pays for so many bytes.
const BYTES_OF_A_UNIT: usize = 1_024;

/// Of every other body so many bytes cost nothing beside the request, and then a unit pays for so many: what a tenant has stored in a
/// minute, kept answers of idempotency keys included, has a bound in bytes.
const BYTES_INCLUDED: usize = 16_384;
const BYTES_OF_A_FURTHER_UNIT: usize = 4_096;

/// What one address may ask for where nobody has been admitted.
#[derive(Debug, Clone, Copy)]
pub struct AddressRates {
    /// At the routes where a credential is presented or made: login, registration, refresh, sign-up.
    pub credential: Rate,
    /// At the routes that are open to everybody, probes excepted: branding, documentation, keys, measurements.
    pub visitor: Rate,
    /// How many logins to one account may fail.
    pub account: AccountRates,
}

/// What one operator may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorRates {
    /// At the routes of operators.
    pub admin: Rate,
    /// At the routes of tenants that have approved access, all together.
    pub support: Rate,
}

impl Default for OperatorRates {
    fn default() -> Self {
        const ADMIN: Rate = Rate::new(600, 300).expect("in range");
        const SUPPORT: Rate = Rate::new(120, 60).expect("in range");
        Self {
            admin: ADMIN,
            support: SUPPORT,
        }
    }
}

/// How much may be asked for: of each tenant and each of its users, and by each address.
#[derive(Clone)]
pub struct Limits {
    limiter: Arc<dyn RateLimiter>,
    rates: Arc<dyn RateBook>,
    addresses: AddressRates,
    billing: Rate,
    operators: OperatorRates,
    spread_by: Option<Arc<dyn IdSource>>,
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("limiter", &self.limiter)
            .field("rates", &self.rates)
            .field("addresses", &self.addresses)
            .field("billing", &self.billing)
            .finish_non_exhaustive()
    }
}

impl Limits {
    /// Limits by these rates, kept there. `billing` is how much a tenant may ask for of what calls the payment provider.
    pub fn new(
        limiter: Arc<dyn RateLimiter>,
        rates: Arc<dyn RateBook>,
        addresses: AddressRates,
        billing: Rate,
    ) -> Self {
        Self {
            limiter,
            rates,
            addresses,
            billing,
            operators: OperatorRates::default(),
            spread_by: None,
        }
    }

    /// Holds operators to other rates than the default ones.
    #[must_use]
    pub const fn operators(mut self, rates: OperatorRates) -> Self {
        self.operators = rates;
        self
    }

    /// Tells callers who have to wait a little more than that, each something else ([`Decision::spread`]); without this
    /// call the exact time.
    #[must_use]
    pub fn spread_by(mut self, random: Arc<dyn IdSource>) -> Self {
        self.spread_by = Some(random);
        self
    }

    async fn decide(&self, demand: &Demand) -> Decision {
        let decision = self.limiter.decide(demand).decision().await;
        match &self.spread_by {
            Some(random) if decision.exhausted() => decision.spread(random.random()),
            _ => decision,
        }
    }
}

/// Takes what the request of somebody who was admitted costs, from the buckets of the tenant and of the user, and from the
/// tenant's for billing where the payment provider is asked.
///
/// # Errors
/// `rate_limited`; then nothing was taken.
pub(crate) async fn take_of_tenant(
    request: &HttpRequest,
    api: &Api,
    admission: &Admission,
) -> Result<(), ApiError> {
    let Some(limits) = &api.limits else { return Ok(()) };
    let scope = &admission.scope;
    if let Actor::Operator { id, .. } = scope.actor() {
        let demand = Demand::of_support(id, limits.operators.support, announced_cost(request, api));
        return take(request, api, limits, ("support", &demand)).await;
    }
    let payer = Payer {
        tenant: scope.tenant(),
        // Each key has a bucket of its own, beside that of its creator.
        user: scope.api_key().map(|key| key.uuid().into()).or(scope.user()),
        rates: limits.rates.rates(&admission.tenant),
    };
    let mut demand = payer.demand(announced_cost(request, api));
    let pattern = request.match_pattern().unwrap_or_default();
    if pattern.strip_prefix(BILLING).is_some_and(is_below) {
        demand = demand.with_billing(scope.tenant(), limits.billing);
    }
    take(request, api, limits, ("tenant", &demand)).await?;
    if announced(request).is_none() && !request.method().is_safe() {
        request.extensions_mut().insert(payer);
    }
    Ok(())
}

/// Takes what a request of an operator costs from the bucket of the operator.
///
/// # Errors
/// `rate_limited`; then nothing was taken.
pub(crate) async fn take_of_operator(
    request: &HttpRequest,
    api: &Api,
    scope: &OperatorScope,
) -> Result<(), ApiError> {
    let (Some(limits), Some(operator)) = (&api.limits, scope.operator()) else {
        return Ok(());
    };
    let demand = Demand::of_operator(operator, limits.operators.admin, announced_cost(request, api));
    take(request, api, limits, ("operator", &demand)).await
}

/// Takes what the length of a body costs beyond what was taken before it was read, where the request did not announce its
/// length (chunked, or HTTP/2).
///
/// # Errors
/// `rate_limited`; then nothing more was taken.
pub(crate) async fn take_of_body(request: &HttpRequest, length: usize) -> Result<(), ApiError> {
    let Some(payer) = request.extensions_mut().remove::<Payer>() else {
        return Ok(());
    };
    let (before, whole) = (cost(request, 0), cost(request, length));
    if whole == before {
        return Ok(());
    }
    let api = Api::of(request)?;
    let Some(limits) = &api.limits else { return Ok(()) };
    let demand = payer.demand(whole - before).after(before);
    take(request, &api, limits, ("tenant", &demand)).await
}

/// Whose buckets pay for a body.
struct Payer {
    tenant: TenantId,
    user: Option<UserId>,
    rates: TenantRates,
}

impl Payer {
    fn demand(&self, cost: u32) -> Demand {
        Demand::of_tenant(self.tenant, self.user, self.rates, cost)
    }
}

/// Takes what an attempt with a credential costs from the bucket of the caller's address, or answers in the
/// route's stead. The body has not been read, so that guessing costs the same whether it was right or wrong.
pub(crate) async fn limit_address(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let taken = take_of_address(request.request(), "credential", |address, limits, cost| {
        Demand::of_address(address, limits.addresses.credential, cost)
    });
    go_on(taken.await, request, next).await
}

/// Takes what a request for something open to everybody costs from the other bucket of the caller's address.
pub(crate) async fn limit_visitor(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let taken = take_of_address(request.request(), "visitor", |address, limits, cost| {
        Demand::of_visitor(address, limits.addresses.visitor, cost)
    });
    go_on(taken.await, request, next).await
}

/// An attempt to log in to an account, or with an API key that is not cached. Only wrong credentials count as a failed login: on every other outcome, and when the
/// attempt is dropped without one (the request timed out, or its client went away), it gives back what it took.
#[must_use = "only a settled attempt can count as a failed login"]
pub(crate) struct Attempt(Option<(Arc<Limits>, Demand)>);

impl Attempt {
    /// Settles the attempt with the outcome of the login, and returns that outcome.
    ///
    /// # Errors
    /// Those of the outcome.
    pub(crate) async fn settle<T>(mut self, outcome: Result<T, impl Into<ApiError>>) -> Result<T, ApiError> {
        let outcome = outcome.map_err(Into::into);
        if matches!(&outcome, Err(error) if error.code() == ErrorCode::InvalidCredentials) {
            self.0 = None;
        } else if let Some(giving_back) = self.give_back() {
            // The answer waits for it; a panic of the limiter does not make the login fail.
            let _ = giving_back.await;
        }
        outcome
    }

    /// Settles an attempt that counts whatever becomes of it.
    pub(crate) fn spend(mut self) {
        self.0 = None;
    }

    /// Settles the attempt as failed: what it took stays taken.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }

    /// Gives back what the attempt took, in a task of its own: it ends also when the request is dropped. None when nothing
    /// is left to give back, or the server has stopped.
    fn give_back(&mut self) -> Option<JoinHandle<()>> {
        let (limits, demand) = self.0.take()?;
        let runtime = Handle::try_current().ok()?;
        Some(runtime.spawn(async move { limits.limiter.give_back(&demand).await }))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        drop(self.give_back());
    }
}

/// Takes an attempt to log in from the buckets of the account that the body names, known or unknown: from the one of the
/// caller's network, and from the one of all networks together. The address has given already.
///
/// Many networks together can empty the second bucket. It refuses no network that the account is known to have logged in
/// from lately, so that attempts from elsewhere lock nobody out.
///
/// # Errors
/// `rate_limited`, and those of `is_known`; then nothing was taken.
pub(crate) async fn take_of_account(
    request: &HttpRequest,
    api: &Api,
    account: Account,
    network: Option<Network>,
    is_known: impl AsyncFnOnce() -> Result<bool, StoreError>,
) -> Result<Attempt, ApiError> {
    let Some(limits) = &api.limits else {
        return Ok(Attempt(None));
    };
    let rates = limits.addresses.account;
    let mut demand = Demand::of_account(account, network, rates);
    let mut decision = limits.decide(&demand).await;
    if is_refused_elsewhere_only(&decision) && is_known().await? {
        demand = Demand::of_account_here(account, network, rates);
        decision = limits.decide(&demand).await;
    }
    api.metrics().decided("account", &decision);
    // The fields keep the address's numbers: what is left of an account is not the business of a caller who guesses.
    attempt(request, limits, demand, decision)
}

/// Takes a request that an account is counted for, such as one for a link, from the bucket of the caller's network. There is no bucket of all networks
/// together, which strangers could empty to keep the owner from asking: repeated requests find the same job, and the number of
/// mails is limited.
///
/// # Errors
/// `rate_limited`; then nothing was taken.
pub(crate) async fn take_of_mailed(
    request: &HttpRequest,
    api: &Api,
    account: Account,
    network: Option<Network>,
) -> Result<(), ApiError> {
    let Some(limits) = &api.limits else { return Ok(()) };
    let demand = Demand::of_account_here(account, network, limits.addresses.account);
    let decision = limits.decide(&demand).await;
    api.metrics().decided("account", &decision);
    attempt(request, limits, demand, decision).map(Attempt::spend)
}

/// Takes an attempt of a logged-in user to confirm their password, as a login does. The session may be stolen, so it does not make
/// the network a known one.
///
/// # Errors
/// `rate_limited`; then nothing was taken.
pub(crate) async fn confirm_account(
    request: &HttpRequest,
    cx: &Cx,
    email: &Email,
) -> Result<Attempt, ApiError> {
    let account = Account::User(cx.scope().tenant(), AccountName::of(email.as_str()));
    let network = Network::site(cx.origin().address());
    let is_known = async || known_network::is_known_network(cx, email.as_str(), network).await;
    take_of_account(request, &*Api::of(request)?, account, network, is_known).await
}

/// Gives back what failed logins took from the buckets of an account: from the one of the caller's network, and from the one
/// of all networks together.
pub(crate) async fn unlock_account(api: &Api, account: Account, network: Option<Network>) {
    if let Some(limits) = &api.limits {
        let demand = Demand::all_of_account(account, network, limits.addresses.account);
        limits.limiter.give_back(&demand).await;
    }
}

/// Takes an attempt with an API key that is not cached from the bucket of the caller's address: the one of what is open to
/// everybody, so that a program with a forgotten key keeps nobody beside it from logging in.
///
/// # Errors
/// `rate_limited`; then nothing was taken.
pub(crate) async fn take_of_unknown_key(request: &HttpRequest, api: &Api) -> Result<Attempt, ApiError> {
    let Some(limits) = &api.limits else {
        return Ok(Attempt(None));
    };
    let address = ClientAddress::of(origin::address(request, api));
    let demand = Demand::of_visitor(address, limits.addresses.visitor, READ);
    let decision = limits.decide(&demand).await;
    api.metrics().decided("visitor", &decision);
    attempt(request, limits, demand, decision)
}

/// The attempt that a decision allows.
fn attempt(
    request: &HttpRequest,
    limits: &Arc<Limits>,
    demand: Demand,
    decision: Decision,
) -> Result<Attempt, ApiError> {
    if decision.allowed() {
        return Ok(Attempt(Some((Arc::clone(limits), demand))));
    }
    let refusal = refused(&decision);
    request.extensions_mut().insert(decision);
    Err(refusal)
}

/// Whether the caller's own network has done nothing to be refused for.
fn is_refused_elsewhere_only(decision: &Decision) -> bool {
    let mut violated = decision.allowances().iter().filter(|told| told.violated);
    !decision.allowed() && violated.all(|told| matches!(told.rule.key, BucketKey::AccountAnywhere(_)))
}

async fn go_on(
    taken: Result<(), ApiError>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match taken {
        Ok(()) => Ok(next.call(request).await?.map_into_boxed_body()),
        Err(error) => Ok(request.error_response(error)),
    }
}

/// The fields that tell a request's caller how it stands, once something was taken for it.
pub(crate) fn fields(request: &HttpRequest) -> Option<[(HeaderName, HeaderValue); 2]> {
    let extensions = request.extensions();
    let allowances = extensions.get::<Decision>()?.allowances();
    if allowances.is_empty() {
        return None;
    }
    let field = |name, member: fn(&Allowance) -> String| {
        let members: Vec<_> = allowances.iter().map(member).collect();
        let value = HeaderValue::from_str(&members.join(", ")).ok()?;
        Some((HeaderName::from_static(name), value))
    };
    Some([field("ratelimit-policy", policy)?, field("ratelimit", standing)?])
}

async fn take_of_address(
    request: &HttpRequest,
    class: &'static str,
    demand: fn(ClientAddress, &Limits, u32) -> Demand,
) -> Result<(), ApiError> {
    let api = Api::of(request)?;
    let Some(limits) = &api.limits else { return Ok(()) };
    let address = ClientAddress::of(origin::address(request, &api));
    let demand = demand(address, limits, cost(request, 0));
    take(request, &api, limits, (class, &demand)).await
}

async fn take(
    request: &HttpRequest,
    api: &Api,
    limits: &Limits,
    (class, demand): (&'static str, &Demand),
) -> Result<(), ApiError> {
    let decision = limits.decide(demand).await;
    api.metrics().decided(class, &decision);
    let outcome = if decision.allowed() {
        Ok(())
    } else {
        Err(refused(&decision))
    };
    request.extensions_mut().insert(decision);
    outcome
}

fn refused(decision: &Decision) -> ApiError {
    let violated = decision
        .allowances()
        .iter()
        .filter(|allowance| allowance.violated);
    let mut policies: Vec<_> = violated.map(|allowance| allowance.rule.key.policy()).collect();
    // Both buckets of an account have one name.
    policies.dedup();
    ApiError::new(ErrorCode::RateLimited)
        .with_violated_policies(policies)
        .with_header(header::RETRY_AFTER, decision.retry_after_seconds().into())
}

/// Whether what is left of a path is that of the prefix itself, or of something below it.
fn is_below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

/// What a request costs by what it says of its length before the body is read.
fn announced_cost(request: &HttpRequest, api: &Api) -> u32 {
    let most = api.config.body_limit_bytes;
    cost(request, announced(request).map_or(0, |length| length.min(most)))
}

/// What a request costs whose body has `length` bytes.
fn cost(request: &HttpRequest, length: usize) -> u32 {
    if is_by_length(request) {
        return units(length, BYTES_OF_A_UNIT).max(WRITE);
    }
    let pattern = request.match_pattern().unwrap_or_default();
    let own = COSTS
        .iter()
        .find(|(method, path, _)| method == request.method() && *path == pattern);
    let cost = match own {
        Some((_, _, cost)) => *cost,
        None if request.method().is_safe() => READ,
        None => WRITE,
    };
    cost.saturating_add(units(
        length.saturating_sub(BYTES_INCLUDED),
        BYTES_OF_A_FURTHER_UNIT,
    ))
}

fn is_by_length(request: &HttpRequest) -> bool {
    let pattern = request.match_pattern().unwrap_or_default();
    BY_LENGTH == (request.method().clone(), pattern.as_str())
}

/// How many units pay for so many bytes.
fn units(length: usize, bytes_of_a_unit: usize) -> u32 {
    u32::try_from(length.div_ceil(bytes_of_a_unit)).unwrap_or(u32::MAX)
}

/// How long the body will be, which has not been read; `None` where no header says it.
fn announced(request: &HttpRequest) -> Option<usize> {
    request
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// The quota of a minute. How much of it may come at once is told where it is another number, in a parameter of
/// our own: the draft has none for it.
fn policy(allowance: &Allowance) -> String {
    let (name, rate) = (allowance.rule.key.policy(), allowance.rule.rate);
    let mut text = format!("\"{name}\";q={};w=60", rate.per_minute());
    if rate.burst() != rate.per_minute() {
        // Writing into a string cannot fail.
        let _ = write!(text, ";tenantry-burst={}", rate.burst());
    }
    text
}

fn standing(allowance: &Allowance) -> String {
    let (name, remaining) = (allowance.rule.key.policy(), allowance.remaining);
    match allowance.wait_seconds {
        0 => format!("\"{name}\";r={remaining}"),
        wait => format!("\"{name}\";r={remaining};t={wait}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use tenantry_domain::operations::{Deciding, Rule, TenantRates};
    use tenantry_domain::tenant::TenantFacts;

    use super::*;
    use crate::{
        HttpConfig,
        testing::{Call, SOME_ID, api},
    };

    /// Remembers what it was asked, and says yes or no.
    #[derive(Debug)]
    struct Recorder {
        allows: bool,
        asked: Mutex<Vec<Demand>>,
        given_back: AtomicUsize,
    }

    impl RateLimiter for Recorder {
        fn decide<'a>(&'a self, demand: &'a Demand) -> Deciding<'a> {
            self.asked.lock().unwrap().push(demand.clone());
            let levels = if self.allows {
                vec![u64::from(u32::MAX); 3]
            } else {
                vec![0; 3]
            };
            Deciding::Ready(Decision::of(demand, &levels))
        }

        fn give_back<'a>(&'a self, _: &'a Demand) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
            Box::pin(async {
                self.given_back.fetch_add(1, Ordering::SeqCst);
            })
        }
    }

    #[derive(Debug)]
    struct Tens;

    impl RateBook for Tens {
        fn rates(&self, tenant: &TenantFacts) -> TenantRates {
            assert_eq!(tenant.subscription.plan, "free");
            let rate = Rate::new(10, 10);
            TenantRates {
                tenant: rate,
                user: rate,
            }
        }
    }

    fn addresses() -> AddressRates {
        AddressRates {
            credential: Rate::new(5, 5).unwrap(),
            visitor: Rate::new(7, 7).unwrap(),
            account: AccountRates {
                network: Rate::new(3, 3).unwrap(),
                anywhere: Rate::new(4, 4).unwrap(),
            },
        }
    }

    fn billing() -> Rate {
        Rate::new(20, 20).unwrap()
    }

    fn recorder(allows: bool) -> Recorder {
        Recorder {
            allows,
            asked: Mutex::default(),
            given_back: AtomicUsize::new(0),
        }
    }

    fn limited(allows: bool) -> (Arc<Recorder>, Api) {
        let recorder = Arc::new(recorder(allows));
        let limits = Limits::new(recorder.clone(), Arc::new(Tens), addresses(), billing());
        (recorder, api(HttpConfig::default()).with_limits(limits))
    }

    /// The names of the rules and the cost of everything that was asked.
    fn asked(recorder: &Recorder) -> Vec<(Vec<&'static str>, u32)> {
        let asked = std::mem::take(&mut *recorder.asked.lock().unwrap());
        let names = |demand: &Demand| demand.rules().iter().map(|rule| rule.key.policy()).collect();
        asked
            .iter()
            .map(|demand| (names(demand), demand.cost()))
            .collect()
    }

    #[actix_web::test]
    async fn each_request_costs_what_the_table_says() {
        let (recorder, api) = limited(true);
        let one = format!("/api/v1/projects/{SOME_ID}");
        let of_tenant = [
            (Call::get("/api/v1/projects"), 1),
            (Call::new(Method::HEAD, "/api/v1/projects"), 1),
            (Call::post("/api/v1/projects", "{}"), 2),
            (Call::new(Method::PATCH, &one), 2),
            (Call::new(Method::DELETE, &one), 3),
            (Call::post("/api/v1/users", "{}"), 5),
            (Call::post("/api/v1/auth/change-password", "{}"), 5),
            (Call::post("/api/v1/auth/change-email", "{}"), 4),
        ];
        for (call, cost) in of_tenant {
            let reply = call.bearer("admin").send(&api).await;
            assert_eq!(asked(&recorder), [(vec!["tenant", "user"], cost)]);
            assert_eq!(
                reply.header("RateLimit-Policy"),
                Some("\"tenant\";q=10;w=60, \"user\";q=10;w=60")
            );
        }
        let of_billing = [
            (Call::get("/api/v1/billing"), 2),
            (Call::get("/api/v1/billing/invoices"), 1),
            (Call::get("/api/v1/billing/preview"), 5),
            (Call::post("/api/v1/billing/checkout", "{}"), 12),
            (Call::post("/api/v1/billing/portal", "{}"), 4),
            (Call::post("/api/v1/billing/subscription", "{}"), 8),
            (Call::post("/api/v1/billing/subscription/cancel", ""), 5),
            (Call::post("/api/v1/billing/subscription/resume", ""), 5),
        ];
        for (call, cost) in of_billing {
            let reply = call.bearer("admin").send(&api).await;
            assert_eq!(asked(&recorder), [(vec!["tenant", "user", "billing"], cost)]);
            let policies = reply.header("RateLimit-Policy").unwrap();
            assert!(policies.ends_with("\"billing\";q=20;w=60"), "{policies}");
        }
        for (path, cost) in [
            ("/api/v1/auth/refresh", 1),
            ("/api/v1/auth/login", 2),
            ("/api/v1/auth/register", 3),
            ("/api/v1/invitations/accept", 3),
            ("/api/v1/auth/forgot-password", 2),
            ("/api/v1/auth/reset-password", 3),
            ("/api/v1/auth/verify-email", 2),
            ("/api/v1/auth/revert-email", 2),
            ("/api/v1/tenants", 5),
        ] {
            let reply = Call::post(path, "nonsense").send(&api).await;
            assert_eq!(asked(&recorder), [(vec!["address"], cost)], "{path}");
            assert_eq!(reply.code(), "malformed_json");
            assert_eq!(reply.header("RateLimit-Policy"), Some("\"address\";q=5;w=60"));
        }
        for path in [
            "/api/v1/branding",
            "/api/v1/auth/challenge?purpose=sign_up",
            "/api/v1/branding/theme.css",
            "/api/v1/branding/preview",
            "/branding/preview",
            "/openapi.json",
            "/openapi.yaml",
            "/docs/",
            "/problems",
            "/metrics",
            "/.well-known/jwks.json",
        ] {
            let reply = Call::get(path).send(&api).await;
            assert_eq!(asked(&recorder), [(vec!["visitor"], 1)], "{path}");
            assert_eq!(reply.header("RateLimit-Policy"), Some("\"visitor\";q=7;w=60"));
            if !path.contains("branding") {
                continue;
            }
            // Whoever is admitted on top of it is also held to the tenant's rates.
            Call::get(path).bearer("admin").send(&api).await;
            assert_eq!(
                asked(&recorder),
                [(vec!["visitor"], 1), (vec!["tenant", "user"], 1)],
                "{path}"
            );
        }
    }

    /// A thousand events, or a mebibyte, cost more than one event does, and before they are read.
    #[actix_web::test]
    async fn recorded_usage_costs_by_the_length_of_its_body() {
        let (recorder, api) = limited(true);
        for (header, value, cost) in [
            ("Content-Length", "2", 2),
            ("Content-Length", "2048", 2),
            ("Content-Length", "2049", 3),
            ("Content-Length", "150000", 147),
            ("Content-Length", "99999999999", 1_024),
        ] {
            let call = Call::new(Method::POST, "/api/v1/usage/events").bearer("admin");
            call.header(header, value).send(&api).await;
            assert_eq!(
                asked(&recorder),
                [(vec!["tenant", "user"], cost)],
                "{header}: {value}"
            );
        }
    }

    /// What is stored by other requests, and kept as their answers, costs by its length, too.
    #[actix_web::test]
    async fn long_bodies_cost_beyond_what_is_included() {
        let (recorder, api) = limited(true);
        for (length, cost) in [
            ("0", 2),
            ("16384", 2),
            ("16385", 3),
            ("20480", 3),
            ("150000", 35),
            ("99999999999", 254),
        ] {
            let call = Call::new(Method::POST, "/api/v1/projects").bearer("admin");
            call.header("Content-Length", length).send(&api).await;
            assert_eq!(asked(&recorder), [(vec!["tenant", "user"], cost)], "{length}");
        }
    }

    /// Without a `Content-Length` the length is known when the body was read, and is then paid for.
    #[actix_web::test]
    async fn chunked_bodies_cost_by_the_length_that_was_read() {
        let buckets = || vec!["tenant", "user"];
        let (usage, projects) = ("/api/v1/usage/events", "/api/v1/projects");
        for (path, length, costs) in [
            (usage, 10, vec![2]),
            (usage, 2_048, vec![2]),
            (usage, 2_049, vec![2, 1]),
            (usage, 150_000, vec![2, 145]),
            (projects, 16_384, vec![2]),
            (projects, 16_385, vec![2, 1]),
            (projects, 150_000, vec![2, 33]),
        ] {
            let (recorder, api) = limited(true);
            let call = Call::new(Method::POST, path).bearer("admin");
            let call = call.header("Content-Type", "application/json");
            let call = call.header("Transfer-Encoding", "chunked");
            let call = call.body(&format!("[]{}", " ".repeat(length - 2)));
            let reply = call.send(&api).await;
            assert_eq!(
                reply.code(),
                "validation_failed",
                "it is read after it is paid for"
            );
            let paid: Vec<_> = costs.into_iter().map(|cost| (buckets(), cost)).collect();
            assert_eq!(asked(&recorder), paid, "{path}: {length}");
        }
    }

    #[actix_web::test]
    async fn who_is_not_admitted_and_what_is_open_costs_nothing() {
        let (recorder, api) = limited(false);
        let calls = [
            Call::get("/api/v1/projects"),
            Call::get("/api/v1/projects").bearer("forged"),
            Call::get("/api/v1/projects").bearer("expired"),
            Call::new(Method::PUT, "/api/v1/auth/login"),
            Call::get("/health"),
            Call::get("/healthz"),
            Call::get("/nothing").bearer("admin"),
        ];
        for call in calls {
            let reply = call.send(&api).await;
            assert_eq!(asked(&recorder), []);
            assert_eq!(reply.header("RateLimit"), None);
        }
    }

    #[actix_web::test]
    async fn naming_another_tenant_costs_its_price_each_time() {
        let (recorder, api) = limited(false);
        let call = Call::get("/api/v1/projects").bearer("admin");
        let reply = call.header("X-Tenant-Slug", "globex").send(&api).await;
        assert_eq!(reply.code(), "rate_limited");
        assert_eq!(asked(&recorder).len(), 1);
    }

    #[actix_web::test]
    async fn a_refusal_says_which_rules_and_for_how_long_and_reads_no_body() {
        let (recorder, api) = limited(false);
        let reply = Call::post("/api/v1/projects", "nonsense")
            .bearer("member")
            .send(&api)
            .await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (429, "rate_limited")
        );
        assert_eq!(
            reply.json()["violated-policies"],
            serde_json::json!(["tenant", "user"])
        );
        assert_eq!(reply.header("Retry-After"), Some("12"));
        assert_eq!(
            reply.header("RateLimit"),
            Some("\"tenant\";r=0;t=12, \"user\";r=0;t=12")
        );
        assert_eq!(asked(&recorder).len(), 1);
        let reply = Call::post("/api/v1/auth/login", "nonsense").send(&api).await;
        assert_eq!(reply.code(), "rate_limited");
        assert_eq!(reply.json()["violated-policies"], serde_json::json!(["address"]));
    }

    #[actix_web::test]
    async fn only_wrong_credentials_count_as_a_failed_login() {
        let recorder = Arc::new(recorder(true));
        let limits = Arc::new(Limits::new(
            recorder.clone(),
            Arc::new(Tens),
            addresses(),
            billing(),
        ));
        let demand = Demand::of_account(
            Account::Operator(AccountName::of("olga@platform.example")),
            None,
            addresses().account,
        );
        let attempt = || Attempt(Some((Arc::clone(&limits), demand.clone())));
        let given_back = || recorder.given_back.load(Ordering::SeqCst);
        let failure = |code| Err::<(), _>(ApiError::new(code));
        let wrong = attempt().settle(failure(ErrorCode::InvalidCredentials)).await;
        assert_eq!(wrong.unwrap_err().code(), ErrorCode::InvalidCredentials);
        // A task that gave back would be ahead of this one.
        actix_web::rt::spawn(async {}).await.unwrap();
        assert_eq!(given_back(), 0);
        attempt().settle(Ok::<_, ApiError>(())).await.unwrap();
        assert_eq!(given_back(), 1);
        let busy = attempt().settle(failure(ErrorCode::Unavailable)).await;
        assert_eq!(busy.unwrap_err().code(), ErrorCode::Unavailable);
        assert_eq!(given_back(), 2);
        // The request's future is dropped: a timeout, or a client that goes away.
        drop(attempt());
        while given_back() < 3 {
            tokio::task::yield_now().await;
        }
    }

    /// Always the same id.
    struct Same(uuid::Uuid);

    impl IdSource for Same {
        fn uuid(&self) -> uuid::Uuid {
            self.0
        }
    }

    #[actix_web::test]
    async fn who_has_to_wait_is_told_a_little_more_and_the_same_in_all_fields() {
        for (random, wait) in [(0, "12"), (u32::MAX, "15")] {
            let recorder = Arc::new(recorder(false));
            let limits = Limits::new(recorder, Arc::new(Tens), addresses(), billing())
                .spread_by(Arc::new(Same(uuid::Uuid::from_u128(random.into()))));
            let api = api(HttpConfig::default()).with_limits(limits);
            let reply = Call::post("/api/v1/projects", "{}")
                .bearer("member")
                .send(&api)
                .await;
            assert_eq!(reply.header("Retry-After"), Some(wait));
            let told = format!("\"tenant\";r=0;t={wait}, \"user\";r=0;t={wait}");
            assert_eq!(reply.header("RateLimit"), Some(told.as_str()));
        }
    }

    #[test]
    fn a_burst_is_told_where_it_is_another_number() {
        let allowance = |burst| Allowance {
            rule: Rule {
                key: BucketKey::Address(ClientAddress::of(None)),
                rate: Rate::new(60, burst).unwrap(),
            },
            remaining: 7,
            wait_seconds: 0,
            violated: false,
        };
        assert_eq!(policy(&allowance(60)), "\"address\";q=60;w=60");
        assert_eq!(policy(&allowance(5)), "\"address\";q=60;w=60;tenantry-burst=5");
        assert_eq!(standing(&allowance(5)), "\"address\";r=7");
    }
}
