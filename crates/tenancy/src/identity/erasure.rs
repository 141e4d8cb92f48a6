//! Erasing a person: the account is anonymous at once, and a job erases what tells about them elsewhere.
//!
//! Rows that go with the account are those whose reference to it is ON DELETE CASCADE. Rows that stay, such as projects and tasks, refer
//! to an anonymous account. Entries of the audit log are replaced by their erased form, over which they were hashed.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_domain::audit::Block;
use tenantry_domain::identity::{Email, Erasure, User};
use tenantry_domain::kernel::{Constraint, ErasureId, Invalid, PageRequest, Permission, StoreError, UserId};
use tenantry_domain::store::Work;

use crate::audit::chain;
use crate::identity::user::{UserError, UserReason, keep_an_admin, lock_admins};
use crate::identity::{mfa, session};
use crate::kernel::step_up::{ActingAdmin, require_acting_admin};
use crate::operations::job::{self, JobFailure, JobHandler, Terms};
use crate::{Cx, OperatorCx};

/// How many rows are deleted in a transaction.
const ROWS_AT_ONCE: u32 = 5_000;

/// How many positions of the feed of events are searched in a transaction.
const EVENTS_AT_ONCE: i64 = 5_000;

/// How many exports of a person are looked at: more than are kept.
const EXPORTS: u32 = 100;

/// Erases a person, for an admin with a recent factor; the address of the account confirms it. What is begun twice is the same as
/// once: the second answer says how far the erasure is.
///
/// # Errors
/// [`UserError`]; `mismatch` at `/confirm_email`; [`UserReason::LastAdmin`]; [`UserReason::Referenced`].
pub async fn erase(cx: &Cx, id: UserId, confirm_email: &str) -> Result<Erasure, UserError> {
    cx.require(Permission::ManageUsers)?;
    let factor = cx.require_recent_factor().await??;
    cx.write(async |work| {
        lock_admins(work, factor).await?;
        let _: ActingAdmin = require_acting_admin(cx, work).await??;
        begin(cx, work, id, confirm_email).await
    })
    .await
}

/// Erases a person, for an operator on the command line.
///
/// # Errors
/// As [`erase`].
pub async fn erase_by_operator(
    operators: &OperatorCx,
    cx: &Cx,
    id: UserId,
    confirm_email: &str,
) -> Result<Erasure, UserError> {
    operators.require_command()?;
    cx.require(Permission::RecoverUsers)?;
    let record = operators.record("user.erased", Some(cx.scope().tenant()), json!({ "user": id }));
    let erased = cx.write(async |work| {
        work.tenants()
            .current_for_update()
            .await?
            .ok_or(UserError::NotFound)?;
        begin(cx, work, id, confirm_email).await
    });
    operators.act(record, "user.erasure_failed", erased).await
}

/// The accounts with an address, also those that were removed, for an operator on the command line.
///
/// # Errors
/// [`UserError`].
pub async fn named(cx: &Cx, email: &Email) -> Result<Vec<User>, UserError> {
    cx.require(Permission::RecoverUsers)?;
    cx.read(async |work| Ok(work.persons().named(email).await?)).await
}

/// The accounts whose erasure by an address has begun and is not finished, for an operator on the command line: their rows no longer have
/// the address.
///
/// # Errors
/// [`UserError`].
pub async fn unfinished(cx: &Cx, email: &Email) -> Result<Vec<UserId>, UserError> {
    cx.require(Permission::RecoverUsers)?;
    cx.read(async |work| Ok(work.persons().unfinished(email).await?))
        .await
}

