use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::kernel::{TenantId, Time, hex};

/// What stays of a tenant that was purged: nothing that says who it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// The id of the tenant, which is never used again.
    pub id: TenantId,
    /// When it was deleted.
    pub deleted_at: Time,
    /// When its last row was erased.
    pub purged_at: Time,
    /// How many rows of each table were erased.
    pub row_counts: BTreeMap<String, u64>,
    /// SHA-256 of [`Tombstone::text`], in hexadecimal digits.
    pub hash: String,
}

impl Tombstone {
    /// Whether the hash fits.
    pub fn is_intact(&self) -> bool {
        hex(&Sha256::digest(self.text())) == self.hash
    }

    /// Where [`Tombstone::text`] is sealed for, when a tombstone leaves the database. Whoever writes a file of tombstones could erase
    /// any tenant otherwise.
    pub const PLACE: &'static str = "tombstone";

    /// What the hash is of: id, times and counts.
    pub fn text(&self) -> String {
        let at = |time: Time| time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let counts = self.row_counts.iter();
        let counts: Vec<String> = counts.map(|(table, rows)| format!("{table}={rows}")).collect();
        let (id, counts) = (self.id, counts.join(","));
        format!("{id}|{}|{}|{counts}", at(self.deleted_at), at(self.purged_at))
    }
}
