//! Resealing of a tenant's secrets after a change of the server's key or of the tenant's data key.

use serde_json::json;
use tenantry_domain::customization::SettingSheet;
use tenantry_domain::kernel::{Permission, Seal as _, StoreError, SystemScope, TenantId, UserId};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::DataKey;

use crate::customization::setting::{Resealed, SettingError};
use crate::identity::mfa;
use crate::webhooks::delivery_state;
use crate::{Cx, OperatorCx};

/// Seals a tenant's data keys with the server's present key, and its secrets, those of webhook endpoints and of its users' second factors included, under its
/// newest data key, so that earlier keys are not needed for them. A tenant without a data key gets one. A second run changes nothing.
///
/// Second factors are sealed anew a few hundred in each transaction. A run that is interrupted is done again.
///
/// The tenant's log has what was sealed anew. The record of operators is that of the command: of all tenants ([`announce`]), or of the
/// rotation of a data key.
///
/// # Errors
/// [`SettingError`].
pub async fn reseal(operators: &OperatorCx, tenant: TenantId) -> Result<Resealed, SettingError> {
    operators.require_command()?;
    let because = SystemScope::because("secrets are sealed with a new key");
    let cx = operators.enter(because, tenant).await?;
    cx.require(Permission::OperateSettings)?;
    reseal_in(&cx).await
}

/// Records that the secrets of all tenants, the signing keys and the factors of operators are about to be sealed anew.
///
/// # Errors
/// [`SettingError`].
pub async fn announce(operators: &OperatorCx) -> Result<(), SettingError> {
    operators.require_command()?;
    let record = operators.record("secrets.reseal_begun", None, json!({}));
    Ok(operators.announce(record).await?)
}

/// Records that all tenants were gone through, and how many of them still need a former key.
///
/// # Errors
/// [`SettingError`].
pub async fn conclude(operators: &OperatorCx, failed: usize) -> Result<(), SettingError> {
    operators.require_command()?;
    let record = operators.record("secrets.resealed", None, json!({ "failed_tenants": failed }));
    Ok(operators.announce(record).await?)
}

/// The same in a context of the system.
pub(crate) async fn reseal_in(cx: &Cx) -> Result<Resealed, SettingError> {
    let mut done = cx
        .write(async |work| {
            lock_tenant(work).await?;
            let mut done = Resealed::default();
            data_keys(cx, work, &mut done).await?;
            secrets(cx, work, &mut done).await?;
            delivery_state::reseal(cx, work, &mut done).await?;
            record(cx, work, &done).await?;
            Ok::<_, SettingError>(done)
        })
        .await?;
    let mut after: Option<UserId> = None;
    loop {
        let (last, some) = cx
            .write(async |work| {
                let mut some = Resealed::default();
                let last = mfa::reseal_some(cx, work, after, &mut some).await?;
                record(cx, work, &some).await?;
                Ok::<_, SettingError>((last, some))
            })
            .await?;
        done.add(some);
        match last {
            Some(last) => after = Some(last),
            None => return Ok(done),
        }
    }
}

/// Locks the tenant, so that changes of its keys come one after the other.
pub(crate) async fn lock_tenant(work: &mut Work) -> Result<(), SettingError> {
    let tenant = work.tenants().current_for_update().await?;
    tenant.map(drop).ok_or(SettingError::NotFound)
}

async fn data_keys(cx: &Cx, work: &mut Work, done: &mut Resealed) -> Result<(), StoreError> {
    let (server, keys) = (&cx.ports().seal, work.data_keys().list().await?.keys);
    if keys.is_empty() {
        cx.add_data_key(work).await?;
    }
    for key in keys {
        let place = DataKey::place(cx.scope().tenant(), key.number);
        if server.is_current(&place, &key.sealed) {
            continue;
        }
        match server.open(&place, &key.sealed) {
            Some(plain) => {
                work.data_keys()
                    .reseal(key.number, &server.seal(&place, &plain))
                    .await?;
                done.resealed_keys += 1;
            }
            None => done.unreadable.push(format!("data key {}", key.number)),
        }
    }
    Ok(())
}

async fn secrets(cx: &Cx, work: &mut Work, done: &mut Resealed) -> Result<(), StoreError> {
    let seal = cx.load_seal(work).await?;
    let mut sheet = work.settings().current().await?;
    let before = done.resealed;
    for (key, secret) in &mut sheet.secrets {
        let place = SettingSheet::place(cx.scope().tenant(), key);
        if seal.is_current(&place, &secret.sealed) {
            done.current += 1;
        } else if let Some(plain) = seal.open(&place, &secret.sealed) {
            secret.sealed = seal.seal(&place, &plain);
            done.resealed += 1;
        } else {
            done.unreadable.push(key.clone());
        }
    }
    if done.resealed > before {
        work.settings().store_resealed(&sheet).await?;
    }
    Ok(())
}

async fn record(cx: &Cx, work: &mut Work, done: &Resealed) -> Result<(), StoreError> {
    if done.resealed + done.resealed_keys == 0 {
        return Ok(());
    }
    let details = json!({
        "resealed": done.resealed, "resealed_keys": done.resealed_keys, "unreadable": done.unreadable,
    });
    let tenant = cx.scope().tenant().uuid();
    let event = cx.security("settings.resealed", "settings", Some(tenant), details);
    work.audit().record(event).await
}
