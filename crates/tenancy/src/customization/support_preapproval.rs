//! Ends of support accesses that the security policy has approved, when the policy stops approving them.

use serde_json::json;
use tenantry_domain::customization::EffectiveSettings;
use tenantry_domain::kernel::StoreError;
use tenantry_domain::store::Work;
use tenantry_domain::tenant::SupportEnd;

use crate::Cx;
use crate::customization::product_settings::PREAPPROVE_SUPPORT_READ;

/// Whether the settings approve requests of operators to read.
pub(super) fn is_on(settings: &EffectiveSettings) -> bool {
    PREAPPROVE_SUPPORT_READ.of(settings) == Some(true)
}

/// Ends the accesses that the policy has approved when `after` approves none any more, in the transaction that stores `after`. The
/// tenant's row is locked.
pub(super) async fn end_withdrawn(
    cx: &Cx,
    work: &mut Work,
    (before, after): (&EffectiveSettings, &EffectiveSettings),
) -> Result<(), StoreError> {
    if !is_on(before) || is_on(after) {
        return Ok(());
    }
    for access in work.support_accesses().end_preapproved(cx.now()).await? {
        let mut details = access.details();
        details["because"] = json!(SupportEnd::PolicyChanged);
        let id = Some(access.id.uuid());
        let event = cx.security("support_access.ended", "support_access", id, details);
        work.audit().record(event).await?;
    }
    Ok(())
}
