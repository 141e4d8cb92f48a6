use async_trait::async_trait;
use sea_orm::ColumnTrait as _;
use tenantry_domain::audit::{
    AuditStreams, Block, Head, HeadKind, StreamPosition, UnsentAudit, UnsentTenants,
};
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId, Time};
use tenantry_domain::store::Mode;
use uuid::Uuid;

use crate::Pool;
use crate::audit::chain::{entity as blocks, head as heads};
use crate::kernel::error::column;
use crate::kernel::store::PgStore;
use crate::kernel::tx::PlatformTx;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_streams")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub sequence: i64,
        pub head_sequence: i64,
        pub waiting_since: Option<DateTimeUtc>,
        pub lease_id: Option<Uuid>,
        pub lease_until: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::Entity;

/// A block has at most so many entries, so the block of a number begins less than this before it.
const LONGEST_BLOCK: i64 = Block::MOST as i64;
const _: () = assert!(LONGEST_BLOCK == 500);

/// `$2` now, `$3` since when, `$4` and `$5` where the stream begins, null for the oldest entry that is kept.
const NOTE: &str = "\
INSERT INTO audit_streams (\"tenant_id\", created_at, waiting_since, sequence, head_sequence) VALUES ($1, $2, $3, \
 coalesce($4, (SELECT min(b.first_sequence) - 1 FROM audit_blocks b WHERE b.tenant_id = $1), 0), coalesce($5, 0)) \
ON CONFLICT (tenant_id) DO UPDATE SET waiting_since = coalesce(audit_streams.waiting_since, EXCLUDED.waiting_since) \
 WHERE audit_streams.tenant_id = $1 RETURNING id";

/// It runs in a statement after the one that has locked the row, so that it sees what was chained until then. Whoever chains later waits for
/// the lock and notes it afterwards.
const REFRESH: &str = "\
UPDATE audit_streams s SET waiting_since = coalesce(\
 (SELECT b.min_at FROM audit_blocks b WHERE b.tenant_id = $1 AND b.first_sequence > s.sequence - 500 \
   AND b.last_sequence > s.sequence ORDER BY b.first_sequence LIMIT 1), \
 (SELECT h.created_at FROM audit_heads h WHERE h.tenant_id = $1 AND h.kind = 'head' AND h.sequence > s.head_sequence \
   AND h.sequence <= s.sequence ORDER BY h.sequence LIMIT 1)) \
WHERE s.tenant_id = $1 RETURNING s.id";

/// Locks the row.
const LOCK: &str = "SELECT s.id FROM audit_streams s WHERE s.tenant_id = $1 FOR UPDATE";

/// `$2` the lease, `$3` for how many seconds.
const LEASE: &str = "\
UPDATE audit_streams s SET lease_id = $2, lease_until = now() + make_interval(secs => $3) \
WHERE s.tenant_id = $1 AND s.waiting_since IS NOT NULL AND (s.lease_until IS NULL OR s.lease_until < now()) \
RETURNING s.sequence, s.head_sequence";

/// `$2` the lease, `$3` and `$4` up to where.
const ACKNOWLEDGE: &str = "\
UPDATE audit_streams s SET sequence = $3, head_sequence = $4, lease_id = NULL, lease_until = NULL \
WHERE s.tenant_id = $1 AND s.lease_id = $2 RETURNING s.id";

/// `$2` the lease.
const RELEASE: &str = "\
UPDATE audit_streams s SET lease_id = NULL, lease_until = NULL WHERE s.tenant_id = $1 AND s.lease_id = $2 RETURNING s.id";

#[async_trait]
impl AuditStreams for PgStore {
    async fn note(
        &mut self,
        begin: Option<StreamPosition>,
        since: Time,
        now: Time,
    ) -> Result<(), StoreError> {
        let arguments = [
            now.into(),
            since.into(),
            begin.map(|begin| begin.sequence).into(),
            begin.map(|begin| begin.head_sequence).into(),
        ];
        self.tx.fetch_fixed(NOTE, arguments).await.map(drop)
    }

    async fn refresh(&mut self) -> Result<(), StoreError> {
        self.tx.fetch_fixed(LOCK, []).await?;
        self.tx.fetch_fixed(REFRESH, []).await.map(drop)
    }

