//! The settings of a tenant: what holds, what the tenant has set, and how that came about.
//!
//! Code in the same process reads a setting with its type. Another service defines its own beside those of the product,
//! and reads them in the same way:
//!
//! ```
//! use tenantry_domain::customization::{Definition, Kind, RegistryError, Setting, SettingRegistry};
//! use tenantry_tenancy::customization::setting::{self, SettingError};
//! use tenantry_tenancy::{Cx, customization::product_settings};
//!
//! const MOST_NOTES: Setting<u32> = Setting::new("notes.most_per_task");
//!
//! /// What goes into `Ports::settings`.
//! fn registry() -> Result<SettingRegistry, RegistryError> {
//!     let ours = Definition::new("notes.most_per_task", Kind::Integer(1..=1_000), 100.into(), "How many notes a task has.");
//!     SettingRegistry::new(product_settings::definitions().into_iter().chain([ours]))
//! }
//!
//! async fn has_room(cx: &Cx, notes: u32) -> Result<bool, SettingError> {
//!     Ok(notes < setting::get(cx, &MOST_NOTES).await?)
//! }
//! # assert!(registry().is_ok());
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tenantry_domain::customization::{
    Address, Configurations, Editor, EffectiveSettings, SealedSecret, Setting, SettingChange,
    SettingRegistry, SettingSheet, SettingVersion, TenantConfiguration, Warning,
};
use tenantry_domain::identity::Password;
use tenantry_domain::kernel::{
    AddressError, Invalid, Patch, Permission, Seal as _, StoreError, SystemScope, TenantId,
};
use tenantry_domain::plans::PlanCatalogue;
use tenantry_domain::store::{Units, Work};
use tenantry_domain::tenant::{Tenant, TenantScope};

use crate::customization::{address_rules, support_preapproval};
use crate::kernel::step_up::RecentFactor;
use crate::{Cx, OperatorCx, OwnReason, Precondition, UseCaseError};

/// Errors of the use cases of settings.
pub type SettingError = UseCaseError<SettingReason>;

/// Why a setting cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettingReason {
    /// A setting is read in process that is not defined, or has another type: a mistake in the code that reads.
    #[error("the setting {0} is not defined, or not of this type")]
    Undefined(&'static str),
}

impl OwnReason for SettingReason {}

/// The settings after a change, and what is to be said about it.
#[derive(Debug, Clone)]
pub struct Changed {
    /// What holds now.
    pub settings: EffectiveSettings,
    /// What is allowed, and probably not what was meant.
    pub warnings: Vec<Warning>,
}

/// The value of a setting for the tenant of the context. What is remembered is read without the database.
///
/// # Errors
/// [`SettingReason::Undefined`], [`SettingError::Store`].
pub async fn get<T: DeserializeOwned>(cx: &Cx, setting: &Setting<T>) -> Result<T, SettingError> {
    let value = setting.of(&configuration(cx).await?.settings);
    Ok(value.ok_or(SettingReason::Undefined(setting.key()))?)
}

/// The value of a setting for the tenant of the context; `None` in a service whose registry does not have it.
///
/// # Errors
/// Those of the store.
pub(crate) async fn find<T: DeserializeOwned>(
    cx: &Cx,
    setting: &Setting<T>,
) -> Result<Option<T>, StoreError> {
    Ok(setting.of(&configuration(cx).await?.settings))
}

/// A secret of the tenant of the context, where it is set. For code that uses it; no route gives it out.
///
/// # Errors
/// [`SettingReason::Undefined`] also when the key that it was sealed with is not known any more.
pub async fn reveal(cx: &Cx, setting: &Setting<String>) -> Result<Option<Password>, SettingError> {
    let settings = &configuration(cx).await?.settings;
    let Some(sealed) = settings.secrets.get(setting.key()) else {
        return Ok(None);
    };
    let place = SettingSheet::place(cx.scope().tenant(), setting.key());
    let seal = cx.seal_alone(sealed).await?;
    let opened = seal
        .open(&place, sealed)
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let text = opened.ok_or(SettingReason::Undefined(setting.key()))?;
    Ok(Some(Password::presented(text)))
}

/// All that holds for the tenant of the context.
///
/// # Errors
/// Those of the store.
pub async fn configuration(cx: &Cx) -> Result<Arc<TenantConfiguration>, StoreError> {
    cx.ports().configurations.of(cx.scope()).await
}

