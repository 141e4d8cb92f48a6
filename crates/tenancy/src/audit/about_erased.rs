//! Entries about people who were erased meanwhile: what is counted in memory is recorded up to an hour later, by any server.

use serde_json::Value;
use tenantry_domain::audit::{AuditEvent, Salt, erased};
use tenantry_domain::identity::{Email, Erasure};
use tenantry_domain::kernel::{StoreError, Time, UserId};
use tenantry_domain::store::Work;
use uuid::Uuid;

use crate::Cx;

/// The entry as it may be recorded: without network address and browser, and with its personal texts erased, if it is about a person who
/// was erased: by the id of the user, or by an address that was counted before the erasure.
pub(crate) async fn record(cx: &Cx, work: &mut Work, event: AuditEvent) -> Result<(), StoreError> {
    let event = if is_about_erased(cx, work, &event).await? {
        let mut salt = Salt::default();
        salt.copy_from_slice(&cx.ports().secrets.secret()[..16]);
        AuditEvent {
            ip: None,
            user_agent: None,
            after: event.after.map(|details| erased(&details, &salt)),
            event: None,
            ..event
        }
    } else {
        event
    };
    work.audit().record(event).await
}

async fn is_about_erased(cx: &Cx, work: &mut Work, event: &AuditEvent) -> Result<bool, StoreError> {
    let details = event.after.as_ref().unwrap_or(&Value::Null);
    let detail = |name: &str| details[name].as_str().and_then(|id| Uuid::try_parse(id).ok());
    let target = event.target_id.filter(|_| event.target_type == "user");
    for user in [detail("actor_id"), detail("person_id"), target]
        .into_iter()
        .flatten()
    {
        if work.persons().erasure(UserId::from(user)).await?.is_some() {
            return Ok(true);
        }
    }
    let counted_since = details["repeated"]["first_at"].as_str();
    let counted_since = counted_since.and_then(|at| at.parse::<Time>().ok());
    let address = details["email"].as_str().zip(counted_since);
    let Some((address, since)) = address else {
        return Ok(false);
    };
    let address = Email::stored(address.to_owned());
    let digest = cx
        .ports()
        .seal
        .digest(Erasure::PLACE, address.as_str().as_bytes());
    work.persons().is_erased_since(&digest, since).await
}
