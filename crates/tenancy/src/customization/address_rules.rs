//! The lists of networks of a tenant's security policy, as its settings say.

use tenantry_domain::customization::EffectiveSettings;
use tenantry_domain::identity::AddressRules;
use tenantry_domain::kernel::Invalid;

use crate::Cx;
use crate::customization::product_settings::{ALLOWED_NETWORKS, DENIED_NETWORKS};

/// The lists of networks in settings that hold. A list that cannot be read refuses all addresses, so that a mistake opens nothing.
pub(crate) fn rules_of(settings: &EffectiveSettings) -> AddressRules {
    read(settings).unwrap_or_else(|| {
        tracing::error!(
            "a list of networks in the settings of a tenant cannot be read; all addresses are refused"
        );
        AddressRules::nobody()
    })
}

fn read(settings: &EffectiveSettings) -> Option<AddressRules> {
    let allowed = ALLOWED_NETWORKS.restriction_of(settings).ok()?;
    let denied = DENIED_NETWORKS.restriction_of(settings).ok()?;
    AddressRules::new(&allowed.unwrap_or_default(), &denied.unwrap_or_default())
}

/// Refuses a change of the lists with which the caller could send no further request.
///
/// # Errors
/// `locks_out`.
pub(crate) fn refuse_lock_out(
    cx: &Cx,
    before: &EffectiveSettings,
    after: &EffectiveSettings,
) -> Result<(), Invalid> {
    let rules = rules_of(after);
    let address = cx.origin().address();
    if rules == rules_of(before) || rules.permit(address) {
        return Ok(());
    }
    let address = address.map_or("your address, which is not known".to_owned(), |ip| {
        format!("your own address, {}", ip.to_canonical())
    });
    let detail = format!(
        "with this change the tenant would refuse {address}; add a network with it to the allowed networks, take it out of \
         the denied ones, or let an operator make the change"
    );
    let is_allowed = allowed_of(after).permit(cx.origin().address());
    let pointer = if is_allowed {
        DENIED_NETWORKS.key()
    } else {
        ALLOWED_NETWORKS.key()
    };
    Err(Invalid::one(format!("/{pointer}"), "locks_out", detail))
}

/// The list of allowed networks alone.
fn allowed_of(settings: &EffectiveSettings) -> AddressRules {
    let allowed: Vec<String> = ALLOWED_NETWORKS.of(settings).unwrap_or_default();
    AddressRules::new(&allowed, &[]).unwrap_or_default()
}
