//! Which plan a tenant is on, as the operator decides it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tenantry_domain::kernel::{Limit, OperatorEventId, StoreError, SystemScope, TenantId, Time};
use tenantry_domain::plans::{PlanCatalogue, PlanTerms};
use tenantry_domain::tenant::{Denied, Tenant};
use tenantry_domain::usage::MeterKey;
use tenantry_tenancy::carries_store_error;
use tenantry_tenancy::{Cx, Precondition, Stale, Tenancy};

use crate::usage::quota;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum PlanChangeError {
    /// No plan of that name is on offer.
    #[error("there is no plan '{name}': there are {}", .on_offer.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        on_offer: Vec<String>,
    },
    /// No such tenant, or it is deleted.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The tenant has changed since the version that the caller names.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
carries_store_error!(PlanChangeError);

/// What a plan grants now.
///
/// # Errors
/// [`PlanChangeError::Unknown`].
pub(crate) fn on_offer(plans: &dyn PlanCatalogue, plan: &str) -> Result<Arc<PlanTerms>, PlanChangeError> {
    let unknown = || PlanChangeError::Unknown {
        name: plan.to_owned(),
        on_offer: plans.names(),
    };
    plans.current(plan).ok_or_else(unknown)
}

/// Puts a tenant on what a plan grants now, in its scope; also when it has an older version of the same plan. What it has more of than
/// the plan allows stays, and nothing can be added to it.
pub(crate) async fn change_in(cx: &Cx, plan: &str, ruling: &Ruling) -> Result<Tenant, PlanChangeError> {
    let terms = on_offer(cx.ports().plans.as_ref(), plan)?;
    alter(cx, "tenant.plan_changed", ruling, |tenant, now| {
        tenant.subscribe(&terms, now)
    })
    .await
}

/// Under which condition a tenant's terms are changed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ruling {
    /// The version of the tenant that is changed.
    pub when: Precondition,
    /// Why, for the tenant's log.
    pub why: Option<Why>,
}

/// Why a tenant's terms are changed, as the tenant's log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// What the operator said.
    Reason(String),
    /// The entry in the operators' log that has the reason, which is about more tenants than this one.
    Event(OperatorEventId),
}

impl Default for Ruling {
    fn default() -> Self {
        Self {
            when: Precondition::None,
            why: None,
        }
    }
}

impl Ruling {
    /// A change of any version, with a reason.
    pub(crate) fn with_reason(reason: &str) -> Self {
        Self {
            why: Some(Why::Reason(reason.to_owned())),
            ..Self::default()
        }
    }

    /// A change of any version, one of many for the reason of an entry in the operators' log.
    pub(crate) fn by_event(event: OperatorEventId) -> Self {
        Self {
            why: Some(Why::Event(event)),
            ..Self::default()
        }
    }
}

/// What is to be agreed with a tenant; `None` takes back what was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Features by name.
    pub features: BTreeMap<String, Option<bool>>,
    /// Limits by name.
    pub limits: BTreeMap<String, Option<Limit>>,
    /// Hard limits of meters.
    pub meters: BTreeMap<MeterKey, Option<Limit>>,
}

impl Agreement {
    /// The first name that no plan on offer knows, behind its kind.
    pub fn unknown_name(&self, plans: &dyn PlanCatalogue) -> Option<(&'static str, String)> {
        let on_offer = plans.on_offer();
        let is_limit = |name: &String| on_offer.iter().any(|terms| terms.limits.contains_key(name));
        let is_feature = |name: &String| on_offer.iter().any(|terms| terms.has(name));
        let meters = plans.meters();
        let limit = self.limits.keys().find(|name| !is_limit(name));
        let feature = self.features.keys().find(|name| !is_feature(name));
        let meter = self.meters.keys().find(|key| !meters.contains_key(*key));
        let limit = limit.map(|name| ("limits", name.clone()));
        let feature = feature.map(|name| ("features", name.clone()));
        limit
            .or(feature)
            .or_else(|| meter.map(|key| ("meters", key.to_string())))
    }
}

/// Agrees with a tenant on something beside its plan, in its scope. What is not named stays as it was agreed.
pub(crate) async fn agree_in(
    cx: &Cx,
    agreement: &Agreement,
    ruling: &Ruling,
) -> Result<Tenant, PlanChangeError> {
    alter(cx, "tenant.agreed", ruling, |tenant, now| {
        let mut agreed = tenant.agreed.clone();
        merge(&mut agreed.features, &agreement.features);
        merge(&mut agreed.limits, &agreement.limits);
        merge(&mut agreed.meters, &agreement.meters);
        tenant.agree(agreed, now)
    })
    .await
}

/// Changes a tenant in its own scope, with the entry in its audit log; nothing is stored when `change` says that there
/// is nothing to change.
async fn alter(
    cx: &Cx,
    action: &'static str,
    ruling: &Ruling,
    change: impl Fn(&mut Tenant, Time) -> bool,
) -> Result<Tenant, PlanChangeError> {
    cx.write(async |work| {
        let before = work.tenants().current_for_update().await?;
        let before = before.ok_or(Denied::TenantNotFound)?;
        ruling.when.check(before.version)?;
        let mut after = before.clone();
        if !change(&mut after, cx.now()) {
            return Ok(after);
        }
        work.tenants().update(&after).await?;
        quota::count_from_ledger(cx, work, &before, &after).await?;
        let mut event = cx.changed(action, "tenant", after.id.uuid(), Some(&before), Some(&after));
        if let (Some(why), Some(Value::Object(after))) = (&ruling.why, &mut event.after) {
            let (name, value) = match why {
                Why::Reason(reason) => ("reason", json!(reason)),
                Why::Event(event) => ("operator_event", json!(event)),
            };
            after.insert(name.into(), value);
        }
        work.audit().record(event).await?;
        Ok(after)
    })
    .await
}

fn merge<K: Ord + Clone, V: Copy>(agreed: &mut BTreeMap<K, V>, changes: &BTreeMap<K, Option<V>>) {
    for (name, change) in changes {
        match change {
            Some(value) => agreed.insert(name.clone(), *value),
            None => agreed.remove(name),
        };
    }
}

/// How many tenants have a version of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// Key of the subscribed plan.
    pub plan: String,
    /// The number of its version, from 1.
    pub version: u32,
    /// How many tenants that are not deleted have it.
    pub tenants: Vec<TenantId>,
}

/// Who has which version of which plan, by plan and version.
///
/// # Errors
/// [`StoreError`].
pub async fn subscribed(app: &Tenancy, because: SystemScope) -> Result<Vec<Subscribed>, StoreError> {
    let mut found = BTreeMap::<(String, u32), Vec<TenantId>>::new();
    let mut after = None;
    loop {
        let tenants = app.ports.registry.list(because, after, 500).await?;
        let Some(last) = tenants.last() else { break };
        after = Some(last.id);
        for tenant in tenants.into_iter().filter(|tenant| tenant.deleted_at.is_none()) {
            found
                .entry((tenant.plan, tenant.plan_version))
                .or_default()
                .push(tenant.id);
        }
    }
    let subscribed = |((plan, version), tenants)| Subscribed {
        plan,
        version,
        tenants,
    };
    Ok(found.into_iter().map(subscribed).collect())
}
