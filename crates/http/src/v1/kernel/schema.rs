//! Schemas of the domain's enums, made from the enums so that they cannot fall behind.

use std::borrow::Cow;

use tenantry_billing::billing::billing_finding::FindingKind;
use tenantry_domain as domain;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, Type},
};

/// Declares a schema for each enum: a type to name in `value_type`, which refers to the schema by its name.
macro_rules! enums {
    ($($about:literal $name:ident = $values:expr;)*) => {$(
        #[doc = $about]
        pub(crate) enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                choice($about, &$values)
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    )*};
}

enums! {
    "The state of a background job. `parked`: its tenant is suspended. `dead`: it failed too often."
    JobState = domain::operations::JobState::ALL.map(domain::operations::JobState::as_str);
    "The role of an operator. `support` reads and repairs jobs; `billing` manages plans and payments; `owner` does everything."
    OperatorRole = domain::operations::OperatorRole::ALL.map(domain::operations::OperatorRole::as_str);
    "The role of a user." Role = domain::kernel::Role::ALL.map(domain::kernel::Role::as_str);
    "The state of a tenant." TenantStatus = domain::tenant::TenantStatus::ALL.map(domain::tenant::TenantStatus::as_str);
    "What an operator may do in a tenant." SupportLevel = domain::tenant::SupportLevel::ALL.map(domain::tenant::SupportLevel::as_str);
    "How a support access stands." SupportStatus = domain::tenant::SupportStatus::ALL.map(domain::tenant::SupportStatus::as_str);
    "The state of a custom domain. `pending`: claimed. `verified`: proven, and no other tenant can have it; DNS does not lead here yet. \
     `active`: requests for it lead to the tenant. `failing`: the TXT record is missing. `released`: given up; claim it again to use it."
    DomainState = domain::tenant::DomainState::ALL.map(domain::tenant::DomainState::as_str);
    "How far a message is on its way to an endpoint. `canceled`: the endpoint was disabled before, or the event is not kept any more."
    DeliveryState = domain::webhooks::DeliveryState::ALL.map(domain::webhooks::DeliveryState::as_str);
    "Why a custom domain was released. `claim_expired`: it was not proven in time. `proof_gone`: the TXT record was missing for too long."
    DomainReleaseReason = domain::tenant::ReleaseReason::ALL.map(domain::tenant::ReleaseReason::as_str);
    "What a check of the TXT record found. Only `not_found` and `other_value` make a domain fail."
    DomainCheckResult = domain::tenant::CheckResult::ALL.map(domain::tenant::CheckResult::as_str);
    "How far an export is." ExportStatus = domain::archive::ExportStatus::ALL.map(domain::archive::ExportStatus::as_str);
    "The state of a project." ProjectStatus = domain::work::ProjectStatus::ALL.map(domain::work::ProjectStatus::as_str);
    "The role of a member of a project." ProjectRole = domain::work::ProjectRole::ALL.map(domain::work::ProjectRole::as_str);
    "The state of a task." TaskStatus = domain::work::TaskStatus::ALL.map(domain::work::TaskStatus::as_str);
    "The priority of a task." Priority = domain::work::Priority::ALL.map(domain::work::Priority::as_str);
    "The state of a reservation."
    ReservationState = domain::usage::ReservationState::ALL.map(domain::usage::ReservationState::as_str);
    "How the events of a meter are combined." Aggregation = domain::usage::Aggregation::ALL.map(domain::usage::Aggregation::as_str);
    "The length of the intervals of a series." Granularity = domain::usage::Granularity::ALL.map(domain::usage::Granularity::as_str);
    "What an alert is a share of: the units the price `included`, or the hard `limit`."
    AlertBase = domain::usage::AlertBase::ALL.map(domain::usage::AlertBase::as_str);
    "The billing interval of a subscription." Interval = domain::kernel::Interval::ALL.map(domain::kernel::Interval::as_str);
    "The state of an invoice." InvoiceStatus = domain::billing::InvoiceStatus::ALL.map(domain::billing::InvoiceStatus::as_str);
    "The payment state of a tenant. `healthy`: nothing is overdue. `grace`: a payment has failed, and everything works. \
     `suspended`: the tenant is read-only until it pays."
    DunningState = domain::billing::DunningState::ALL.map(domain::billing::DunningState::as_str);
    "A step of dunning." DunningAction = domain::billing::DunningStep::ALL.map(domain::billing::DunningStep::as_str);
    "The state of an event of the payment provider." EventState = domain::billing::EventState::ALL.map(domain::billing::EventState::as_str);
    "What is found at the payment provider. `foreign_subscription`: a subscription for something else than the plans runs; it \
     is left alone. `former_customer`: a subscription of a customer that the tenant is no longer runs; it is ended. \
     `customer_metadata`: the customer's metadata names another tenant, or none. `unpaid_seats`: the subscription has fewer \
     seats than the tenant has active users."
    BillingFindingKind = FindingKind::ALL.map(FindingKind::as_str);
    "The level that a value comes from, the least specific first." Level = domain::kernel::Level::ALL.map(domain::kernel::Level::as_str);
    "The level of a rule of a feature flag." RuleLevel = domain::kernel::Level::OF_RULES.map(domain::kernel::Level::as_str);
    "How an attribute is compared. An attribute that is absent matches no operator."
    Comparator = domain::flags::Comparator::ALL.map(domain::flags::Comparator::as_str);
    "The type of the values of a feature flag." FlagType = domain::flags::FlagType::ALL.map(domain::flags::FlagType::as_str);
    "The lifecycle of a feature flag." Lifecycle = domain::flags::Lifecycle::ALL.map(domain::flags::Lifecycle::as_str);
    "How much an entry of the audit log deserves attention." Risk = domain::audit::Risk::ALL.map(domain::audit::Risk::as_str);
    "Whether an action was done." Outcome = domain::audit::Outcome::ALL.map(domain::audit::Outcome::as_str);
    "The kind of actor of an entry of the operators' log. `system`: a command on the server, or the server itself. `guest`: a caller who has \
     not logged in."
    OperatorActorKind = domain::operations::OperatorEventActor::ALL.map(domain::operations::OperatorEventActor::as_str);
    "How webhooks are signed. `v1`: HMAC-SHA256 with a secret that both sides have. `v1a`: Ed25519; the receiver has the public key."
    WebhookSignature = domain::webhooks::SignatureKind::ALL.map(domain::webhooks::SignatureKind::as_str);
    "Why the server has disabled an endpoint of webhooks. `failing`: every attempt of five days has failed. `gone`: the receiver answered 410."
    WebhookDisableReason = domain::webhooks::DisableReason::ALL.map(domain::webhooks::DisableReason::as_str);
    "The format of an export." ExportFormat = ["ndjson", "csv"];
    "Why a feature flag has its value, as in OpenFeature." FlagReason = domain::flags::Reason::ALL.map(domain::flags::Reason::as_str);
    "The outcome of a rule." RuleOutcome = domain::flags::RuleOutcome::ALL.map(domain::flags::RuleOutcome::as_str);
}

/// A limit of a plan or a meter, as requests write it: a whole number or `"unlimited"`. Null takes an agreement back.
pub(crate) enum AgreedLimit {}

impl PartialSchema for AgreedLimit {
    fn schema() -> RefOr<Schema> {
        let none = ObjectBuilder::new().schema_type(Type::Null);
        Schema::from(limit().item(none)).into()
    }
}

impl ToSchema for AgreedLimit {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("AgreedLimit")
    }
}

/// A limit of a plan or a meter that was agreed: a whole number or `"unlimited"`.
pub(crate) enum SetLimit {}

impl PartialSchema for SetLimit {
    fn schema() -> RefOr<Schema> {
        Schema::from(limit()).into()
    }
}

impl ToSchema for SetLimit {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("SetLimit")
    }
}

fn limit() -> OneOfBuilder {
    let units = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    let unlimited = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["unlimited"]));
    OneOfBuilder::new().item(units).item(unlimited)
}

fn choice(about: &str, values: &[&'static str]) -> RefOr<Schema> {
    let choice = ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(about))
        .enum_values(Some(values.iter().copied()));
    Schema::from(choice).into()
}
