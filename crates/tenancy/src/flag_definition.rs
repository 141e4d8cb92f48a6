//! What operators do with the definitions of flags and with segments. Each write is checked against all other
//! definitions, is a version of its own, and is recorded in the transaction that makes it.

use std::sync::Arc;

use serde_json::json;
use tenantry_domain::{
    FlagCatalogue, FlagDefinition, FlagVersion, Invalid, Lifecycle, OperatorWork, Segment, StoreError,
    SystemScope,
};

use crate::{OperatorCx, Precondition, Stale};

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// Input that does not hold.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It has changed meanwhile.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// No such flag, segment or version.
    #[error("there is no such definition")]
    NotFound,
    /// There is one of that key already, archived ones included.
    #[error("there is a definition of that key already")]
    Taken,
    /// Rules of these flags name the segment.
    #[error("rules of flags name the segment: {}", .0.join(", "))]
    InUse(Vec<String>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All flags and segments, as they are stored now.
///
/// # Errors
/// [`DefinitionError::Store`].
pub async fn catalogue(cx: &OperatorCx) -> Result<Arc<FlagCatalogue>, DefinitionError> {
    let because = SystemScope::because("operators read the definitions of flags");
    let program = cx.app().ports.flag_definitions.program(because).await?;
    Ok(Arc::clone(program.catalogue()))
}

/// One flag.
///
/// # Errors
/// [`DefinitionError`].
pub async fn get(cx: &OperatorCx, key: &str) -> Result<FlagDefinition, DefinitionError> {
    let catalogue = catalogue(cx).await?;
    let flag = catalogue.flag(key).ok_or(DefinitionError::NotFound)?;
    Ok((**flag).clone())
}

/// Defines a new flag.
///
/// # Errors
/// [`DefinitionError`].
pub async fn create(cx: &OperatorCx, flag: FlagDefinition) -> Result<FlagDefinition, DefinitionError> {
    let mut work = cx.begin().await?;
    let catalogue = work.flags().catalogue_for_update().await?;
    if catalogue.flag(&flag.key).is_some() {
        return Err(DefinitionError::Taken);
    }
    let flag = FlagDefinition { version: 1, ..flag };
    store(cx, work, &catalogue, "flag.created", flag).await
}

/// Puts another definition in the place of a flag's; its key and its type stay.
///
/// # Errors
/// [`DefinitionError`].
pub async fn replace(
    cx: &OperatorCx,
    key: &str,
    when: &Precondition,
    flag: FlagDefinition,
) -> Result<FlagDefinition, DefinitionError> {
    change(cx, key, when, "flag.updated", |before| {
        if flag.key != before.key {
            return Err(Invalid::one("/key", "immutable", "must be the key in the path").into());
        }
        if flag.kind != before.kind {
            // Clients were written for the one.
            return Err(Invalid::one("/type", "immutable", "must stay as it is").into());
        }
        Ok(flag)
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
    change(cx, key, when, "flag.archived", |before| {
        Ok(FlagDefinition {
            lifecycle: Lifecycle::Archived,
            ..before.clone()
        })
    })
    .await
}

/// Puts a former version in force again, as the next version. It has to hold among what the others are now.
///
/// # Errors
/// [`DefinitionError`].
pub async fn roll_back(
    cx: &OperatorCx,
    key: &str,
    when: &Precondition,
    version: i64,
) -> Result<FlagDefinition, DefinitionError> {
    let former = self::version(cx, key, version).await;
    let former = former.map_err(|error| match error {
        DefinitionError::NotFound => {
            Invalid::one("/version", "not_found", "there is no such version of the flag").into()
        }
        other => other,
    });
    // Whether the flag is there at all is asked first.
    get(cx, key).await?;
    let former = former?.definition;
    change(cx, key, when, "flag.rolled_back", |_| Ok(former)).await
}

/// At most `limit + 1` versions of a flag, newest first, from below version `before` on; the one too many tells that
/// there are more.
///
/// # Errors
/// [`DefinitionError`].
pub async fn versions(
    cx: &OperatorCx,
    key: &str,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<FlagVersion>, DefinitionError> {
    get(cx, key).await?;
    let mut work = cx.begin().await?;
    Ok(work.flags().flag_versions(key, before, limit + 1).await?)
}

/// One version of a flag.
///
/// # Errors
/// [`DefinitionError`].
pub async fn version(cx: &OperatorCx, key: &str, version: i64) -> Result<FlagVersion, DefinitionError> {
    let mut work = cx.begin().await?;
    let found = work.flags().flag_version(key, version).await?;
    found.ok_or(DefinitionError::NotFound)
}

/// One segment.
///
/// # Errors
/// [`DefinitionError`].
pub async fn segment(cx: &OperatorCx, key: &str) -> Result<Segment, DefinitionError> {
    let catalogue = catalogue(cx).await?;
    catalogue.segment(key).cloned().ok_or(DefinitionError::NotFound)
}

/// Defines a new segment.
///
/// # Errors
/// [`DefinitionError`].
pub async fn create_segment(cx: &OperatorCx, segment: Segment) -> Result<Segment, DefinitionError> {
    segment.check()?;
    let mut work = cx.begin().await?;
    let catalogue = work.flags().catalogue_for_update().await?;
    if catalogue.segment(&segment.key).is_some() {
        return Err(DefinitionError::Taken);
    }
    let segment = Segment {
        version: 1,
        ..segment
    };
    work.flags().store_segment(&segment, cx.now()).await?;
    work.commit(cx.record("segment.created", None, json!({"after": segment})))
        .await?;
    Ok(segment)
}

/// Puts another definition in the place of a segment's.
///
/// # Errors
/// [`DefinitionError`].
pub async fn replace_segment(
    cx: &OperatorCx,
    key: &str,
    when: &Precondition,
    segment: Segment,
) -> Result<Segment, DefinitionError> {
    segment.check()?;
    let mut work = cx.begin().await?;
    let catalogue = work.flags().catalogue_for_update().await?;
    let before = catalogue.segment(key).ok_or(DefinitionError::NotFound)?;
    when.check(before.version)?;
    if segment.key != before.key {
        return Err(Invalid::one("/key", "immutable", "must be the key in the path").into());
    }
    let segment = Segment {
        version: before.version + 1,
        ..segment
    };
    work.flags().store_segment(&segment, cx.now()).await?;
    let details = json!({"before": before, "after": segment});
    work.commit(cx.record("segment.updated", None, details)).await?;
    Ok(segment)
}

/// Removes a segment that no rule names.
///
/// # Errors
/// [`DefinitionError`].
pub async fn delete_segment(cx: &OperatorCx, key: &str, when: &Precondition) -> Result<(), DefinitionError> {
    let mut work = cx.begin().await?;
    let catalogue = work.flags().catalogue_for_update().await?;
    let before = catalogue.segment(key).ok_or(DefinitionError::NotFound)?;
    when.check(before.version)?;
    let users = catalogue.users_of(key);
    if !users.is_empty() {
        return Err(DefinitionError::InUse(
            users.into_iter().map(str::to_owned).collect(),
        ));
    }
    work.flags().delete_segment(key).await?;
    work.commit(cx.record("segment.deleted", None, json!({"before": before})))
        .await?;
    Ok(())
}

/// Makes the next version of a flag.
async fn change(
    cx: &OperatorCx,
    key: &str,
    when: &Precondition,
    action: &'static str,
    next: impl FnOnce(&FlagDefinition) -> Result<FlagDefinition, DefinitionError>,
) -> Result<FlagDefinition, DefinitionError> {
    let mut work = cx.begin().await?;
    let catalogue = work.flags().catalogue_for_update().await?;
    let before = catalogue.flag(key).ok_or(DefinitionError::NotFound)?;
    when.check(before.version)?;
    let flag = FlagDefinition {
        version: before.version + 1,
        ..next(before)?
    };
    store(cx, work, &catalogue, action, flag).await
}

async fn store(
    cx: &OperatorCx,
    mut work: Box<dyn OperatorWork>,
    catalogue: &FlagCatalogue,
    action: &'static str,
    flag: FlagDefinition,
) -> Result<FlagDefinition, DefinitionError> {
    catalogue.check_flag(&flag)?;
    work.flags().store_flag(&flag, cx.now()).await?;
    let before = catalogue.flag(&flag.key).map(|before| &**before);
    work.commit(cx.record(action, None, json!({"before": before, "after": flag})))
        .await?;
    Ok(flag)
}
