//! The records of work on archives, in the log of the operators and in that of the tenant.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tenantry_domain::archive::{ArchiveError, Manifest, Put};
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId, hex};

use crate::{Cx, OperatorCx};

/// Records what a command does with an archive.
pub(super) struct Records<'a> {
    because: SystemScope,
    operators: &'a OperatorCx,
    /// The SHA-256 of what is signed of the manifest. Absent while the archive is written.
    digest: Option<String>,
}

impl<'a> Records<'a> {
    /// Of an archive that is being written.
    pub const fn new(operators: &'a OperatorCx, because: SystemScope) -> Self {
        Self {
            because,
            operators,
            digest: None,
        }
    }

    /// Of an archive that is read.
    pub fn of(
        operators: &'a OperatorCx,
        because: SystemScope,
        manifest: &Manifest,
    ) -> Result<Self, ArchiveError> {
        Ok(Self {
            digest: Some(digest(manifest)?),
            ..Self::new(operators, because)
        })
    }

    /// The context of the operators' records.
    pub const fn operators(&self) -> &'a OperatorCx {
        self.operators
    }

    /// The details of a record.
    pub fn details(&self, details: &[(&str, Value)]) -> Value {
        let digest = self.digest.as_ref().map(|digest| ("archive", json!(digest)));
        let all = digest.into_iter().chain(details.iter().cloned());
        Value::Object(
            all.map(|(name, value)| (name.to_owned(), value))
                .collect::<Map<_, _>>(),
        )
    }

    /// Stores a record in both logs.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn store(
        &self,
        tenant: TenantId,
        action: &'static str,
        details: &[(&str, Value)],
    ) -> Result<(), StoreError> {
        let record = self.operators.record(action, Some(tenant), self.details(details));
        self.operators.announce(record).await?;
        self.store_in_tenant(tenant, action, details).await
    }

    /// Stores a record in the log of the tenant. A tenant that cannot be entered, such as half an import, has none.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn store_in_tenant(
        &self,
        tenant: TenantId,
        action: &'static str,
        details: &[(&str, Value)],
    ) -> Result<(), StoreError> {
        let Some(cx) = self.enter(tenant).await? else {
            return Ok(());
        };
        cx.write(async |work| {
            let event = cx.security(action, "tenant", Some(tenant.uuid()), self.details(details));
            work.audit().record(event).await
        })
        .await
    }

    /// Stores in both logs that the work has failed; why, in that of the operators. What cannot be stored is logged: the failure itself
    /// is what the caller is to see.
    pub async fn store_failure(
        &self,
        tenant: TenantId,
        action: &'static str,
        error: &ArchiveError,
        details: &[(&str, Value)],
    ) {
        let why = [details, &[("error", json!(error.to_string()))]].concat();
        let stored = async {
            let record = self.operators.record(action, Some(tenant), self.details(&why));
            self.operators.announce(record).await?;
            self.store_in_tenant(tenant, action, details).await
        };
        if let Err(lost) = stored.await {
            tracing::warn!(%lost, action, "the failure of the work on an archive is not recorded");
        }
    }

    /// The context of the tenant; its entries name the request of the operators' records.
    pub async fn enter(&self, tenant: TenantId) -> Result<Option<Cx>, StoreError> {
        self.operators.try_enter(self.because, tenant).await
    }
}

/// Identifies an archive: the SHA-256 of what is signed.
pub(super) fn digest(manifest: &Manifest) -> Result<String, ArchiveError> {
    Ok(hex(&Sha256::digest(manifest.message()?)))
}

/// What was written, as details of a record.
pub(super) fn counts(put: Put) -> [(&'static str, Value); 2] {
    [
        ("inserted", json!(put.inserted)),
        ("replaced", json!(put.replaced)),
    ]
}
