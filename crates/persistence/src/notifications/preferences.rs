use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use tenantry_domain::kernel::{StoreError, UserId};
use tenantry_domain::notifications::{NoticePreferences, Preferences};

use crate::kernel::store::{PgStore, exactly_one};

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "notification_preferences")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub user_id: Uuid,
        pub choices: Json,
        pub digests_off: bool,
        pub refusals: i32,
        pub refused_address: Option<Vec<u8>>,
        pub mail_stopped_at: Option<DateTimeUtc>,
        pub updated_at: DateTimeUtc,
        pub version: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl NoticePreferences for PgStore {
    async fn find(&mut self, user: UserId) -> Result<Option<Preferences>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::UserId.eq(user.uuid()));
        find.one().await?.map(Preferences::try_from).transpose()
    }

    async fn store(&mut self, preferences: &Preferences) -> Result<(), StoreError> {
        if preferences.version <= 1 {
            let row = ActiveModel {
                user_id: Set(preferences.user_id.uuid()),
                created_at: Set(preferences.created_at),
                ..changes(preferences)?
            };
            return self.tx.insert(row).await;
        }
        let update = self.tx.update::<Entity>().set(changes(preferences)?);
        let of_user = Column::UserId.eq(preferences.user_id.uuid());
        exactly_one(update.filter(of_user).run().await?)
    }
}

fn changes(preferences: &Preferences) -> Result<ActiveModel, StoreError> {
    let choices = serde_json::to_value(&preferences.choices);
    let choices = choices.map_err(|error| StoreError::Other(error.to_string()))?;
    Ok(ActiveModel {
        choices: Set(choices),
        digests_off: Set(preferences.digests_off),
        refusals: Set(i32::try_from(preferences.refusals).unwrap_or(i32::MAX)),
        refused_address: Set(preferences.refused_address.clone()),
        mail_stopped_at: Set(preferences.mail_stopped_at),
        updated_at: Set(preferences.updated_at),
        version: Set(preferences.version),
        ..Default::default()
    })
}

impl TryFrom<Model> for Preferences {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let choices =
            serde_json::from_value(row.choices).map_err(|error| StoreError::Other(error.to_string()))?;
        Ok(Self {
            user_id: row.user_id.into(),
            choices,
            digests_off: row.digests_off,
            refusals: row.refusals.unsigned_abs(),
            refused_address: row.refused_address,
            mail_stopped_at: row.mail_stopped_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        })
    }
}
