//! The flags of a tenant: what they are for whoever asks, and what its admins choose.
//!
//! A service asks for flags in the course of its own use cases like this; once the set is remembered, which is the
//! case for all but the first request of a tenant, nothing is waited for:
//!
//! ```
//! use tenantry_domain::kernel::StoreError;
//! use tenantry_tenancy::{Cx, flags::flag};
//!
//! async fn checkout(cx: &Cx) -> Result<&'static str, StoreError> {
//!     let flags = flag::of(cx).await?;
//!     Ok(if flags.is_on("new-checkout", &flag::subject(cx), cx.now()) { "new" } else { "old" })
//! }
//! ```
//!
//! Flags that are defined in the code of a service are given to `tenantry::Extension::flags`; see [`CodeFlags`](super::code_flag::CodeFlags).

use std::sync::Arc;

use async_trait::async_trait;
use tenantry_domain::flags::{
    Evaluation, Explanation, FlagDefinition, FlagDefinitions, FlagOverride, FlagSet, FlagSource, FlagTenant,
    Reason, Subject,
};
use tenantry_domain::kernel::{FlagOverrideId, Level, Permission, StoreError, SystemScope, hex};
use tenantry_domain::store::Units;
use tenantry_domain::tenant::TenantScope;

use crate::{Cx, OwnReason, Precondition, UseCaseError};

/// Errors of the use cases of flags.
pub type FlagError = UseCaseError<FlagReason>;

/// Why a flag stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlagReason {
    /// Tenants cannot override this flag.
    #[error("tenants cannot override this flag")]
    NotOverridable,
}

impl OwnReason for FlagReason {}

/// A flag as somebody of the tenant sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// Its definition. What names other tenants in it (rules) is not for the tenant's eyes.
    pub definition: FlagDefinition,
    /// The variant that they get.
    pub variant: String,
    /// Why.
    pub reason: Reason,
    /// The level that said so.
    pub level: Level,
    /// What the tenant has chosen, if anything.
    pub chosen: Option<FlagOverride>,
}

/// What holds in the scope's tenant: what is remembered, without waiting, or else what is put together now.
///
/// # Errors
/// Those of the store.
pub async fn of(cx: &Cx) -> Result<Arc<FlagSet>, StoreError> {
    let flags = &cx.ports().flags;
    match flags.cached(cx.scope()) {
        Some(set) => Ok(set),
        None => flags.flags(cx.scope()).await,
    }
}

/// A text that changes when something may be different for somebody in the tenant, and never because of what is said of
/// other tenants. It is keyed with a secret of the server, so that nothing can be told from it, not even by whoever guesses
/// a definition; every server makes the same.
pub fn revision(cx: &Cx, set: &FlagSet) -> String {
    let digest = cx
        .ports()
        .seal
        .digest("revision of flags", &set.fingerprint(cx.now()));
    hex(&digest[..16])
}

/// The acting user as the subject of flags; nobody in particular when none acts.
pub fn subject(cx: &Cx) -> Subject {
    Subject {
        key: cx.scope().user().map(|user| user.to_string()),
        role: cx.scope().role(),
        ..Subject::default()
    }
}

/// All flags that whoever asks may know of, as they are for them.
///
/// # Errors
/// [`FlagError`].
pub async fn list(cx: &Cx) -> Result<Vec<Feature>, FlagError> {
    cx.require(Permission::ReadFeatures)?;
    let (set, subject) = (of(cx).await?, subject(cx));
    let visible = set.evaluate_visible(cx.scope().role(), &subject, cx.now());
    Ok(visible.map(|evaluation| Feature::of(&set, &evaluation)).collect())
}

/// How a flag came to what it is for whoever asks.
///
/// # Errors
/// [`FlagError`].
pub async fn explain(cx: &Cx, key: &str) -> Result<Explanation, FlagError> {
    cx.require(Permission::ExplainFeatures)?;
    let set = of(cx).await?;
    visible(cx, &set, key)?;
    set.explain(key, &subject(cx), cx.now())
        .ok_or(FlagError::NotFound)
}

