//! Accounts at the payment provider, invoices, dunning, and reports of metered usage.
//!
//! [`PaymentProvider`] is the port; what the provider says is believed only after it was fetched from there.
//! May use: `kernel`, `usage`, `identity`, `operations`.

mod billing_account;
mod charged_time;
mod customer;
mod dunning;
mod invoice;
mod meter_report;
mod notice;
mod payment;
mod provider_event;

pub use billing_account::{
    BillingAccount, BillingAccounts, FetchedAccount, PendingCheckout, PlanStep, SeatLimit, SeatsOf,
};
pub use charged_time::ChargedTime;
pub use customer::{Customers, KnownCustomer};
pub use dunning::{Dunning, DunningState, DunningStep, DunningTerms};
pub use invoice::{Invoice, Invoices};
pub use meter_report::{MeterReport, MeterReports, ReportState};
pub use notice::{
    ApiKeyNotice, DomainNotice, DunningNotice, EndingKey, Notice, OpenInvoice, QuotaNotice, WebhookNotice,
};
pub use payment::{
    ChargedMeter, CheckoutRef, CustomerRef, Delivered, EventRef, ForgedEvent, InvoiceLine, InvoiceRef,
    InvoiceStatus, Link, NewCheckout, NewCustomer, NewSubscription, Offer, OpenCheckout, PaymentProvider,
    ProrationPreview, ProviderCustomer, ProviderError, ProviderEvent, ProviderInvoice, ProviderKey,
    ProviderSubscription, SubscriptionRef, SubscriptionStatus, UsageReport,
};
pub use provider_event::{EventState, ProviderEvents, ReceivedEvent};
