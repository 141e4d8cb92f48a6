use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where exports of tenants are kept, and whose archives are refused.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Archive {
    /// The folder of their archives, which servers over one database share; empty = there are no exports over HTTP.
    pub directory: PathBuf,
    /// Keys whose signatures of archives are refused, for example because they leaked: their names in `tenantry keys list`, or public
    /// keys in hexadecimal digits.
    pub distrusted_keys: Vec<String>,
}
