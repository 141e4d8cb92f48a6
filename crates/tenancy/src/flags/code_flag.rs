//! Feature flags that a service defines in its code.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use tenantry_domain::flags::{FlagCatalogue, FlagDefinition, FlagDefinitions, FlagProgram};
use tenantry_domain::kernel::{StoreError, SystemScope};

/// Why a flag of the code cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this service defines the feature flag `{key}`: {problem}")]
pub struct CodeFlagError {
    key: String,
    problem: String,
}

/// Stored definitions, and those of the code wherever operators have not defined a flag of the same key.
pub struct CodeFlags {
    inner: Arc<dyn FlagDefinitions>,
    flags: Vec<FlagDefinition>,
}

impl std::fmt::Debug for CodeFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CodeFlags").field(&self.flags.len()).finish()
    }
}

impl CodeFlags {
    /// Flags of the code before the stored ones. Each call of `program` compiles them, so a cache belongs before this.
    ///
    /// # Errors
    /// [`CodeFlagError`] with the first flag whose key is there twice, or that is invalid by itself or beside the others.
    pub fn new(inner: Arc<dyn FlagDefinitions>, flags: Vec<FlagDefinition>) -> Result<Self, CodeFlagError> {
        let catalogue = FlagCatalogue::new(flags.iter().cloned(), []);
        let mut keys = HashSet::new();
        for flag in &flags {
            let problem = match catalogue.check_flag(flag) {
                Err(invalid) => invalid
                    .0
                    .first()
                    .map_or_else(String::new, |error| format!("{} {}", error.pointer, error.detail)),
                Ok(()) if !keys.insert(&flag.key) => {
                    "two flags have this key, give one of them another".into()
                }
                Ok(()) => continue,
            };
            let key = flag.key.clone();
            return Err(CodeFlagError { key, problem });
        }
        Ok(Self { inner, flags })
    }
}

#[async_trait]
impl FlagDefinitions for CodeFlags {
    async fn program(&self, because: SystemScope) -> Result<Arc<FlagProgram>, StoreError> {
        let stored = self.inner.program(because).await?;
        if self.flags.is_empty() {
            return Ok(stored);
        }
        let catalogue = (**stored.catalogue()).clone().over(&self.flags);
        Ok(Arc::new(FlagProgram::compile(Arc::new(catalogue))))
    }
}
