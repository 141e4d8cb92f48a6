use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use serde_json::{Value, json};
use tenantry_domain::audit::{AuditChain, AuditEntry, Block, Cursor, Head, HeadKind, Link, Tail, Unchained};
use tenantry_domain::kernel::{AuditBlockId, AuditEventId, StoreError, Time, UserId};
use uuid::Uuid;

use crate::audit::audit::{entity as events, id_list};
use crate::kernel::error::column;
use crate::kernel::store::{PgStore, unknown};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_blocks")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub first_sequence: i64,
        pub last_sequence: i64,
        pub links: Vec<u8>,
        pub min_at: DateTimeUtc,
        pub max_at: DateTimeUtc,
        pub cursor_xact: i64,
        pub cursor_id: Uuid,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

pub(crate) mod head {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_heads")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub kind: String,
        pub sequence: i64,
        pub hash: Vec<u8>,
        pub kid: String,
        pub public_key: Vec<u8>,
        pub signature: Vec<u8>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

/// The transactions that had ended, and those that have begun: all below `ended` have ended, and none from `next` on has begun.
const TRANSACTIONS: &str = "\
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS ended, \
 pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next, now() AS at, $1::uuid AS tenant";

/// `$2` as of [`TRANSACTIONS`], `$3` the next: the ids of entries that no block has, for a database that was restored into another
/// server, whose transactions have lower numbers.
const NOT_IN_A_BLOCK: &str = "\
SELECT e.id FROM audit_events e WHERE e.tenant_id = $1 AND (e.xact < $2 OR e.xact >= $3) AND e.id NOT IN (\
SELECT encode(substr(b.links, n * 64 + 1, 16), 'hex')::uuid \
FROM audit_blocks b CROSS JOIN LATERAL generate_series(0, octet_length(b.links) / 64 - 1) AS n WHERE b.tenant_id = $1) \
ORDER BY e.created_at, e.id LIMIT $4";

/// `$2`, `$3` a cursor. What a server with higher numbers has written before a restore was before it.
const COUNT: &str = "\
SELECT count(*) FILTER (WHERE NOT e.behind) AS before, count(*) FILTER (WHERE e.behind) AS behind, \
 min(e.created_at) FILTER (WHERE e.behind) AS oldest FROM (\
SELECT a.created_at, (a.xact, a.id) > ($2, $3) AND a.xact < pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS behind \
FROM audit_events a WHERE a.tenant_id = $1) AS e";

/// `$2` a person, `$3` a block, `$4` erased entries of it.
const ERASE: &str = "SELECT audit_erase($2, $3, $4) AS replaced WHERE $1::uuid IS NOT NULL";

/// `$2` up to which number.
const RETAIN: &str = "SELECT audit_retain($2) AS deleted WHERE $1::uuid IS NOT NULL";

#[async_trait]
impl AuditChain for PgStore {
    async fn tail(&mut self) -> Result<Tail, StoreError> {
        let last = self
            .tx
            .find::<Entity>()
            .order_by_desc(Column::FirstSequence)
            .one()
            .await?;
        if let Some(last) = last {
            return Ok(Block::try_from(last)?.tail());
        }
        // All that was chained has been deleted because of its age.
        let checkpoint = self.last_head(HeadKind::Checkpoint).await?;
        Ok(checkpoint.map_or_else(Tail::default, |head| Tail {
            sequence: head.sequence,
            hash: head.hash,
            cursor: Cursor::default(),
        }))
    }

    async fn unchained(&mut self, cursor: Cursor, limit: u32) -> Result<Unchained, StoreError> {
        let row = self.tx.fetch_fixed(TRANSACTIONS, []).await?;
        let row = row.ok_or_else(|| StoreError::Other("no snapshot".into()))?;
        let (ended, next): (i64, i64) = (column(&row, "ended")?, column(&row, "next")?);
        let recent = column::<Time>(&row, "at")? - Block::longest_span();
        // Behind the cursor of another server there is nothing: of a restored database every open transaction is waited for.
        let is_foreign = cursor.transaction > next;
        let from = if is_foreign { Cursor::default() } else { cursor };
        let waiting = self
            .tx
            .find::<events::Entity>()
            .filter(behind(from))
            .filter(events::Column::Xact.gte(ended))
            .filter(events::Column::Xact.lt(next));
        let waiting = waiting.one().await?.is_some();
        let entries = if is_foreign {
            self.unchained_after_restore((cursor, limit), (ended, next))
                .await?
        } else {
            self.unchained_behind((cursor, limit), (ended, recent)).await?
        };
        Ok(Unchained { entries, waiting })
    }

