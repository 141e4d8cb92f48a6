//! Whether what a user is notified of still holds.

use serde_json::{Map, Value};
use tenantry_domain::kernel::{ProjectId, StoreError, TaskId, UserId};
use tenantry_domain::notifications::{Audience, NoticeType};
use tenantry_domain::store::Work;
use uuid::Uuid;

/// Parts that are not in the event, of the user whom it names and its entity. `None` when it does not hold any more: the task has another
/// assignee, the project is deleted, or the user is no member of it.
pub(super) async fn present(
    work: &mut Work,
    notice: &NoticeType,
    (user, entity): (Option<UserId>, Option<Uuid>),
) -> Result<Option<Map<String, Value>>, StoreError> {
    let (Some(user), Some(entity)) = (user, entity) else {
        // Admins are notified of what has happened.
        return Ok((notice.audience == Audience::Admins).then(Map::new));
    };
    match notice.audience {
        Audience::Admins => Ok(Some(Map::new())),
        Audience::Assignee(_) => {
            let found = work.tasks().find(TaskId::from(entity)).await?;
            let is_assigned = found.is_some_and(|task| task.assignee_id == Some(user));
            Ok(is_assigned.then(Map::new))
        }
        Audience::Member(_) => {
            let project = ProjectId::from(entity);
            let member = work.members().find(project, user).await?;
            let found = work.projects().find(project).await?;
            let shown = found
                .zip(member)
                .map(|(project, _)| ("title".to_owned(), project.name.into()));
            Ok(shown.map(|part| Map::from_iter([part])))
        }
    }
}
