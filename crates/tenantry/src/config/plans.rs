use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tenantry_billing::plans::PlanOverride;

/// The plan catalogue.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plans {
    /// A file like `config/plans.toml`; that one, as compiled in, when absent.
    pub file: Option<PathBuf>,
    /// By plan: limits and features in place of what the file says.
    pub overrides: BTreeMap<String, PlanOverride>,
}
