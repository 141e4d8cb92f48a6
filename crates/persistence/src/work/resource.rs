use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use tenantry_domain::kernel::{Page, PageRequest, Position, ProjectId, ResourceId, StoreError};
use tenantry_domain::work::{Resource, ResourceFilter, ResourceVersion, Resources};

use crate::kernel::store::{PgStore, exactly_one};
use crate::kernel::tx::{Find, Lock};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "resources")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub project_id: Option<Uuid>,
        pub name: String,
        pub kind: String,
        #[sea_orm(column_type = "Text", nullable)]
        pub content: Option<String>,
        pub url: Option<String>,
        pub created_by: Uuid,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
        pub deleted_at: Option<DateTimeUtc>,
        pub version: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

pub(crate) mod version {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "resource_versions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub resource_id: Uuid,
        pub version: i64,
        pub name: String,
        pub kind: String,
        pub content: Option<String>,
        pub url: Option<String>,
        pub created_by: Uuid,
        pub created_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

#[async_trait]
impl Resources for PgStore {
    async fn find(&mut self, id: ResourceId) -> Result<Option<Resource>, StoreError> {
        one(self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()))).await
    }

    async fn find_for_update(&mut self, id: ResourceId) -> Result<Option<Resource>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()));
        one(find.lock(Lock::Update)).await
    }

    async fn list(
        &mut self,
        filter: ResourceFilter,
        page: PageRequest,
    ) -> Result<Page<Resource>, StoreError> {
        let mut find = self.tx.find::<Entity>();
        if let Some(project) = filter.project_id {
            find = find.filter(Column::ProjectId.eq(project.uuid()));
        }
        let position = |row: &Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        Ok(find
            .page((Column::CreatedAt, Column::Id), page, position)
            .await?
            .map(Resource::from))
    }

    async fn insert(&mut self, resource: &Resource) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(resource.id.uuid()),
            created_by: Set(resource.created_by.uuid()),
            created_at: Set(resource.created_at),
            ..changes(resource)
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, resource: &Resource) -> Result<(), StoreError> {
        let update = self
            .tx
            .update::<Entity>()
            .set(changes(resource))
            .filter(Column::Id.eq(resource.id.uuid()));
        exactly_one(update.run().await?)
    }

    async fn delete(&mut self, id: ResourceId) -> Result<bool, StoreError> {
        // The history goes with it, by the foreign key.
        Ok(self
            .tx
            .delete::<Entity>()
            .filter(Column::Id.eq(id.uuid()))
            .run()
            .await?
            == 1)
    }

    async fn insert_version(&mut self, version: &ResourceVersion) -> Result<(), StoreError> {
        let row = version::ActiveModel {
            id: Set(version.id.uuid()),
            resource_id: Set(version.resource_id.uuid()),
            version: Set(version.version),
            name: Set(version.name.clone()),
            kind: Set(version.kind.clone()),
            content: Set(version.content.clone()),
            url: Set(version.url.clone()),
            created_by: Set(version.created_by.uuid()),
            created_at: Set(version.created_at),
            ..Default::default()
        };
        self.tx.insert(row).await
    }

    async fn find_version(
        &mut self,
        id: ResourceId,
        version: i64,
    ) -> Result<Option<ResourceVersion>, StoreError> {
        let find = self.versions(id).filter(version::Column::Version.eq(version));
        Ok(find.one().await?.map(ResourceVersion::from))
    }

    async fn list_versions(
        &mut self,
        id: ResourceId,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<ResourceVersion>, StoreError> {
        let mut find = self.versions(id);
        if let Some(before) = before {
            find = find.filter(version::Column::Version.lt(before));
        }
        let rows = find
            .order_by_desc(version::Column::Version)
            .limit(u64::from(limit))
            .all()
            .await?;
        Ok(rows.into_iter().map(ResourceVersion::from).collect())
    }
}

impl PgStore {
    fn versions(&mut self, id: ResourceId) -> Find<'_, version::Entity> {
        self.tx
            .find::<version::Entity>()
            .filter(version::Column::ResourceId.eq(id.uuid()))
    }
}

async fn one(find: Find<'_, Entity>) -> Result<Option<Resource>, StoreError> {
    Ok(find.one().await?.map(Resource::from))
}

impl From<Model> for Resource {
    fn from(row: Model) -> Self {
        Self {
            id: row.id.into(),
            project_id: row.project_id.map(Into::into),
            name: row.name,
            kind: row.kind,
            content: row.content,
            url: row.url,
            created_by: row.created_by.into(),
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        }
    }
}

impl From<version::Model> for ResourceVersion {
    fn from(row: version::Model) -> Self {
        Self {
            id: row.id.into(),
            resource_id: row.resource_id.into(),
            version: row.version,
            name: row.name,
            kind: row.kind,
            content: row.content,
            url: row.url,
            created_by: row.created_by.into(),
            created_at: row.created_at,
        }
    }
}

fn changes(resource: &Resource) -> ActiveModel {
    ActiveModel {
        project_id: Set(resource.project_id.map(ProjectId::uuid)),
        name: Set(resource.name.clone()),
        kind: Set(resource.kind.clone()),
        content: Set(resource.content.clone()),
        url: Set(resource.url.clone()),
        updated_at: Set(resource.updated_at),
        version: Set(resource.version),
        ..Default::default()
    }
}
