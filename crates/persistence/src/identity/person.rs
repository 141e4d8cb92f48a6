use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _, QueryResult};
use serde_json::{Value, json};
use tenantry_domain::identity::{Email, Erasure, Persons, User};
use tenantry_domain::kernel::{Change, StoreError, Time, UserId};

use crate::identity::user::entity as users;
use crate::kernel::error::{column, from_json};
use crate::kernel::store::{PgStore, exactly_one};
use crate::kernel::tx::Lock;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "erasures")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub user_id: Uuid,
        pub addresses: Json,
        pub digests: Json,
        pub sequence: i64,
        pub entries: i64,
        pub event_position: i64,
        pub finished_at: Option<DateTimeUtc>,
    }

    crate::tenant_entity!(Entity, Model, ActiveModel, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

/// `$2` the account. A link that gives an address back is there for a proven one only. An entry has what has changed: a change by the
/// user leads from a proven address to another, unless the entry says otherwise, and one by an admin says so.
const PROVEN_ADDRESSES: &str = "\
SELECT a.email FROM (\
SELECT u.email FROM users u WHERE u.tenant_id = $1 AND u.id = $2 AND u.email_verified \
UNION SELECT l.email FROM account_links l WHERE l.tenant_id = $1 AND l.user_id = $2 AND l.purpose = 'revert_email' \
UNION SELECT e.before ->> 'email' FROM audit_events e \
 WHERE e.tenant_id = $1 AND e.target_type = 'user' AND e.target_id = $2 AND e.category = 'change' \
 AND (e.before -> 'email_verified' = 'true' \
 OR NOT e.before ? 'email_verified' AND e.action IN ('user.email_changed', 'user.email_reverted'))) a \
WHERE a.email LIKE '%@%' AND NOT EXISTS (\
SELECT FROM users o WHERE o.tenant_id = $1 AND o.email = a.email AND o.id <> $2 AND o.deleted_at IS NULL)";

/// `$2` the account. A link that confirms another address may be to anybody's, so it does not count.
const KNOWN_ADDRESSES: &str = "\
SELECT a.email FROM (\
SELECT u.email FROM users u WHERE u.tenant_id = $1 AND u.id = $2 \
UNION SELECT l.email FROM account_links l WHERE l.tenant_id = $1 AND l.user_id = $2 AND l.purpose <> 'confirm_email' \
UNION SELECT s.state ->> 'email' FROM audit_events e CROSS JOIN LATERAL (VALUES (e.before), (e.after)) s (state) \
 WHERE e.tenant_id = $1 AND e.target_type = 'user' AND e.target_id = $2 AND e.category = 'change') a \
WHERE a.email LIKE '%@%' AND NOT EXISTS (\
SELECT FROM users o WHERE o.tenant_id = $1 AND o.email = a.email AND o.id <> $2 AND o.deleted_at IS NULL)";

/// `$2` the account, `$3` when.
const ANONYMIZE: &str = "\
UPDATE users u SET email = 'erased-' || u.id || '@erased.invalid', full_name = 'Erased user', role = 'viewer', custom_role = NULL, \
 is_active = false, email_verified = false, password_hash = '!', first_password_hash = NULL, mailbox_proven_at = NULL, self_registered = false, \
 deleted_at = coalesce(u.deleted_at, $3), erased_at = $3, updated_at = $3, version = u.version + 1 \
 WHERE u.tenant_id = $1 AND u.id = $2 RETURNING u.id";

/// `$2` the account, `$3` at most how many.
const ERASE_ROWS: &str = "SELECT person_rows_erase($2, $3) AS deleted WHERE $1::uuid IS NOT NULL";

/// `$2` addresses, `$3` when the erasure began.
const ERASE_INVITATIONS: &str = "\
DELETE FROM invitations i WHERE i.tenant_id = $1 AND i.created_at <= $3 AND i.email IN (SELECT jsonb_array_elements_text($2::text::jsonb)) RETURNING i.id";

/// `$2` addresses, `$3` when the erasure began, `$4` the account. A job that runs ends by itself: it finds nobody any more.
const ERASE_JOBS: &str = "\
DELETE FROM jobs j WHERE j.tenant_id = $1 AND j.state <> 'running' AND (j.payload ->> 'to' = $4::text \
 OR j.created_at <= $3 AND EXISTS (SELECT FROM jsonb_array_elements($2::text::jsonb) a WHERE position(a::text IN j.payload::text) > 0)) RETURNING j.id";

/// Arguments as of [`ERASE_JOBS`].
const RUNNING_JOBS: &str = "\
SELECT count(*) AS running FROM jobs j WHERE j.tenant_id = $1 AND j.state = 'running' AND (j.payload ->> 'to' = $4::text \
 OR j.created_at <= $3 AND EXISTS (SELECT FROM jsonb_array_elements($2::text::jsonb) a WHERE position(a::text IN j.payload::text) > 0))";

/// `$2` a list of one address.
const UNFINISHED: &str = "\
SELECT e.user_id FROM erasures e WHERE e.tenant_id = $1 AND e.finished_at IS NULL AND e.addresses @> $2::text::jsonb \
 ORDER BY e.created_at, e.id";

/// `$2` a list of one digest, `$3` since when.
const ERASED_SINCE: &str = "\
SELECT EXISTS (SELECT FROM erasures e WHERE e.tenant_id = $1 AND e.created_at >= $3 AND e.digests @> $2::text::jsonb) AS erased";

#[async_trait]
impl Persons for PgStore {
    async fn find(&mut self, id: UserId) -> Result<Option<User>, StoreError> {
        let find = self.tx.find::<users::Entity>();
        let find = find.with_deleted("the data of a removed user is exported and erased as well");
        let find = find.filter(users::Column::Id.eq(id.uuid())).lock(Lock::Update);
        find.one().await?.map(User::try_from).transpose()
    }

    async fn named(&mut self, email: &Email) -> Result<Vec<User>, StoreError> {
        let find = self.tx.find::<users::Entity>();
        let find = find.with_deleted("the data of a removed user is exported and erased as well");
        let find = find.filter(users::Column::Email.eq(email.as_str()));
        let rows = find.order_by_asc(users::Column::CreatedAt).all().await?;
        rows.into_iter().map(User::try_from).collect()
    }

    async fn proven_addresses(&mut self, id: UserId) -> Result<Vec<Email>, StoreError> {
        let rows = self
            .tx
            .fetch_all_fixed(PROVEN_ADDRESSES, [id.uuid().into()])
            .await?;
        emails(&rows)
    }

    async fn known_addresses(&mut self, id: UserId) -> Result<Vec<Email>, StoreError> {
        let rows = self
            .tx
            .fetch_all_fixed(KNOWN_ADDRESSES, [id.uuid().into()])
            .await?;
        emails(&rows)
    }

    async fn anonymize(&mut self, id: UserId, now: Time) -> Result<(), StoreError> {
        self.changes.note(Change::User(self.scope.tenant(), id));
        let row = self
            .tx
            .fetch_fixed(ANONYMIZE, [id.uuid().into(), now.into()])
            .await?;
        exactly_one(row.iter().len() as u64)
    }

    async fn erase_rows(&mut self, id: UserId, at_most: u32) -> Result<u64, StoreError> {
        let at_most = i32::try_from(at_most).unwrap_or(i32::MAX);
        let arguments = [id.uuid().into(), at_most.into()];
        let row = self.tx.fetch_fixed(ERASE_ROWS, arguments).await?;
        let deleted: i64 = row.map_or(Ok(0), |row| column(&row, "deleted"))?;
        Ok(deleted.unsigned_abs())
    }

    async fn erase_named(&mut self, erasure: &Erasure) -> Result<u64, StoreError> {
        let addresses = json!(erasure.addresses).to_string();
        let arguments = [addresses.clone().into(), erasure.created_at.into()];
        self.tx.fetch_all_fixed(ERASE_INVITATIONS, arguments).await?;
        let (began, user) = (erasure.created_at, erasure.user.uuid());
        let arguments = || [addresses.clone().into(), began.into(), user.into()];
        self.tx.fetch_all_fixed(ERASE_JOBS, arguments()).await?;
        let row = self.tx.fetch_fixed(RUNNING_JOBS, arguments()).await?;
        let running: i64 = row.map_or(Ok(0), |row| column(&row, "running"))?;
        Ok(running.unsigned_abs())
    }

    async fn erasure(&mut self, id: UserId) -> Result<Option<Erasure>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::UserId.eq(id.uuid()));
        let row = find.lock(Lock::Update).one().await?;
        row.map(Erasure::try_from).transpose()
    }

    async fn unfinished(&mut self, email: &Email) -> Result<Vec<UserId>, StoreError> {
        let arguments = [json!([email]).to_string().into()];
        let rows = self.tx.fetch_all_fixed(UNFINISHED, arguments).await?;
        let user = |row| column::<uuid::Uuid>(row, "user_id").map(UserId::from);
        rows.iter().map(user).collect()
    }

    async fn is_erased_since(&mut self, digest: &[u8; 32], since: Time) -> Result<bool, StoreError> {
        let arguments = [json!([digest]).to_string().into(), since.into()];
        let row = self.tx.fetch_fixed(ERASED_SINCE, arguments).await?;
        row.map_or(Ok(false), |row| column(&row, "erased"))
    }

    async fn begin(&mut self, erasure: &Erasure) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(erasure.id.uuid()),
            created_at: Set(erasure.created_at),
            user_id: Set(erasure.user.uuid()),
            digests: Set(json!(erasure.digests)),
            ..changes(erasure)?
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, erasure: &Erasure) -> Result<(), StoreError> {
        let update = self.tx.update::<Entity>().set(changes(erasure)?);
        exactly_one(update.filter(Column::Id.eq(erasure.id.uuid())).run().await?)
    }
}

