//! The data keys of a tenant: rotation, upkeep, and what an operator sees of them.

use std::sync::Arc;

use serde_json::json;
use tenantry_domain::customization::SettingSheet;
use tenantry_domain::kernel::{Permission, Seal as _, StoreError, SystemScope, TenantId, Time, UserId};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::DataKey;

use crate::customization::setting::{Resealed, SettingError};
use crate::identity::{mfa, reseal};
use crate::operations::job::{self, JobFailure, JobHandler, Nothing, Terms};
use crate::webhooks::delivery_state;
use crate::{Cx, OperatorCx, Origin, OwnReason, Tenancy, UseCaseError};

/// Errors of the use cases of data keys.
pub type DataKeyError = UseCaseError<DataKeyReason>;

/// Why a tenant gets no new data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DataKeyReason {
    /// Too many former keys wait to be destroyed.
    #[error(
        "the tenant has {} data keys, the most it may have: former keys are destroyed {} days after their rotation",
        DataKey::MOST,
        DataKey::KEPT.num_days()
    )]
    TooMany,
}

impl OwnReason for DataKeyReason {}

/// A data key as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDataKey {
    /// Its number in the tenant, from 1.
    pub number: i32,
    /// When it was created.
    pub created_at: Time,
    /// What it is used for.
    pub state: DataKeyState,
}

/// What a data key is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataKeyState {
    /// It seals and opens.
    Seals,
    /// It opens what it sealed before the next key was there. It is destroyed then, at the earliest.
    Opens {
        /// When its values have expired or are sealed anew.
        until: Time,
    },
    /// No configured key of the server opens it.
    Unreadable,
}

/// The data keys of a tenant, oldest first.
///
/// # Errors
/// [`DataKeyError`].
pub async fn list(app: &Arc<Tenancy>, tenant: TenantId) -> Result<Vec<ListedDataKey>, DataKeyError> {
    let cx = system(app, tenant, "an operator lists the data keys of a tenant").await?;
    cx.read(async |work| {
        let (seal, keys) = (cx.load_seal(work).await?, work.data_keys().list().await?.keys);
        let state = |at: usize, key: &DataKey| match keys.get(at + 1) {
            _ if seal.unreadable().any(|number| number == key.number) => DataKeyState::Unreadable,
            _ if seal.current() == Some(key.number) => DataKeyState::Seals,
            Some(next) => DataKeyState::Opens {
                until: next.created_at + DataKey::KEPT,
            },
            None => DataKeyState::Unreadable,
        };
        let listed = keys.iter().enumerate().map(|(at, key)| ListedDataKey {
            number: key.number,
            created_at: key.created_at,
            state: state(at, key),
        });
        Ok(listed.collect())
    })
    .await
}

/// Adds a data key, which seals from now on, and asks for the job that seals anew what is under the former ones. Returns its number.
/// For commands.
///
/// # Errors
/// [`DataKeyReason::TooMany`]; those of the store.
pub async fn rotate(operators: &OperatorCx, tenant: TenantId) -> Result<i32, DataKeyError> {
    operators.require_command()?;
    let because = SystemScope::because("an operator rotates the data key of a tenant");
    let cx = operators.enter(because, tenant).await?;
    cx.require(Permission::OperateSettings)?;
    let record = operators.record("data_key.rotated", Some(tenant), json!({}));
    let rotated = cx.write(async |work| {
        let found = work.tenants().current_for_update().await?;
        found.ok_or(DataKeyError::NotFound)?;
        if work.data_keys().list().await?.keys.len() >= DataKey::MOST {
            return Err(DataKeyReason::TooMany.into());
        }
        let number = cx.add_data_key(work).await?;
        let terms = Terms {
            dedupe_key: Some(KeepDataKeys::KIND.to_owned()),
            ..Terms::default()
        };
        let asked = job::enqueue::<KeepDataKeys>(&cx, work, &Nothing {}, terms).await;
        asked.map_err(job::store_error)?;
        let event = cx.security(
            "data_key.rotated",
            "tenant",
            Some(tenant.uuid()),
            json!({"number": number}),
        );
        work.audit().record(event).await?;
        Ok(number)
    });
    operators.act(record, "data_key.rotation_failed", rotated).await
}

