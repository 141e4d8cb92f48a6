//! What operators see of billing across tenants: who owes something, what could not be done, and where numbers differ. It
//! goes from customer to customer, each in its own scope, and what was looked at is on record.

use std::sync::Arc;

use serde_json::json;
use tenantry_domain::billing::{
    BillingAccount, CustomerRef, DunningState, EventState, MeterReport, Offer, PaymentProvider,
    ProviderError, ReceivedEvent,
};
use tenantry_domain::kernel::{Period, StoreError, SystemScope, TenantId};
use tenantry_domain::operations::OperatorPermission;
use tenantry_domain::tenant::{Denied, Refused};
use tenantry_tenancy::{Cx, OperatorCx, Origin};

use crate::billing::billing_customer;
use crate::billing::billing_finding::{self, Finding};
use crate::billing::billing_provision::ProvisionError;
use crate::billing::billing_surplus::Surplus;
use crate::billing::meter_report::{self, Drift};
use crate::billing::sync_error::SyncError;

const BECAUSE: SystemScope = SystemScope::because("an operator looks after billing");

/// Why it is not told.
#[derive(Debug, thiserror::Error)]
pub enum OversightError {
    /// The operator's role does not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nobody takes payments here.
    #[error("payments are not set up")]
    Unavailable,
    /// The provider did not answer.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SyncError> for OversightError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Provider(error) => Self::Provider(error),
            SyncError::Store(error) => Self::Store(error),
            SyncError::Job(error) => Self::Store(StoreError::Other(error.to_string())),
        }
    }
}

/// Which tenants are looked at: so many, by id, from after one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// After which tenant.
    pub after: Option<TenantId>,
    /// How many tenants, 1..=100.
    pub limit: u32,
}

/// What was found in some of the tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept<T> {
    /// What was found.
    pub found: Vec<T>,
    /// After which tenant it goes on; `None` when that was all.
    pub next: Option<TenantId>,
}

/// The accounts of tenants, or of those among them where dunning is in that state.
///
/// # Errors
/// [`OversightError`].
pub async fn accounts(
    cx: &OperatorCx,
    dunning: Option<DunningState>,
    sweep: Sweep,
) -> Result<Swept<(TenantId, BillingAccount)>, OversightError> {
    cx.require(OperatorPermission::ReadBilling)?;
    record(cx, "billing.accounts_listed", json!({"dunning": dunning})).await?;
    swept(cx, sweep, async |tenant| {
        let scope = match cx.app().ports.gate.system(BECAUSE, tenant).await {
            Ok(scope) => scope,
            Err(Denied::Store(error)) => return Err(error.into()),
            Err(_) => return Ok(Vec::new()),
        };
        let inside = Cx::new(Arc::clone(cx.app()), scope, Origin::default());
        let account = inside.read(async |work| work.billing().current().await).await?;
        let wanted = account.filter(|account| dunning.is_none_or(|state| account.dunning.state == state));
        Ok(wanted.map(|account| (tenant, account)).into_iter().collect())
    })
    .await
}

/// The reports of usage that cannot be sent any more.
///
/// # Errors
/// [`OversightError`].
pub async fn dead_letters(
    cx: &OperatorCx,
    sweep: Sweep,
) -> Result<Swept<(TenantId, MeterReport)>, OversightError> {
    cx.require(OperatorPermission::ReadBilling)?;
    record(cx, "billing.dead_letters_listed", json!({})).await?;
    swept(cx, sweep, async |tenant| {
        let dead = meter_report::dead_of(cx.app(), BECAUSE, tenant).await?;
        Ok(dead.into_iter().map(|report| (tenant, report)).collect())
    })
    .await
}

/// A line of the drift report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriftLine {
    /// How our number of a meter and the provider's differ.
    Meter(Drift),
    /// A tenant pays for more than one subscription.
    Surplus(Surplus),
    /// What the provider has of a tenant and a person has to look at.
    Finding(Finding),
}

/// How our numbers and the provider's differ, who pays twice, and what else is not as it should be.
///
/// # Errors
/// [`OversightError`].
pub async fn drift(
    cx: &OperatorCx,
    period: Option<Period>,
    sweep: Sweep,
) -> Result<Swept<DriftLine>, OversightError> {
    cx.require(OperatorPermission::ReadBilling)?;
    if cx.app().ports.payments.is_none() {
        return Err(OversightError::Unavailable);
    }
    record(cx, "billing.drift_reported", json!({"period": period})).await?;
    swept(cx, sweep, async |tenant| lines_of(cx, tenant, period).await).await
}

/// How our numbers of one tenant and the provider's differ, and whether it pays twice.
///
/// # Errors
/// [`OversightError`].
pub async fn drift_of(
    cx: &OperatorCx,
    tenant: TenantId,
    period: Option<Period>,
) -> Result<Vec<DriftLine>, OversightError> {
    cx.require(OperatorPermission::ReadBilling)?;
    if cx.app().ports.payments.is_none() {
        return Err(OversightError::Unavailable);
    }
    record_of(cx, "billing.drift_reported", tenant, json!({"period": period})).await?;
    lines_of(cx, tenant, period).await
}

