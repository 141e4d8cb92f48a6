use async_trait::async_trait;
use sea_orm::sea_query::{Expr, ExprTrait as _, Func};
use sea_orm::{ActiveValue::Set, ColumnTrait as _, Condition};
use tenantry_domain::identity::{
    AuthMethods, Email, LOGIN_ADDRESSES, LiveAt, MailboxProof, Session, Sessions,
};
use tenantry_domain::kernel::{Change, Page, PageRequest, Position, SessionId, StoreError, Time, UserId};

use crate::kernel::error::column;
use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::{Lock, Update};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "refresh_sessions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub user_id: Uuid,
        pub token_hash: Vec<u8>,
        pub previous_hash: Option<Vec<u8>>,
        pub rotated_at: Option<DateTimeUtc>,
        pub created_at: DateTimeUtc,
        pub expires_at: DateTimeUtc,
        pub revoked_at: Option<DateTimeUtc>,
        pub user_agent: Option<String>,
        pub ip: Option<String>,
        pub factor_at: Option<DateTimeUtc>,
        pub device_hash: Option<Vec<u8>>,
        pub methods: i16,
        pub mailbox: Option<String>,
        pub mailbox_proven_at: Option<DateTimeUtc>,
        pub ends_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl Sessions for PgStore {
    async fn find(&mut self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()));
        find.one().await?.map(Session::try_from).transpose()
    }

    async fn find_for_update(&mut self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let find = self
            .tx
            .find::<Entity>()
            .filter(Column::Id.eq(id.uuid()))
            .lock(Lock::Update);
        find.one().await?.map(Session::try_from).transpose()
    }

    async fn insert(&mut self, session: &Session) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(session.id.uuid()),
            user_id: Set(session.user_id.uuid()),
            created_at: Set(session.created_at),
            user_agent: Set(session.user_agent.clone()),
            ip: Set(session.ip.clone()),
            device_hash: Set(session.device_hash.map(|hash| hash.to_vec())),
            mailbox: Set(mailbox(session.mailbox_proof.as_ref())),
            mailbox_proven_at: Set(session.mailbox_proof.as_ref().map(|proof| proof.at)),
            ends_at: Set(session.ends_at),
            ..changes(session)
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, session: &Session) -> Result<(), StoreError> {
        self.changes
            .note(Change::User(self.scope.tenant(), session.user_id));
        let update = self
            .tx
            .update::<Entity>()
            .set(changes(session))
            .filter(Column::Id.eq(session.id.uuid()));
        exactly_one(update.run().await?)
    }

    async fn list_live(
        &mut self,
        user: UserId,
        at: LiveAt,
        page: PageRequest,
    ) -> Result<Page<Session>, StoreError> {
        let last_use = Func::coalesce([Expr::col(Column::RotatedAt), Expr::col(Column::CreatedAt)]);
        let find = self
            .tx
            .find::<Entity>()
            .filter(Column::UserId.eq(user.uuid()))
            .filter(Column::RevokedAt.is_null())
            .filter(Column::ExpiresAt.gt(at.now))
            .filter(Expr::expr(last_use).gte(at.used_since));
        let position = |row: &Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        let page = find.page((Column::CreatedAt, Column::Id), page, position).await?;
        page.try_map(Session::try_from)
    }

    async fn end_surplus(&mut self, user: UserId, at: LiveAt, keep: u32) -> Result<u64, StoreError> {
        let arguments = [
            user.uuid().into(),
            at.now.into(),
            at.used_since.into(),
            i64::from(keep).into(),
        ];
        let row = self.tx.fetch_fixed(END_SURPLUS, arguments).await?;
        let live: i64 = row.map_or(Ok(0), |row| column(&row, "live"))?;
        if live > 0 {
            self.changes.note(Change::User(self.scope.tenant(), user));
        }
        Ok(live.unsigned_abs())
    }

    async fn revoke_all(&mut self, user: UserId, at: Time) -> Result<u64, StoreError> {
        self.revocation(user, at).run().await
    }

    async fn revoke_others(&mut self, user: UserId, kept: SessionId, at: Time) -> Result<u64, StoreError> {
        let revocation = self.revocation(user, at);
        revocation.filter(Column::Id.ne(kept.uuid())).run().await
    }

    async fn login_addresses(
        &mut self,
        email: &Email,
        since: Time,
    ) -> Result<Vec<Option<String>>, StoreError> {
        let arguments = [email.as_str().into(), since.into()];
        let rows = self.tx.fetch_all_fixed(LOGINS, arguments).await?;
        rows.iter().map(|row| column(row, "ip")).collect()
    }

    async fn delete_ended(&mut self, before: Time) -> Result<u64, StoreError> {
        let ended = Condition::any()
            .add(Column::RevokedAt.lt(before))
            .add(Column::ExpiresAt.lt(before));
        self.tx.delete::<Entity>().filter(ended).run().await
    }
}

