use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _, prelude::Uuid};
use tenantry_domain::identity::{
    MFA_CHALLENGES, MfaChallenge, SecondFactors, TRUSTED_DEVICES, TotpFactor, TrustedDevice,
};
use tenantry_domain::kernel::{MfaChallengeId, SessionId, StoreError, Time, UserId};

use crate::identity::session::{entity as session, sha256};
use crate::kernel::store::{PgStore, exactly_one};
use crate::kernel::tx::{Find, Lock};

pub(crate) mod totp {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "totp_factors")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub user_id: Uuid,
        pub sealed_secret: Vec<u8>,
        pub confirmed_at: Option<DateTimeUtc>,
        pub last_step: Option<i64>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

pub(crate) mod recovery_code {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "recovery_codes")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub user_id: Uuid,
        pub code_hash: Vec<u8>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

pub(crate) mod challenge {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "mfa_challenges")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub user_id: Uuid,
        pub password_digest: Vec<u8>,
        pub failures: i32,
        pub expires_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

pub(crate) mod device {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "trusted_devices")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub user_id: Uuid,
        pub token_hash: Vec<u8>,
        pub password_digest: Vec<u8>,
        pub user_agent: Option<String>,
        pub ip: Option<String>,
        pub expires_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

#[async_trait]
impl SecondFactors for PgStore {
    async fn find_totp(&mut self, user: UserId) -> Result<Option<TotpFactor>, StoreError> {
        let find = self.totp(user).one().await?;
        Ok(find.map(TotpFactor::from))
    }

    async fn find_totp_for_update(&mut self, user: UserId) -> Result<Option<TotpFactor>, StoreError> {
        let find = self.totp(user).lock(Lock::Update).one().await?;
        Ok(find.map(TotpFactor::from))
    }

    async fn list_totp(&mut self, after: Option<UserId>, limit: u32) -> Result<Vec<TotpFactor>, StoreError> {
        let mut find = self.tx.find::<totp::Entity>();
        if let Some(after) = after {
            find = find.filter(totp::Column::UserId.gt(after.uuid()));
        }
        let find = find.order_by_asc(totp::Column::UserId).limit(limit.into());
        let rows = find.all().await?;
        Ok(rows.into_iter().map(TotpFactor::from).collect())
    }

    async fn replace_totp(&mut self, factor: &TotpFactor) -> Result<(), StoreError> {
        self.delete_totp(factor.owner).await?;
        let row = totp::ActiveModel {
            created_at: Set(factor.created_at),
            user_id: Set(factor.owner.uuid()),
            ..changes(factor)
        };
        self.tx.insert(row).await
    }

    async fn update_totp(&mut self, factor: &TotpFactor) -> Result<(), StoreError> {
        let update = self.tx.update::<totp::Entity>().set(changes(factor));
        let update = update.filter(totp::Column::UserId.eq(factor.owner.uuid()));
        exactly_one(update.run().await?)
    }

    async fn delete_all(&mut self, user: UserId) -> Result<bool, StoreError> {
        self.delete_recovery_codes(user).await?;
        self.delete_devices(user).await?;
        let of_user = challenge::Column::UserId.eq(user.uuid());
        self.tx
            .delete::<challenge::Entity>()
            .filter(of_user)
            .run()
            .await?;
        Ok(self.delete_totp(user).await? > 0)
    }

    async fn replace_recovery_codes(
        &mut self,
        user: UserId,
        hashes: &[[u8; 32]],
        at: Time,
    ) -> Result<(), StoreError> {
        self.delete_recovery_codes(user).await?;
        for hash in hashes {
            let row = recovery_code::ActiveModel {
                created_at: Set(at),
                user_id: Set(user.uuid()),
                code_hash: Set(hash.to_vec()),
                ..Default::default()
            };
            self.tx.insert(row).await?;
        }
        Ok(())
    }

    async fn use_recovery_code(&mut self, user: UserId, hash: [u8; 32]) -> Result<bool, StoreError> {
        let delete = self.tx.delete::<recovery_code::Entity>();
        let delete = delete
            .filter(recovery_code::Column::UserId.eq(user.uuid()))
            .filter(recovery_code::Column::CodeHash.eq(hash.to_vec()));
        Ok(delete.run().await? > 0)
    }

