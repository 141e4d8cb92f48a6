use async_trait::async_trait;
use sea_orm::sea_query::{Expr, LikeExpr, extension::postgres::PgExpr as _};
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use tenantry_domain::kernel::{Page, PageRequest, Position, StoreError, TaskId};
use tenantry_domain::work::{Priority, Task, TaskFilter, TaskStatus, Tasks};

use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::{Find, Lock};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "tasks")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub project_id: Uuid,
        pub title: String,
        pub description: Option<String>,
        pub status: String,
        pub priority: String,
        pub assignee_id: Option<Uuid>,
        pub due_at: Option<DateTimeUtc>,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
        pub deleted_at: Option<DateTimeUtc>,
        pub version: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl Tasks for PgStore {
    async fn find(&mut self, id: TaskId) -> Result<Option<Task>, StoreError> {
        one(self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()))).await
    }

    async fn find_for_update(&mut self, id: TaskId) -> Result<Option<Task>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()));
        one(find.lock(Lock::Update)).await
    }

    async fn list(&mut self, filter: &TaskFilter, page: PageRequest) -> Result<Page<Task>, StoreError> {
        let mut find = self.tx.find::<Entity>();
        if let Some(project) = filter.project_id {
            find = find.filter(Column::ProjectId.eq(project.uuid()));
        }
        if let Some(status) = filter.status {
            find = find.filter(Column::Status.eq(status.as_str()));
        }
        if let Some(assignee) = filter.assignee_id {
            find = find.filter(Column::AssigneeId.eq(assignee.uuid()));
        }
        if let Some(q) = &filter.q {
            find = find.filter(Expr::col(Column::Title.as_column_ref()).ilike(containing(q)));
        }
        let position = |row: &Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        let page = find.page((Column::CreatedAt, Column::Id), page, position).await?;
        page.try_map(Task::try_from)
    }

    async fn insert(&mut self, task: &Task) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(task.id.uuid()),
            created_at: Set(task.created_at),
            ..changes(task)
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, task: &Task) -> Result<(), StoreError> {
        let update = self
            .tx
            .update::<Entity>()
            .set(changes(task))
            .filter(Column::Id.eq(task.id.uuid()));
        exactly_one(update.run().await?)
    }
}

/// A pattern for text anywhere; what the caller wrote means itself, also `%` and `_`.
pub(crate) fn containing(text: &str) -> LikeExpr {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    LikeExpr::new(pattern)
}

async fn one(find: Find<'_, Entity>) -> Result<Option<Task>, StoreError> {
    find.one().await?.map(Task::try_from).transpose()
}

impl TryFrom<Model> for Task {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            project_id: row.project_id.into(),
            title: row.title,
            description: row.description,
            status: TaskStatus::parse(&row.status).ok_or_else(|| unknown("tasks.status", &row.status))?,
            priority: Priority::parse(&row.priority)
                .ok_or_else(|| unknown("tasks.priority", &row.priority))?,
            assignee_id: row.assignee_id.map(Into::into),
            due_at: row.due_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
            deleted_at: row.deleted_at,
            version: row.version,
        })
    }
}

fn changes(task: &Task) -> ActiveModel {
    ActiveModel {
        project_id: Set(task.project_id.uuid()),
        title: Set(task.title.clone()),
        description: Set(task.description.clone()),
        status: Set(task.status.as_str().to_owned()),
        priority: Set(task.priority.as_str().to_owned()),
        assignee_id: Set(task.assignee_id.map(tenantry_domain::kernel::UserId::uuid)),
        due_at: Set(task.due_at),
        updated_at: Set(task.updated_at),
        deleted_at: Set(task.deleted_at),
        version: Set(task.version),
        ..Default::default()
    }
}
