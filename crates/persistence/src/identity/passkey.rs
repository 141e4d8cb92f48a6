use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use tenantry_domain::identity::{Passkey, PasskeyBackup, PasskeyCredential, Passkeys};
use tenantry_domain::kernel::{PasskeyId, StoreError, Time, UserId};

use crate::identity::session::{mailbox, mailbox_proof};
use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::Lock;

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "passkeys")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub user_id: Uuid,
        pub name: String,
        pub credential_id: Vec<u8>,
        pub public_key: Vec<u8>,
        pub sign_count: i64,
        pub backup: String,
        pub transports: i16,
        pub last_used_at: Option<DateTimeUtc>,
        pub mailbox: Option<String>,
        pub mailbox_proven_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

pub(crate) mod ceremony {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "passkey_ceremonies")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub user_id: Uuid,
        pub digest: Vec<u8>,
        pub ends_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

#[async_trait]
impl Passkeys for PgStore {
    async fn list(&mut self, user: UserId) -> Result<Vec<Passkey>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::UserId.eq(user.uuid()));
        let find = find.order_by_asc(Column::CreatedAt).order_by_asc(Column::Id);
        find.all().await?.into_iter().map(Passkey::try_from).collect()
    }

    async fn find_by_credential(&mut self, credential_id: &[u8]) -> Result<Option<Passkey>, StoreError> {
        let find = self.tx.find::<Entity>();
        let find = find.filter(Column::CredentialId.eq(credential_id.to_vec()));
        find.one().await?.map(Passkey::try_from).transpose()
    }

    async fn find_for_update(&mut self, id: PasskeyId) -> Result<Option<Passkey>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()));
        let find = find.lock(Lock::Update).one().await?;
        find.map(Passkey::try_from).transpose()
    }

    async fn insert(&mut self, passkey: &Passkey) -> Result<(), StoreError> {
        let credential = &passkey.credential;
        let row = ActiveModel {
            id: Set(passkey.id.uuid()),
            created_at: Set(passkey.created_at),
            user_id: Set(passkey.user_id.uuid()),
            credential_id: Set(credential.credential_id.clone()),
            public_key: Set(credential.public_key.clone()),
            transports: Set(credential.transports.into()),
            mailbox: Set(mailbox(passkey.mailbox_proof.as_ref())),
            mailbox_proven_at: Set(passkey.mailbox_proof.as_ref().map(|proof| proof.at)),
            ..changes(passkey)
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, passkey: &Passkey) -> Result<(), StoreError> {
        let update = self.tx.update::<Entity>().set(changes(passkey));
        let update = update.filter(Column::Id.eq(passkey.id.uuid()));
        exactly_one(update.run().await?)
    }

    async fn delete(&mut self, id: PasskeyId) -> Result<(), StoreError> {
        let delete = self.tx.delete::<Entity>().filter(Column::Id.eq(id.uuid()));
        exactly_one(delete.run().await?)
    }

    async fn delete_all(&mut self, user: UserId) -> Result<u64, StoreError> {
        let delete = self.tx.delete::<Entity>();
        delete.filter(Column::UserId.eq(user.uuid())).run().await
    }

    async fn finish(
        &mut self,
        user: UserId,
        digest: [u8; 32],
        now: Time,
        ends_at: Time,
    ) -> Result<bool, StoreError> {
        let find = self.tx.find::<ceremony::Entity>();
        let find = find.filter(ceremony::Column::Digest.eq(digest.to_vec()));
        if find.one().await?.is_some() {
            return Ok(false);
        }
        let row = ceremony::ActiveModel {
            created_at: Set(now),
            user_id: Set(user.uuid()),
            digest: Set(digest.to_vec()),
            ends_at: Set(ends_at),
            ..Default::default()
        };
        self.tx.insert(row).await.map(|()| true)
    }

    async fn delete_ended(&mut self, before: Time) -> Result<u64, StoreError> {
        let delete = self.tx.delete::<ceremony::Entity>();
        delete.filter(ceremony::Column::EndsAt.lte(before)).run().await
    }
}

fn changes(passkey: &Passkey) -> ActiveModel {
    ActiveModel {
        name: Set(passkey.name.clone()),
        sign_count: Set(passkey.credential.sign_count.into()),
        backup: Set(passkey.credential.backup.as_str().to_owned()),
        last_used_at: Set(passkey.last_used_at),
        ..Default::default()
    }
}

impl TryFrom<Model> for Passkey {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let backup = PasskeyBackup::parse(&row.backup);
        let sign_count = u32::try_from(row.sign_count);
        let transports = u8::try_from(row.transports);
        Ok(Self {
            id: row.id.into(),
            user_id: row.user_id.into(),
            name: row.name,
            credential: PasskeyCredential {
                credential_id: row.credential_id,
                public_key: row.public_key,
                sign_count: sign_count
                    .map_err(|_| unknown("passkeys.sign_count", &row.sign_count.to_string()))?,
                backup: backup.ok_or_else(|| unknown("passkeys.backup", &row.backup))?,
                transports: transports
                    .map_err(|_| unknown("passkeys.transports", &row.transports.to_string()))?,
            },
            created_at: row.created_at,
            last_used_at: row.last_used_at,
            mailbox_proof: mailbox_proof(row.mailbox, row.mailbox_proven_at),
        })
    }
}