    async fn append(&mut self, block: &Block) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(block.id.uuid()),
            created_at: Set(block.created_at),
            first_sequence: Set(block.first_sequence),
            last_sequence: Set(block.last_sequence()),
            links: Set(block.links.iter().flat_map(|link| link.to_bytes()).collect()),
            min_at: Set(block.min_at),
            max_at: Set(block.max_at),
            cursor_xact: Set(block.cursor.transaction),
            cursor_id: Set(block.cursor.event),
            ..Default::default()
        };
        self.tx.insert(row).await
    }

    async fn blocks_after(&mut self, sequence: i64, limit: u32) -> Result<Vec<Block>, StoreError> {
        let find = self.tx.find::<Entity>();
        let find = find.filter(Column::FirstSequence.gt(sequence));
        let find = find.order_by_asc(Column::FirstSequence).limit(limit.into());
        find.all().await?.into_iter().map(Block::try_from).collect()
    }

    async fn entries(
        &mut self,
        ids: &[AuditEventId],
    ) -> Result<HashMap<AuditEventId, AuditEntry>, StoreError> {
        let ids = id_list(ids.iter().map(|id| id.uuid()));
        let any = Expr::cust_with_values("audit_events.id = ANY ($1::text::uuid[])", [ids]);
        let rows = self.tx.find::<events::Entity>().filter(any).all().await?;
        let entry = |row| {
            let entry = AuditEntry::try_from(row)?;
            Ok((entry.id, entry))
        };
        rows.into_iter().map(entry).collect()
    }

    async fn erase(
        &mut self,
        person: UserId,
        block: AuditBlockId,
        entries: &[AuditEntry],
    ) -> Result<u64, StoreError> {
        let entry = |entry: &AuditEntry| json!({"id": entry.id, "ip": entry.address, "user_agent": entry.user_agent, "before": entry.before, "after": entry.after});
        let entries: Vec<Value> = entries.iter().map(entry).collect();
        let arguments = [person.uuid().into(), block.uuid().into(), json!(entries).into()];
        let row = self.tx.fetch_fixed(ERASE, arguments).await?;
        let replaced: i64 = row.map_or(Ok(0), |row| column(&row, "replaced"))?;
        Ok(replaced.unsigned_abs())
    }

    async fn count(&mut self, cursor: Cursor) -> Result<(i64, i64, Option<Time>), StoreError> {
        let arguments = [cursor.transaction.into(), cursor.event.into()];
        let row = self.tx.fetch_fixed(COUNT, arguments).await?;
        let row = row.ok_or_else(|| StoreError::Other("no count".into()))?;
        Ok((
            column(&row, "before")?,
            column(&row, "behind")?,
            column(&row, "oldest")?,
        ))
    }

    async fn heads(&mut self) -> Result<Vec<Head>, StoreError> {
        let find = self.tx.find::<head::Entity>();
        let rows = find.order_by_asc(head::Column::CreatedAt).all().await?;
        rows.into_iter().map(Head::try_from).collect()
    }

    async fn last_head(&mut self, kind: HeadKind) -> Result<Option<Head>, StoreError> {
        let find = self.tx.find::<head::Entity>();
        let find = find.filter(head::Column::Kind.eq(kind.as_str()));
        let row = find.order_by_desc(head::Column::Sequence).one().await?;
        row.map(Head::try_from).transpose()
    }

    async fn add_head(&mut self, head: &Head) -> Result<(), StoreError> {
        let row = head::ActiveModel {
            id: Set(head.id.uuid()),
            created_at: Set(head.created_at),
            kind: Set(head.kind.as_str().to_owned()),
            sequence: Set(head.sequence),
            hash: Set(head.hash.to_vec()),
            kid: Set(head.kid.clone()),
            public_key: Set(head.public_key.clone()),
            signature: Set(head.signature.clone()),
            ..Default::default()
        };
        self.tx.insert(row).await
    }

    async fn retain(&mut self, through: i64) -> Result<u64, StoreError> {
        let row = self.tx.fetch_fixed(RETAIN, [through.into()]).await?;
        let deleted: i64 = row.map_or(Ok(0), |row| column(&row, "deleted"))?;
        Ok(deleted.unsigned_abs())
    }
}

impl PgStore {
    /// The blocks with entries from one time to another.
    pub(crate) async fn blocks_between(
        &mut self,
        oldest: Time,
        newest: Time,
    ) -> Result<Vec<Block>, StoreError> {
        let find = self.tx.find::<Entity>();
        let find = find
            .filter(Column::MaxAt.gte(oldest))
            .filter(Column::MaxAt.lte(newest + Block::longest_span()))
            .filter(Column::MinAt.lte(newest));
        find.all().await?.into_iter().map(Block::try_from).collect()
    }

