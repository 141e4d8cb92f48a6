//! The job of the next digest of a tenant.

use tenantry_domain::kernel::{JobId, StoreError, Time};
use tenantry_domain::notifications::Rhythm;
use tenantry_domain::store::Work;

use crate::Cx;
use crate::notifications::mail_terms::MailTerms;
use crate::operations::job::{self, Nothing, Terms, store_error};

/// Mails the digests that are due.
#[derive(Debug, Clone, Copy)]
pub struct SendDigests;

/// Stores the job of the next digest, unless it is there. The position of notifications is locked, so the date of the latest digest does
/// not change meanwhile. A job that stores its successor names itself: it may run early, and then its own date is the next one.
pub(super) async fn enqueue(
    cx: &Cx,
    work: &mut Work,
    (terms, rhythm, now): (MailTerms, Rhythm, Time),
    after: Option<JobId>,
) -> Result<(), StoreError> {
    let Some(tenant) = work.tenants().current().await? else {
        return Ok(());
    };
    let mailed = work.notifications().latest_digest(rhythm).await?;
    let Some(due) = terms.schedule(&tenant).next(now, rhythm, mailed.as_deref()) else {
        return Ok(());
    };
    let key = match after {
        Some(job) => format!("{} after {job}", due.date),
        None => due.date,
    };
    let terms = Terms {
        run_at: Some(due.at),
        dedupe_key: Some(key),
        ..Terms::default()
    };
    let stored = job::enqueue::<SendDigests>(cx, work, &Nothing {}, terms).await;
    stored.map(|_| ()).map_err(store_error)
}