/// The settings that hold, for whoever may see the tenant; which of them to show is a matter of each definition.
///
/// # Errors
/// [`SettingError`].
pub async fn list(cx: &Cx) -> Result<Arc<TenantConfiguration>, SettingError> {
    cx.require(Permission::ReadTenant)?;
    Ok(configuration(cx).await?)
}

/// Changes what the tenant has set: all of it, or nothing.
///
/// # Errors
/// [`SettingError`].
pub async fn update(
    cx: &Cx,
    when: &Precondition,
    patch: &BTreeMap<String, Patch<Value>>,
) -> Result<Changed, SettingError> {
    cx.require(Permission::ManageSettings)?;
    if patch.keys().any(|key| is_of_security(key)) {
        let _: RecentFactor = cx.require_recent_factor().await??;
    }
    let change = cx.ports().settings.check_change(Editor::TenantAdmin, patch)?;
    let warnings = check_addresses(cx, &change.addresses).await?;
    cx.write_as_admin(async |work, _| {
        let (tenant, before) = held(work).await?;
        when.check(before.version)?;
        let held = effective(cx, &tenant, &before);
        let settings = store(cx, work, (&tenant, before), &change, None).await?;
        address_rules::refuse_lock_out(cx, &held, &settings)?;
        Ok(Changed { settings, warnings })
    })
    .await
}

/// Goes back to a former version. That is a new version, and it is one also when nothing differs.
///
/// # Errors
/// [`SettingError`].
pub async fn roll_back(cx: &Cx, when: &Precondition, version: i64) -> Result<Changed, SettingError> {
    cx.require(Permission::ManageSettings)?;
    let unknown = || Invalid::one("/version", "not_found", "there is no such version");
    // Names are resolved before there is a transaction that would wait for it.
    let (sheet, former) = cx
        .read(async |work| {
            let former = work.settings().find_version(version).await?;
            Ok::<_, SettingError>((work.settings().current().await?, former))
        })
        .await?;
    let former = former.ok_or_else(unknown)?;
    let factor = cx.require_recent_factor().await?;
    let registry = &cx.ports().settings;
    let warnings = check_addresses(cx, &registry.check_rollback(&sheet, &former)?.addresses).await?;
    cx.write_as_admin(async |work, _| {
        let (tenant, before) = held(work).await?;
        when.check(before.version)?;
        // The locked values decide: they may have changed since the first look.
        if security_of(&before.values) != security_of(&former.values) {
            let _: RecentFactor = factor?;
        }
        let change = registry.check_rollback(&before, &former)?;
        let held = effective(cx, &tenant, &before);
        let settings = store(cx, work, (&tenant, before), &change, Some(version)).await?;
        address_rules::refuse_lock_out(cx, &held, &settings)?;
        Ok(Changed { settings, warnings })
    })
    .await
}

