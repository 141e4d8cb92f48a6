use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::kernel::name::named_enum;
use crate::kernel::{Currency, Interval, Period, TenantId, Time, hex};
use crate::usage::MeterKey;

macro_rules! provider_ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// 1 to 255 visible ASCII characters, as the provider gave it out.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The id, where the text can be one.
            pub fn parse(text: &str) -> Option<Self> {
                let holds = (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
                holds.then(|| Self(text.to_owned()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom("is no id of the payment provider"))
            }
        }
    )*};
}

provider_ids! {
    /// A tenant as a customer of the provider (`cus_…`).
    CustomerRef;
    /// A subscription (`sub_…`).
    SubscriptionRef;
    /// A bill of the provider (`in_…`).
    InvoiceRef;
    /// A checkout (`cs_…`).
    CheckoutRef;
    /// An event that the provider tells of (`evt_…`).
    EventRef;
    /// What makes a call that is repeated the same call: the provider does it once. Made of our own rows' ids.
    ProviderKey;
}

impl ProviderKey {
    /// The key of something that is done once for a row of ours.
    pub fn of(what: &'static str, id: Uuid) -> Self {
        Self(format!("tenantry-{what}-{id}"))
    }

    /// The key of something that several things make up: SHA-256 of them in lower-case hexadecimal digits, each followed by
    /// a line feed, which none of them contains.
    pub fn digest(parts: &[&dyn std::fmt::Display]) -> Self {
        let text: String = parts.iter().map(|part| format!("{part}\n")).collect();
        Self(hex(&Sha256::digest(text.as_bytes())))
    }
}

/// A price of our catalogue, as the provider knows it: by a lookup key made of these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offer {
    /// Key of the offered plan.
    pub plan: String,
    /// The offered version of the plan, from 1.
    pub version: u32,
    /// The ISO 4217 currency of the price.
    pub currency: Currency,
    /// For how long one payment is.
    pub interval: Interval,
}

/// What there is to say of a customer. No more of a person than what an invoice needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCustomer {
    /// Whose customer it is; kept at the provider, so that what was made although its answer was lost is found again.
    pub tenant: TenantId,
    /// The tenant's name.
    pub name: String,
    /// Where invoices go.
    pub email: Option<String>,
}

/// A customer as the provider has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderCustomer {
    /// The customer at the provider (`cus_…`).
    pub id: CustomerRef,
    /// The tenant that its metadata names. It helps to find a customer whose reference was lost; it is no proof, since it can
    /// be edited at the provider.
    pub label: Option<TenantId>,
    /// Where invoices go.
    pub email: Option<String>,
}

/// A subscription to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubscription {
    /// Whose.
    pub customer: CustomerRef,
    /// Whose, in our words; kept at the provider.
    pub tenant: TenantId,
    /// What of our catalogue.
    pub offer: Offer,
    /// How many seats; at least 1.
    pub seats: u32,
    /// For how many days nothing is to be paid; 0 means at once.
    pub trial_days: u32,
    /// Whether the provider works out taxes.
    pub automatic_tax: bool,
}

/// A page to be made on which a customer subscribes and pays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCheckout {
    /// What is sold.
    pub subscription: NewSubscription,
    /// What makes two checkouts offer the same; kept at the provider.
    pub terms: ProviderKey,
    /// Where the customer is sent after paying.
    pub success_url: String,
    /// Where the customer is sent without having paid.
    pub cancel_url: String,
}

/// A checkout that can still be completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCheckout {
    /// The checkout at the provider (`cs_…`).
    pub id: CheckoutRef,
    /// What it was made with: [`NewCheckout::terms`]; `None` when it is none of ours.
    pub terms: Option<ProviderKey>,
    /// Its page.
    pub link: Link,
    /// When it was made.
    pub created_at: Time,
}

impl OpenCheckout {
    /// The one that stays of several: the newest, and of those of one second the one with the greatest id. Everyone who
    /// sees the same checkouts keeps the same one.
    pub fn newest(open: &[Self]) -> Option<&Self> {
        open.iter()
            .max_by_key(|checkout| (checkout.created_at, checkout.id.as_str()))
    }
}

/// Where a subscription stands (Stripe's names).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SubscriptionStatus {
    /// The first payment is not made yet: nothing is granted.
    Incomplete,
    /// The first payment was never made.
    IncompleteExpired,
    /// It is tried.
    Trialing,
    /// It is paid.
    Active,
    /// A payment has failed and is tried again.
    PastDue,
    /// It is over.
    Canceled,
    /// Payments have failed and are not tried again.
    Unpaid,
    /// It rests.
    Paused,
    /// A word of the provider's that we do not know.
    Unrecognised(String),
}

