//! The store's error inside of other errors.

/// States that an error enum carries the store's error in its `Store` variant, for the runner's retries. The caller's crate
/// depends on `tenantry-domain`.
#[macro_export]
macro_rules! carries_store_error {
    ($name:ident) => {
        impl tenantry_domain::kernel::AsStoreError for $name {
            fn as_store_error(&self) -> Option<&tenantry_domain::kernel::StoreError> {
                if let Self::Store(error) = self {
                    Some(error)
                } else {
                    None
                }
            }
        }
    };
}
pub(crate) use carries_store_error;