fn changes(erasure: &Erasure) -> Result<ActiveModel, StoreError> {
    let entries = i64::try_from(erasure.entries).map_err(|error| StoreError::Other(error.to_string()))?;
    Ok(ActiveModel {
        addresses: Set(json!(erasure.addresses)),
        sequence: Set(erasure.sequence),
        entries: Set(entries),
        event_position: Set(erasure.event_position),
        finished_at: Set(erasure.finished_at),
        ..Default::default()
    })
}

impl TryFrom<Model> for Erasure {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let addresses: Vec<String> = serde_json::from_value(row.addresses).map_err(from_json)?;
        Ok(Self {
            id: row.id.into(),
            created_at: row.created_at,
            user: row.user_id.into(),
            addresses: addresses.into_iter().map(Email::stored).collect(),
            digests: digests(row.digests)?,
            sequence: row.sequence,
            entries: row.entries.unsigned_abs(),
            event_position: row.event_position,
            finished_at: row.finished_at,
        })
    }
}

fn emails(rows: &[QueryResult]) -> Result<Vec<Email>, StoreError> {
    let emails = rows.iter().map(|row| Ok(Email::stored(column(row, "email")?)));
    emails.collect()
}

/// Stored digests.
fn digests(stored: Value) -> Result<Vec<[u8; 32]>, StoreError> {
    serde_json::from_value(stored).map_err(from_json)
}
