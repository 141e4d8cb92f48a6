use async_trait::async_trait;
use serde::Serialize;

use crate::identity::Email;
use crate::kernel::name::named_enum;
use crate::kernel::{
    Check, Invalid, MemberId, Page, PageRequest, Patch, Position, ProjectId, StoreError, Time, UserId,
};

named_enum! {
    /// Whether a project is worked on.
    #[derive(Default)]
    pub enum ProjectStatus {
        /// Worked on.
        #[default]
        Active = "active",
        /// Put away.
        Archived = "archived",
    }
}

/// A project: what tasks and resources are filed under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Project {
    /// Identifies the project within the tenant.
    pub id: ProjectId,
    /// Unique among the tenant's live projects; 1 to 120 characters.
    pub name: String,
    /// Up to 10,000 characters.
    pub description: Option<String>,
    /// Whether it is worked on.
    pub status: ProjectStatus,
    /// Who made it.
    pub owner_id: UserId,
    /// How often it was looked at. Not a change: it moves neither `version` nor `updated_at`.
    pub view_count: i64,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// When it was deleted, if it was.
    pub deleted_at: Option<Time>,
    /// Counts its changes, from 1.
    pub version: i64,
}

/// The fields of a project that its creator decides.
#[derive(Debug, Clone)]
pub struct NewProject {
    /// See [`Project::name`].
    pub name: String,
    /// See [`Project::description`].
    pub description: Option<String>,
}

/// What may be changed of a project.
#[derive(Debug, Clone, Default)]
pub struct ProjectPatch {
    /// See [`Project::name`].
    pub name: Patch<String>,
    /// See [`Project::description`]; may be cleared.
    pub description: Patch<String>,
    /// See [`Project::status`].
    pub status: Patch<ProjectStatus>,
}

/// Which projects a list is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProjectFilter {
    /// Only this status.
    pub status: Option<ProjectStatus>,
    /// Deleted ones too.
    pub include_deleted: bool,
}

impl Project {
    /// A new active project.
    ///
    /// # Errors
    /// Every field that does not hold.
    pub fn new(id: ProjectId, owner_id: UserId, data: NewProject, now: Time) -> Result<Self, Invalid> {
        let project = Self {
            id,
            name: data.name.trim().to_owned(),
            description: data.description,
            status: ProjectStatus::Active,
            owner_id,
            view_count: 0,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            version: 1,
        };
        project.check(Check::new())?;
        Ok(project)
    }

    /// Applies a change, all of it or nothing.
    ///
    /// # Errors
    /// Every field that does not hold.
    pub fn apply(&mut self, patch: ProjectPatch, now: Time) -> Result<(), Invalid> {
        let mut check = Check::new();
        let mut next = self.clone();
        check.not_null("/name", &patch.name);
        check.not_null("/status", &patch.status);
        patch
            .name
            .map(|name| name.trim().to_owned())
            .apply_required(&mut next.name);
        patch.description.apply(&mut next.description);
        patch.status.apply_required(&mut next.status);
        next.check(check)?;
        next.touch(now);
        *self = next;
        Ok(())
    }

    /// Deletes the project; it can be restored.
    pub fn delete(&mut self, now: Time) {
        self.deleted_at = Some(now);
        self.touch(now);
    }

    /// Takes the deletion back.
    pub fn restore(&mut self, now: Time) {
        self.deleted_at = None;
        self.touch(now);
    }

    /// Where the project is in a list.
    pub fn position(&self) -> Position {
        Position {
            created_at: self.created_at,
            id: self.id.uuid(),
        }
    }

    fn check(&self, mut check: Check) -> Result<(), Invalid> {
        check.line("/name", &self.name, 1..=120);
        if let Some(description) = &self.description {
            check.text("/description", description, 0..=10_000);
        }
        check.verdict()
    }

    fn touch(&mut self, now: Time) {
        self.updated_at = now;
        self.version += 1;
    }
}

/// Projects of the scope's tenant.
#[async_trait]
pub trait Projects: Send {
    /// A live project.
    async fn find(&mut self, id: ProjectId) -> Result<Option<Project>, StoreError>;
    /// A project, deleted or not, locked until the transaction ends.
    async fn find_for_update(&mut self, id: ProjectId) -> Result<Option<Project>, StoreError>;
    /// A live project, locked against deletion until the transaction ends: for filing something under it.
    async fn find_for_share(&mut self, id: ProjectId) -> Result<Option<Project>, StoreError>;
    /// A page of projects.
    async fn list(&mut self, filter: ProjectFilter, page: PageRequest) -> Result<Page<Project>, StoreError>;
    /// How many live ones there are.
    async fn count(&mut self) -> Result<u64, StoreError>;
    /// Adds a project.
    async fn insert(&mut self, project: &Project) -> Result<(), StoreError>;
    /// Stores a project's new state, all but its view count.
    async fn update(&mut self, project: &Project) -> Result<(), StoreError>;
    /// Adds to a project's view count; whether the project is there.
    async fn add_views(&mut self, id: ProjectId, views: i64) -> Result<bool, StoreError>;
    /// Marks the live tasks and resources of a project as deleted at `at`.
    async fn delete_contents(&mut self, id: ProjectId, at: Time) -> Result<u64, StoreError>;
    /// Takes back what [`Projects::delete_contents`] did at `at`.
    async fn restore_contents(&mut self, id: ProjectId, at: Time) -> Result<u64, StoreError>;
}

named_enum! {
    /// What a user is in a project.
    #[derive(Default)]
    pub enum ProjectRole {
        /// Staffs and removes the project.
        Owner = "owner",
        /// Works on it.
        #[default]
        Member = "member",
        /// Follows it.
        Viewer = "viewer",
    }
}

/// A user's place in a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Identifies the membership within the tenant.
    pub id: MemberId,
    /// The project that the user is a member of.
    pub project_id: ProjectId,
    /// The user who is a member.
    pub user_id: UserId,
    /// What they are in it.
    pub role: ProjectRole,
    /// Since when.
    pub created_at: Time,
}

/// A member with what one wants to see of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDetails {
    /// The membership.
    pub member: Member,
    /// The user's address.
    pub email: Email,
    /// The user's name.
    pub full_name: String,
}

impl MemberDetails {
    /// Where the member is in a list.
    pub fn position(&self) -> Position {
        Position {
            created_at: self.member.created_at,
            id: self.member.user_id.uuid(),
        }
    }
}

/// Members of the projects of the scope's tenant.
#[async_trait]
pub trait Members: Send {
    /// One member.
    async fn find(&mut self, project: ProjectId, user: UserId) -> Result<Option<Member>, StoreError>;
    /// A page of a project's members.
    async fn list(
        &mut self,
        project: ProjectId,
        page: PageRequest,
    ) -> Result<Page<MemberDetails>, StoreError>;
    /// Adds a member.
    async fn insert(&mut self, member: &Member) -> Result<(), StoreError>;
    /// Removes a member; whether there was one.
    async fn remove(&mut self, project: ProjectId, user: UserId) -> Result<bool, StoreError>;
}
