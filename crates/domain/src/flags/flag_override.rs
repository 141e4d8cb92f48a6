use serde::Serialize;

use crate::flags::FlagDefinition;
use crate::kernel::{FlagOverrideId, Invalid, Time};

/// What a tenant's admins have chosen of a flag that is theirs to choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlagOverride {
    /// Identifies the override within the tenant.
    pub id: FlagOverrideId,
    /// Key of the overridden flag.
    pub flag: String,
    /// The variant that the tenant gets.
    pub variant: String,
    /// When it was first chosen.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// Counts its versions, from 1.
    pub version: i64,
}

impl FlagOverride {
    /// A first choice.
    ///
    /// # Errors
    /// A variant that the flag does not have.
    pub fn new(id: FlagOverrideId, flag: &FlagDefinition, variant: &str, now: Time) -> Result<Self, Invalid> {
        check(flag, variant)?;
        Ok(Self {
            id,
            flag: flag.key.clone(),
            variant: variant.to_owned(),
            created_at: now,
            updated_at: now,
            version: 1,
        })
    }

    /// Another choice, as the next version.
    ///
    /// # Errors
    /// A variant that the flag does not have.
    pub fn choose(&mut self, flag: &FlagDefinition, variant: &str, now: Time) -> Result<(), Invalid> {
        check(flag, variant)?;
        self.variant = variant.to_owned();
        self.updated_at = now;
        self.version += 1;
        Ok(())
    }
}

fn check(flag: &FlagDefinition, variant: &str) -> Result<(), Invalid> {
    if flag.variants.contains_key(variant) {
        return Ok(());
    }
    let names: Vec<_> = flag.variants.keys().map(|name| format!("`{name}`")).collect();
    let detail = format!("must be one of {}", names.join(", "));
    Err(Invalid::one("/variant", "unknown_variant", detail))
}
