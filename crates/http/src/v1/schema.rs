//! Schemas of the domain's enums, made from the enums so that they cannot fall behind.

use std::borrow::Cow;

use tenantry_domain as domain;
use tenantry_tenancy::billing_finding::FindingKind;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
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
    "The role of a user." Role = domain::Role::ALL.map(domain::Role::as_str);
    "The state of a tenant." TenantStatus = domain::TenantStatus::ALL.map(domain::TenantStatus::as_str);
    "The state of a project." ProjectStatus = domain::ProjectStatus::ALL.map(domain::ProjectStatus::as_str);
    "The role of a member of a project." ProjectRole = domain::ProjectRole::ALL.map(domain::ProjectRole::as_str);
    "The state of a task." TaskStatus = domain::TaskStatus::ALL.map(domain::TaskStatus::as_str);
    "The priority of a task." Priority = domain::Priority::ALL.map(domain::Priority::as_str);
    "The state of a reservation."
    ReservationState = domain::ReservationState::ALL.map(domain::ReservationState::as_str);
    "How the events of a meter are combined." Aggregation = domain::Aggregation::ALL.map(domain::Aggregation::as_str);
    "The length of the intervals of a series." Granularity = domain::Granularity::ALL.map(domain::Granularity::as_str);
    "What an alert is a share of: the units the price `included`, or the hard `limit`."
    AlertBase = domain::AlertBase::ALL.map(domain::AlertBase::as_str);
    "The billing interval of a subscription." Interval = domain::Interval::ALL.map(domain::Interval::as_str);
    "The state of an invoice." InvoiceStatus = domain::InvoiceStatus::ALL.map(domain::InvoiceStatus::as_str);
    "The payment state of a tenant. `healthy`: nothing is overdue. `grace`: a payment has failed, and everything works. \
     `suspended`: the tenant is read-only until it pays."
    DunningState = domain::DunningState::ALL.map(domain::DunningState::as_str);
    "A step of dunning." DunningAction = domain::DunningStep::ALL.map(domain::DunningStep::as_str);
    "The state of an event of the payment provider." EventState = domain::EventState::ALL.map(domain::EventState::as_str);
    "What is found at the payment provider. `foreign_subscription`: a subscription for something else than the plans runs; it \
     is left alone. `former_customer`: a subscription of a customer that the tenant is no longer runs; it is ended. \
     `customer_metadata`: the customer's metadata names another tenant, or none. `unpaid_seats`: the subscription has fewer \
     seats than the tenant has active users."
    BillingFindingKind = FindingKind::ALL.map(FindingKind::as_str);
    "The level that a value comes from, the least specific first." Level = domain::Level::ALL.map(domain::Level::as_str);
    "The level of a rule of a feature flag." RuleLevel = domain::Level::OF_RULES.map(domain::Level::as_str);
    "How an attribute is compared. An attribute that is absent matches no operator."
    Comparator = domain::Comparator::ALL.map(domain::Comparator::as_str);
    "The type of the values of a feature flag." FlagType = domain::FlagType::ALL.map(domain::FlagType::as_str);
    "The lifecycle of a feature flag." Lifecycle = domain::Lifecycle::ALL.map(domain::Lifecycle::as_str);
    "Why a feature flag has its value, as in OpenFeature." FlagReason = domain::Reason::ALL.map(domain::Reason::as_str);
    "The outcome of a rule." RuleOutcome = domain::RuleOutcome::ALL.map(domain::RuleOutcome::as_str);
}

fn choice(about: &str, values: &[&'static str]) -> RefOr<Schema> {
    let choice = ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(about))
        .enum_values(Some(values.iter().copied()));
    Schema::from(choice).into()
}
