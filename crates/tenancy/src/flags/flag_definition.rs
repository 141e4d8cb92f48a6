//! What operators do with the definitions of flags and with segments. Each write is checked against all other
//! definitions, is a version of its own, and is recorded in the transaction that makes it.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tenantry_domain::flags::{
    DefinitionVersion, FlagCatalogue, FlagDefinition, FlagEditing, Lifecycle, Segment,
};
use tenantry_domain::kernel::{Invalid, StoreError, SystemScope, Time};
use tenantry_domain::operations::{OperatorPermission, OperatorWork};

use crate::operations::idempotency::OperatorRequest;
use crate::{OperatorCx, OwnReason, Precondition, UseCaseError};

/// Errors of the use cases of flag definitions and segments.
pub type DefinitionError = UseCaseError<DefinitionReason>;

/// Why a definition stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionReason {
    /// There is one of that key already, archived ones included.
    #[error("there is a definition of that key already")]
    Taken,
    /// Rules of these flags name the segment.
    #[error("rules of flags name the segment: {}", .0.join(", "))]
    InUse(Vec<String>),
}

impl OwnReason for DefinitionReason {}

/// All flags and segments, as they are stored now.
///
/// # Errors
/// [`DefinitionError::Store`].
pub async fn catalogue(cx: &OperatorCx) -> Result<Arc<FlagCatalogue>, DefinitionError> {
    cx.require(OperatorPermission::ReadFlags)?;
    let because = SystemScope::because("operators read the definitions of flags");
    let program = cx.app().ports.flag_definitions.program(because).await?;
    Ok(Arc::clone(program.catalogue()))
}

/// One flag or segment.
///
/// # Errors
/// [`DefinitionError`].
pub async fn get<D: Definition>(cx: &OperatorCx, key: &str) -> Result<D, DefinitionError> {
    let catalogue = catalogue(cx).await?;
    D::among(&catalogue, key)
        .cloned()
        .ok_or(DefinitionError::NotFound)
}

/// Defines a new flag or segment. One that takes the key of a deleted one goes on with its numbers.
///
/// # Errors
/// [`DefinitionError`].
pub async fn create<D: Definition>(cx: &OperatorCx, new: D) -> Result<D, DefinitionError> {
    Ok(create_once(cx, None, new).await?.0)
}

/// As [`create`], once for requests with the same idempotency key within a day: the second value says whether this is the
/// result of an earlier one.
///
/// # Errors
/// [`DefinitionError`]; [`KeyTaken::Reused`](tenantry_domain::kernel::KeyTaken::Reused) when the key identifies another request.
pub async fn create_once<D: Definition>(
    cx: &OperatorCx,
    request: Option<&OperatorRequest>,
    new: D,
) -> Result<(D, bool), DefinitionError> {
    cx.require(OperatorPermission::ManageFlags)?;
    let mut work = cx.begin().await?;
    // All definitions are locked, so two requests with one key run one after the other.
    let catalogue = work.flags().catalogue_for_update().await?;
    if let Some(request) = request
        && let Some(details) = cx.done_before(work.as_mut(), request).await?
    {
        let created = serde_json::from_value(details["after"].clone());
        return Ok((created.map_err(unreadable)?, true));
    }
    if D::among(&catalogue, new.key()).is_some() {
        return Err(DefinitionReason::Taken.into());
    }
    let last = last_version::<D>(work.flags(), new.key()).await?;
    let new = new.numbered(last.unwrap_or(0) + 1);
    let stored = store(cx, work, &catalogue, (D::CREATED, request), new).await?;
    Ok((stored, false))
}

fn unreadable(error: serde_json::Error) -> StoreError {
    StoreError::Other(format!("the record of a definition cannot be read: {error}"))
}

/// Puts another definition in the place of one; its key and a flag's type stay.
///
/// # Errors
/// [`DefinitionError`].
pub async fn replace<D: Definition>(
    cx: &OperatorCx,
    key: &str,
    when: &Precondition,
    after: D,
) -> Result<D, DefinitionError> {
    cx.require(OperatorPermission::ManageFlags)?;
    change(cx, key, when, D::UPDATED, |before: &D| {
        after.check_in_place_of(before)?;
        Ok(after)
    })
    .await
}

/// Takes a flag out of use.
///
/// # Errors
/// [`DefinitionError`].
pub async fn archive(
    cx: &OperatorCx,
    key: &str,
    when: &Precondition,
) -> Result<FlagDefinition, DefinitionError> {
    cx.require(OperatorPermission::ManageFlags)?;
    change(cx, key, when, "flag.archived", |before: &FlagDefinition| {
        Ok(FlagDefinition {
            lifecycle: Lifecycle::Archived,
            ..before.clone()
        })
    })
    .await
}

