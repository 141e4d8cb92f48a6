use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use serde_json::Value;
use tenantry_domain::identity::{CustomRole, CustomRoles, RoleName};
use tenantry_domain::kernel::{Change, Page, PageRequest, PermissionSet, Position, Role, StoreError};

use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::{Find, Lock};

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "custom_roles")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub name: String,
        pub description: String,
        pub base_role: String,
        pub permissions: Json,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
        pub version: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl CustomRoles for PgStore {
    async fn find(&mut self, name: &RoleName) -> Result<Option<CustomRole>, StoreError> {
        one(self.tx.find::<Entity>().filter(Column::Name.eq(name.as_str()))).await
    }

    async fn find_for_update(&mut self, name: &RoleName) -> Result<Option<CustomRole>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Name.eq(name.as_str()));
        one(find.lock(Lock::Update)).await
    }

    async fn list(&mut self, page: PageRequest) -> Result<Page<CustomRole>, StoreError> {
        let position = |row: &Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        let find = self.tx.find::<Entity>();
        let page = find.page((Column::CreatedAt, Column::Id), page, position).await?;
        page.try_map(CustomRole::try_from)
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        self.tx.find::<Entity>().count().await
    }

    async fn insert(&mut self, role: &CustomRole) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(role.id.uuid()),
            name: Set(role.name.as_str().to_owned()),
            created_at: Set(role.created_at),
            ..changes(role)
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, role: &CustomRole) -> Result<(), StoreError> {
        // Any user of the tenant may have it.
        self.changes.note(Change::Tenant(self.scope.tenant()));
        let update = self.tx.update::<Entity>().set(changes(role));
        exactly_one(update.filter(Column::Id.eq(role.id.uuid())).run().await?)
    }

    async fn delete(&mut self, role: &CustomRole) -> Result<(), StoreError> {
        let delete = self.tx.delete::<Entity>();
        exactly_one(delete.filter(Column::Id.eq(role.id.uuid())).run().await?)
    }
}

/// The names of permissions in a column. Those that no permission has are kept, and grant nothing.
pub(crate) fn permissions(json: &Value) -> Result<PermissionSet, StoreError> {
    let names = json
        .as_array()
        .map(|list| list.iter().map(Value::as_str).collect());
    names
        .flatten()
        .ok_or_else(|| StoreError::Other("a list of permissions holds something else than texts".into()))
}

/// The base role in a column.
pub(crate) fn base_role(name: &str) -> Result<Role, StoreError> {
    Role::parse(name).ok_or_else(|| unknown("custom_roles.base_role", name))
}

async fn one(find: Find<'_, Entity>) -> Result<Option<CustomRole>, StoreError> {
    find.one().await?.map(CustomRole::try_from).transpose()
}

impl TryFrom<Model> for CustomRole {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            name: RoleName::stored(row.name),
            description: row.description,
            base_role: base_role(&row.base_role)?,
            permissions: permissions(&row.permissions)?,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        })
    }
}

fn changes(role: &CustomRole) -> ActiveModel {
    ActiveModel {
        description: Set(role.description.clone()),
        base_role: Set(role.base_role.as_str().to_owned()),
        permissions: Set(role.permissions.names().to_vec().into()),
        updated_at: Set(role.updated_at),
        version: Set(role.version),
        ..Default::default()
    }
}