    async fn given_at(&mut self, id: SessionId) -> Result<Option<Time>, StoreError> {
        let find = self.tx.find::<session::Entity>();
        let found = find.filter(session::Column::Id.eq(id.uuid())).one().await?;
        Ok(found.and_then(|row| row.factor_at))
    }

    async fn insert_challenge(&mut self, new: &MfaChallenge) -> Result<(), StoreError> {
        let of_user = challenge::Column::UserId.eq(new.user_id.uuid());
        let find = self.tx.find::<challenge::Entity>().filter(of_user);
        let waiting = find.order_by_desc(challenge::Column::CreatedAt).all().await?;
        let rows = waiting.iter().map(|row| (row.id, row.expires_at));
        let over = surplus(rows, MFA_CHALLENGES, new.created_at);
        if !over.is_empty() {
            let delete = self.tx.delete::<challenge::Entity>();
            delete.filter(challenge::Column::Id.is_in(over)).run().await?;
        }
        let row = challenge::ActiveModel {
            id: Set(new.id.uuid()),
            created_at: Set(new.created_at),
            user_id: Set(new.user_id.uuid()),
            password_digest: Set(new.password_digest.to_vec()),
            failures: Set(new.failures),
            expires_at: Set(new.expires_at),
            ..Default::default()
        };
        self.tx.insert(row).await
    }

    async fn find_challenge(&mut self, id: MfaChallengeId) -> Result<Option<MfaChallenge>, StoreError> {
        let find = self.challenge(id).one().await?;
        find.map(MfaChallenge::try_from).transpose()
    }

    async fn find_challenge_for_update(
        &mut self,
        id: MfaChallengeId,
    ) -> Result<Option<MfaChallenge>, StoreError> {
        let find = self.challenge(id).lock(Lock::Update).one().await?;
        find.map(MfaChallenge::try_from).transpose()
    }

    async fn update_challenge(&mut self, waiting: &MfaChallenge) -> Result<(), StoreError> {
        let failures = challenge::ActiveModel {
            failures: Set(waiting.failures),
            ..Default::default()
        };
        let update = self.tx.update::<challenge::Entity>().set(failures);
        let update = update.filter(challenge::Column::Id.eq(waiting.id.uuid()));
        exactly_one(update.run().await?)
    }

    async fn delete_challenge(&mut self, id: MfaChallengeId) -> Result<(), StoreError> {
        let delete = self.tx.delete::<challenge::Entity>();
        let delete = delete.filter(challenge::Column::Id.eq(id.uuid()));
        exactly_one(delete.run().await?)
    }

    async fn insert_device(&mut self, new: &TrustedDevice) -> Result<(), StoreError> {
        let present = self.devices(new.user_id).await?;
        let rows = present.iter().map(|row| (row.id, row.expires_at));
        let over = surplus(rows, TRUSTED_DEVICES, new.created_at);
        if !over.is_empty() {
            let delete = self.tx.delete::<device::Entity>();
            delete.filter(device::Column::Id.is_in(over)).run().await?;
        }
        let row = device::ActiveModel {
            created_at: Set(new.created_at),
            user_id: Set(new.user_id.uuid()),
            token_hash: Set(new.token_hash.to_vec()),
            password_digest: Set(new.password_digest.to_vec()),
            user_agent: Set(new.user_agent.clone()),
            ip: Set(new.ip.clone()),
            expires_at: Set(new.expires_at),
            ..Default::default()
        };
        self.tx.insert(row).await
    }

    async fn list_devices(&mut self, user: UserId) -> Result<Vec<TrustedDevice>, StoreError> {
        let rows = self.devices(user).await?;
        rows.into_iter().map(TrustedDevice::try_from).collect()
    }