/// Removes a segment that no rule names. Its versions stay, and this is one.
///
/// # Errors
/// [`DefinitionError`].
pub async fn delete_segment(cx: &OperatorCx, key: &str, when: &Precondition) -> Result<(), DefinitionError> {
    cx.require(OperatorPermission::ManageFlags)?;
    let mut work = cx.begin().await?;
    let catalogue = work.flags().catalogue_for_update().await?;
    let before = catalogue.segment(key).ok_or(DefinitionError::NotFound)?;
    when.check(before.version)?;
    let users = catalogue.users_of(key);
    if !users.is_empty() {
        return Err(DefinitionReason::InUse(users.into_iter().map(str::to_owned).collect()).into());
    }
    let gone = before.version + 1;
    work.flags().delete_segment(key, gone, cx.now()).await?;
    work.commit(cx.record("segment.deleted", None, json!({"before": before})))
        .await?;
    Ok(())
}

/// Puts a former version in force again, as the next version; a segment that was deleted is there again. It has to
/// hold among what the others are now.
///
/// # Errors
/// [`DefinitionError`].
pub async fn roll_back<D: Definition>(
    cx: &OperatorCx,
    key: &str,
    when: &Precondition,
    version: i64,
) -> Result<D, DefinitionError> {
    cx.require(OperatorPermission::ManageFlags)?;
    let mut work = cx.begin().await?;
    let catalogue = work.flags().catalogue_for_update().await?;
    let last = last_version::<D>(work.flags(), key).await?;
    let last = last.ok_or(DefinitionError::NotFound)?;
    when.check(last)?;
    let refused = |code, detail| Invalid::one("/version", code, detail);
    let former = D::version_of(work.flags(), key, version).await?;
    let former = former.ok_or_else(|| refused("not_found", "there is no such version"))?;
    let former: Option<D> = former.definition.into();
    let former = former.ok_or_else(|| refused("deleted", "it had just been deleted then"))?;
    store(
        cx,
        work,
        &catalogue,
        (D::ROLLED_BACK, None),
        former.numbered(last + 1),
    )
    .await
}

/// At most `limit + 1` versions, newest first, from below version `before` on; the one too many tells that there are
/// more. Those of a deleted segment are still there.
///
/// # Errors
/// [`DefinitionError`].
pub async fn versions<D: Definition>(
    cx: &OperatorCx,
    key: &str,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<DefinitionVersion<D::Former>>, DefinitionError> {
    cx.require(OperatorPermission::ReadFlags)?;
    let mut work = cx.begin().await?;
    let last = last_version::<D>(work.flags(), key).await?;
    last.ok_or(DefinitionError::NotFound)?;
    Ok(D::versions_of(work.flags(), key, before, limit + 1).await?)
}

/// One version.
///
/// # Errors
/// [`DefinitionError`].
pub async fn version<D: Definition>(
    cx: &OperatorCx,
    key: &str,
    version: i64,
) -> Result<DefinitionVersion<D::Former>, DefinitionError> {
    cx.require(OperatorPermission::ReadFlags)?;
    let mut work = cx.begin().await?;
    let found = D::version_of(work.flags(), key, version).await?;
    found.ok_or(DefinitionError::NotFound)
}

/// What operators define, change, list and roll back in one way: flags and segments.
#[async_trait]
pub trait Definition: Clone + Serialize + DeserializeOwned + Send + Sync + Sized + 'static {
    /// What a version has: none where it was deleted, if it can be.
    type Former: Into<Option<Self>> + Send;
    /// The actions as they are recorded.
    const CREATED: &'static str;
    /// See [`Definition::CREATED`].
    const UPDATED: &'static str;
    /// See [`Definition::CREATED`].
    const ROLLED_BACK: &'static str;

    /// Its name, for good.
    fn key(&self) -> &str;

    /// Counts its versions, from 1.
    fn version(&self) -> i64;

    /// The same as the version of that number.
    fn numbered(self, version: i64) -> Self;

    /// The one of a key among all definitions.
    fn among<'a>(catalogue: &'a FlagCatalogue, key: &str) -> Option<&'a Self>;

    /// Whether it holds among all others.
    ///
    /// # Errors
    /// Every field that does not.
    fn check(&self, others: &FlagCatalogue) -> Result<(), Invalid>;

    /// Whether it may take the place of what was there before.
    ///
    /// # Errors
    /// The field that may not change.
    fn check_in_place_of(&self, before: &Self) -> Result<(), Invalid>;

    /// Stores it as the next version.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn store(&self, editing: &mut dyn FlagEditing, at: Time) -> Result<(), StoreError>;

    /// Versions, newest first, from below version `before` on.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn versions_of(
        editing: &mut dyn FlagEditing,
        key: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<DefinitionVersion<Self::Former>>, StoreError>;

    /// One version.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn version_of(
        editing: &mut dyn FlagEditing,
        key: &str,
        version: i64,
    ) -> Result<Option<DefinitionVersion<Self::Former>>, StoreError>;
}

