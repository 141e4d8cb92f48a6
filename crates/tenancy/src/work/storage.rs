//! How many bytes a tenant stores: counted in the transaction that stores or deletes them.

use tenantry_domain::kernel::StoreError;
use tenantry_domain::store::Work;

use crate::Cx;
use crate::plans::AddError;

/// Counts `bytes` more as stored, if the tenant may store them; in the transaction that stores them.
///
/// # Errors
/// [`AddError`].
pub(crate) async fn store_more(cx: &Cx, work: &mut Work, bytes: u64) -> Result<(), AddError> {
    if bytes == 0 {
        return Ok(());
    }
    let used = work.storage().used_for_update(cx.now()).await?;
    cx.ports().entitlements.require_storage(cx, used, bytes)?;
    set_used(cx, work, used + bytes).await?;
    Ok(())
}

/// Counts `bytes` as stored no more; in the transaction that deletes them.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn store_less(cx: &Cx, work: &mut Work, bytes: u64) -> Result<(), StoreError> {
    if bytes == 0 {
        return Ok(());
    }
    let used = work.storage().used_for_update(cx.now()).await?;
    set_used(cx, work, used.saturating_sub(bytes)).await
}

async fn set_used(cx: &Cx, work: &mut Work, bytes: u64) -> Result<(), StoreError> {
    work.storage().set_used(bytes).await?;
    cx.ports().usage_recorder.record_storage(cx, work, bytes).await
}
