//! The nouns of Tenantry, their rules, and the ports behind which everything else happens.
//!
//! This crate does no I/O and reads neither a clock nor entropy: both arrive through [`Clock`](kernel::Clock) and
//! [`IdSource`](kernel::IdSource). Three ideas carry the isolation guarantee:
//!
//! * [`TenantScope`](tenant::TenantScope) is the proof that somebody was admitted to one tenant. It has no public constructor:
//!   it comes out of [`Gate`](tenant::Gate), which turns stored facts (a membership, a tenant's state) into a scope.
//! * [`Units`](store::Units) runs work inside a transaction begun *with* a scope; there is no transaction without one.
//! * The repository ports ([`Projects`](work::Projects), [`Tasks`](work::Tasks), …) have no tenant parameter, so there is none to
//!   forget or to confuse.
//!
//! A scope cannot be forged by the code that uses these crates:
//!
//! ```compile_fail,E0451
//! use tenantry_domain::{kernel::{RequestId, Role, TenantId}, tenant::{Actor, TenantScope, TenantStatus}};
//! fn forge(tenant: TenantId, request: RequestId) -> TenantScope {
//!     TenantScope { tenant, status: TenantStatus::Active, actor: Actor::Guest, role: Some(Role::Admin), request }
//! }
//! ```
//!
//! ```compile_fail,E0277
//! let scope: tenantry_domain::tenant::TenantScope = serde_json::from_str("{}").unwrap();
//! ```
//!
//! ```compile_fail,E0599
//! let scope = tenantry_domain::tenant::TenantScope::default();
//! ```
//!
//! Nor can the scope of an operator:
//!
//! ```compile_fail,E0451
//! use tenantry_domain::{kernel::{OperatorId, RequestId}, operations::{OperatorActor, OperatorScope}};
//! fn forge(id: OperatorId, request: RequestId) -> OperatorScope {
//!     OperatorScope { actor: OperatorActor::Operator(id), request }
//! }
//! ```
#![deny(missing_docs)]
#![cfg_attr(
    test,
    expect(
        clippy::too_many_lines,
        reason = "tests are tables of cases: longer with each case, and no harder to read"
    )
)]

pub mod archive;
pub mod audit;
pub mod billing;
pub mod customization;
pub mod events;
pub mod flags;
pub mod identity;
pub mod kernel;
pub mod notifications;
pub mod operations;
pub mod plans;
pub mod security;
pub mod store;
pub mod tenant;
pub mod usage;
pub mod webhooks;
pub mod work;
