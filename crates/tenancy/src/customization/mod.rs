//! What a tenant may shape: settings in levels and branding.

pub(crate) mod address_rules;
pub mod branding;
pub mod product_settings;
pub mod security_policy;
pub mod setting;
mod support_preapproval;
