//! Exports from the command line, into a file of the operator's.

use serde_json::json;
use tenantry_domain::archive::{ArchiveError, ArchiveSink};
use tenantry_domain::kernel::{SystemScope, Time};

use crate::OperatorCx;
use crate::archive::Notice;
use crate::archive::record::Records;
use crate::archive::write::{Subject, Written, write};

/// Writes everything that a tenant owns, or what is stored about one person of it, with records in the log of the operators and in that
/// of the tenant: before the first row is read, and of the end.
///
/// # Errors
/// [`ArchiveError`].
pub async fn export(
    operators: &OperatorCx,
    because: SystemScope,
    subject: Subject<'_>,
    sink: Box<dyn ArchiveSink>,
    (until, notice): (Time, Notice<'_>),
) -> Result<Written, ArchiveError> {
    let tenant = subject.tenant.id;
    let person = subject.person.map(|person| ("person_id", json!(person.id)));
    let [requested, exported, failed] = match person {
        Some(_) => ["user.export_requested", "user.exported", "user.export_failed"],
        None => [
            "tenant.export_requested",
            "tenant.exported",
            "tenant.export_failed",
        ],
    };
    let mut details: Vec<_> = person.into_iter().collect();
    let records = Records::new(operators, because);
    records.store(tenant, requested, &details).await?;
    let written = write(operators.app(), because, subject, sink, (until, notice)).await;
    match &written {
        Ok(written) => {
            details.extend([("rows", json!(written.rows())), ("bytes", json!(written.bytes))]);
            records.store(tenant, exported, &details).await?;
        }
        Err(error) => records.store_failure(tenant, failed, error, &details).await,
    }
    written
}
