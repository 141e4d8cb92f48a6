//! What the payment provider has of a tenant and is not as it should be: surplus subscriptions, seats that are not paid, and
//! what a person has to look at. Looking changes nothing.

use tenantry_domain::billing::{
    BillingAccount, CustomerRef, FetchedAccount, PaymentProvider, ProviderSubscription, SubscriptionRef,
};
use tenantry_domain::kernel::TenantId;
use tenantry_tenancy::Cx;

use crate::billing::billing_surplus::{Surplus, fetched, running_of_former};
use crate::billing::sync_error::SyncError;

/// What the provider has of a tenant and a person has to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The tenant whose customer it is.
    pub tenant: TenantId,
    /// The customer at the provider.
    pub customer: CustomerRef,
    /// What is found.
    pub kind: FindingKind,
    /// The subscription that it is about, where it is about one.
    pub subscription: Option<SubscriptionRef>,
}

/// What is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingKind {
    /// A subscription for something else than our catalogue runs. It is left alone.
    ForeignSubscription,
    /// A subscription of ours runs for a customer that the tenant is no longer. It is ended.
    FormerCustomer,
    /// The customer's metadata names another tenant, or none. The stored reference counts.
    CustomerMetadata,
    /// The subscription has fewer seats than the tenant has active users: it was changed at the provider.
    UnpaidSeats,
}

impl FindingKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::ForeignSubscription,
        Self::FormerCustomer,
        Self::CustomerMetadata,
        Self::UnpaidSeats,
    ];

    /// Its name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ForeignSubscription => "foreign_subscription",
            Self::FormerCustomer => "former_customer",
            Self::CustomerMetadata => "customer_metadata",
            Self::UnpaidSeats => "unpaid_seats",
        }
    }

    /// Whether it must be put right. Another product may well be sold to the same customer.
    pub const fn is_fault(self) -> bool {
        match self {
            Self::FormerCustomer | Self::CustomerMetadata | Self::UnpaidSeats => true,
            Self::ForeignSubscription => false,
        }
    }
}

/// The surplus subscriptions of the scope's tenant and whatever else is found; nothing of a tenant that is no customer.
///
/// # Errors
/// [`SyncError`].
pub async fn look(cx: &Cx) -> Result<(Option<Surplus>, Vec<Finding>), SyncError> {
    let Some(payments) = cx.ports().payments.clone() else {
        return Ok((None, Vec::new()));
    };
    let account = cx.read(async |work| work.billing().current().await).await?;
    let Some(account) = account else {
        return Ok((None, Vec::new()));
    };
    let fetched = fetched(cx, payments.as_ref(), &account).await?;
    let mut findings = findings(cx, payments.as_ref(), &account, &fetched).await?;
    findings.extend(unpaid_seats(cx, &fetched).await?);
    Ok((Surplus::of(cx, &fetched), findings))
}

/// Whether the subscription that counts has fewer seats than there are active users.
async fn unpaid_seats(cx: &Cx, fetched: &FetchedAccount) -> Result<Option<Finding>, SyncError> {
    let Some(paid) = fetched.kept().filter(|kept| kept.grants()) else {
        return Ok(None);
    };
    let users = cx.read(async |work| work.users().count_active().await).await?;
    Ok((u64::from(paid.seats) < users).then(|| Finding {
        tenant: cx.scope().tenant(),
        customer: paid.customer.clone(),
        kind: FindingKind::UnpaidSeats,
        subscription: Some(paid.id.clone()),
    }))
}

async fn findings(
    cx: &Cx,
    payments: &dyn PaymentProvider,
    account: &BillingAccount,
    fetched: &FetchedAccount,
) -> Result<Vec<Finding>, SyncError> {
    let tenant = cx.scope().tenant();
    let of = |kind, one: &ProviderSubscription| Finding {
        tenant,
        customer: one.customer.clone(),
        kind,
        subscription: Some(one.id.clone()),
    };
    let foreign = fetched.foreign();
    let mut found: Vec<_> = foreign
        .map(|one| of(FindingKind::ForeignSubscription, one))
        .collect();
    let former = running_of_former(cx, payments, account).await?;
    found.extend(former.iter().map(|one| of(FindingKind::FormerCustomer, one)));
    if let Some(customer) = &account.customer
        && let Some(now) = payments.customer(customer).await?
        && now.label != Some(tenant)
    {
        found.push(Finding {
            tenant,
            customer: now.id,
            kind: FindingKind::CustomerMetadata,
            subscription: None,
        });
    }
    Ok(found)
}
