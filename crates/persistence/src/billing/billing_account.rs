use async_trait::async_trait;
use sea_orm::ActiveValue::Set;
use tenantry_domain::billing::{
    BillingAccount, BillingAccounts, CustomerRef, Dunning, DunningState, Offer, PendingCheckout,
    ProviderSubscription, SubscriptionRef, SubscriptionStatus,
};
use tenantry_domain::kernel::{Currency, Interval, Period, StoreError};

use crate::kernel::error::from_json;
use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::Lock;
use crate::plans::plan::{signed as signed_version, unsigned};

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "billing_accounts")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub customer_ref: Option<String>,
        pub subscription_ref: Option<String>,
        pub subscription_status: Option<String>,
        pub plan: Option<String>,
        pub plan_version: Option<i32>,
        pub currency: Option<String>,
        pub billing_interval: Option<String>,
        pub seats: Option<i32>,
        pub period_start: Option<DateTimeUtc>,
        pub period_end: Option<DateTimeUtc>,
        pub trial_ends_at: Option<DateTimeUtc>,
        pub cancel_at_period_end: Option<bool>,
        pub canceled_at: Option<DateTimeUtc>,
        pub subscribed_at: Option<DateTimeUtc>,
        pub cycle_anchor: Option<DateTimeUtc>,
        pub dunning: String,
        pub dunning_failed_at: Option<DateTimeUtc>,
        pub dunning_steps: i32,
        pub dunning_next_at: Option<DateTimeUtc>,
        pub refusal: Option<String>,
        pub fetches: i64,
        pub applied: i64,
        pub synced_at: Option<DateTimeUtc>,
        pub updated_at: DateTimeUtc,
        pub version: i64,
        pub ended_at: Option<DateTimeUtc>,
        pub charged_meters: Json,
        pub checkout_seats: Option<i32>,
        pub checkout_until: Option<DateTimeUtc>,
        pub checkout_number: Option<i64>,
        pub dunning_suspends_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Entity, Model};

#[async_trait]
impl BillingAccounts for PgStore {
    async fn current(&mut self) -> Result<Option<BillingAccount>, StoreError> {
        let row = self.tx.find::<Entity>().one().await?;
        row.map(BillingAccount::try_from).transpose()
    }

    async fn current_for_update(&mut self) -> Result<Option<BillingAccount>, StoreError> {
        let row = self.tx.find::<Entity>().lock(Lock::Update).one().await?;
        row.map(BillingAccount::try_from).transpose()
    }

    async fn insert_unless_there(&mut self, account: &BillingAccount) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(account.id.uuid()),
            created_at: Set(account.created_at),
            ..changes(account)?
        };
        self.tx.insert_unless_there(row).await.map(|_| ())
    }

    async fn update(&mut self, account: &BillingAccount) -> Result<(), StoreError> {
        exactly_one(self.tx.update::<Entity>().set(changes(account)?).run().await?)
    }
}

/// Something of the provider's that was stored in a form that it cannot have.
fn broken(column: &'static str) -> impl Fn(&str) -> StoreError {
    move |text| unknown(column, text)
}

impl TryFrom<Model> for BillingAccount {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let customer = row.customer_ref.as_deref().map(customer).transpose()?;
        let dunning = Dunning {
            state: DunningState::parse(&row.dunning)
                .ok_or_else(|| broken("billing_accounts.dunning")(&row.dunning))?,
            failed_at: row.dunning_failed_at,
            suspends_at: row.dunning_suspends_at,
            steps: row.dunning_steps.unsigned_abs(),
            next_at: row.dunning_next_at,
        };
        Ok(Self {
            id: row.id.into(),
            subscription: subscription(&row, customer.as_ref())?,
            checkout: checkout(&row),
            customer,
            cycle_anchor: row.cycle_anchor,
            dunning,
            refusal: row.refusal,
            fetches: row.fetches,
            applied: row.applied,
            synced_at: row.synced_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        })
    }
}

pub(crate) fn customer(text: &str) -> Result<CustomerRef, StoreError> {
    CustomerRef::parse(text).ok_or_else(|| unknown("customer_ref", text))
}

pub(crate) fn subscription_ref(text: &str) -> Result<SubscriptionRef, StoreError> {
    SubscriptionRef::parse(text).ok_or_else(|| unknown("subscription_ref", text))
}

pub(crate) fn currency(text: String) -> Result<Currency, StoreError> {
    Currency::try_from(text).map_err(|error| StoreError::Other(error.to_string()))
}

