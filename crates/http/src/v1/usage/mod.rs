//! Usage and quotas.

pub(crate) mod quota;
pub(crate) mod usage;