/// At most `limit + 1` versions, newest first, from below version `before` on; the one too many tells that there are
/// more.
///
/// # Errors
/// [`SettingError`].
pub async fn list_versions(
    cx: &Cx,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<SettingVersion>, SettingError> {
    cx.require(Permission::ReadSettingHistory)?;
    cx.read(async |work| Ok(work.settings().list_versions(before, limit + 1).await?))
        .await
}

/// One version.
///
/// # Errors
/// [`SettingError`].
pub async fn get_version(cx: &Cx, version: i64) -> Result<SettingVersion, SettingError> {
    cx.require(Permission::ReadSettingHistory)?;
    cx.read(async |work| {
        work.settings()
            .find_version(version)
            .await?
            .ok_or(SettingError::NotFound)
    })
    .await
}

/// Sets for one tenant what its admins may or may not change themselves; `None` goes back to the inherited value. For commands: the
/// record of operators names the key, and the tenant's log has the values that are no secrets.
///
/// # Errors
/// [`SettingError`].
pub async fn operate(
    operators: &OperatorCx,
    tenant: TenantId,
    key: &str,
    value: Option<Value>,
) -> Result<EffectiveSettings, SettingError> {
    operators.require_command()?;
    let because = SystemScope::because("an operator changes a tenant's settings");
    let cx = operators.enter(because, tenant).await?;
    cx.require(Permission::OperateSettings)?;
    let patch = BTreeMap::from([(key.to_owned(), value.map_or(Patch::Clear, Patch::Set))]);
    let change = cx.ports().settings.check_change(Editor::Operator, &patch)?;
    check_addresses(&cx, &change.addresses).await?;
    let record = operators.record("settings.updated", Some(tenant), json!({ "key": key }));
    let changed = cx.write(async |work| {
        let (tenant, before) = held(work).await?;
        let stored = store(&cx, work, (&tenant, before), &change, None).await;
        stored.map_err(SettingError::from)
    });
    operators.act(record, "settings.update_failed", changed).await
}

/// The settings that hold for a tenant. For commands: the operators' log has the read.
///
/// # Errors
/// [`SettingError`].
pub async fn show(operators: &OperatorCx, tenant: TenantId) -> Result<EffectiveSettings, SettingError> {
    operators.require_command()?;
    let because = SystemScope::because("an operator reads a tenant's settings");
    let cx = operators.enter(because, tenant).await?;
    cx.require(Permission::OperateSettings)?;
    let record = operators.record("settings.read", Some(tenant), json!({}));
    operators.announce(record).await?;
    Ok(configuration(&cx).await?.settings.clone())
}

/// The value of a setting as it is stored, in a transaction that holds the tenant's row: a cached value may be older.
pub(crate) async fn find_stored<T: DeserializeOwned>(
    cx: &Cx,
    work: &mut Work,
    setting: &Setting<T>,
) -> Result<Option<T>, StoreError> {
    let Some(tenant) = work.tenants().current().await? else {
        return Ok(None);
    };
    let sheet = work.settings().current().await?;
    Ok(setting.of(&effective(cx, &tenant, &sheet)))
}

/// What became of a tenant's secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resealed {
    /// How many were sealed with the present key.
    pub resealed: usize,
    /// How many data keys were sealed with the server's present key.
    pub resealed_keys: usize,
    /// How many were already.
    pub current: usize,
    /// Those that no known key opens. They are left as they are.
    pub unreadable: Vec<String>,
}

impl Resealed {
    /// Adds what became of others.
    pub(crate) fn add(&mut self, other: Self) {
        self.resealed += other.resealed;
        self.resealed_keys += other.resealed_keys;
        self.current += other.current;
        self.unreadable.extend(other.unreadable);
    }
}

/// Resolves the names in addresses. One that leads inside is refused; one that nobody knows is let in with a warning,
/// because a name may be made tomorrow and a resolver be away today: whoever fetches has to ask again anyway.
///
/// # Errors
/// `internal_address` at each address that leads inside.
pub(crate) async fn check_addresses(cx: &Cx, addresses: &[Address]) -> Result<Vec<Warning>, Invalid> {
    let resolver = cx.ports().resolver.as_ref();
    let mut hosts: BTreeMap<&str, &Address> = BTreeMap::new();
    for address in addresses {
        hosts.entry(address.url.host()).or_insert(address);
    }
    let checks = hosts
        .into_iter()
        .map(async |(host, address)| (host, address.url.check(resolver).await));
    let found: BTreeMap<&str, _> = join_all(checks).await.into_iter().collect();
    let (mut refused, mut warnings) = (Vec::new(), Vec::new());
    for address in addresses {
        match found.get(address.url.host()) {
            Some(Ok(Some(_))) => {}
            Some(Ok(None)) | None => warnings.push(Warning {
                pointer: address.pointer.clone(),
                code: "host_not_found",
                detail: "nobody knows this host name at the moment".into(),
            }),
            Some(Err(error)) => {
                let invalid = Invalid::one(&address.pointer, error.code(), AddressError::to_string(error));
                refused.extend(invalid.0);
            }
        }
    }
    if refused.is_empty() {
        Ok(warnings)
    } else {
        Err(Invalid(refused))
    }
}

/// Whether a change of this setting needs a recent second factor, of an admin who has one.
fn is_of_security(key: &str) -> bool {
    key.starts_with("security.")
}

fn security_of(values: &BTreeMap<String, Value>) -> BTreeMap<&String, &Value> {
    let all = values.iter();
    all.filter(|(key, _)| is_of_security(key)).collect()
}

/// The tenant, locked so that changes come one after the other, and what it has set.
async fn held(work: &mut Work) -> Result<(Tenant, SettingSheet), SettingError> {
    let tenant = work.tenants().current_for_update().await?;
    let tenant = tenant.ok_or(SettingError::NotFound)?;
    Ok((tenant, work.settings().current().await?))
}