    async fn lease(&mut self, lease: Uuid, seconds: i64) -> Result<Option<StreamPosition>, StoreError> {
        // The number of seconds is a double precision of PostgreSQL.
        let seconds = seconds as f64;
        let row = self.tx.fetch_fixed(LEASE, [lease.into(), seconds.into()]).await?;
        let position = |row| {
            Ok(StreamPosition {
                sequence: column(&row, "sequence")?,
                head_sequence: column(&row, "head_sequence")?,
            })
        };
        row.map(position).transpose()
    }

    async fn unsent_blocks(&mut self, sequence: i64, limit: u32) -> Result<Vec<Block>, StoreError> {
        let find = self.tx.find::<blocks::Entity>();
        let find = find
            .filter(blocks::Column::FirstSequence.gt(sequence.saturating_sub(LONGEST_BLOCK)))
            .filter(blocks::Column::LastSequence.gt(sequence))
            .order_by_asc(blocks::Column::FirstSequence)
            .limit(limit.into());
        find.all().await?.into_iter().map(Block::try_from).collect()
    }

    async fn unsent_heads(&mut self, head_sequence: i64, limit: u32) -> Result<Vec<Head>, StoreError> {
        let find = self.tx.find::<heads::Entity>();
        let find = find
            .filter(heads::Column::Kind.eq(HeadKind::Head.as_str()))
            .filter(heads::Column::Sequence.gt(head_sequence))
            .order_by_asc(heads::Column::Sequence)
            .limit(limit.into());
        find.all().await?.into_iter().map(Head::try_from).collect()
    }

    async fn acknowledge(&mut self, lease: Uuid, position: StreamPosition) -> Result<bool, StoreError> {
        let arguments = [
            lease.into(),
            position.sequence.into(),
            position.head_sequence.into(),
        ];
        if self.tx.fetch_fixed(ACKNOWLEDGE, arguments).await?.is_none() {
            return Ok(false);
        }
        self.tx.fetch_fixed(REFRESH, []).await?;
        Ok(true)
    }

    async fn release(&mut self, lease: Uuid) -> Result<(), StoreError> {
        self.tx.fetch_fixed(RELEASE, [lease.into()]).await.map(drop)
    }

    async fn sent(&mut self) -> Result<Option<i64>, StoreError> {
        let row = self.tx.find::<Entity>().one().await?;
        Ok(row.map(|row| row.sequence))
    }
}

/// Which tenants have something to send, as the platform role. It sees nothing of their logs.
#[derive(Debug, Clone)]
pub struct PgUnsentAudit {
    platform: Pool,
}

impl PgUnsentAudit {
    /// Over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }
}

/// `$1` after which tenant, `$2` how many. The index has only the rows that wait.
const WAITING: &str = "\
SELECT s.tenant_id FROM audit_streams s JOIN tenants t ON t.id = s.tenant_id \
 WHERE s.tenant_id > $1 AND s.waiting_since IS NOT NULL AND (s.lease_until IS NULL OR s.lease_until < now()) \
   AND t.status IN ('active', 'suspended') \
 ORDER BY s.tenant_id LIMIT $2";

const COUNT: &str = "\
SELECT count(*) AS tenants, min(s.waiting_since) AS since FROM audit_streams s JOIN tenants t ON t.id = s.tenant_id \
 WHERE s.waiting_since IS NOT NULL AND t.status IN ('active', 'suspended')";

#[async_trait]
impl UnsentAudit for PgUnsentAudit {
    async fn waiting(
        &self,
        because: SystemScope,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError> {
        let after = after.map_or_else(Uuid::nil, TenantId::uuid);
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx
            .fetch_fixed(WAITING, [after.into(), i64::from(limit).into()])
            .await?;
        tx.commit().await?;
        let tenant = |row| column::<Uuid>(row, "tenant_id").map(TenantId::from);
        rows.iter().map(tenant).collect()
    }

    async fn count(&self, because: SystemScope) -> Result<UnsentTenants, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx.fetch_fixed(COUNT, []).await?;
        tx.commit().await?;
        let Some(row) = rows.first() else {
            return Ok(UnsentTenants::default());
        };
        Ok(UnsentTenants {
            tenants: column::<i64>(row, "tenants")?.unsigned_abs(),
            since: column(row, "since")?,
        })
    }
}
