use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigurationError;
use super::range::in_range;

/// What is asked of the database before anything is served, and from time to time afterwards.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Serve although the database does not keep tenants apart. Logged at every start, told by readiness.
    pub serve_anyway: bool,
    /// Tables of an embedding service that are nobody's.
    pub global_tables: Vec<String>,
    /// Objects that no migration of Tenantry makes and that are meant all the same, as `tenantry doctor` names them:
    /// `trigger audit on public.tasks`.
    pub allow: Vec<String>,
    /// Files with what the migrations of other services over this database make, as `doctor --record FILE --beyond-own` writes
    /// them. Their tables are compared as Tenantry's are.
    pub catalogues: Vec<PathBuf>,
    /// Minutes between two checks of a running server, 1 to 1,440.
    pub every_minutes: u64,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            serve_anyway: false,
            global_tables: Vec::new(),
            allow: Vec::new(),
            catalogues: Vec::new(),
            every_minutes: 60,
        }
    }
}

impl Guard {
    /// Whether each number is in its range.
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[("guard.every_minutes", self.every_minutes, 1, 1_440)])
    }
}
