use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _, Condition};
use tenantry_domain::identity::{Email, Invitation, Invitations, RoleName};
use tenantry_domain::kernel::{InvitationId, Page, PageRequest, Position, Role, StoreError, Time, UserId};

use crate::identity::session::sha256;
use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::{Find, Lock};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "invitations")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub email: String,
        pub role: String,
        pub custom_role: Option<String>,
        pub token_hash: Vec<u8>,
        pub invited_by: Uuid,
        pub created_at: DateTimeUtc,
        pub sent_at: DateTimeUtc,
        pub mails: i32,
        pub expires_at: DateTimeUtc,
        pub accepted_at: Option<DateTimeUtc>,
        pub revoked_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl Invitations for PgStore {
    async fn find(&mut self, id: InvitationId) -> Result<Option<Invitation>, StoreError> {
        one(self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()))).await
    }

    async fn find_for_update(&mut self, id: InvitationId) -> Result<Option<Invitation>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()));
        one(find.lock(Lock::Update)).await
    }

    async fn find_unsettled(&mut self, email: &Email) -> Result<Option<Invitation>, StoreError> {
        one(self.unsettled().filter(Column::Email.eq(email.as_str()))).await
    }

    async fn list_unsettled(&mut self, page: PageRequest) -> Result<Page<Invitation>, StoreError> {
        let position = |row: &Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        let find = self.unsettled();
        let page = find.page((Column::CreatedAt, Column::Id), page, position).await?;
        page.try_map(Invitation::try_from)
    }

    async fn count_open(&mut self, now: Time) -> Result<u64, StoreError> {
        self.unsettled().filter(Column::ExpiresAt.gt(now)).count().await
    }

    async fn count_with_role(&mut self, name: &RoleName) -> Result<u64, StoreError> {
        let find = self.unsettled();
        find.filter(Column::CustomRole.eq(name.as_str())).count().await
    }

    async fn count_created(&mut self, since: Time) -> Result<u64, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::CreatedAt.gt(since));
        find.count().await
    }

    async fn insert(&mut self, invitation: &Invitation) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(invitation.id.uuid()),
            email: Set(invitation.email.as_str().to_owned()),
            role: Set(invitation.role.as_str().to_owned()),
            custom_role: Set(invitation
                .custom_role
                .as_ref()
                .map(|name| name.as_str().to_owned())),
            created_at: Set(invitation.created_at),
            ..changes(invitation)?
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, invitation: &Invitation) -> Result<(), StoreError> {
        let update = self.tx.update::<Entity>().set(changes(invitation)?);
        exactly_one(update.filter(Column::Id.eq(invitation.id.uuid())).run().await?)
    }

    async fn revoke_of(&mut self, inviter: UserId, at: Time) -> Result<u64, StoreError> {
        let revoked = ActiveModel {
            revoked_at: Set(Some(at)),
            ..Default::default()
        };
        let update = self.tx.update::<Entity>().set(revoked);
        update
            .filter(Column::InvitedBy.eq(inviter.uuid()))
            .filter(is_unsettled())
            .run()
            .await
    }

    async fn delete_settled(&mut self, before: Time, limit: u64) -> Result<u64, StoreError> {
        let settled = Condition::any()
            .add(Column::AcceptedAt.lt(before))
            .add(Column::RevokedAt.lt(before))
            .add(Column::ExpiresAt.lt(before));
        let rows = self
            .tx
            .find::<Entity>()
            .filter(settled)
            .limit(limit)
            .all()
            .await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let ids = rows.into_iter().map(|row| row.id);
        self.tx
            .delete::<Entity>()
            .filter(Column::Id.is_in(ids))
            .run()
            .await
    }
}

impl PgStore {
    fn unsettled(&mut self) -> Find<'_, Entity> {
        self.tx.find::<Entity>().filter(is_unsettled())
    }
}

fn is_unsettled() -> Condition {
    Condition::all()
        .add(Column::AcceptedAt.is_null())
        .add(Column::RevokedAt.is_null())
}

async fn one(find: Find<'_, Entity>) -> Result<Option<Invitation>, StoreError> {
    find.one().await?.map(Invitation::try_from).transpose()
}

impl TryFrom<Model> for Invitation {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            email: Email::stored(row.email),
            role: Role::parse(&row.role).ok_or_else(|| unknown("invitations.role", &row.role))?,
            custom_role: row.custom_role.map(RoleName::stored),
            token_hash: sha256(row.token_hash)?,
            invited_by: row.invited_by.into(),
            created_at: row.created_at,
            sent_at: row.sent_at,
            mails: u32::try_from(row.mails).map_err(|error| StoreError::Other(error.to_string()))?,
            expires_at: row.expires_at,
            accepted_at: row.accepted_at,
            revoked_at: row.revoked_at,
        })
    }
}

fn changes(invitation: &Invitation) -> Result<ActiveModel, StoreError> {
    let mails = i32::try_from(invitation.mails);
    Ok(ActiveModel {
        token_hash: Set(invitation.token_hash.to_vec()),
        invited_by: Set(invitation.invited_by.uuid()),
        sent_at: Set(invitation.sent_at),
        mails: Set(mails.map_err(|error| StoreError::Other(error.to_string()))?),
        expires_at: Set(invitation.expires_at),
        accepted_at: Set(invitation.accepted_at),
        revoked_at: Set(invitation.revoked_at),
        ..Default::default()
    })
}
