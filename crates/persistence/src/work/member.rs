use async_trait::async_trait;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ActiveValue::Set, ColumnTrait as _, Condition};
use tenantry_domain::identity::Email;
use tenantry_domain::kernel::{Page, PageRequest, ProjectId, StoreError, UserId};
use tenantry_domain::work::{Member, MemberDetails, Members, ProjectRole};

use crate::kernel::store::{PgStore, unknown};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "project_members")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub project_id: Uuid,
        pub user_id: Uuid,
        pub role: String,
        pub created_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

/// What a list of members shows of a user; their password hash has no business there.
mod person {
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
        pub deleted_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

#[async_trait]
impl Members for PgStore {
    async fn find(&mut self, project: ProjectId, user: UserId) -> Result<Option<Member>, StoreError> {
        self.tx
            .find::<Entity>()
            .filter(membership(project, user))
            .one()
            .await?
            .map(Member::try_from)
            .transpose()
    }

    async fn list(
        &mut self,
        project: ProjectId,
        page: PageRequest,
    ) -> Result<Page<MemberDetails>, StoreError> {
        let users = Expr::col(person::Column::Id.as_column_ref());
        let same_user = Expr::col(Column::UserId.as_column_ref()).eq(users);
        // The membership of a removed user stays, but is not listed: the join leaves deleted users out.
        let mut find = self
            .tx
            .find::<Entity>()
            .with::<person::Entity>(same_user)
            .filter(Column::ProjectId.eq(project.uuid()));
        if let Some(after) = page.after {
            find = find.filter(crate::kernel::tx::before(
                Column::CreatedAt,
                Column::UserId,
                after,
            ));
        }
        let rows = find
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::UserId)
            .limit(u64::from(page.limit) + 1)
            .all()
            .await?;
        let members: Result<Vec<_>, _> = rows.into_iter().map(details).collect();
        Ok(Page::from_rows(members?, page, MemberDetails::position))
    }

    async fn insert(&mut self, member: &Member) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(member.id.uuid()),
            project_id: Set(member.project_id.uuid()),
            user_id: Set(member.user_id.uuid()),
            role: Set(member.role.as_str().to_owned()),
            created_at: Set(member.created_at),
            ..Default::default()
        };
        self.tx.insert(row).await
    }

    async fn remove(&mut self, project: ProjectId, user: UserId) -> Result<bool, StoreError> {
        Ok(self
            .tx
            .delete::<Entity>()
            .filter(membership(project, user))
            .run()
            .await?
            == 1)
    }
}

fn membership(project: ProjectId, user: UserId) -> Condition {
    Condition::all()
        .add(Column::ProjectId.eq(project.uuid()))
        .add(Column::UserId.eq(user.uuid()))
}

fn details((row, user): (Model, person::Model)) -> Result<MemberDetails, StoreError> {
    let member = Member::try_from(row)?;
    Ok(MemberDetails {
        member,
        email: Email::stored(user.email),
        full_name: user.full_name,
    })
}

impl TryFrom<Model> for Member {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            project_id: row.project_id.into(),
            user_id: row.user_id.into(),
            role: ProjectRole::parse(&row.role).ok_or_else(|| unknown("project_members.role", &row.role))?,
            created_at: row.created_at,
        })
    }
}
