use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use tenantry_domain::events::{ConsumerName, EventConsumer, EventConsumers};
use tenantry_domain::kernel::StoreError;

use crate::kernel::store::{PgStore, exactly_one};
use crate::kernel::tx::Lock;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "event_consumers")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub name: String,
        pub position: i64,
        pub updated_at: DateTimeUtc,
        pub version: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl EventConsumers for PgStore {
    async fn list(&mut self) -> Result<Vec<EventConsumer>, StoreError> {
        let find = self.tx.find::<Entity>().order_by_asc(Column::Name);
        let rows = find.limit(EventConsumer::MOST).all().await?;
        Ok(rows.into_iter().map(EventConsumer::from).collect())
    }

    async fn find(&mut self, name: &ConsumerName) -> Result<Option<EventConsumer>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Name.eq(name.as_str()));
        Ok(find.one().await?.map(EventConsumer::from))
    }

    async fn find_for_update(&mut self, name: &ConsumerName) -> Result<Option<EventConsumer>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Name.eq(name.as_str()));
        Ok(find.lock(Lock::Update).one().await?.map(EventConsumer::from))
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        self.tx.find::<Entity>().count().await
    }

    async fn insert(&mut self, consumer: &EventConsumer) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(consumer.id.uuid()),
            created_at: Set(consumer.created_at),
            name: Set(consumer.name.as_str().to_owned()),
            ..changes(consumer)
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, consumer: &EventConsumer) -> Result<(), StoreError> {
        let update = self.tx.update::<Entity>().set(changes(consumer));
        exactly_one(update.filter(Column::Id.eq(consumer.id.uuid())).run().await?)
    }

    async fn delete(&mut self, consumer: &EventConsumer) -> Result<(), StoreError> {
        let delete = self.tx.delete::<Entity>();
        exactly_one(delete.filter(Column::Id.eq(consumer.id.uuid())).run().await?)
    }
}

fn changes(consumer: &EventConsumer) -> ActiveModel {
    ActiveModel {
        position: Set(consumer.position),
        updated_at: Set(consumer.updated_at),
        version: Set(consumer.version),
        ..Default::default()
    }
}

impl From<Model> for EventConsumer {
    fn from(row: Model) -> Self {
        Self {
            id: row.id.into(),
            name: ConsumerName::stored(row.name),
            position: row.position,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        }
    }
}