#[async_trait]
impl Definition for FlagDefinition {
    type Former = Self;
    const CREATED: &'static str = "flag.created";
    const UPDATED: &'static str = "flag.updated";
    const ROLLED_BACK: &'static str = "flag.rolled_back";

    fn key(&self) -> &str {
        &self.key
    }

    fn version(&self) -> i64 {
        self.version
    }

    fn numbered(self, version: i64) -> Self {
        Self { version, ..self }
    }

    fn among<'a>(catalogue: &'a FlagCatalogue, key: &str) -> Option<&'a Self> {
        catalogue.flag(key).map(|flag| &**flag)
    }

    fn check(&self, others: &FlagCatalogue) -> Result<(), Invalid> {
        others.check_flag(self)
    }

    fn check_in_place_of(&self, before: &Self) -> Result<(), Invalid> {
        check_same_key(&self.key, &before.key)?;
        if self.kind != before.kind {
            // Clients were written for the one.
            return Err(Invalid::one("/type", "immutable", "must stay as it is"));
        }
        Ok(())
    }

    async fn store(&self, editing: &mut dyn FlagEditing, at: Time) -> Result<(), StoreError> {
        editing.store_flag(self, at).await
    }

    async fn versions_of(
        editing: &mut dyn FlagEditing,
        key: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<DefinitionVersion<Self>>, StoreError> {
        editing.flag_versions(key, before, limit).await
    }

    async fn version_of(
        editing: &mut dyn FlagEditing,
        key: &str,
        version: i64,
    ) -> Result<Option<DefinitionVersion<Self>>, StoreError> {
        editing.flag_version(key, version).await
    }
}

#[async_trait]
impl Definition for Segment {
    type Former = Option<Self>;
    const CREATED: &'static str = "segment.created";
    const UPDATED: &'static str = "segment.updated";
    const ROLLED_BACK: &'static str = "segment.rolled_back";

    fn key(&self) -> &str {
        &self.key
    }

    fn version(&self) -> i64 {
        self.version
    }

    fn numbered(self, version: i64) -> Self {
        Self { version, ..self }
    }

    fn among<'a>(catalogue: &'a FlagCatalogue, key: &str) -> Option<&'a Self> {
        catalogue.segment(key)
    }

    fn check(&self, _others: &FlagCatalogue) -> Result<(), Invalid> {
        // Flags refer to segments, and segments to nothing.
        Segment::check(self)
    }

    fn check_in_place_of(&self, before: &Self) -> Result<(), Invalid> {
        check_same_key(&self.key, &before.key)
    }

    async fn store(&self, editing: &mut dyn FlagEditing, at: Time) -> Result<(), StoreError> {
        editing.store_segment(self, at).await
    }

    async fn versions_of(
        editing: &mut dyn FlagEditing,
        key: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<DefinitionVersion<Option<Self>>>, StoreError> {
        editing.segment_versions(key, before, limit).await
    }

    async fn version_of(
        editing: &mut dyn FlagEditing,
        key: &str,
        version: i64,
    ) -> Result<Option<DefinitionVersion<Option<Self>>>, StoreError> {
        editing.segment_version(key, version).await
    }
}

fn check_same_key(after: &str, before: &str) -> Result<(), Invalid> {
    if after == before {
        return Ok(());
    }
    Err(Invalid::one("/key", "immutable", "must be the key in the path"))
}

/// The number of the last version, deletions included; nobody adds one while all definitions are held.
async fn last_version<D: Definition>(
    editing: &mut dyn FlagEditing,
    key: &str,
) -> Result<Option<i64>, StoreError> {
    let newest = D::versions_of(editing, key, None, 1).await?;
    Ok(newest.first().map(|version| version.version))
}

/// Makes the next version of what is there.
async fn change<D: Definition>(
    cx: &OperatorCx,
    key: &str,
    when: &Precondition,
    action: &'static str,
    next: impl FnOnce(&D) -> Result<D, DefinitionError>,
) -> Result<D, DefinitionError> {
    let mut work = cx.begin().await?;
    let catalogue = work.flags().catalogue_for_update().await?;
    let before = D::among(&catalogue, key).ok_or(DefinitionError::NotFound)?;
    when.check(before.version())?;
    let after = next(before)?.numbered(before.version() + 1);
    store(cx, work, &catalogue, (action, None), after).await
}

async fn store<D: Definition>(
    cx: &OperatorCx,
    mut work: Box<dyn OperatorWork>,
    catalogue: &FlagCatalogue,
    (action, request): (&'static str, Option<&OperatorRequest>),
    after: D,
) -> Result<D, DefinitionError> {
    after.check(catalogue)?;
    after.store(work.flags(), cx.now()).await?;
    let before = D::among(catalogue, after.key());
    let mut details = json!({"before": before, "after": after});
    if let Some(request) = request {
        details["idempotency"] = request.to_details();
    }
    work.commit(cx.record(action, None, details)).await?;
    Ok(after)
}
