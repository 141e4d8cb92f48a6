//! A tenant, who acts in it, and the proof of admission.
//!
//! [`Gate`] turns stored facts into a [`TenantScope`]; nothing else makes one: its fields are private to the file of the scope, of which
//! the gate is a part.
//! May use: `kernel`, `plans`, `identity`.

mod job_lease;
mod registry;
mod scope;
mod tenant;

pub use job_lease::{Initiator, JobLease};
pub use registry::TenantRegistry;
pub use scope::{
    Actor, Admission, ApiKeyFacts, Denied, Directory, Gate, JobFacts, MembershipFacts, Refused, Standing,
    TenantFacts, TenantScope, TenantSelector,
};
pub use tenant::{NewTenant, Settings, Slug, Tenant, TenantFilter, TenantPatch, TenantStatus, Tenants};