/// What is wrong with the data keys of a tenant and with what is sealed for it, one sentence each: no data key, a key that no key
/// of the server opens, a value that no known key opens.
///
/// # Errors
/// [`DataKeyError`].
pub async fn check(app: &Arc<Tenancy>, tenant: TenantId) -> Result<Vec<String>, DataKeyError> {
    let cx = system(app, tenant, "an operator checks the data keys of a tenant").await?;
    let mut found = cx.read(async |work| keys_and_settings(&cx, work).await).await?;
    let mut after: Option<UserId> = None;
    loop {
        let (users, last) = cx
            .read(async |work| mfa::unreadable_some(&cx, work, after).await)
            .await?;
        let sentence = |user| format!("no known key opens the second factor of user {user}");
        found.extend(users.into_iter().map(sentence));
        match last {
            Some(last) => after = Some(last),
            None => return Ok(found),
        }
    }
}

async fn keys_and_settings(cx: &Cx, work: &mut Work) -> Result<Vec<String>, StoreError> {
    let seal = cx.load_seal(work).await?;
    let mut found: Vec<String> = seal
        .unreadable()
        .map(|number| format!("no key of the server opens data key {number}"))
        .collect();
    if seal.current().is_none() && found.is_empty() {
        found.push("the tenant has no data key: its upkeep or `tenantry keys rotate` adds one".into());
    }
    let sheet = work.settings().current().await?;
    for (key, secret) in &sheet.secrets {
        let place = SettingSheet::place(cx.scope().tenant(), key);
        if seal.open(&place, &secret.sealed).is_none() {
            found.push(format!("no known key opens the setting {key}"));
        }
    }
    for endpoint in delivery_state::unreadable(cx, work).await? {
        found.push(format!("no known key opens the webhook endpoint {endpoint}"));
    }
    Ok(found)
}

async fn system(app: &Arc<Tenancy>, tenant: TenantId, because: &'static str) -> Result<Cx, DataKeyError> {
    let scope = app
        .ports
        .gate
        .system(SystemScope::because(because), tenant)
        .await?;
    let cx = Cx::new(Arc::clone(app), scope, Origin::default());
    cx.require(Permission::OperateSettings)?;
    Ok(cx)
}

/// Keeps a tenant's data keys and what is sealed under them: seals anew what is under former keys, and destroys former keys when
/// nothing is under them any more.
#[derive(Debug, Clone, Copy)]
pub struct KeepDataKeys;

impl JobHandler for KeepDataKeys {
    const KIND: &'static str = "data_key.keep";
    // The secrets of a suspended tenant are kept, too.
    const WRITES: bool = false;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::OperateSettings)?;
        let Resealed {
            resealed, unreadable, ..
        } = reseal::reseal_in(cx).await.map_err(failure)?;
        if !unreadable.is_empty() {
            let tenant = cx.scope().tenant();
            tracing::error!(%tenant, ?unreadable, "what is sealed for a tenant opens with no key that is configured");
        }
        if resealed > 0 {
            tracing::info!(
                resealed,
                "secrets of a tenant were sealed under its newest data key"
            );
        }
        destroy_former(cx).await
    }
}

/// Destroys former keys that were superseded more than [`DataKey::KEPT`] ago: all long-lived values were sealed anew before this
/// call, and all others have expired. A key that cannot be opened stays, since the server's former key may come back.
async fn destroy_former(cx: &Cx) -> Result<(), JobFailure> {
    cx.write(async |work| {
        let due = |pair: &[DataKey]| pair[1].created_at + DataKey::KEPT <= cx.now();
        if !work.data_keys().list().await?.keys.windows(2).any(due) {
            return Ok(());
        }
        work.tenants().current_for_update().await?;
        // Another run may have destroyed some meanwhile.
        let keys = work.data_keys().list().await?.keys;
        let seal = cx.load_seal(work).await?;
        let lost: Vec<i32> = seal.unreadable().collect();
        let former = keys
            .windows(2)
            .filter(|pair| due(pair))
            .map(|pair| pair[0].number);
        for number in former.filter(|number| !lost.contains(number) && seal.current() != Some(*number)) {
            work.data_keys().delete(number).await?;
            let tenant = cx.scope().tenant().uuid();
            let event = cx.security(
                "data_key.destroyed",
                "tenant",
                Some(tenant),
                json!({"number": number}),
            );
            work.audit().record(event).await?;
        }
        Ok::<_, StoreError>(())
    })
    .await?;
    Ok(())
}

fn failure(error: SettingError) -> JobFailure {
    match error {
        SettingError::Refused(refused) => refused.into(),
        SettingError::Store(error) => error.into(),
        other => JobFailure::Retry(other.to_string()),
    }
}