impl SubscriptionStatus {
    /// The provider's word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Incomplete => "incomplete",
            Self::IncompleteExpired => "incomplete_expired",
            Self::Trialing => "trialing",
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Canceled => "canceled",
            Self::Unpaid => "unpaid",
            Self::Paused => "paused",
            Self::Unrecognised(word) => word,
        }
    }

    /// What the provider's word means.
    pub fn parse(word: &str) -> Self {
        match word {
            "incomplete" => Self::Incomplete,
            "incomplete_expired" => Self::IncompleteExpired,
            "trialing" => Self::Trialing,
            "active" => Self::Active,
            "past_due" => Self::PastDue,
            "canceled" => Self::Canceled,
            "unpaid" => Self::Unpaid,
            "paused" => Self::Paused,
            other => Self::Unrecognised(other.to_owned()),
        }
    }
}

/// A meter whose use beyond what is included is charged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargedMeter {
    /// Key of our meter.
    pub meter: MeterKey,
    /// Since when: what was used before is not charged.
    pub since: Time,
}

/// A subscription as the provider has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderSubscription {
    /// The subscription at the provider (`sub_…`).
    pub id: SubscriptionRef,
    /// Whose it is.
    pub customer: CustomerRef,
    /// Where it stands.
    pub status: SubscriptionStatus,
    /// What of our catalogue it is for; `None` when its price is none of ours.
    pub offer: Option<Offer>,
    /// How many seats.
    pub seats: u32,
    /// The meters whose use it charges, by key. A meter that another plan charges as well is charged since the first.
    pub charged: Vec<ChargedMeter>,
    /// What is paid for now.
    pub period: Period,
    /// When the trial ends or ended.
    pub trial_ends_at: Option<Time>,
    /// Whether it ends with the period.
    pub cancel_at_period_end: bool,
    /// When it was cancelled.
    pub canceled_at: Option<Time>,
    /// When it ended: nothing that is used afterwards is charged.
    pub ended_at: Option<Time>,
    /// When it was made.
    pub created_at: Time,
}

named_enum! {
    /// Where an invoice stands (Stripe's names).
    pub enum InvoiceStatus {
        /// It may still change.
        Draft = "draft",
        /// It is to be paid.
        Open = "open",
        /// Nothing is outstanding.
        Paid = "paid",
        /// It was withdrawn.
        Void = "void",
        /// Nobody expects it to be paid any more.
        Uncollectible = "uncollectible",
    }
}

/// An invoice as the provider has it now. Amounts are in the currency's minor unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderInvoice {
    /// The invoice at the provider (`in_…`).
    pub id: InvoiceRef,
    /// Whose it is.
    pub customer: CustomerRef,
    /// The subscription that is invoiced, if any.
    pub subscription: Option<SubscriptionRef>,
    /// The number on it, once it has one.
    pub number: Option<String>,
    /// Where it stands; a word that we do not know is `None`.
    pub status: Option<InvoiceStatus>,
    /// The ISO 4217 currency of all amounts.
    pub currency: Currency,
    /// All of it, taxes included.
    pub total: i64,
    /// What is still to be paid.
    pub amount_due: i64,
    /// What was paid.
    pub amount_paid: i64,
    /// What time it is for.
    pub period: Period,
    /// How often it was tried to collect it.
    pub attempts: u32,
    /// When that is tried next.
    pub next_attempt_at: Option<Time>,
    /// Where the customer sees and pays it.
    pub url: Option<String>,
    /// When it was made.
    pub created_at: Time,
    /// What it is made of, in order.
    pub lines: Vec<InvoiceLine>,
}

/// A position of an invoice: what is charged, how much of it and for which amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceLine {
    /// For people.
    pub description: String,
    /// In the currency's minor unit; negative when something is given back.
    pub amount: i64,
    /// How many of it.
    pub quantity: u64,
    /// Whether it is a part of a period only.
    pub proration: bool,
}

/// What a change of plan would cost now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProrationPreview {
    /// The ISO 4217 currency of all amounts.
    pub currency: Currency,
    /// What would be charged at once or with the next invoice, in the minor unit; negative when something is given back.
    pub amount_due: i64,
    /// The positions of the invoice that would be made.
    pub lines: Vec<InvoiceLine>,
}

