//! A tenant, who acts in it, and the proof of admission.
//!
//! [`Gate`] turns stored facts into a [`TenantScope`]; nothing else makes one: its fields are private to the file of the scope, of which
//! the gate is a part.
//! May use: `kernel`, `plans`, `identity`.

mod custom_domain;
mod data_key;
mod domain_name;
mod job_lease;
mod lifecycle;
mod portal;
mod registry;
mod rows;
mod scope;
mod status;
mod support_access;
mod tenant;
mod tombstone;

pub use custom_domain::{
    CheckResult, CustomDomain, CustomDomains, Dns, DnsError, DnsRoute, DomainCheck, DomainState, DomainStep,
    ReleaseReason, TxtRecords, check_domain,
};
pub use data_key::{DataKey, DataKeys, SealEpoch, StoredDataKeys, TenantSeal, TenantSeals};
pub use domain_name::{DomainName, ReservedDomains};
pub use job_lease::{Initiator, JobLease};
pub use portal::{PORTAL_TOKEN_SECONDS, PortalClaims, PortalTokens};
pub use registry::TenantRegistry;
pub use rows::{RowStep, RowTable, TenantRows};
pub use scope::{
    Actor, Admission, ApiKeyFacts, Denied, Directory, Gate, JobFacts, MembershipFacts, Refused, SupportFacts,
    TenantFacts, TenantScope, TenantSelector,
};
pub use status::{Capability, InvalidTransition, RowWork, StatusChange, TenantStatus, Transition, UNPAID};
pub use support_access::{
    NewSupportAccess, SupportAccess, SupportAccesses, SupportClaims, SupportEnd, SupportLevel, SupportStatus,
    SupportTokens, SupportTransition, SupportUse,
};
pub use tenant::{NewTenant, Settings, Slug, Tenant, TenantFilter, TenantPatch, Tenants};
pub use tombstone::Tombstone;