    /// Entries behind a cursor, of transactions below `ended`.
    async fn unchained_behind(
        &mut self,
        (mut cursor, limit): (Cursor, u32),
        (ended, recent): (i64, Time),
    ) -> Result<Vec<(AuditEntry, Cursor)>, StoreError> {
        loop {
            let find = self.tx.find::<events::Entity>().filter(behind(cursor));
            let rows = find
                .filter(events::Column::Xact.lt(ended))
                .order_by_asc(events::Column::Xact)
                .order_by_asc(events::Column::Id)
                .limit(limit.into())
                .all()
                .await?;
            let is_last = rows.len() < limit as usize;
            let of_row = |row: &events::Model| Cursor {
                transaction: row.xact,
                event: row.id,
            };
            cursor = rows.last().map_or(cursor, of_row);
            let chained = self.chained_before_a_restore(&rows, recent).await?;
            let rows = rows.into_iter().filter(|row| !chained.contains(&row.id));
            let entries = rows.map(|row| {
                let cursor = of_row(&row);
                Ok((AuditEntry::try_from(row)?, cursor))
            });
            let entries: Vec<_> = entries.collect::<Result<_, StoreError>>()?;
            if is_last || !entries.is_empty() {
                return Ok(entries);
            }
        }
    }

    /// Those of entries to chain that a block has already: after a restore into another server its transactions reach the numbers
    /// of the old ones one day. An entry is chained within seconds, so only those of before `recent` are looked for.
    async fn chained_before_a_restore(
        &mut self,
        rows: &[events::Model],
        recent: Time,
    ) -> Result<HashSet<Uuid>, StoreError> {
        let times: Vec<Time> = rows
            .iter()
            .map(|row| row.created_at)
            .filter(|at| *at < recent)
            .collect();
        let (Some(oldest), Some(latest)) = (times.iter().min(), times.iter().max()) else {
            return Ok(HashSet::new());
        };
        let blocks = self.blocks_between(*oldest, *latest).await?;
        let links = blocks.iter().flat_map(|block| &block.links);
        Ok(links.map(|link| link.id.uuid()).collect())
    }

    /// Entries that no block has. The cursor stays foreign until there are none left.
    async fn unchained_after_restore(
        &mut self,
        (cursor, limit): (Cursor, u32),
        (ended, next): (i64, i64),
    ) -> Result<Vec<(AuditEntry, Cursor)>, StoreError> {
        let arguments = [ended.into(), next.into(), i64::from(limit).into()];
        let rows = self.tx.fetch_all_fixed(NOT_IN_A_BLOCK, arguments).await?;
        let ids: Vec<Uuid> = rows
            .iter()
            .map(|row| column(row, "id"))
            .collect::<Result<_, _>>()?;
        let ids: Vec<AuditEventId> = ids.into_iter().map(Into::into).collect();
        let cursor = if ids.len() < limit as usize {
            Cursor {
                transaction: ended,
                event: Uuid::nil(),
            }
        } else {
            cursor
        };
        let mut entries = self.entries(&ids).await?;
        let entries = ids.iter().filter_map(|id| entries.remove(id));
        Ok(entries.map(|entry| (entry, cursor)).collect())
    }
}

fn behind(cursor: Cursor) -> sea_orm::Condition {
    let key = Expr::tuple([
        Expr::col(events::Column::Xact.as_column_ref()),
        Expr::col(events::Column::Id.as_column_ref()),
    ]);
    let last = Expr::tuple([Expr::value(cursor.transaction), Expr::value(cursor.event)]);
    sea_orm::Condition::all().add(key.gt(last))
}

impl TryFrom<Model> for Block {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let (links, _) = row.links.as_chunks::<{ Link::LENGTH }>();
        Ok(Self {
            id: row.id.into(),
            created_at: row.created_at,
            first_sequence: row.first_sequence,
            links: links.iter().map(Link::from_bytes).collect(),
            min_at: row.min_at,
            max_at: row.max_at,
            cursor: Cursor {
                transaction: row.cursor_xact,
                event: row.cursor_id,
            },
        })
    }
}

impl TryFrom<head::Model> for Head {
    type Error = StoreError;

    fn try_from(row: head::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            created_at: row.created_at,
            kind: HeadKind::parse(&row.kind).ok_or_else(|| unknown("audit_heads.kind", &row.kind))?,
            sequence: row.sequence,
            hash: row
                .hash
                .try_into()
                .map_err(|_| StoreError::Other("audit_heads.hash has not 32 bytes".into()))?,
            kid: row.kid,
            public_key: row.public_key,
            signature: row.signature,
        })
    }
}
