//! Projects and who works on them.

use tenantry_domain::kernel::{
    Constraint, Invalid, MemberId, Page, PageRequest, Permission, ProjectId, StoreError, UserId,
};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Refused;
use tenantry_domain::work::{
    Member, MemberDetails, NewProject, Project, ProjectFilter, ProjectPatch, ProjectRole,
};

use crate::plans::Countable;
use crate::{Changed, Cx, OwnReason, Precondition, UseCaseError};

/// Errors of the project use cases.
pub type ProjectError = UseCaseError<ProjectReason>;

/// Why a project or its members stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProjectReason {
    /// Another live project of the tenant has that name.
    #[error("another project has this name")]
    NameTaken,
    /// The user is in the project already.
    #[error("the user is a member already")]
    AlreadyMember,
    /// The project's owner cannot be removed from it.
    #[error("the owner of a project is always a member of it")]
    OwnerStays,
    /// The project is not deleted, so it cannot be restored.
    #[error("the project is not deleted")]
    NotDeleted,
}

impl OwnReason for ProjectReason {
    fn of_store(error: StoreError) -> ProjectError {
        match error {
            StoreError::Unique(Constraint::ProjectName) => Self::NameTaken.into(),
            StoreError::Unique(Constraint::ProjectMember) => Self::AlreadyMember.into(),
            other => UseCaseError::Store(other),
        }
    }
}

/// A page of the tenant's projects; only admins see deleted ones.
///
/// # Errors
/// [`ProjectError`].
pub async fn list(cx: &Cx, filter: ProjectFilter, page: PageRequest) -> Result<Page<Project>, ProjectError> {
    cx.require(Permission::ReadProjects)?;
    if filter.include_deleted {
        cx.require(Permission::ReadDeletedProjects)?;
    }
    let page = cx
        .read(async |work| Ok::<_, ProjectError>(work.projects().list(filter, page).await?))
        .await?;
    Ok(page.map(|project| with_pending_views(cx, project)))
}

/// One project; looking at it counts as a view, which is stored later.
///
/// # Errors
/// [`ProjectError`].
pub async fn get(cx: &Cx, id: ProjectId) -> Result<Project, ProjectError> {
    cx.require(Permission::ReadProjects)?;
    let project = cx.read(async |work| live(work, id).await).await?;
    cx.app().views().note(cx.scope(), id);
    Ok(with_pending_views(cx, project))
}

/// Makes a project, owned by the caller.
///
/// # Errors
/// [`ProjectError`].
pub async fn create(cx: &Cx, data: NewProject) -> Result<Project, ProjectError> {
    cx.require(Permission::WriteProjects)?;
    let owner = cx.scope().author().ok_or(Refused::Forbidden)?;
    let project = Project::new(ProjectId::next(cx.ids()), owner, data, cx.now())?;
    let member = Member {
        id: MemberId::next(cx.ids()),
        project_id: project.id,
        user_id: owner,
        role: ProjectRole::Owner,
        created_at: project.created_at,
    };
    cx.write(async |work| {
        cx.ports()
            .entitlements
            .require_one_more(cx, work, Countable::Projects)
            .await?;
        work.projects().insert(&project).await?;
        work.members().insert(&member).await?;
        cx.record(work, Changed::created(&project)).await?;
        Ok(project)
    })
    .await
}

/// Changes a project.
///
/// # Errors
/// [`ProjectError`].
pub async fn update(
    cx: &Cx,
    id: ProjectId,
    when: &Precondition,
    patch: ProjectPatch,
) -> Result<Project, ProjectError> {
    cx.require(Permission::WriteProjects)?;
    let project = cx
        .write(async |work| {
            let before = live_for_update(work, id).await?;
            when.check(before.version)?;
            let mut project = before.clone();
            project.apply(patch.clone(), cx.now())?;
            work.projects().update(&project).await?;
            cx.record(work, Changed::updated(&before, &project)).await?;
            Ok::<_, ProjectError>(project)
        })
        .await?;
    Ok(with_pending_views(cx, project))
}

/// Deletes a project with its tasks and resources; it can be restored. Its owner and admins may.
///
/// # Errors
/// [`ProjectError`].
pub async fn delete(cx: &Cx, id: ProjectId, when: &Precondition) -> Result<(), ProjectError> {
    cx.require(Permission::WriteProjects)?;
    cx.write(async |work| {
        let before = live_for_update(work, id).await?;
        require_ownership(cx, &before)?;
        when.check(before.version)?;
        let mut project = before.clone();
        let now = cx.now();
        project.delete(now);
        work.projects().update(&project).await?;
        work.projects().delete_contents(id, now).await?;
        Ok(cx.record(work, Changed::deleted(&before)).await?)
    })
    .await
}

