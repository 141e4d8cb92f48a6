use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where exports of tenants are kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Archive {
    /// The folder of their archives, which servers over one database share; empty = there are no exports over HTTP.
    pub directory: PathBuf,
}
