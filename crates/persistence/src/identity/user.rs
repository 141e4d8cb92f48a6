use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _, Condition};
use tenantry_domain::identity::{
    Email, MailboxStanding, PasswordHash, RoleFilter, RoleName, User, UserFilter, Users,
};
use tenantry_domain::kernel::{Change, Page, PageRequest, Position, Role, StoreError, Time, UserId};

use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::{Find, Lock};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub email: String,
        pub full_name: String,
        pub role: String,
        pub custom_role: Option<String>,
        pub is_active: bool,
        pub email_verified: bool,
        pub password_hash: String,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
        pub deleted_at: Option<DateTimeUtc>,
        pub version: i64,
        pub self_registered: bool,
        pub email_since: DateTimeUtc,
        pub mailbox_proven_at: Option<DateTimeUtc>,
        pub switch_since: Option<DateTimeUtc>,
        pub password_expires_at: Option<DateTimeUtc>,
        pub first_password_hash: Option<String>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl Users for PgStore {
    async fn find(&mut self, id: UserId) -> Result<Option<User>, StoreError> {
        one(self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()))).await
    }

    async fn find_as_of_deletion(&mut self, id: UserId, deleted: Time) -> Result<Option<User>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()));
        let find =
            find.with_deleted("the deletion of a tenant marks its users, who are told of it afterwards");
        let live = Condition::any()
            .add(Column::DeletedAt.is_null())
            .add(Column::DeletedAt.eq(deleted));
        let user = one(find.filter(live)).await?;
        Ok(user.map(|user| User {
            deleted_at: None,
            ..user
        }))
    }

    async fn find_for_update(&mut self, id: UserId) -> Result<Option<User>, StoreError> {
        one(self
            .tx
            .find::<Entity>()
            .filter(Column::Id.eq(id.uuid()))
            .lock(Lock::Update))
        .await
    }

    async fn find_by_email(&mut self, email: &Email) -> Result<Option<User>, StoreError> {
        one(self.tx.find::<Entity>().filter(Column::Email.eq(email.as_str()))).await
    }

    async fn list(&mut self, filter: &UserFilter, page: PageRequest) -> Result<Page<User>, StoreError> {
        let mut find = self.tx.find::<Entity>();
        if let Some(role) = filter.role {
            find = find.filter(Column::Role.eq(role.as_str()));
        }
        if let Some(is_active) = filter.is_active {
            find = find.filter(Column::IsActive.eq(is_active));
        }
        match &filter.custom_role {
            None => {}
            Some(RoleFilter::None) => find = find.filter(Column::CustomRole.is_null()),
            Some(RoleFilter::Named(name)) => find = find.filter(Column::CustomRole.eq(name.as_str())),
        }
        page_of(find, page).await
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        self.tx.find::<Entity>().filter(is_proven()).count().await
    }

    async fn count_active(&mut self) -> Result<u64, StoreError> {
        let active = self.tx.find::<Entity>().filter(Column::IsActive.eq(true));
        active.filter(is_proven()).count().await
    }

    async fn count_with_role(&mut self, name: &RoleName) -> Result<u64, StoreError> {
        let find = self.tx.find::<Entity>();
        let find = find.with_deleted("the row of a removed user still refers to the role");
        find.filter(Column::CustomRole.eq(name.as_str())).count().await
    }

    async fn count_other_admins(&mut self, besides: UserId) -> Result<u64, StoreError> {
        let others = self.acting_admins().filter(Column::Id.ne(besides.uuid()));
        others.count().await
    }

    async fn list_acting_admins(&mut self, page: PageRequest) -> Result<Page<User>, StoreError> {
        page_of(self.acting_admins(), page).await
    }

    async fn list_unproven(&mut self, before: Time, limit: usize) -> Result<Vec<User>, StoreError> {
        let find = self.unproven().filter(Column::UpdatedAt.lt(before));
        let find = find.order_by_asc(Column::UpdatedAt).limit(limit as u64);
        find.all().await?.into_iter().map(User::try_from).collect()
    }

    async fn list_removed_unproven(&mut self, limit: usize) -> Result<Vec<User>, StoreError> {
        let find = self.tx.find::<Entity>();
        let find = find.with_deleted("removed registrations are deleted for good");
        let find = find.filter(Column::DeletedAt.is_not_null());
        let find = find.filter(is_proven().not()).limit(limit as u64);
        find.all().await?.into_iter().map(User::try_from).collect()
    }

    async fn list_expiring(
        &mut self,
        after: Time,
        until: Time,
        limit: usize,
    ) -> Result<Vec<User>, StoreError> {
        let active = self.tx.find::<Entity>().filter(Column::IsActive.eq(true));
        let find = active
            .filter(Column::PasswordExpiresAt.gt(after))
            .filter(Column::PasswordExpiresAt.lte(until));
        let find = find.order_by_asc(Column::PasswordExpiresAt).limit(limit as u64);
        find.all().await?.into_iter().map(User::try_from).collect()
    }

    async fn count_unproven(&mut self) -> Result<u64, StoreError> {
        self.unproven().count().await
    }

    async fn insert(&mut self, user: &User) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(user.id.uuid()),
            created_at: Set(user.created_at),
            ..changes(user)
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, user: &User) -> Result<(), StoreError> {
        self.changes.note(Change::User(self.scope.tenant(), user.id));
        let update = self
            .tx
            .update::<Entity>()
            .with_deleted("the password of a removed registration is replaced where its row stays")
            .set(changes(user))
            .filter(Column::Id.eq(user.id.uuid()));
        exactly_one(update.run().await?)
    }

    async fn delete(&mut self, id: UserId) -> Result<(), StoreError> {
        self.changes.note(Change::User(self.scope.tenant(), id));
        let delete = self.tx.delete::<Entity>().filter(Column::Id.eq(id.uuid()));
        let delete = delete.with_deleted("only a removed user is deleted for good");
        let removed = delete.filter(Column::DeletedAt.is_not_null());
        exactly_one(removed.run().await?)
    }
}