/// Makes the account anonymous in the running transaction, which has locked the tenant, and asks for the rest.
async fn begin(cx: &Cx, work: &mut Work, id: UserId, confirm_email: &str) -> Result<Erasure, UserError> {
    let before = work.persons().find(id).await?.ok_or(UserError::NotFound)?;
    if let Some(erasure) = work.persons().erasure(id).await? {
        if erasure.finished_at.is_none() {
            // Its job may have been given up.
            start(cx, work, id).await?;
        }
        return Ok(erasure);
    }
    if confirm_email.trim().to_ascii_lowercase() != before.email.as_str() {
        let detail = "must be the address of the account, to confirm the erasure";
        return Err(Invalid::one("/confirm_email", "mismatch", detail).into());
    }
    // What is deleted next leads to former addresses.
    let addresses = work.persons().known_addresses(id).await?;
    if before.deleted_at.is_none() {
        remove(cx, work, &before).await?;
    }
    let digest = |email: &Email| cx.ports().seal.digest(Erasure::PLACE, email.as_str().as_bytes());
    let digests = addresses.iter().map(digest).collect();
    let erasure = Erasure::new(ErasureId::next(cx.ids()), id, (addresses, digests), cx.now());
    work.persons().erase_named(&erasure).await?;
    let erased = work.persons().erase_rows(id, ROWS_AT_ONCE).await;
    erased.map_err(|error| match error {
        StoreError::Reference(Constraint::Other(reference)) => UserReason::Referenced(reference).into(),
        other => UserError::Store(other),
    })?;
    work.persons().anonymize(id, cx.now()).await?;
    work.persons().begin(&erasure).await?;
    start(cx, work, id).await?;
    let event = cx.security(
        "user.erased",
        "user",
        Some(id.uuid()),
        json!({"erasure_id": erasure.id}),
    );
    work.audit().record(event).await?;
    Ok(erasure)
}

/// Enqueues the job that does the rest, unless there is one.
async fn start(cx: &Cx, work: &mut Work, person: UserId) -> Result<(), StoreError> {
    let terms = Terms {
        dedupe_key: Some(person.to_string()),
        ..Terms::default()
    };
    let asked = job::enqueue::<EraseTraces>(cx, work, &Whose { person }, terms).await;
    asked.map(|_| ()).map_err(job::store_error)
}

/// Ends everything that the account can do.
async fn remove(cx: &Cx, work: &mut Work, before: &User) -> Result<(), UserError> {
    let mut user = before.clone();
    user.remove(cx.now());
    keep_an_admin(cx, work, before, &user).await?;
    session::end_all(cx, work, &mut user).await?;
    mfa::remove_all(work, user.id).await?;
    Ok(())
}

/// Erases what tells about a person besides the account: rows, archives of exports, and entries of the audit log.
#[derive(Debug, Clone, Copy)]
pub struct EraseTraces;

/// Whose traces are erased.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Whose {
    /// The erased account.
    pub person: UserId,
}

impl JobHandler for EraseTraces {
    const KIND: &'static str = "user.erase_traces";
    /// A suspended tenant's people are erased too.
    const WRITES: bool = false;
    const MAX_ATTEMPTS: u32 = 100;
    type Payload = Whose;

    async fn run(&self, cx: &Cx, whose: Whose) -> Result<(), JobFailure> {
        match finish(cx, whose.person).await? {
            Some(erasure) if erasure.finished_at.is_none() => Err(JobFailure::Retry(
                "a transaction that writes the audit log, or a job that names the person, has not ended"
                    .to_owned(),
            )),
            Some(_) | None => Ok(()),
        }
    }
}