/// The columns of a subscription, which the database keeps together.
fn subscription(
    row: &Model,
    customer: Option<&CustomerRef>,
) -> Result<Option<ProviderSubscription>, StoreError> {
    let columns = (
        row.subscription_ref.as_deref(),
        row.subscription_status.as_deref(),
        row.seats,
        row.period_start,
        row.period_end,
        row.subscribed_at,
        customer,
    );
    let (Some(id), Some(status), Some(seats), Some(start), Some(end), Some(created_at), Some(customer)) =
        columns
    else {
        return Ok(None);
    };
    Ok(Some(ProviderSubscription {
        id: subscription_ref(id)?,
        customer: customer.clone(),
        status: SubscriptionStatus::parse(status),
        offer: offer(row)?,
        seats: seats.unsigned_abs(),
        charged: serde_json::from_value(row.charged_meters.clone()).map_err(from_json)?,
        period: Period { start, end },
        trial_ends_at: row.trial_ends_at,
        cancel_at_period_end: row.cancel_at_period_end.unwrap_or_default(),
        canceled_at: row.canceled_at,
        ended_at: row.ended_at,
        created_at,
    }))
}

/// The columns of an open checkout, which the database keeps together.
fn checkout(row: &Model) -> Option<PendingCheckout> {
    Some(PendingCheckout {
        seats: row.checkout_seats?.unsigned_abs(),
        until: row.checkout_until?,
        number: row.checkout_number?,
    })
}

fn offer(row: &Model) -> Result<Option<Offer>, StoreError> {
    let columns = (
        row.plan.clone(),
        row.plan_version,
        row.currency.clone(),
        row.billing_interval.as_deref(),
    );
    let (Some(plan), Some(version), Some(code), Some(interval)) = columns else {
        return Ok(None);
    };
    Ok(Some(Offer {
        plan,
        version: unsigned(version)?,
        currency: currency(code)?,
        interval: Interval::parse(interval)
            .ok_or_else(|| broken("billing_accounts.billing_interval")(interval))?,
    }))
}

fn charged(subscription: Option<&ProviderSubscription>) -> Result<serde_json::Value, StoreError> {
    let charged = subscription.map_or(&[][..], |one| &one.charged);
    serde_json::to_value(charged).map_err(from_json)
}

/// All columns that may change.
fn changes(account: &BillingAccount) -> Result<ActiveModel, StoreError> {
    let subscription = account.subscription.as_ref();
    let offer = subscription.and_then(|subscription| subscription.offer.as_ref());
    let (dunning, checkout) = (&account.dunning, account.checkout.as_ref());
    let text = |id: &dyn std::fmt::Display| id.to_string();
    Ok(ActiveModel {
        customer_ref: Set(account.customer.as_ref().map(|id| text(id))),
        subscription_ref: Set(subscription.map(|one| text(&one.id))),
        subscription_status: Set(subscription.map(|one| one.status.as_str().to_owned())),
        plan: Set(offer.map(|offer| offer.plan.clone())),
        plan_version: Set(offer.map(|offer| signed_version(offer.version)).transpose()?),
        currency: Set(offer.map(|offer| text(&offer.currency))),
        billing_interval: Set(offer.map(|offer| offer.interval.as_str().to_owned())),
        seats: Set(subscription.map(|one| crate::operations::job::signed(one.seats))),
        period_start: Set(subscription.map(|one| one.period.start)),
        period_end: Set(subscription.map(|one| one.period.end)),
        trial_ends_at: Set(subscription.and_then(|one| one.trial_ends_at)),
        cancel_at_period_end: Set(subscription.map(|one| one.cancel_at_period_end)),
        canceled_at: Set(subscription.and_then(|one| one.canceled_at)),
        ended_at: Set(subscription.and_then(|one| one.ended_at)),
        charged_meters: Set(charged(subscription)?),
        subscribed_at: Set(subscription.map(|one| one.created_at)),
        cycle_anchor: Set(account.cycle_anchor),
        dunning: Set(dunning.state.as_str().to_owned()),
        dunning_failed_at: Set(dunning.failed_at),
        dunning_suspends_at: Set(dunning.suspends_at),
        dunning_steps: Set(crate::operations::job::signed(dunning.steps)),
        dunning_next_at: Set(dunning.next_at),
        refusal: Set(account.refusal.clone()),
        checkout_seats: Set(checkout.map(|open| crate::operations::job::signed(open.seats))),
        checkout_until: Set(checkout.map(|open| open.until)),
        checkout_number: Set(checkout.map(|open| open.number)),
        fetches: Set(account.fetches),
        applied: Set(account.applied),
        synced_at: Set(account.synced_at),
        updated_at: Set(account.updated_at),
        version: Set(account.version),
        ..Default::default()
    })
}