/// Restores a deleted project with what was deleted along with it.
///
/// # Errors
/// [`ProjectError`].
pub async fn restore(cx: &Cx, id: ProjectId) -> Result<Project, ProjectError> {
    cx.require(Permission::RestoreProjects)?;
    cx.write(async |work| {
        let before = work
            .projects()
            .find_for_update(id)
            .await?
            .ok_or(ProjectError::NotFound)?;
        let deleted_at = before.deleted_at.ok_or(ProjectReason::NotDeleted)?;
        cx.ports()
            .entitlements
            .require_one_more(cx, work, Countable::Projects)
            .await?;
        let mut project = before.clone();
        project.restore(cx.now());
        work.projects().update(&project).await?;
        work.projects().restore_contents(id, deleted_at).await?;
        cx.record(work, Changed::with("project.restored", Some(&before), &project))
            .await?;
        Ok(project)
    })
    .await
}

/// A page of a project's members.
///
/// # Errors
/// [`ProjectError`].
pub async fn list_members(
    cx: &Cx,
    id: ProjectId,
    page: PageRequest,
) -> Result<Page<MemberDetails>, ProjectError> {
    cx.require(Permission::ReadProjects)?;
    cx.read(async |work| {
        live(work, id).await?;
        Ok(work.members().list(id, page).await?)
    })
    .await
}

/// Takes a user into a project. Its owner and admins may.
///
/// # Errors
/// [`ProjectError`].
pub async fn add_member(
    cx: &Cx,
    id: ProjectId,
    user: UserId,
    role: ProjectRole,
) -> Result<MemberDetails, ProjectError> {
    cx.require(Permission::WriteProjects)?;
    cx.write(async |work| {
        let project = live_for_update(work, id).await?;
        require_ownership(cx, &project)?;
        let found = work.users().find(user).await?;
        let unknown = || Invalid::one("/user_id", "not_found", "there is no such user");
        let found = found.ok_or_else(unknown)?;
        let member = Member {
            id: MemberId::next(cx.ids()),
            project_id: id,
            user_id: user,
            role,
            created_at: cx.now(),
        };
        work.members().insert(&member).await?;
        let event = cx.changed("project.member_added", "project", id.uuid(), None, Some(&member));
        work.audit().record(event).await?;
        Ok(MemberDetails {
            member,
            email: found.email,
            full_name: found.full_name,
        })
    })
    .await
}

/// Takes a user out of a project: its owner and admins anybody, everybody themselves.
///
/// # Errors
/// [`ProjectError`].
pub async fn remove_member(cx: &Cx, id: ProjectId, user: UserId) -> Result<(), ProjectError> {
    cx.require(Permission::WriteProjects)?;
    cx.write(async |work| {
        let project = live_for_update(work, id).await?;
        if cx.scope().user() != Some(user) {
            require_ownership(cx, &project)?;
        }
        let before = work
            .members()
            .find(id, user)
            .await?
            .ok_or(ProjectError::NotFound)?;
        if project.owner_id == user {
            return Err(ProjectReason::OwnerStays.into());
        }
        work.members().remove(id, user).await?;
        let event = cx.changed(
            "project.member_removed",
            "project",
            id.uuid(),
            Some(&before),
            None,
        );
        Ok(work.audit().record(event).await?)
    })
    .await
}

async fn live(work: &mut Work, id: ProjectId) -> Result<Project, ProjectError> {
    work.projects().find(id).await?.ok_or(ProjectError::NotFound)
}

async fn live_for_update(work: &mut Work, id: ProjectId) -> Result<Project, ProjectError> {
    let project = work.projects().find_for_update(id).await?;
    project
        .filter(|project| project.deleted_at.is_none())
        .ok_or(ProjectError::NotFound)
}

fn require_ownership(cx: &Cx, project: &Project) -> Result<(), Refused> {
    if cx.scope().is_admin() || cx.scope().user() == Some(project.owner_id) {
        Ok(())
    } else {
        Err(Refused::Forbidden)
    }
}

fn with_pending_views(cx: &Cx, mut project: Project) -> Project {
    project.view_count += cx.app().views().pending(cx.scope(), project.id);
    project
}
