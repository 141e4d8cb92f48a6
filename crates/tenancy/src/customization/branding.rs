//! How a tenant looks.

use std::sync::Arc;

use tenantry_domain::customization::{BrandingPatch, SafeCss, TenantConfiguration, Warning};
use tenantry_domain::kernel::{Permission, StoreError};

use crate::customization::setting;
use crate::plans::Feature;
use crate::{Cx, Precondition, UseCaseError};

/// Errors of the branding use cases.
pub type BrandingError = UseCaseError;

/// The branding after a change, and what is to be said about it.
#[derive(Debug, Clone)]
pub struct Rebranded {
    /// The tenant's configuration as it is now, the branding in it.
    pub configuration: TenantConfiguration,
    /// What is allowed, and probably not what was meant.
    pub warnings: Vec<Warning>,
    /// What was removed of the CSS.
    pub css: SafeCss,
}

/// The look of the tenant. It is nobody's secret: who is about to log in sees it too.
///
/// # Errors
/// Those of the store.
pub async fn get(cx: &Cx) -> Result<Arc<TenantConfiguration>, StoreError> {
    setting::configuration(cx).await
}

/// Changes the look of the tenant; a change that changes nothing is none.
///
/// # Errors
/// [`BrandingError`].
pub async fn update(cx: &Cx, when: &Precondition, patch: BrandingPatch) -> Result<Rebranded, BrandingError> {
    cx.require(Permission::ManageBranding)?;
    cx.require_feature(Feature::BRANDING)?;
    let present = setting::configuration(cx).await?;
    // What the change says does not depend on what is there, so its names are resolved before there is a transaction.
    let addresses = present.branding.changed(patch.clone(), cx.now())?.addresses;
    let found = setting::check_addresses(cx, &addresses).await?;
    cx.write(async |work| {
        let tenant = work
            .tenants()
            .current_for_update()
            .await?
            .ok_or(BrandingError::NotFound)?;
        let before = work.branding().current().await?;
        when.check(before.version)?;
        let changed = before.changed(patch.clone(), cx.now())?;
        let mut configuration = TenantConfiguration::clone(&present);
        configuration.name = tenant.name;
        configuration.branding = if changed.branding.looks_like(&before) {
            before
        } else {
            work.branding().store(&changed.branding).await?;
            let (id, after) = (tenant.id.uuid(), &changed.branding);
            let event = cx.changed("branding.updated", "branding", id, Some(&before), Some(after));
            work.audit().record(event).await?;
            changed.branding
        };
        let mut warnings = configuration.branding.warnings();
        warnings.extend(found);
        let css = changed.css;
        Ok(Rebranded {
            configuration,
            warnings,
            css,
        })
    })
    .await
}