/// What a tenant used of a meter in an hour, or of what does not add up what it comes to in the month so far: the provider
/// takes the sum or the last of a month. One for each tenant, meter and hour; when the number changes it is told under the
/// next revision and the former is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageReport {
    /// Whose.
    pub customer: CustomerRef,
    /// Key of the reported meter.
    pub meter: MeterKey,
    /// How much.
    pub quantity: u64,
    /// When: a moment in the hour; at most 35 days ago and 5 minutes ahead.
    pub at: Time,
    /// What makes it the same report when it is repeated.
    pub identifier: ProviderKey,
}

/// What became of a report of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It was counted.
    Now,
    /// It had been counted before.
    Before,
}

/// What the provider has told of: that something has happened to an object. What that object is like now is asked for
/// afterwards, so that the order in which events arrive does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderEvent {
    /// The event at the provider (`evt_…`).
    pub id: EventRef,
    /// What has happened, in the provider's words: `invoice.paid`.
    pub kind: String,
    /// When.
    pub created_at: Time,
    /// The object's kind, where it says one: `invoice`.
    pub object: Option<String>,
    /// The object's id, where it has one.
    pub object_id: Option<String>,
    /// The customer that the object belongs to or is.
    pub customer: Option<CustomerRef>,
    /// The subscription that it belongs to or is.
    pub subscription: Option<SubscriptionRef>,
}

/// Where somebody goes to pay, or to look after their subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The address.
    pub url: String,
    /// Until when it is good, where that is said.
    pub expires_at: Option<Time>,
}

/// Why the provider did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It cannot be reached, is too slow or too busy, or answers that it failed. It may or may not have done it: try
    /// again with the same key.
    #[error("the payment provider is unavailable: {0}")]
    Unavailable(String),
    /// It has no such object.
    #[error("the payment provider does not know it: {0}")]
    NotFound(String),
    /// It refuses, and will refuse again.
    #[error("the payment provider refuses: {0}")]
    Refused(String),
    /// It does not accept our credential: somebody must look at the settings.
    #[error("the payment provider does not accept the key; see billing.stripe.secret_key")]
    Unauthenticated,
    /// Its answer is not what it promised.
    #[error("the payment provider's answer cannot be read: {0}")]
    Unreadable(String),
}

impl ProviderError {
    /// Whether the same call may succeed later.
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Unauthenticated | Self::Unreadable(_) => true,
            Self::NotFound(_) | Self::Refused(_) => false,
        }
    }
}

/// Why a message is not taken for one of the provider's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForgedEvent {
    /// The header is missing or is none.
    #[error("the signature header cannot be read")]
    Header,
    /// None of the signatures is that of the body under any of the secrets.
    #[error("the signature is not that of the body")]
    Signature,
    /// It was signed too long ago, or ahead of our time.
    #[error("the signature's time is too far from ours")]
    Time,
    /// It is signed, and is no event.
    #[error("the body is no event")]
    Body,
}

/// Whoever takes the money: Stripe, or what stands in for it. It is called from jobs, and from requests that ask for a link
/// or a preview; never inside of a transaction.
///
/// What changes something takes a [`ProviderKey`]: repeated with the same key it is done once, also when the first
/// answer was lost.
#[async_trait]
pub trait PaymentProvider: Send + Sync {
    /// Makes a customer.
    async fn create_customer(
        &self,
        key: &ProviderKey,
        new: &NewCustomer,
    ) -> Result<CustomerRef, ProviderError>;

    /// The customers that were made for a tenant, the oldest first: more than one only after keys were forgotten. The
    /// provider may find a new one only after a while, and a deleted one for a while longer.
    async fn customers_of(&self, tenant: TenantId) -> Result<Vec<CustomerRef>, ProviderError>;

    /// The customer as it is now; `None` when the provider does not have it, or it is deleted.
    async fn customer(&self, customer: &CustomerRef) -> Result<Option<ProviderCustomer>, ProviderError>;

    /// Whether the provider has the customer. Whose it is, the reference says that we stored, and not its metadata.
    async fn has_customer(&self, customer: &CustomerRef) -> Result<bool, ProviderError> {
        Ok(self.customer(customer).await?.is_some())
    }

    /// Changes where invoices of a customer go; a customer that is gone is no error.
    async fn set_customer_email(
        &self,
        key: &ProviderKey,
        customer: &CustomerRef,
        email: &str,
    ) -> Result<(), ProviderError>;

    /// Removes a customer; one that is gone already is no error.
    async fn delete_customer(&self, customer: &CustomerRef) -> Result<(), ProviderError>;

