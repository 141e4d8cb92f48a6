//! The security policy of a tenant: the settings whose keys begin with `security.`, as one document.

use std::collections::BTreeMap;

use serde_json::Value;
use tenantry_domain::customization::EffectiveSettings;
use tenantry_domain::identity::{AddressRules, Password};
use tenantry_domain::kernel::{FieldError, Invalid, Patch, Permission, Resolved, StoreError};
use tenantry_domain::tenant::{Denied, TenantScope};

use crate::customization::product_settings::{ALLOWED_NETWORKS, DENIED_NETWORKS, PASSWORD_MIN_LENGTH};
use crate::customization::setting::{self, Changed, SettingError};
use crate::{Cx, Origin, Precondition, Tenancy};

/// What the keys of its settings begin with.
const PREFIX: &str = "security.";

/// The policy of the context's tenant: each rule with the value that holds, by its name without the prefix, and the version of the
/// settings.
///
/// # Errors
/// [`SettingError`].
pub async fn get(cx: &Cx) -> Result<(i64, BTreeMap<String, Value>), SettingError> {
    cx.require(Permission::ReadSettingHistory)?;
    let configuration = setting::configuration(cx).await?;
    Ok((configuration.settings.version, rules_of(&configuration.settings)))
}

/// Changes rules: all of them, or none. Null goes back to the inherited rule.
///
/// # Errors
/// [`SettingError`]; `unknown_field` for a rule that does not exist, `locks_out` for lists that refuse the caller's own address.
pub async fn update(
    cx: &Cx,
    when: &Precondition,
    patch: &BTreeMap<String, Patch<Value>>,
) -> Result<(i64, BTreeMap<String, Value>), SettingError> {
    cx.require(Permission::ManageSettings)?;
    let of_setting = |(name, value): (&String, &Patch<Value>)| (format!("{PREFIX}{name}"), value.clone());
    let patch = patch.iter().map(of_setting).collect();
    match setting::update(cx, when, &patch).await {
        Ok(Changed { settings, .. }) => Ok((settings.version, rules_of(&settings))),
        Err(SettingError::Invalid(invalid)) => Err(renamed(invalid).into()),
        Err(error) => Err(error),
    }
}

/// The policy of settings that hold.
fn rules_of(settings: &EffectiveSettings) -> BTreeMap<String, Value> {
    let rules = settings.values.iter();
    let rule = |(key, resolved): (&&str, &Resolved<Value>)| {
        let name = key.strip_prefix(PREFIX)?;
        Some((name.to_owned(), resolved.value.clone()))
    };
    rules.filter_map(rule).collect()
}

/// The same errors at the names of the rules.
fn renamed(Invalid(errors): Invalid) -> Invalid {
    let own = |error: FieldError| {
        let pointer = error.pointer.replacen("/security.", "/", 1);
        FieldError { pointer, ..error }
    };
    Invalid(errors.into_iter().map(own).collect())
}

/// The lists of networks in settings that hold. A list that cannot be read refuses all addresses, so that a mistake opens nothing.
pub(crate) fn addresses_of(settings: &EffectiveSettings) -> AddressRules {
    let list = |found: Option<Vec<String>>| found.unwrap_or_default();
    let allowed = list(ALLOWED_NETWORKS.of(settings));
    let rules = AddressRules::new(&allowed, &list(DENIED_NETWORKS.of(settings)));
    rules.unwrap_or_else(|| {
        tracing::error!(
            "a list of networks in the settings of a tenant cannot be read; all addresses are refused"
        );
        AddressRules::nobody()
    })
}

/// Refuses an address that the policy of the scope's tenant does not allow. The policy is the cached one.
///
/// # Errors
/// [`Denied::Address`]; those of the store.
pub async fn check_address(app: &Tenancy, scope: &TenantScope, origin: &Origin) -> Result<(), Denied> {
    let configurations = &app.ports.configurations;
    let configuration = match configurations.cached(scope.tenant()) {
        Some(configuration) => configuration,
        None => configurations.of(scope).await?,
    };
    if configuration.addresses.permit(origin.address()) {
        Ok(())
    } else {
        Err(Denied::Address)
    }
}

/// Refuses a change of the lists with which the caller could send no further request.
///
/// # Errors
/// `locks_out`.
pub(crate) fn refuse_lock_out(
    cx: &Cx,
    before: &EffectiveSettings,
    after: &EffectiveSettings,
) -> Result<(), SettingError> {
    let rules = addresses_of(after);
    let address = cx.origin().address();
    if rules == addresses_of(before) || rules.permit(address) {
        return Ok(());
    }
    let address = address.map_or("your address, which is not known".to_owned(), |ip| {
        format!("your own address, {}", ip.to_canonical())
    });
    let detail = format!(
        "with this change the tenant would refuse {address}; add a network with it to security.allowed_networks, and take it out of \
         security.denied_networks, or let an operator make the change"
    );
    let is_allowed = addresses_of_allowed(after).permit(cx.origin().address());
    let pointer = if is_allowed {
        DENIED_NETWORKS.key()
    } else {
        ALLOWED_NETWORKS.key()
    };
    Err(Invalid::one(format!("/{pointer}"), "locks_out", detail).into())
}

/// The list of allowed networks alone.
fn addresses_of_allowed(settings: &EffectiveSettings) -> AddressRules {
    let allowed: Vec<String> = ALLOWED_NETWORKS.of(settings).unwrap_or_default();
    AddressRules::new(&allowed, &[]).unwrap_or_default()
}

/// Holds a password that somebody chooses to the minimum length of the tenant. Those that exist already stay as they are.
///
/// # Errors
/// `weak_password`; those of the store.
pub(crate) async fn check_length(
    cx: &Cx,
    password: &Password,
    pointer: &str,
) -> Result<Result<(), Invalid>, StoreError> {
    let shortest = setting::find(cx, &PASSWORD_MIN_LENGTH).await?;
    let is_short = shortest.is_some_and(|shortest| password.reveal().chars().count() < shortest);
    if !is_short {
        return Ok(Ok(()));
    }
    let detail = format!(
        "must have at least {} characters, as the tenant's security policy says",
        shortest.unwrap_or_default()
    );
    Ok(Err(Invalid::one(pointer, "weak_password", detail)))
}
