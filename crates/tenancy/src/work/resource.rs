//! Resources and their history.

use tenantry_domain::kernel::{
    Page, PageRequest, Patch, Permission, ProjectId, ResourceId, ResourceVersionId, UserId,
};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Refused;
use tenantry_domain::work::{NewResource, Resource, ResourceFilter, ResourcePatch, ResourceVersion};

use crate::work::reference::{ReferenceReason, unknown_project};
use crate::work::storage;
use crate::{Changed, Cx, Precondition, UseCaseError};

/// Errors of the resource use cases.
pub type ResourceError = UseCaseError<ReferenceReason>;

/// A page of the tenant's resources.
///
/// # Errors
/// [`ResourceError`].
pub async fn list(
    cx: &Cx,
    filter: ResourceFilter,
    page: PageRequest,
) -> Result<Page<Resource>, ResourceError> {
    cx.require(Permission::ReadResources)?;
    cx.read(async |work| Ok(work.resources().list(filter, page).await?))
        .await
}

/// One resource.
///
/// # Errors
/// [`ResourceError`].
pub async fn get(cx: &Cx, id: ResourceId) -> Result<Resource, ResourceError> {
    cx.require(Permission::ReadResources)?;
    cx.read(async |work| work.resources().find(id).await?.ok_or(ResourceError::NotFound))
        .await
}

/// Makes a resource.
///
/// # Errors
/// [`ResourceError`].
pub async fn create(cx: &Cx, data: NewResource) -> Result<Resource, ResourceError> {
    cx.require(Permission::WriteResources)?;
    let author = cx.scope().author().ok_or(Refused::Forbidden)?;
    let resource = Resource::new(ResourceId::next(cx.ids()), author, data, cx.now())?;
    cx.write(async |work| {
        check_project(work, resource.project_id).await?;
        work.resources().insert(&resource).await?;
        keep_version(cx, work, &resource, author).await?;
        cx.record(work, Changed::created(&resource)).await?;
        Ok(resource)
    })
    .await
}

/// Changes a resource; the former version is kept.
///
/// # Errors
/// [`ResourceError`].
pub async fn update(
    cx: &Cx,
    id: ResourceId,
    when: &Precondition,
    patch: ResourcePatch,
) -> Result<Resource, ResourceError> {
    cx.require(Permission::WriteResources)?;
    let author = cx.scope().author().ok_or(Refused::Forbidden)?;
    cx.write(async |work| {
        let before = work
            .resources()
            .find_for_update(id)
            .await?
            .ok_or(ResourceError::NotFound)?;
        when.check(before.version)?;
        let mut resource = before.clone();
        resource.apply(patch.clone(), cx.now())?;
        if let Patch::Set(project) = patch.project_id {
            check_project(work, Some(project)).await?;
        }
        work.resources().update(&resource).await?;
        keep_version(cx, work, &resource, author).await?;
        cx.record(work, Changed::updated(&before, &resource)).await?;
        Ok(resource)
    })
    .await
}

/// Deletes a resource with its history, for good.
///
/// # Errors
/// [`ResourceError`].
pub async fn delete(cx: &Cx, id: ResourceId, when: &Precondition) -> Result<(), ResourceError> {
    cx.require(Permission::WriteResources)?;
    cx.write(async |work| {
        let before = work
            .resources()
            .find_for_update(id)
            .await?
            .ok_or(ResourceError::NotFound)?;
        when.check(before.version)?;
        let bytes = work.storage().used_by(id).await?;
        storage::store_less(cx, work, bytes).await?;
        work.resources().delete(id).await?;
        Ok(cx.record(work, Changed::deleted(&before)).await?)
    })
    .await
}

/// At most `limit + 1` versions of a resource, newest first, from below version `before` on; the one too many
/// tells that there are more.
///
/// # Errors
/// [`ResourceError`].
pub async fn list_versions(
    cx: &Cx,
    id: ResourceId,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<ResourceVersion>, ResourceError> {
    cx.require(Permission::ReadResources)?;
    cx.read(async |work| {
        work.resources().find(id).await?.ok_or(ResourceError::NotFound)?;
        Ok(work.resources().list_versions(id, before, limit + 1).await?)
    })
    .await
}

/// One version of a resource.
///
/// # Errors
/// [`ResourceError`].
pub async fn get_version(cx: &Cx, id: ResourceId, version: i64) -> Result<ResourceVersion, ResourceError> {
    cx.require(Permission::ReadResources)?;
    cx.read(async |work| {
        work.resources().find(id).await?.ok_or(ResourceError::NotFound)?;
        work.resources()
            .find_version(id, version)
            .await?
            .ok_or(ResourceError::NotFound)
    })
    .await
}

/// Keeps what the resource is now as a version of it, which counts as stored.
async fn keep_version(
    cx: &Cx,
    work: &mut Work,
    resource: &Resource,
    author: UserId,
) -> Result<(), ResourceError> {
    let version = resource.snapshot(ResourceVersionId::next(cx.ids()), author);
    let bytes = version.content.as_ref().map_or(0, |content| content.len() as u64);
    storage::store_more(cx, work, bytes).await?;
    Ok(work.resources().insert_version(&version).await?)
}

async fn check_project(work: &mut Work, project: Option<ProjectId>) -> Result<(), ResourceError> {
    if let Some(id) = project {
        work.projects()
            .find_for_share(id)
            .await?
            .ok_or_else(unknown_project)?;
    }
    Ok(())
}
