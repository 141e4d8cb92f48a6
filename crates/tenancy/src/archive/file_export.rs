//! Exports from the command line, into a file of the operator's.

use std::sync::Arc;

use serde_json::json;
use tenantry_domain::archive::{ArchiveError, ArchiveSink};
use tenantry_domain::kernel::{SystemScope, Time};
use tenantry_domain::tenant::Tenant;

use crate::Tenancy;
use crate::archive::Notice;
use crate::archive::record::Records;
use crate::archive::write::{Written, write};

/// Writes everything that a tenant owns, with records in the log of the operators and in that of the tenant: before the first row is
/// read, and of the end.
///
/// # Errors
/// [`ArchiveError`].
pub async fn export(
    app: &Arc<Tenancy>,
    because: SystemScope,
    tenant: &Tenant,
    sink: Box<dyn ArchiveSink>,
    (until, notice): (Time, Notice<'_>),
) -> Result<Written, ArchiveError> {
    let records = Records::new(app, because);
    records.store(tenant.id, "tenant.export_requested", &[]).await?;
    let written = write(app, because, tenant, sink, (until, notice)).await;
    match &written {
        Ok(written) => {
            let size = [("rows", json!(written.rows())), ("bytes", json!(written.bytes))];
            records.store(tenant.id, "tenant.exported", &size).await?;
        }
        Err(error) => {
            let failed = "tenant.export_failed";
            records.store_failure(tenant.id, failed, error, &[]).await;
        }
    }
    written
}
