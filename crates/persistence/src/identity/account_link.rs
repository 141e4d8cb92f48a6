use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use tenantry_domain::identity::{AccountLink, AccountLinks, Email, LinkPurpose};
use tenantry_domain::kernel::{AccountLinkId, StoreError, Time, UserId};

use crate::identity::session::sha256;
use crate::kernel::store::{PgStore, unknown};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "account_links")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub user_id: Uuid,
        pub purpose: String,
        pub token_hash: Vec<u8>,
        pub email: String,
        pub created_at: DateTimeUtc,
        pub expires_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl AccountLinks for PgStore {
    async fn find(&mut self, id: AccountLinkId) -> Result<Option<AccountLink>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()));
        find.one().await?.map(AccountLink::try_from).transpose()
    }

    async fn list(&mut self, user: UserId, purpose: LinkPurpose) -> Result<Vec<AccountLink>, StoreError> {
        let find = self
            .tx
            .find::<Entity>()
            .filter(Column::UserId.eq(user.uuid()))
            .filter(Column::Purpose.eq(purpose.as_str()))
            .order_by_desc(Column::CreatedAt);
        find.all().await?.into_iter().map(AccountLink::try_from).collect()
    }

    async fn list_former(&mut self, email: &Email) -> Result<Vec<AccountLink>, StoreError> {
        let find = self
            .tx
            .find::<Entity>()
            .filter(Column::Email.eq(email.as_str()))
            .filter(Column::Purpose.eq(LinkPurpose::RevertEmail.as_str()));
        find.all().await?.into_iter().map(AccountLink::try_from).collect()
    }

    async fn insert(&mut self, link: &AccountLink) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(link.id.uuid()),
            user_id: Set(link.user_id.uuid()),
            purpose: Set(link.purpose.as_str().to_owned()),
            token_hash: Set(link.token_hash.to_vec()),
            email: Set(link.email.as_str().to_owned()),
            created_at: Set(link.created_at),
            expires_at: Set(link.expires_at),
            ..Default::default()
        };
        self.tx.insert(row).await
    }

    async fn delete(&mut self, id: AccountLinkId) -> Result<bool, StoreError> {
        let delete = self.tx.delete::<Entity>().filter(Column::Id.eq(id.uuid()));
        Ok(delete.run().await? > 0)
    }

    async fn delete_of(&mut self, user: UserId, purposes: &[LinkPurpose]) -> Result<(), StoreError> {
        let purposes = purposes.iter().map(|purpose| purpose.as_str());
        let delete = self
            .tx
            .delete::<Entity>()
            .filter(Column::UserId.eq(user.uuid()))
            .filter(Column::Purpose.is_in(purposes));
        delete.run().await.map(|_| ())
    }

    async fn delete_expired(&mut self, before: Time) -> Result<u64, StoreError> {
        let delete = self.tx.delete::<Entity>();
        delete.filter(Column::ExpiresAt.lt(before)).run().await
    }
}

impl TryFrom<Model> for AccountLink {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let purpose = LinkPurpose::parse(&row.purpose);
        Ok(Self {
            id: row.id.into(),
            user_id: row.user_id.into(),
            purpose: purpose.ok_or_else(|| unknown("account_links.purpose", &row.purpose))?,
            token_hash: sha256(row.token_hash)?,
            email: Email::stored(row.email),
            created_at: row.created_at,
            expires_at: row.expires_at,
        })
    }
}
