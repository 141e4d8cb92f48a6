//! What every use case is done in: the context with its ports, and traces.
//!
//! [`Cx`](context::Cx) is the context of one tenant; `Tenancy` is the application that it belongs to.

pub(crate) mod audit_marks;
pub(crate) mod carries_store_error;
pub(crate) mod changed;
pub(crate) mod context;
pub(crate) mod delivery_signals;
pub(crate) mod event_signals;
pub(crate) mod forwarding;
pub(crate) mod job_failure;
pub(crate) mod not_in_plan;
pub(crate) mod operator_context;
pub(crate) mod precondition;
pub(crate) mod slices;
pub(crate) mod state;
pub mod step_up;
pub(crate) mod steps;
mod tenant_seal;
pub(crate) mod traces;
pub(crate) mod use_case_error;