/// Chooses the variant that the tenant gets.
///
/// # Errors
/// [`FlagError`].
pub async fn choose(cx: &Cx, key: &str, when: &Precondition, variant: &str) -> Result<Feature, FlagError> {
    cx.require(Permission::ManageFeatures)?;
    let set = of(cx).await?;
    let flag = visible(cx, &set, key)?;
    if !flag.tenant_overridable {
        return Err(FlagReason::NotOverridable.into());
    }
    cx.write(async |work| {
        let before = work.flag_overrides().find_for_update(key).await?;
        when.check(before.as_ref().map_or(0, |chosen| chosen.version))?;
        let after = match before.clone() {
            None => {
                let id = FlagOverrideId::next(cx.ids());
                let chosen = FlagOverride::new(id, flag, variant, cx.now())?;
                work.flag_overrides().insert(&chosen).await?;
                chosen
            }
            Some(mut chosen) => {
                chosen.choose(flag, variant, cx.now())?;
                work.flag_overrides().update(&chosen).await?;
                chosen
            }
        };
        let id = after.id.uuid();
        let event = cx.changed(
            "flag.overridden",
            "flag_override",
            id,
            before.as_ref(),
            Some(&after),
        );
        Ok::<_, FlagError>(work.audit().record(event).await?)
    })
    .await?;
    feature(cx, key).await
}

/// Goes back to what operators say. A choice that counts for nothing any more can be taken back too.
///
/// # Errors
/// [`FlagError`].
pub async fn unchoose(cx: &Cx, key: &str, when: &Precondition) -> Result<(), FlagError> {
    cx.require(Permission::ManageFeatures)?;
    cx.write(async |work| {
        let before = work.flag_overrides().find_for_update(key).await?;
        let before = before.ok_or(FlagError::NotFound)?;
        when.check(before.version)?;
        work.flag_overrides().delete(key).await?;
        let id = before.id.uuid();
        let event = cx.changed("flag.override_removed", "flag_override", id, Some(&before), None);
        Ok(work.audit().record(event).await?)
    })
    .await
}

/// One flag as it is for whoever asks.
async fn feature(cx: &Cx, key: &str) -> Result<Feature, FlagError> {
    let set = of(cx).await?;
    let subject = subject(cx);
    let evaluation = set.evaluate(key, &subject, cx.now()).ok_or(FlagError::NotFound)?;
    Ok(Feature::of(&set, &evaluation))
}

/// A flag that whoever asks may know of; of any other it is not told whether it is there.
fn visible<'a>(cx: &Cx, set: &'a FlagSet, key: &str) -> Result<&'a FlagDefinition, FlagError> {
    set.flag(key)
        .filter(|flag| flag.visible_to(cx.scope().role()))
        .ok_or(FlagError::NotFound)
}

impl Feature {
    fn of(set: &FlagSet, evaluation: &Evaluation<'_>) -> Self {
        Self {
            definition: evaluation.flag.clone(),
            variant: evaluation.variant.to_owned(),
            reason: evaluation.reason,
            level: evaluation.level,
            chosen: set.chosen(&evaluation.flag.key).cloned(),
        }
    }
}

/// Puts together what holds in a tenant: the definitions, the tenant's plan and its choices, read each time.
pub struct StoredFlags {
    definitions: Arc<dyn FlagDefinitions>,
    units: Units,
}

impl std::fmt::Debug for StoredFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoredFlags")
    }
}

impl StoredFlags {
    /// Flags over definitions and transactions.
    pub fn new(definitions: Arc<dyn FlagDefinitions>, units: Units) -> Self {
        Self { definitions, units }
    }
}

#[async_trait]
impl FlagSource for StoredFlags {
    async fn flags(&self, scope: &TenantScope) -> Result<Arc<FlagSet>, StoreError> {
        let because = SystemScope::because("the definitions of flags are everybody's");
        let program = self.definitions.program(because).await?;
        let read = self.units.read(scope, async |work| {
            let tenant = work.tenants().current().await?;
            Ok::<_, StoreError>((tenant, work.flag_overrides().list().await?))
        });
        let (tenant, overrides) = read.await?;
        let tenant =
            tenant.ok_or_else(|| StoreError::Other("a tenant was entered that is not there".into()))?;
        let tenant = FlagTenant::new(tenant.id, tenant.slug.as_str(), &tenant.plan);
        Ok(Arc::new(FlagSet::new(program, tenant, overrides)))
    }

    fn cached(&self, _: &TenantScope) -> Option<Arc<FlagSet>> {
        None
    }
}
