//! The security policy of a tenant: the settings whose keys begin with `security.`, as one document.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::{Value, json};
use tenantry_domain::customization::EffectiveSettings;
use tenantry_domain::identity::{MfaRequirement, Password};
use tenantry_domain::kernel::{FieldError, Invalid, Patch, Permission, Resolved, StoreError};
use tenantry_domain::tenant::{Denied, TenantScope};

use crate::audit::refusal::{self, Refusal, RefusedAction, RefusedActor};
use crate::customization::product_settings::{MFA_REQUIRED, PASSWORD_MIN_LENGTH, SESSION_MAX_DAYS};
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
    Ok((
        configuration.settings.version,
        rules_of(cx, &configuration.settings),
    ))
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
        Ok(Changed { settings, .. }) => Ok((settings.version, rules_of(cx, &settings))),
        Err(SettingError::Invalid(invalid)) => Err(renamed(invalid).into()),
        Err(error) => Err(error),
    }
}

/// What the server's configuration puts in the place of the value of a setting, and the name of what does so; `None` where the value holds.
pub fn bound_of_server(app: &Tenancy, key: &str, value: &Value) -> Option<(Value, &'static str)> {
    if key == MFA_REQUIRED.key() {
        let minimum = app.policy.users_mfa_minimum;
        let own = MfaRequirement::deserialize(value).ok()?;
        return (own < minimum).then(|| (json!(minimum), "server's minimum"));
    }
    let longest = app.policy.session_max_days;
    let is_longer = key == SESSION_MAX_DAYS.key() && value.as_i64().is_some_and(|days| days > longest);
    is_longer.then(|| (json!(longest), "server's maximum"))
}

/// The policy of settings that hold. Of `mfa_required` and the server's minimum the stricter one is in force.
fn rules_of(cx: &Cx, settings: &EffectiveSettings) -> BTreeMap<String, Value> {
    let rules = settings.values.iter();
    let rule = |(key, resolved): (&&str, &Resolved<Value>)| {
        let name = key.strip_prefix(PREFIX)?;
        let bound = (*key == MFA_REQUIRED.key())
            .then(|| bound_of_server(cx.app(), key, &resolved.value))
            .flatten();
        let value = bound.map_or_else(|| resolved.value.clone(), |(value, _)| value);
        Some((name.to_owned(), value))
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

/// Refuses to enter the scope's tenant from an address that its policy does not allow, and records that in the tenant's log. The policy
/// is the cached one.
///
/// # Errors
/// [`Denied::Address`]; those of the store.
pub async fn check_address(app: &Arc<Tenancy>, scope: &TenantScope, origin: &Origin) -> Result<(), Denied> {
    let configurations = &app.ports.configurations;
    let configuration = match configurations.cached(scope.tenant()) {
        Some(configuration) => configuration,
        None => configurations.of(scope).await?,
    };
    if configuration.addresses.permit(origin.address()) {
        return Ok(());
    }
    let refusal = Refusal {
        action: RefusedAction::Network,
        target_type: "tenant",
        target: Some(scope.tenant().uuid()),
        actor: RefusedActor::of(scope),
        ip: origin.ip.clone(),
        details: json!({"api_key_id": scope.api_key()}),
    };
    let cx = Cx::new(Arc::clone(app), scope.clone(), origin.clone());
    refusal::record(&cx, refusal).await?;
    Err(Denied::Address)
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
