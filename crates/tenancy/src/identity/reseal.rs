//! Resealing of a tenant's secrets after a change of the server's key.

use std::sync::Arc;

use serde_json::json;
use tenantry_domain::customization::SettingSheet;
use tenantry_domain::kernel::{SystemScope, TenantId};

use crate::Tenancy;
use crate::customization::setting::{self, Resealed, SettingError};
use crate::identity::mfa;

/// Seals a tenant's secrets, those of its users' second factors included, with the present key, so that earlier keys are not
/// needed for them. A second run changes nothing.
///
/// # Errors
/// [`SettingError`].
pub async fn reseal(app: &Arc<Tenancy>, tenant: TenantId) -> Result<Resealed, SettingError> {
    let cx = setting::system(
        app,
        tenant,
        SystemScope::because("secrets are sealed with a new key"),
    )
    .await?;
    let seal = app.ports.seal.as_ref();
    cx.write(async |work| {
        work.tenants()
            .current_for_update()
            .await?
            .ok_or(SettingError::NotFound)?;
        let mut sheet = work.settings().current().await?;
        let mut done = Resealed::default();
        for (key, secret) in &mut sheet.secrets {
            let place = SettingSheet::place(tenant, key);
            if seal.is_current(&place, &secret.sealed) {
                done.current += 1;
            } else if let Some(plain) = seal.open(&place, &secret.sealed) {
                secret.sealed = seal.seal(&place, &plain);
                done.resealed += 1;
            } else {
                done.unreadable.push(key.clone());
            }
        }
        if done.resealed > 0 {
            work.settings().store_resealed(&sheet).await?;
        }
        mfa::reseal_all(&cx, work, &mut done).await?;
        if done.resealed > 0 {
            let details = json!({"resealed": done.resealed, "unreadable": done.unreadable});
            let event = cx.security("settings.resealed", "settings", Some(tenant.uuid()), details);
            work.audit().record(event).await?;
        }
        Ok(done)
    })
    .await
}
