use async_trait::async_trait;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use tenantry_domain::kernel::{Page, PageRequest, Position, ProjectId, StoreError, Time};
use tenantry_domain::work::{Project, ProjectFilter, ProjectStatus, Projects};

use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::{Find, Lock};
use crate::work::{resource, task};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "projects")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub name: String,
        pub description: Option<String>,
        pub status: String,
        pub owner_id: Uuid,
        pub view_count: i64,
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
impl Projects for PgStore {
    async fn find(&mut self, id: ProjectId) -> Result<Option<Project>, StoreError> {
        one(self.project(id)).await
    }

    async fn find_for_update(&mut self, id: ProjectId) -> Result<Option<Project>, StoreError> {
        let find = self.project(id).with_deleted("a deleted project can be restored");
        one(find.lock(Lock::Update)).await
    }

    async fn find_for_share(&mut self, id: ProjectId) -> Result<Option<Project>, StoreError> {
        one(self.project(id).lock(Lock::Share)).await
    }

    async fn list(&mut self, filter: ProjectFilter, page: PageRequest) -> Result<Page<Project>, StoreError> {
        let mut find = self.tx.find::<Entity>();
        if let Some(status) = filter.status {
            find = find.filter(Column::Status.eq(status.as_str()));
        }
        if filter.include_deleted {
            find = find.with_deleted("admins list deleted projects to restore them");
        }
        let position = |row: &Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        let page = find.page((Column::CreatedAt, Column::Id), page, position).await?;
        page.try_map(Project::try_from)
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        self.tx.find::<Entity>().count().await
    }

    async fn insert(&mut self, project: &Project) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(project.id.uuid()),
            owner_id: Set(project.owner_id.uuid()),
            view_count: Set(project.view_count),
            created_at: Set(project.created_at),
            ..changes(project)
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, project: &Project) -> Result<(), StoreError> {
        let update = self
            .tx
            .update::<Entity>()
            .with_deleted("restoring a project changes a deleted row")
            .set(changes(project))
            .filter(Column::Id.eq(project.id.uuid()));
        exactly_one(update.run().await?)
    }

    async fn add_views(&mut self, id: ProjectId, views: i64) -> Result<bool, StoreError> {
        let more = Expr::col(Column::ViewCount).add(views);
        let update = self.tx.update::<Entity>().set_expr(Column::ViewCount, more);
        let update =
            update.with_deleted("views are stored after they happened, and a project can be restored");
        Ok(update.filter(Column::Id.eq(id.uuid())).run().await? == 1)
    }

    async fn delete_contents(&mut self, id: ProjectId, at: Time) -> Result<u64, StoreError> {
        self.mark_contents(id, None, Some(at)).await
    }

    async fn restore_contents(&mut self, id: ProjectId, at: Time) -> Result<u64, StoreError> {
        self.mark_contents(id, Some(at), None).await
    }
}

impl PgStore {
    fn project(&mut self, id: ProjectId) -> Find<'_, Entity> {
        self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()))
    }

    /// Moves tasks and resources of a project from one `deleted_at` to another.
    async fn mark_contents(
        &mut self,
        id: ProjectId,
        from: Option<Time>,
        to: Option<Time>,
    ) -> Result<u64, StoreError> {
        let marked = task::entity::ActiveModel {
            deleted_at: Set(to),
            ..Default::default()
        };
        let mut tasks = self.tx.update::<task::entity::Entity>().set(marked);
        tasks = tasks.filter(task::entity::Column::ProjectId.eq(id.uuid()));
        if let Some(at) = from {
            let restored = tasks.with_deleted("restoring a project restores its tasks");
            tasks = restored.filter(task::entity::Column::DeletedAt.eq(at));
        }
        let tasks = tasks.run().await?;
        let marked = resource::entity::ActiveModel {
            deleted_at: Set(to),
            ..Default::default()
        };
        let mut resources = self.tx.update::<resource::entity::Entity>().set(marked);
        resources = resources.filter(resource::entity::Column::ProjectId.eq(id.uuid()));
        if let Some(at) = from {
            let restored = resources.with_deleted("restoring a project restores its resources");
            resources = restored.filter(resource::entity::Column::DeletedAt.eq(at));
        }
        let resources = resources.run().await?;
        Ok(tasks + resources)
    }
}

async fn one(find: Find<'_, Entity>) -> Result<Option<Project>, StoreError> {
    find.one().await?.map(Project::try_from).transpose()
}

impl TryFrom<Model> for Project {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            name: row.name,
            description: row.description,
            status: ProjectStatus::parse(&row.status)
                .ok_or_else(|| unknown("projects.status", &row.status))?,
            owner_id: row.owner_id.into(),
            view_count: row.view_count,
            created_at: row.created_at,
            updated_at: row.updated_at,
            deleted_at: row.deleted_at,
            version: row.version,
        })
    }
}

fn changes(project: &Project) -> ActiveModel {
    ActiveModel {
        name: Set(project.name.clone()),
        description: Set(project.description.clone()),
        status: Set(project.status.as_str().to_owned()),
        updated_at: Set(project.updated_at),
        deleted_at: Set(project.deleted_at),
        version: Set(project.version),
        ..Default::default()
    }
}
