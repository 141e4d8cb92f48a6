use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use tenantry_domain::identity::{BoundedNotices, RareNotice, RareNotices};
use tenantry_domain::kernel::{AccountNoticeId, StoreError, Time, UserId};

use crate::kernel::store::{PgStore, exactly_one};
use crate::kernel::tx::Lock;

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "account_notices")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub user_id: Uuid,
        pub kind: String,
        pub created_at: DateTimeUtc,
        pub sent_at: DateTimeUtc,
        pub sent: i32,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl RareNotices for PgStore {
    async fn note(
        &mut self,
        id: AccountNoticeId,
        user: UserId,
        kind: RareNotice,
        now: Time,
        since: Time,
    ) -> Result<bool, StoreError> {
        let again = ActiveModel {
            sent_at: Set(now),
            ..Default::default()
        };
        let update = self
            .tx
            .update::<Entity>()
            .set(again)
            .filter(Column::UserId.eq(user.uuid()))
            .filter(Column::Kind.eq(kind.as_str()))
            .filter(Column::SentAt.lte(since));
        if update.run().await? > 0 {
            return Ok(true);
        }
        let first = ActiveModel {
            id: Set(id.uuid()),
            user_id: Set(user.uuid()),
            kind: Set(kind.as_str().to_owned()),
            created_at: Set(now),
            sent_at: Set(now),
            ..Default::default()
        };
        self.tx.insert_unless_there(first).await
    }
}

/// Of these, `sent_at` is the time of the first notice that is counted in `sent`.
#[async_trait]
impl BoundedNotices for PgStore {
    async fn count(
        &mut self,
        id: AccountNoticeId,
        (user, kind): (UserId, &str),
        (now, since): (Time, Time),
        most: i32,
    ) -> Result<Option<i32>, StoreError> {
        let mut row = self.held_notice(user, kind).await?;
        if row.is_none() {
            let first = ActiveModel {
                id: Set(id.uuid()),
                user_id: Set(user.uuid()),
                kind: Set(kind.to_owned()),
                created_at: Set(now),
                sent_at: Set(now),
                sent: Set(1),
                ..Default::default()
            };
            if self.tx.insert_unless_there(first).await? {
                return Ok(Some(1));
            }
            // Another transaction has stored it meanwhile.
            row = self.held_notice(user, kind).await?;
        }
        let Some(row) = row else {
            return Ok(None);
        };
        let (sent_at, sent) = if row.sent_at <= since {
            (now, 1)
        } else {
            (row.sent_at, row.sent + 1)
        };
        if sent > most {
            return Ok(None);
        }
        let counted = ActiveModel {
            sent_at: Set(sent_at),
            sent: Set(sent),
            ..Default::default()
        };
        let update = self
            .tx
            .update::<Entity>()
            .set(counted)
            .filter(Column::Id.eq(row.id));
        exactly_one(update.run().await?)?;
        Ok(Some(sent))
    }
}

impl PgStore {
    async fn held_notice(&mut self, user: UserId, kind: &str) -> Result<Option<Model>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::UserId.eq(user.uuid()));
        find.filter(Column::Kind.eq(kind)).lock(Lock::Update).one().await
    }
}