    async fn delete_device(&mut self, user: UserId, token_hash: [u8; 32]) -> Result<bool, StoreError> {
        let delete = self.tx.delete::<device::Entity>();
        let delete = delete.filter(device::Column::UserId.eq(user.uuid()));
        let delete = delete.filter(device::Column::TokenHash.eq(token_hash.to_vec()));
        Ok(delete.run().await? > 0)
    }

    async fn delete_devices(&mut self, user: UserId) -> Result<u64, StoreError> {
        let delete = self.tx.delete::<device::Entity>();
        delete.filter(device::Column::UserId.eq(user.uuid())).run().await
    }

    async fn delete_expired(&mut self, before: Time) -> Result<u64, StoreError> {
        let expired = challenge::Column::ExpiresAt.lte(before);
        let challenges = self
            .tx
            .delete::<challenge::Entity>()
            .filter(expired)
            .run()
            .await?;
        let expired = device::Column::ExpiresAt.lte(before);
        let devices = self.tx.delete::<device::Entity>().filter(expired).run().await?;
        Ok(challenges + devices)
    }
}

impl PgStore {
    fn totp(&mut self, user: UserId) -> Find<'_, totp::Entity> {
        let find = self.tx.find::<totp::Entity>();
        find.filter(totp::Column::UserId.eq(user.uuid()))
    }

    /// The rows of a user's devices, newest first.
    async fn devices(&mut self, user: UserId) -> Result<Vec<device::Model>, StoreError> {
        let of_user = device::Column::UserId.eq(user.uuid());
        let find = self.tx.find::<device::Entity>().filter(of_user);
        find.order_by_desc(device::Column::CreatedAt).all().await
    }

    fn challenge(&mut self, id: MfaChallengeId) -> Find<'_, challenge::Entity> {
        let find = self.tx.find::<challenge::Entity>();
        find.filter(challenge::Column::Id.eq(id.uuid()))
    }

    async fn delete_totp(&mut self, user: UserId) -> Result<u64, StoreError> {
        let delete = self.tx.delete::<totp::Entity>();
        delete.filter(totp::Column::UserId.eq(user.uuid())).run().await
    }

    async fn delete_recovery_codes(&mut self, user: UserId) -> Result<u64, StoreError> {
        let delete = self.tx.delete::<recovery_code::Entity>();
        let of_user = recovery_code::Column::UserId.eq(user.uuid());
        delete.filter(of_user).run().await
    }
}

/// The ids of the rows, newest first, that make room for one more of `most`: those that are over, and the oldest.
fn surplus(rows: impl Iterator<Item = (Uuid, Time)>, most: usize, now: Time) -> Vec<Uuid> {
    let over = rows
        .enumerate()
        .filter(|(index, (_, expires_at))| index + 1 >= most || *expires_at <= now);
    over.map(|(_, (id, _))| id).collect()
}

fn changes(factor: &TotpFactor) -> totp::ActiveModel {
    totp::ActiveModel {
        sealed_secret: Set(factor.sealed_secret.clone()),
        confirmed_at: Set(factor.confirmed_at),
        last_step: Set(factor.last_step),
        ..Default::default()
    }
}

impl From<totp::Model> for TotpFactor {
    fn from(row: totp::Model) -> Self {
        Self {
            owner: row.user_id.into(),
            sealed_secret: row.sealed_secret,
            confirmed_at: row.confirmed_at,
            last_step: row.last_step,
            created_at: row.created_at,
        }
    }
}

impl TryFrom<device::Model> for TrustedDevice {
    type Error = StoreError;

    fn try_from(row: device::Model) -> Result<Self, StoreError> {
        Ok(Self {
            user_id: row.user_id.into(),
            token_hash: sha256(row.token_hash)?,
            password_digest: sha256(row.password_digest)?,
            user_agent: row.user_agent,
            ip: row.ip,
            created_at: row.created_at,
            expires_at: row.expires_at,
        })
    }
}

impl TryFrom<challenge::Model> for MfaChallenge {
    type Error = StoreError;

    fn try_from(row: challenge::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            user_id: row.user_id.into(),
            password_digest: sha256(row.password_digest)?,
            failures: row.failures,
            created_at: row.created_at,
            expires_at: row.expires_at,
        })
    }
}
