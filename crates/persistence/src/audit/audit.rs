use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use serde_json::Value;
use tenantry_domain::audit::{
    AuditEntry, AuditEvent, AuditFilter, AuditLog, AuditRecord, Chained, Outcome, Risk,
};
use tenantry_domain::kernel::{
    AuditEventId, OperatorId, Page, PageRequest, Position, StoreError, SupportAccessId,
};
use uuid::Uuid;

use crate::kernel::error::column;
use crate::kernel::store::{PgStore, unknown};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_events")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub category: String,
        pub action: String,
        pub target_type: String,
        pub target_id: Option<Uuid>,
        pub actor_type: String,
        pub actor_id: Option<Uuid>,
        pub request_id: String,
        pub ip: Option<String>,
        pub before: Option<Json>,
        pub after: Option<Json>,
        pub user_agent: Option<String>,
        pub outcome: String,
        pub risk: String,
        /// The transaction that has written the row; the database sets it.
        pub xact: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl AuditLog for PgStore {
    async fn record(&mut self, mut event: AuditEvent) -> Result<(), StoreError> {
        let actor = self.scope.actor();
        if let Some(access) = self.scope.support_access() {
            event.after = Some(marked(event.after, access));
        }
        let (outcome, risk) = (event.outcome(), event.risk());
        let (kind, id) = match event.operator {
            Some(operator) => ("operator", Some(OperatorId::uuid(operator))),
            None => (actor.as_str(), actor.id()),
        };
        if let Some(told) = event.event.take() {
            self.emit(told, &event, (kind, id)).await?;
        }
        let row = ActiveModel {
            id: Set(event.id.uuid()),
            created_at: Set(event.at),
            category: Set(event.category.as_str().to_owned()),
            action: Set(event.action.to_owned()),
            target_type: Set(event.target_type.to_owned()),
            target_id: Set(event.target_id),
            actor_type: Set(kind.to_owned()),
            actor_id: Set(id),
            request_id: Set(self.scope.request().as_str().to_owned()),
            ip: Set(event.ip),
            user_agent: Set(event.user_agent),
            outcome: Set(outcome.as_str().to_owned()),
            risk: Set(risk.as_str().to_owned()),
            before: Set(event.before),
            after: Set(event.after),
            ..Default::default()
        };
        self.tx.insert(row).await
    }

    async fn list(
        &mut self,
        filter: &AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditRecord>, StoreError> {
        let mut find = self.tx.find::<Entity>();
        let texts = [
            (Column::ActorType, &filter.actor_kind),
            (Column::Action, &filter.action),
            (Column::TargetType, &filter.entity),
        ];
        for (column, text) in texts {
            if let Some(text) = text {
                find = find.filter(column.eq(text.as_str()));
            }
        }
        for (column, id) in [
            (Column::ActorId, filter.actor_id),
            (Column::TargetId, filter.entity_id),
        ] {
            if let Some(id) = id {
                find = find.filter(column.eq(id));
            }
        }
        if let Some(risk) = filter.risk {
            find = find.filter(Column::Risk.eq(risk.as_str()));
        }
        if let Some(from) = filter.from {
            find = find.filter(Column::CreatedAt.gte(from));
        }
        if let Some(to) = filter.to {
            find = find.filter(Column::CreatedAt.lt(to));
        }
        let position = |row: &Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        let page = find.page((Column::CreatedAt, Column::Id), page, position).await?;
        let page = page.try_map(AuditEntry::try_from)?;
        let names = self.actor_names(&page.items).await?;
        let chained = self.chained(&page.items).await?;
        Ok(page.map(|entry| AuditRecord {
            actor_name: entry.actor_id.and_then(|id| names.get(&id).cloned()),
            chained: chained.get(&entry.id).copied(),
            entry,
        }))
    }
}

/// The state after a change by an operator, with the access of the operator, so that no entry can be without it.
fn marked(after: Option<Value>, access: SupportAccessId) -> Value {
    let mut after = match after {
        Some(Value::Object(members)) => members,
        Some(state) => serde_json::Map::from_iter([("state".to_owned(), state)]),
        None => serde_json::Map::new(),
    };
    after.insert("support_access_id".to_owned(), access.to_string().into());
    after.into()
}

/// `$2` ids of users and of API keys, which are no row of both.
const NAMES: &str = "\
SELECT u.id, u.full_name AS name FROM users u WHERE u.tenant_id = $1 AND u.id = ANY ($2::text::uuid[]) \
UNION ALL SELECT k.id, k.name FROM api_keys k WHERE k.tenant_id = $1 AND k.id = ANY ($2::text::uuid[])";

impl PgStore {
    /// The present names of the users and API keys that act in entries.
    async fn actor_names(&mut self, entries: &[AuditEntry]) -> Result<HashMap<Uuid, String>, StoreError> {
        let named = entries.iter().filter(|entry| entry.actor_kind != "operator");
        let ids: BTreeSet<Uuid> = named.filter_map(|entry| entry.actor_id).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = self.tx.fetch_all_fixed(NAMES, [id_list(ids).into()]).await?;
        let named = rows
            .iter()
            .map(|row| Ok((column(row, "id")?, column(row, "name")?)));
        named.collect()
    }

    /// The places of entries in the chain, of those that have one.
    async fn chained(
        &mut self,
        entries: &[AuditEntry],
    ) -> Result<HashMap<AuditEventId, Chained>, StoreError> {
        let times = || entries.iter().map(|entry| entry.at);
        let (Some(oldest), Some(newest)) = (times().min(), times().max()) else {
            return Ok(HashMap::new());
        };
        let wanted: BTreeSet<AuditEventId> = entries.iter().map(|entry| entry.id).collect();
        let mut places = HashMap::new();
        for block in self.blocks_between(oldest, newest).await? {
            for (sequence, link) in block.numbered().filter(|(_, link)| wanted.contains(&link.id)) {
                let hash = link.hash;
                places.insert(link.id, Chained { sequence, hash });
            }
        }
        Ok(places)
    }
}

/// Ids as the text of an array, since arrays are no values of the driver.
pub(crate) fn id_list(ids: impl IntoIterator<Item = Uuid>) -> String {
    let ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    format!("{{{}}}", ids.join(","))
}

impl TryFrom<Model> for AuditEntry {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            at: row.created_at,
            category: row.category,
            action: row.action,
            entity: row.target_type,
            entity_id: row.target_id,
            actor_kind: row.actor_type,
            actor_id: row.actor_id,
            request_id: row.request_id,
            address: row.ip,
            user_agent: row.user_agent,
            outcome: Outcome::parse(&row.outcome)
                .ok_or_else(|| unknown("audit_events.outcome", &row.outcome))?,
            risk: Risk::parse(&row.risk).ok_or_else(|| unknown("audit_events.risk", &row.risk))?,
            before: row.before,
            after: row.after,
        })
    }
}