/// Erases everything that is left of a person whose erasure has begun; `None` of anybody else. It goes on where a run that was killed has
/// ended. What is returned is not finished while entries of the audit log wait to be chained, or a job that names the person runs.
///
/// # Errors
/// [`JobFailure`].
pub async fn finish(cx: &Cx, person: UserId) -> Result<Option<Erasure>, JobFailure> {
    cx.require(Permission::KeepAudit)?;
    let found = cx
        .write(async |work| work.persons().erasure(person).await)
        .await?;
    let Some(erasure) = found else {
        return Ok(None);
    };
    if erasure.finished_at.is_some() {
        return Ok(Some(erasure));
    }
    while cx
        .write(async |work| work.persons().erase_rows(person, ROWS_AT_ONCE).await)
        .await?
        > 0
    {}
    remove_archives(cx, person).await?;
    let payments = &cx.ports().subscriptions;
    let is_forgotten = payments.erase_addresses(cx, &erasure.addresses).await?;
    // What was written before is chained before, so that all of it is found.
    let advanced = chain::advance(cx)
        .await
        .map_err(|error| JobFailure::Retry(error.to_string()))?;
    while cx.write(async |work| erase_block(work, person).await).await? {}
    while cx.write(async |work| erase_events(work, person).await).await? {}
    cx.write(async |work| {
        // What was published since then is in the feed behind what was searched.
        let has_more = erase_events(work, person).await?;
        let Some(mut erasure) = work.persons().erasure(person).await? else {
            return Ok(None);
        };
        // Jobs that ran when the erasure began have ended, or left others behind.
        let running = work.persons().erase_named(&erasure).await?;
        let is_waiting = advanced.waiting || running > 0 || !is_forgotten || has_more;
        if !is_waiting && erasure.finished_at.is_none() {
            erasure.finish(cx.now());
            work.persons().update(&erasure).await?;
        }
        Ok(Some(erasure))
    })
    .await
}

/// Erases the person in the events that are not published and in the next ones of the feed, with the note of it in one transaction. Returns
/// whether there are more. Events have whole objects, and so addresses that the entries of their changes have not.
async fn erase_events(work: &mut Work, person: UserId) -> Result<bool, StoreError> {
    let erasure = work.persons().erasure(person).await?;
    let Some(mut erasure) = erasure.filter(|erasure| erasure.finished_at.is_none()) else {
        return Ok(false);
    };
    let addresses: Vec<&str> = erasure.addresses.iter().map(Email::as_str).collect();
    let before = erasure.created_at;
    // First, so that an event that is published meanwhile is found in the feed.
    work.events()
        .erase_unpublished(person, &addresses, before)
        .await?;
    let ends = work.events().ends().await?;
    let after = erasure.event_position.max(ends.before_oldest());
    let through = ends.newest.min(after.saturating_add(EVENTS_AT_ONCE));
    if through <= after {
        return Ok(false);
    }
    let range = (after, through);
    work.events()
        .erase_between(range, person, (&addresses, before))
        .await?;
    erasure.event_position = through;
    work.persons().update(&erasure).await?;
    Ok(through < ends.newest)
}

/// Deletes the archives of exports of the person.
async fn remove_archives(cx: &Cx, person: UserId) -> Result<(), JobFailure> {
    let page = PageRequest {
        limit: EXPORTS,
        after: None,
    };
    let exports = cx
        .read(async |work| work.exports().list(Some(person), page).await)
        .await?;
    for mut export in exports.items {
        if let Some(store) = &cx.ports().archive_store {
            let removed = store.remove(cx.scope().tenant(), export.id).await;
            removed.map_err(|error| JobFailure::Retry(error.to_string()))?;
        }
        export.expire();
        cx.write(async |work| work.exports().update(&export).await)
            .await?;
    }
    Ok(())
}

/// Erases the person in the next block of the audit log, with the note of it in one transaction. Returns whether there was one.
async fn erase_block(work: &mut Work, person: UserId) -> Result<bool, StoreError> {
    let erasure = work.persons().erasure(person).await?;
    let Some(mut erasure) = erasure.filter(|erasure| erasure.finished_at.is_none()) else {
        return Ok(false);
    };
    let chain = work.audit_chain();
    let Some(mut block): Option<Block> = chain.blocks_after(erasure.sequence, 1).await?.pop() else {
        return Ok(false);
    };
    let ids: Vec<_> = block.links.iter().map(|link| link.id).collect();
    let entries = chain.entries(&ids).await?;
    let erased = block.erase(&entries, |entry| {
        let addresses = erasure.addresses_at(entry.at).iter();
        let addresses: Vec<&str> = addresses.map(Email::as_str).collect();
        entry.concerns(person.uuid(), &addresses)
    });
    if !erased.is_empty() {
        erasure.entries += chain.erase(person, block.id, &erased).await?;
    }
    erasure.sequence = block.last_sequence();
    work.persons().update(&erasure).await?;
    Ok(true)
}