async fn lines_of(
    cx: &OperatorCx,
    tenant: TenantId,
    period: Option<Period>,
) -> Result<Vec<DriftLine>, OversightError> {
    let Some(inside) = Cx::enter(cx.app(), BECAUSE, tenant).await? else {
        return Ok(Vec::new());
    };
    let meters = meter_report::drift(&inside, period).await?;
    let (surplus, findings) = billing_finding::look(&inside).await?;
    let meters = meters.into_iter().map(DriftLine::Meter);
    let findings = findings.into_iter().map(DriftLine::Finding);
    Ok(meters
        .chain(surplus.map(DriftLine::Surplus))
        .chain(findings)
        .collect())
}

/// A tenant whose customer the provider no longer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostCustomer {
    /// The tenant whose customer is gone.
    pub tenant: TenantId,
    /// The customer that the provider no longer has.
    pub customer: CustomerRef,
    /// The customer in its place, when it was replaced.
    pub replacement: Option<CustomerRef>,
    /// What the former customer was subscribed to until it was replaced.
    pub ended: Option<Offer>,
}

/// The tenants whose customers the provider no longer has; with `replace` each becomes a customer anew.
///
/// # Errors
/// [`OversightError`].
pub async fn lost_customers(
    cx: &OperatorCx,
    replace: bool,
    sweep: Sweep,
) -> Result<Swept<LostCustomer>, OversightError> {
    cx.require_command()?;
    let payments = provider(cx)?;
    record(cx, "billing.customers_checked", json!({"replace": replace})).await?;
    swept(cx, sweep, async |tenant| {
        lost_customer(cx, payments.as_ref(), tenant, replace).await
    })
    .await
}

/// [`lost_customers`] of one tenant.
///
/// # Errors
/// [`OversightError`].
pub async fn lost_customer_of(
    cx: &OperatorCx,
    tenant: TenantId,
    replace: bool,
) -> Result<Vec<LostCustomer>, OversightError> {
    cx.require_command()?;
    let payments = provider(cx)?;
    record_of(
        cx,
        "billing.customers_checked",
        tenant,
        json!({"replace": replace}),
    )
    .await?;
    lost_customer(cx, payments.as_ref(), tenant, replace).await
}

async fn lost_customer(
    cx: &OperatorCx,
    payments: &dyn PaymentProvider,
    tenant: TenantId,
    replace: bool,
) -> Result<Vec<LostCustomer>, OversightError> {
    let Some(inside) = cx.try_enter(BECAUSE, tenant).await? else {
        return Ok(Vec::new());
    };
    let account = inside.read(async |work| work.billing().current().await).await?;
    let Some((customer, ended)) = account.and_then(|account| {
        let granted = account.granted().cloned();
        account.customer.map(|customer| (customer, granted))
    }) else {
        return Ok(Vec::new());
    };
    if payments.has_customer(&customer).await? {
        return Ok(Vec::new());
    }
    let mut lost = LostCustomer {
        tenant,
        customer,
        replacement: None,
        ended: None,
    };
    if replace {
        let details = json!({ "customer": lost.customer });
        let record = cx.record("billing.customer_replaced", Some(tenant), details);
        let ensured = billing_customer::ensure(&inside, payments);
        match cx
            .act(record, "billing.customer_replacement_failed", ensured)
            .await
        {
            Ok(standing) => (lost.replacement, lost.ended) = (Some(standing.customer), ended),
            // It was deleted at this moment, and is a customer no longer.
            Err(ProvisionError::Gone) => return Ok(Vec::new()),
            Err(ProvisionError::Provider(error)) => return Err(error.into()),
            Err(ProvisionError::Store(error)) => return Err(error.into()),
        }
    }
    Ok(vec![lost])
}

/// The newest messages of the payment provider's.
///
/// # Errors
/// [`OversightError`].
pub async fn events(
    cx: &OperatorCx,
    state: Option<EventState>,
    limit: u32,
) -> Result<Vec<ReceivedEvent>, OversightError> {
    cx.require(OperatorPermission::ReadBilling)?;
    record(cx, "billing.events_listed", json!({"state": state})).await?;
    let events = &cx.app().ports.provider_events;
    Ok(events.list(BECAUSE, state, limit).await?)
}

async fn swept<T>(
    cx: &OperatorCx,
    sweep: Sweep,
    look: impl AsyncFn(TenantId) -> Result<Vec<T>, OversightError>,
) -> Result<Swept<T>, OversightError> {
    let customers = &cx.app().ports.customers;
    let tenants = customers.list(BECAUSE, sweep.after, sweep.limit).await?;
    let full = tenants.len() >= sweep.limit as usize;
    let next = tenants.last().copied().filter(|_| full);
    let mut found = Vec::new();
    for tenant in tenants {
        found.extend(look(tenant).await?);
    }
    Ok(Swept { found, next })
}

async fn record_of(
    cx: &OperatorCx,
    action: &'static str,
    tenant: TenantId,
    details: serde_json::Value,
) -> Result<(), StoreError> {
    let mut work = cx.begin().await?;
    work.tenant(tenant).await?;
    work.commit(cx.record(action, Some(tenant), details)).await
}

async fn record(cx: &OperatorCx, action: &'static str, details: serde_json::Value) -> Result<(), StoreError> {
    cx.begin().await?.commit(cx.record(action, None, details)).await
}

fn provider(cx: &OperatorCx) -> Result<Arc<dyn PaymentProvider>, OversightError> {
    let payments = cx.app().ports.payments.clone();
    payments.ok_or(OversightError::Unavailable)
}