impl PgStore {
    /// Ends all live sessions of a user.
    fn revocation(&mut self, user: UserId, at: Time) -> Update<'_, Entity> {
        self.changes.note(Change::User(self.scope.tenant(), user));
        let revoked = ActiveModel {
            revoked_at: Set(Some(at)),
            ..Default::default()
        };
        let update = self.tx.update::<Entity>().set(revoked);
        update
            .filter(Column::UserId.eq(user.uuid()))
            .filter(Column::RevokedAt.is_null())
    }
}

/// From where a user has logged in. The limit is [`LOGIN_ADDRESSES`].
const LOGINS: &str = "\
SELECT DISTINCT s.ip FROM refresh_sessions s \
 JOIN users u ON u.tenant_id = s.tenant_id AND u.id = s.user_id \
 WHERE s.tenant_id = $1 AND u.tenant_id = $1 AND u.email = $2 AND s.created_at >= $3 LIMIT 1000";

/// Ends what is neither live nor among the newest live sessions of a user, so that only few of a user's sessions are open at
/// any time, however often they log in. The condition of live sessions is that of [`Sessions::list_live`].
const END_SURPLUS: &str = "\
WITH kept AS (\
 SELECT k.id FROM refresh_sessions k WHERE k.tenant_id = $1 AND k.user_id = $2 AND k.revoked_at IS NULL \
 AND k.expires_at > $3 AND coalesce(k.rotated_at, k.created_at) >= $4 \
 ORDER BY k.created_at DESC, k.id DESC LIMIT $5), \
ended AS (\
 UPDATE refresh_sessions s SET revoked_at = $3 WHERE s.tenant_id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL \
 AND s.id NOT IN (SELECT id FROM kept) \
 RETURNING s.expires_at > $3 AND coalesce(s.rotated_at, s.created_at) >= $4 AS was_live) \
SELECT count(*) FILTER (WHERE was_live) AS live FROM ended";

const _: () = assert!(LOGIN_ADDRESSES == 1_000);

impl TryFrom<Model> for Session {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            user_id: row.user_id.into(),
            token_hash: sha256(row.token_hash)?,
            previous_hash: row.previous_hash.map(sha256).transpose()?,
            rotated_at: row.rotated_at,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            user_agent: row.user_agent,
            ip: row.ip,
            factor_at: row.factor_at,
            device_hash: row.device_hash.map(sha256).transpose()?,
            methods: methods(row.methods, row.factor_at)?,
            mailbox_proof: mailbox_proof(row.mailbox, row.mailbox_proven_at),
            ends_at: row.ends_at,
        })
    }
}

/// Servers of an earlier release store the password alone, whichever code they get.
fn methods(bits: i16, factor_at: Option<Time>) -> Result<AuthMethods, StoreError> {
    let stored = u8::try_from(bits).ok().and_then(AuthMethods::of_bits);
    match stored.ok_or_else(|| unknown("refresh_sessions.methods", &bits.to_string()))? {
        AuthMethods::PASSWORD if factor_at.is_some() => Ok(AuthMethods::PASSWORD.and(AuthMethods::CODE)),
        stored => Ok(stored),
    }
}

fn changes(session: &Session) -> ActiveModel {
    ActiveModel {
        token_hash: Set(session.token_hash.to_vec()),
        previous_hash: Set(session.previous_hash.map(|hash| hash.to_vec())),
        rotated_at: Set(session.rotated_at),
        expires_at: Set(session.expires_at),
        revoked_at: Set(session.revoked_at),
        factor_at: Set(session.factor_at),
        methods: Set(session.methods.bits().into()),
        ..Default::default()
    }
}

/// The address of a proof, as it is stored beside its time.
pub(crate) fn mailbox(proof: Option<&MailboxProof>) -> Option<String> {
    proof.map(|proof| proof.email.as_str().to_owned())
}

/// The proof that is stored as an address and a time.
pub(crate) fn mailbox_proof(mailbox: Option<String>, at: Option<Time>) -> Option<MailboxProof> {
    let proof = |(email, at)| MailboxProof {
        email: Email::stored(email),
        at,
    };
    mailbox.zip(at).map(proof)
}

pub(crate) fn sha256(bytes: Vec<u8>) -> Result<[u8; 32], StoreError> {
    let length = bytes.len();
    bytes
        .try_into()
        .map_err(|_| StoreError::Other(format!("a SHA-256 of {length} bytes")))
}