fn effective(cx: &Cx, tenant: &Tenant, sheet: &SettingSheet) -> EffectiveSettings {
    cx.ports()
        .settings
        .effective(&cx.ports().plans.terms(&tenant.plan, tenant.plan_version), sheet)
}

/// Stores a change as the next version with its audit entry; nothing when nothing changes. Returns what holds then. The tenant is locked.
async fn store(
    cx: &Cx,
    work: &mut Work,
    (stored, before): (&Tenant, SettingSheet),
    change: &SettingChange,
    rolled_back_to: Option<i64>,
) -> Result<EffectiveSettings, StoreError> {
    let tenant = cx.scope().tenant();
    let sealing = cx.seal(work).await?;
    let seal = |key: &str, text: &str| sealing.seal(&SettingSheet::place(tenant, key), text.as_bytes());
    let now = cx.now();
    let after = before.changed(&cx.ports().settings, change, seal, now);
    let held = effective(cx, stored, &before);
    if rolled_back_to.is_none() && after.says_the_same(&before) {
        return Ok(held);
    }
    let version = after.snapshot(cx.scope().user(), rolled_back_to, now);
    work.settings().store(&after, &version).await?;
    let action = if rolled_back_to.is_some() {
        "settings.rolled_back"
    } else {
        "settings.updated"
    };
    let (old, new) = audited(&before, &after, rolled_back_to);
    let event = cx.changed(action, "settings", tenant.uuid(), Some(&old), Some(&new));
    work.audit().record(event).await?;
    let settings = effective(cx, stored, &after);
    support_preapproval::end_withdrawn(cx, work, (&held, &settings)).await?;
    Ok(settings)
}

/// What was and what is, of the keys that differ: secrets only say whether they are set.
fn audited(before: &SettingSheet, after: &SettingSheet, rolled_back_to: Option<i64>) -> (Value, Value) {
    let keys = before.values.keys().chain(after.values.keys());
    let changed: BTreeSet<&String> = keys
        .filter(|key| before.values.get(*key) != after.values.get(*key))
        .collect();
    let secrets = before.secrets.keys().chain(after.secrets.keys());
    let secrets: BTreeSet<&String> = secrets
        .filter(|key| before.secrets.get(*key) != after.secrets.get(*key))
        .collect();
    let state = |sheet: &SettingSheet| {
        let shown = |secret: Option<&SealedSecret>| json!({"is_set": secret.is_some()});
        let mut values: BTreeMap<&String, Value> = changed
            .iter()
            .map(|key| (*key, sheet.values.get(*key).cloned().unwrap_or_default()))
            .collect();
        values.extend(secrets.iter().map(|key| (*key, shown(sheet.secrets.get(*key)))));
        json!({"version": sheet.version, "values": values})
    };
    let (old, mut new) = (state(before), state(after));
    if let Some(version) = rolled_back_to {
        new["rolled_back_to"] = json!(version);
    }
    (old, new)
}

/// Reads the configuration of tenants from the store, each time anew.
#[derive(Clone)]
pub struct StoredConfigurations {
    units: Units,
    settings: Arc<SettingRegistry>,
    plans: Arc<dyn PlanCatalogue>,
}

impl std::fmt::Debug for StoredConfigurations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoredConfigurations")
    }
}

impl StoredConfigurations {
    /// Over these settings and plans.
    pub fn new(units: Units, settings: Arc<SettingRegistry>, plans: Arc<dyn PlanCatalogue>) -> Self {
        Self {
            units,
            settings,
            plans,
        }
    }
}

#[async_trait]
impl Configurations for StoredConfigurations {
    fn cached(&self, _: TenantId) -> Option<Arc<TenantConfiguration>> {
        None
    }

    async fn of(&self, scope: &TenantScope) -> Result<Arc<TenantConfiguration>, StoreError> {
        let read = self.units.read(scope, async |work| {
            let gone = || StoreError::Other("the tenant is gone".into());
            let tenant = work.tenants().current().await?.ok_or_else(gone)?;
            let sheet = work.settings().current().await?;
            let branding = work.branding().current().await?;
            Ok::<_, StoreError>((tenant, sheet, branding))
        });
        let (tenant, sheet, branding) = read.await?;
        let settings = self
            .settings
            .effective(&self.plans.terms(&tenant.plan, tenant.plan_version), &sheet);
        Ok(Arc::new(TenantConfiguration {
            name: tenant.name,
            addresses: address_rules::rules_of(&settings),
            settings,
            branding,
        }))
    }
}
