use std::sync::Arc;

use tenantry_domain::kernel::StoreError;
use tenantry_domain::store::Work;
use tenantry_domain::tenant::{DataKey, TenantSeal};

use crate::Cx;

/// Sealing under the data keys of the context's tenant.
impl Cx {
    /// Returns the seal of the tenant. What is not cached is loaded with the running transaction.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn seal(&self, work: &mut Work) -> Result<Arc<TenantSeal>, StoreError> {
        match self.ports().tenant_seals.cached(self.scope().tenant()) {
            Some(seal) => Ok(seal),
            None => self.load_seal(work).await,
        }
    }

    /// Returns the seal of the tenant for opening a value. It is loaded when the value is under a key that is newer than the
    /// cached ones, which another server has added.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn seal_opening(&self, work: &mut Work, sealed: &[u8]) -> Result<Arc<TenantSeal>, StoreError> {
        let seal = self.seal(work).await?;
        if seal.lacks_key_of(sealed) {
            return self.load_seal(work).await;
        }
        Ok(seal)
    }

    /// The same for a caller without a running transaction.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn seal_alone(&self, sealed: &[u8]) -> Result<Arc<TenantSeal>, StoreError> {
        match self.ports().tenant_seals.cached(self.scope().tenant()) {
            Some(seal) if !seal.lacks_key_of(sealed) => Ok(seal),
            Some(_) | None => self.read(async |work| self.load_seal(work).await).await,
        }
    }

    /// Loads the seal and caches it, unless the transaction has changed the keys: it may yet be undone, and what is sealed under
    /// a key that was never stored is lost.
    pub(crate) async fn load_seal(&self, work: &mut Work) -> Result<Arc<TenantSeal>, StoreError> {
        let (seals, tenant) = (&self.ports().tenant_seals, self.scope().tenant());
        let epoch = seals.epoch(tenant);
        let stored = work.data_keys().list().await?;
        let seal = Arc::new(TenantSeal::new(
            tenant,
            Arc::clone(&self.ports().seal),
            &stored.keys,
        ));
        for number in seal.unreadable() {
            tracing::error!(
                %tenant,
                number,
                "data key of a tenant cannot be opened: configure the former signing key again (auth.previous_key_files), or rotate \
                 with `tenantry keys rotate --tenant`"
            );
        }
        if !stored.changed_here {
            seals.keep(epoch, &seal);
        }
        Ok(seal)
    }

    /// Stores a new data key of the tenant with the running transaction, and returns its number.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn add_data_key(&self, work: &mut Work) -> Result<i32, StoreError> {
        let stored = work.data_keys().list().await?;
        let number = stored.keys.last().map_or(0, |key| key.number) + 1;
        work.data_keys().insert(&self.new_data_key(number)).await?;
        Ok(number)
    }

    /// Returns the first data key of a tenant that is being created.
    pub(crate) fn first_data_key(&self) -> DataKey {
        self.new_data_key(1)
    }

    fn new_data_key(&self, number: i32) -> DataKey {
        let place = DataKey::place(self.scope().tenant(), number);
        DataKey {
            number,
            sealed: self.ports().seal.new_data_key(&place),
            created_at: self.now(),
        }
    }
}