    /// Makes a subscription.
    async fn create_subscription(
        &self,
        key: &ProviderKey,
        new: &NewSubscription,
    ) -> Result<ProviderSubscription, ProviderError>;

    /// A subscription as it is now.
    async fn subscription(&self, id: &SubscriptionRef)
    -> Result<Option<ProviderSubscription>, ProviderError>;

    /// All subscriptions of a customer, ended ones included, the newest first.
    async fn subscriptions_of(
        &self,
        customer: &CustomerRef,
    ) -> Result<Vec<ProviderSubscription>, ProviderError>;

    /// Moves a subscription to another offer or number of seats; the difference for the rest of the period is charged or
    /// given back with the next invoice.
    async fn change_subscription(
        &self,
        key: &ProviderKey,
        id: &SubscriptionRef,
        offer: &Offer,
        seats: u32,
    ) -> Result<ProviderSubscription, ProviderError>;

    /// What that would cost.
    async fn preview_change(
        &self,
        id: &SubscriptionRef,
        offer: &Offer,
        seats: u32,
    ) -> Result<ProrationPreview, ProviderError>;

    /// Lets a subscription end with its period, or go on after all.
    async fn cancel_at_period_end(
        &self,
        key: &ProviderKey,
        id: &SubscriptionRef,
        cancel: bool,
    ) -> Result<ProviderSubscription, ProviderError>;

    /// Ends a subscription now; one that has ended already is returned as it is. What was used is billed, and what was
    /// paid for the rest of the period is credited to the customer.
    async fn end_subscription(
        &self,
        key: &ProviderKey,
        id: &SubscriptionRef,
    ) -> Result<ProviderSubscription, ProviderError>;

    /// Withdraws a subscription whose first payment is not made, and voids its invoice, so that it cannot be paid any more.
    /// One that has begun or ended meanwhile is returned as it is.
    async fn withdraw_subscription(
        &self,
        key: &ProviderKey,
        id: &SubscriptionRef,
    ) -> Result<ProviderSubscription, ProviderError>;

    /// A page on which a customer subscribes to an offer and pays.
    async fn checkout(&self, key: &ProviderKey, new: &NewCheckout) -> Result<OpenCheckout, ProviderError>;

    /// The checkouts of a customer that can still be completed.
    async fn open_checkouts(&self, customer: &CustomerRef) -> Result<Vec<OpenCheckout>, ProviderError>;

    /// Closes a checkout, so that it cannot be completed any more. False when it was completed before; one that is closed
    /// already is no error.
    async fn expire_checkout(&self, id: &CheckoutRef) -> Result<bool, ProviderError>;

    /// A page on which a customer looks after cards, invoices and the subscription.
    async fn portal(&self, customer: &CustomerRef, return_url: &str) -> Result<Link, ProviderError>;

    /// An invoice as it is now.
    async fn invoice(&self, id: &InvoiceRef) -> Result<Option<ProviderInvoice>, ProviderError>;

    /// The newest invoices of a customer, at most `limit` (1 to 100).
    async fn invoices_of(
        &self,
        customer: &CustomerRef,
        limit: u8,
    ) -> Result<Vec<ProviderInvoice>, ProviderError>;

    /// The invoice that the running period will end in, as far as it is known; `None` when there will be none.
    async fn upcoming_invoice(&self, id: &SubscriptionRef) -> Result<Option<ProviderInvoice>, ProviderError>;

    /// Tells what was used in an hour.
    async fn report_usage(&self, report: &UsageReport) -> Result<Delivered, ProviderError>;

    /// Takes a report of usage back, at most a day after it was made; one that is gone already is no error.
    async fn cancel_usage(&self, meter: &MeterKey, identifier: &ProviderKey) -> Result<(), ProviderError>;

    /// What the provider has counted of a meter in a period of whole minutes.
    async fn usage_of(
        &self,
        customer: &CustomerRef,
        meter: &MeterKey,
        period: Period,
    ) -> Result<u64, ProviderError>;

    /// What has happened since a moment, the oldest first: for what was never told us.
    async fn events_since(&self, since: Time) -> Result<Vec<ProviderEvent>, ProviderError>;

    /// What time it is for the provider, when it is `ours` here. The same, except for a fake whose clock was moved: by that
    /// clock payments are due.
    fn now(&self, ours: Time) -> Time {
        ours
    }

    /// Reads a message that claims to be the provider's, and checks that it is: against its raw body.
    fn read_event(&self, body: &[u8], signature: &str, now: Time) -> Result<ProviderEvent, ForgedEvent>;
}
