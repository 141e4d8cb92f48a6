use async_trait::async_trait;
use serde::Serialize;

use crate::kernel::{
    Check, Invalid, Page, PageRequest, Patch, Position, ProjectId, ResourceId, ResourceVersionId, StoreError,
    Time, UserId,
};

/// A document or a link, with all of its former versions. Serialised (for the audit log) without its content,
/// which the version history has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resource {
    /// Identifies the resource within the tenant.
    pub id: ResourceId,
    /// The project it is filed under, if any.
    pub project_id: Option<ProjectId>,
    /// 1 to 200 characters.
    pub name: String,
    /// A label such as `document` or `link`: `^[a-z][a-z0-9_-]{0,39}$`.
    pub kind: String,
    /// The text itself, up to 262,144 characters; exactly one of `content` and `url` is there.
    #[serde(skip)]
    pub content: Option<String>,
    /// An `http` or `https` address of up to 2,000 characters.
    pub url: Option<String>,
    /// Who made it.
    pub created_by: UserId,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// Counts its versions, from 1.
    pub version: i64,
}

/// The fields of a resource that its creator decides.
#[derive(Debug, Clone)]
pub struct NewResource {
    /// See [`Resource::project_id`].
    pub project_id: Option<ProjectId>,
    /// See [`Resource::name`].
    pub name: String,
    /// See [`Resource::kind`]; `document` or `link` after what is there when absent.
    pub kind: Option<String>,
    /// See [`Resource::content`].
    pub content: Option<String>,
    /// See [`Resource::url`].
    pub url: Option<String>,
}

/// What may be changed of a resource.
#[derive(Debug, Clone, Default)]
pub struct ResourcePatch {
    /// See [`Resource::project_id`]; may be cleared.
    pub project_id: Patch<ProjectId>,
    /// See [`Resource::name`].
    pub name: Patch<String>,
    /// See [`Resource::kind`].
    pub kind: Patch<String>,
    /// See [`Resource::content`]; null when it becomes a link.
    pub content: Patch<String>,
    /// See [`Resource::url`]; null when it becomes a document.
    pub url: Patch<String>,
}

/// Which resources a list is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceFilter {
    /// Only of this project.
    pub project_id: Option<ProjectId>,
}

/// A version of a resource as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceVersion {
    /// Identifies the stored version within the tenant.
    pub id: ResourceVersionId,
    /// The resource whose state this was.
    pub resource_id: ResourceId,
    /// The number of the version, from 1.
    pub version: i64,
    /// The name then.
    pub name: String,
    /// The kind then.
    pub kind: String,
    /// The text then.
    pub content: Option<String>,
    /// The address then.
    pub url: Option<String>,
    /// Who made this version.
    pub created_by: UserId,
    /// When this version was made.
    pub created_at: Time,
}

impl Resource {
    /// A new resource, version 1.
    ///
    /// # Errors
    /// Every field that does not hold.
    pub fn new(id: ResourceId, created_by: UserId, data: NewResource, now: Time) -> Result<Self, Invalid> {
        let by_content = if data.url.is_some() { "link" } else { "document" };
        let resource = Self {
            id,
            project_id: data.project_id,
            name: data.name.trim().to_owned(),
            kind: data.kind.unwrap_or_else(|| by_content.to_owned()),
            content: data.content,
            url: data.url,
            created_by,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        resource.check(Check::new())?;
        Ok(resource)
    }

    /// Applies a change as the next version, all of it or nothing.
    ///
    /// # Errors
    /// Every field that does not hold.
    pub fn apply(&mut self, patch: ResourcePatch, now: Time) -> Result<(), Invalid> {
        let mut check = Check::new();
        let mut next = self.clone();
        check.not_null("/name", &patch.name);
        check.not_null("/kind", &patch.kind);
        patch.project_id.apply(&mut next.project_id);
        patch
            .name
            .map(|name| name.trim().to_owned())
            .apply_required(&mut next.name);
        patch.kind.apply_required(&mut next.kind);
        patch.content.apply(&mut next.content);
        patch.url.apply(&mut next.url);
        next.check(check)?;
        next.updated_at = now;
        next.version += 1;
        *self = next;
        Ok(())
    }

    /// The present version as an entry of the history, made by `author`.
    pub fn snapshot(&self, id: ResourceVersionId, author: UserId) -> ResourceVersion {
        ResourceVersion {
            id,
            resource_id: self.id,
            version: self.version,
            name: self.name.clone(),
            kind: self.kind.clone(),
            content: self.content.clone(),
            url: self.url.clone(),
            created_by: author,
            created_at: self.updated_at,
        }
    }

    /// Where the resource is in a list.
    pub fn position(&self) -> Position {
        Position {
            created_at: self.created_at,
            id: self.id.uuid(),
        }
    }

    fn check(&self, mut check: Check) -> Result<(), Invalid> {
        check.line("/name", &self.name, 1..=200);
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        let kind = (1..=40).contains(&self.kind.len())
            && self.kind.starts_with(|c: char| c.is_ascii_lowercase())
            && self.kind.chars().all(label);
        check.require(
            kind,
            "/kind",
            "invalid_kind",
            "must be 1 to 40 of a-z, 0-9, '_' and '-', beginning with a letter",
        );
        match (&self.content, &self.url) {
            (Some(content), None) => check.text("/content", content, 0..=262_144),
            (None, Some(url)) => {
                check.line("/url", url, 1..=2_000);
                let rest = url
                    .strip_prefix("https://")
                    .or_else(|| url.strip_prefix("http://"));
                let host = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']));
                let holds = host && !url.contains(char::is_whitespace);
                check.require(holds, "/url", "invalid_url", "must be an http or https address");
            }
            (Some(_), Some(_)) => check.fail("/url", "one_of", "give content or url, not both"),
            (None, None) => check.fail("/content", "one_of", "give content or url"),
        }
        check.verdict()
    }
}

/// Resources of the scope's tenant. A resource in a deleted project is not seen.
#[async_trait]
pub trait Resources: Send {
    /// A resource.
    async fn find(&mut self, id: ResourceId) -> Result<Option<Resource>, StoreError>;
    /// A resource, locked until the transaction ends.
    async fn find_for_update(&mut self, id: ResourceId) -> Result<Option<Resource>, StoreError>;
    /// A page of resources.
    async fn list(&mut self, filter: ResourceFilter, page: PageRequest)
    -> Result<Page<Resource>, StoreError>;
    /// Adds a resource.
    async fn insert(&mut self, resource: &Resource) -> Result<(), StoreError>;
    /// Stores a resource's new state.
    async fn update(&mut self, resource: &Resource) -> Result<(), StoreError>;
    /// Deletes a resource with its history, for good; whether there was one.
    async fn delete(&mut self, id: ResourceId) -> Result<bool, StoreError>;
    /// Keeps a version.
    async fn insert_version(&mut self, version: &ResourceVersion) -> Result<(), StoreError>;
    /// Returns the version of a resource with that number.
    async fn find_version(
        &mut self,
        id: ResourceId,
        version: i64,
    ) -> Result<Option<ResourceVersion>, StoreError>;
    /// At most `limit` versions, newest first, from below version `before` on.
    async fn list_versions(
        &mut self,
        id: ResourceId,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<ResourceVersion>, StoreError>;
}
