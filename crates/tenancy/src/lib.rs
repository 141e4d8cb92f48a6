//! The verbs of Tenantry: every use case takes its context first, then ids, then data, and opens with the
//! permission it needs.
//!
//! A use case gets a [`Cx`]: the ports, and the [`TenantScope`](tenantry_domain::tenant::TenantScope) of whoever asks. It
//! reads and writes inside `cx.read(…)` and `cx.write(…)`, one transaction each, with its audit entry in the same
//! transaction as the change.
#![deny(missing_docs)]

pub mod admin;
pub mod archive;
pub mod audit;
pub mod billing;
pub mod customization;
pub mod events;
pub mod flags;
mod handlers;
pub mod identity;
mod kernel;
pub mod notifications;
pub mod operations;
pub mod plans;
pub mod security;
pub mod tenant;
pub mod usage;
pub mod webhooks;
pub mod work;

pub use identity::api_key_use::KeyUses;
pub use kernel::audit_marks::AuditMarks;
pub use kernel::changed::{Audited, Changed};
pub use kernel::context::{BillingPolicy, Cx, DomainPolicy, Origin, Policy, Ports, Tenancy};
pub use kernel::delivery_signals::DeliverySignals;
pub use kernel::event_signals::{EventListener, EventSignals};
pub use kernel::forwarding::Forwarding;
pub use kernel::operator_context::OperatorCx;
pub use kernel::precondition::{Precondition, Stale};
pub use kernel::step_up;
pub use kernel::traces::{NoTraces, Traces};
pub use kernel::use_case_error::{NoReason, OwnReason, UseCaseError};
pub use work::views::{Flushed, ViewCounter};

// For `audited!` in services that have no `uuid` of their own.
#[doc(hidden)]
pub use uuid::Uuid as __Uuid;