impl PgStore {
    /// `User::is_acting_admin` in SQL.
    fn acting_admins(&mut self) -> Find<'_, Entity> {
        self.tx
            .find::<Entity>()
            .filter(Column::Role.eq(Role::Admin.as_str()))
            .filter(Column::CustomRole.is_null())
            .filter(Column::IsActive.eq(true))
            .filter(is_proven())
    }

    /// Registrations that wait for the proof of the address, without those that an admin deactivated.
    fn unproven(&mut self) -> Find<'_, Entity> {
        let active = self.tx.find::<Entity>().filter(Column::IsActive.eq(true));
        active.filter(is_proven().not())
    }
}

async fn page_of(find: Find<'_, Entity>, page: PageRequest) -> Result<Page<User>, StoreError> {
    let position = |row: &Model| Position {
        created_at: row.created_at,
        id: row.id,
    };
    let page = find.page((Column::CreatedAt, Column::Id), page, position).await?;
    page.try_map(User::try_from)
}

/// Whether a user does not wait for the proof of the address: `User::awaits_proof` in SQL.
fn is_proven() -> Condition {
    Condition::any()
        .add(Column::EmailVerified.eq(true))
        .add(Column::PasswordHash.not_like(format!("{}%", PasswordHash::PENDING)))
}

async fn one(find: Find<'_, Entity>) -> Result<Option<User>, StoreError> {
    find.one().await?.map(User::try_from).transpose()
}

impl TryFrom<Model> for User {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            email: Email::stored(row.email),
            full_name: row.full_name,
            role: Role::parse(&row.role).ok_or_else(|| unknown("users.role", &row.role))?,
            custom_role: row.custom_role.map(RoleName::stored),
            is_active: row.is_active,
            email_verified: row.email_verified,
            password_hash: PasswordHash::new(row.password_hash),
            password_expires_at: row.password_expires_at,
            first_password_hash: row.first_password_hash.map(PasswordHash::new),
            created_at: row.created_at,
            updated_at: row.updated_at,
            deleted_at: row.deleted_at,
            version: row.version,
            mailbox: MailboxStanding::stored(
                row.email_since,
                row.mailbox_proven_at,
                row.self_registered,
                row.switch_since,
            ),
        })
    }
}

fn changes(user: &User) -> ActiveModel {
    ActiveModel {
        email: Set(user.email.as_str().to_owned()),
        full_name: Set(user.full_name.clone()),
        role: Set(user.role.as_str().to_owned()),
        custom_role: Set(user.custom_role.as_ref().map(|name| name.as_str().to_owned())),
        is_active: Set(user.is_active),
        email_verified: Set(user.email_verified),
        self_registered: Set(user.mailbox.self_registered()),
        email_since: Set(user.mailbox.since()),
        mailbox_proven_at: Set(user.mailbox.proven_at()),
        switch_since: Set(user.mailbox.switch_since()),
        password_hash: Set(user.password_hash.as_str().to_owned()),
        password_expires_at: Set(user.password_expires_at),
        first_password_hash: Set(user
            .first_password_hash
            .as_ref()
            .map(|hash| hash.as_str().to_owned())),
        updated_at: Set(user.updated_at),
        deleted_at: Set(user.deleted_at),
        version: Set(user.version),
        ..Default::default()
    }
}
