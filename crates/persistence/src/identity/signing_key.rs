use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QueryTrait as _,
};
use tenantry_domain::identity::{SigningKeyEditing, SigningKeyRecord, SigningKeys};
use tenantry_domain::kernel::{StoreError, SystemScope};
use tenantry_domain::store::Mode;

use crate::Pool;
use crate::kernel::advisory;
use crate::kernel::store::exactly_one;
use crate::kernel::tx::PlatformTx;
use crate::operations::operator::PgOperatorWork;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "signing_keys")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub kid: String,
        pub sealed: Vec<u8>,
        pub created_at: DateTimeUtc,
        pub signs_from: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
}
use entity::{ActiveModel, Column, Entity, Model};

/// The stored signing keys, as the platform role; the runtime role has no grant on their table.
#[derive(Debug, Clone)]
pub struct PgSigningKeys {
    platform: Pool,
}

impl PgSigningKeys {
    /// Keys over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }
}

#[async_trait]
impl SigningKeys for PgSigningKeys {
    async fn all(&self, because: SystemScope) -> Result<Vec<SigningKeyRecord>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let all = all(&mut tx).await?;
        tx.commit().await?;
        Ok(all)
    }
}

#[async_trait]
impl SigningKeyEditing for PgOperatorWork {
    async fn keys_for_update(&mut self) -> Result<Vec<SigningKeyRecord>, StoreError> {
        self.tx.fetch_fixed(advisory::EDIT_SIGNING_KEYS, []).await?;
        all(&mut self.tx).await
    }

    async fn insert_key(&mut self, key: &SigningKeyRecord) -> Result<(), StoreError> {
        let row = ActiveModel {
            kid: Set(key.kid.clone()),
            sealed: Set(key.sealed.clone()),
            created_at: Set(key.created_at),
            signs_from: Set(key.signs_from),
        };
        exactly_one(self.tx.execute(&sea_orm::Insert::one(row).into_query()).await?)
    }

    async fn reseal_key(&mut self, kid: &str, sealed: &[u8]) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::Sealed, Expr::value(sealed.to_vec()))
            .filter(Column::Kid.eq(kid));
        exactly_one(self.tx.execute(&update.into_query()).await?)
    }

    async fn delete_key(&mut self, kid: &str) -> Result<(), StoreError> {
        let delete = Entity::delete_many().filter(Column::Kid.eq(kid));
        exactly_one(self.tx.execute(&delete.into_query()).await?)
    }
}

async fn all(tx: &mut PlatformTx) -> Result<Vec<SigningKeyRecord>, StoreError> {
    let find = Entity::find()
        .order_by_asc(Column::SignsFrom)
        .order_by_asc(Column::Kid);
    let rows = tx.fetch::<Entity>(&find.into_query()).await?;
    Ok(rows.into_iter().map(SigningKeyRecord::from).collect())
}

impl From<Model> for SigningKeyRecord {
    fn from(row: Model) -> Self {
        Self {
            kid: row.kid,
            sealed: row.sealed,
            created_at: row.created_at,
            signs_from: row.signs_from,
        }
    }
}
