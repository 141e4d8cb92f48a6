use async_trait::async_trait;
use sea_orm::sea_query::{Expr, ExprTrait as _, LockType};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, QueryTrait as _,
};
use tenantry_domain::kernel::{OperatorId, StoreError, Time};
use tenantry_domain::operations::{OperatorFactors, OperatorTotp};

use crate::kernel::store::exactly_one;
use crate::operations::operator::{PgOperatorWork, entity as operators};

mod totp {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "operator_totp_factors")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub operator_id: Uuid,
        pub sealed_secret: Vec<u8>,
        pub confirmed_at: Option<DateTimeUtc>,
        pub last_step: Option<i64>,
        pub created_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

mod recovery_code {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "operator_recovery_codes")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub operator_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub code_hash: Vec<u8>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

#[async_trait]
impl OperatorFactors for PgOperatorWork {
    async fn find_totp(&mut self, operator: OperatorId) -> Result<Option<OperatorTotp>, StoreError> {
        let find = totp::Entity::find().filter(totp::Column::OperatorId.eq(operator.uuid()));
        let rows = self.tx.fetch::<totp::Entity>(&find.into_query()).await?;
        Ok(rows.into_iter().next().map(OperatorTotp::from))
    }

    async fn list_totp_for_update(&mut self) -> Result<Vec<OperatorTotp>, StoreError> {
        let find = totp::Entity::find().order_by_asc(totp::Column::OperatorId);
        let find = find.lock(LockType::Update).into_query();
        let rows = self.tx.fetch::<totp::Entity>(&find).await?;
        Ok(rows.into_iter().map(OperatorTotp::from).collect())
    }

    async fn replace_totp(&mut self, factor: &OperatorTotp) -> Result<(), StoreError> {
        self.delete_totp(factor.owner).await?;
        let row = totp::ActiveModel {
            operator_id: Set(factor.owner.uuid()),
            created_at: Set(factor.created_at),
            ..changes(factor)
        };
        exactly_one(self.tx.execute(&sea_orm::Insert::one(row).into_query()).await?)
    }

    async fn update_totp(&mut self, factor: &OperatorTotp) -> Result<(), StoreError> {
        let update = totp::Entity::update_many()
            .set(changes(factor))
            .filter(totp::Column::OperatorId.eq(factor.owner.uuid()));
        exactly_one(self.tx.execute(&update.into_query()).await?)
    }

    async fn delete_factor(&mut self, operator: OperatorId) -> Result<bool, StoreError> {
        self.delete_recovery_codes(operator).await?;
        Ok(self.delete_totp(operator).await? > 0)
    }

    async fn replace_recovery_codes(
        &mut self,
        operator: OperatorId,
        hashes: &[[u8; 32]],
    ) -> Result<(), StoreError> {
        self.delete_recovery_codes(operator).await?;
        let rows = hashes.iter().map(|hash| recovery_code::ActiveModel {
            operator_id: Set(operator.uuid()),
            code_hash: Set(hash.to_vec()),
        });
        let insert = recovery_code::Entity::insert_many(rows).into_query();
        self.tx.execute(&insert).await.map(|_| ())
    }

    async fn use_recovery_code(&mut self, operator: OperatorId, hash: [u8; 32]) -> Result<bool, StoreError> {
        let delete = recovery_code::Entity::delete_many()
            .filter(recovery_code::Column::OperatorId.eq(operator.uuid()))
            .filter(recovery_code::Column::CodeHash.eq(hash.to_vec()));
        Ok(self.tx.execute(&delete.into_query()).await? > 0)
    }

    async fn finish_login(&mut self, operator: OperatorId, at: Time) -> Result<(), StoreError> {
        let update = operators::Entity::update_many()
            .col_expr(operators::Column::FactorAt, Expr::value(at))
            .filter(operators::Column::Id.eq(operator.uuid()));
        exactly_one(self.tx.execute(&update.into_query()).await?)
    }

    async fn end_tokens(&mut self, operator: OperatorId) -> Result<(), StoreError> {
        let next = Expr::col(operators::Column::Epoch).add(1);
        let update = operators::Entity::update_many()
            .col_expr(operators::Column::Epoch, next)
            .filter(operators::Column::Id.eq(operator.uuid()));
        exactly_one(self.tx.execute(&update.into_query()).await?)
    }
}

impl PgOperatorWork {
    async fn delete_totp(&mut self, operator: OperatorId) -> Result<u64, StoreError> {
        let delete = totp::Entity::delete_many().filter(totp::Column::OperatorId.eq(operator.uuid()));
        self.tx.execute(&delete.into_query()).await
    }

    async fn delete_recovery_codes(&mut self, operator: OperatorId) -> Result<u64, StoreError> {
        let of_operator = recovery_code::Column::OperatorId.eq(operator.uuid());
        let delete = recovery_code::Entity::delete_many().filter(of_operator);
        self.tx.execute(&delete.into_query()).await
    }
}

fn changes(factor: &OperatorTotp) -> totp::ActiveModel {
    totp::ActiveModel {
        sealed_secret: Set(factor.sealed_secret.clone()),
        confirmed_at: Set(factor.confirmed_at),
        last_step: Set(factor.last_step),
        ..Default::default()
    }
}

impl From<totp::Model> for OperatorTotp {
    fn from(row: totp::Model) -> Self {
        Self {
            owner: row.operator_id.into(),
            sealed_secret: row.sealed_secret,
            confirmed_at: row.confirmed_at,
            last_step: row.last_step,
            created_at: row.created_at,
        }
    }
}
