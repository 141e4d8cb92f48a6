use async_trait::async_trait;
use sea_orm::{QueryResult, Value};
use tenantry_domain::audit::AuditFilter;
use tenantry_domain::kernel::{OperatorEventId, StoreError, TenantId, Time};
use tenantry_domain::operations::{
    LogRange, LoggedEvents, PlatformAuditEvent, PlatformEvent, PlatformProject, PlatformRows, PlatformTask,
    PlatformUsage, PlatformUser, RowRange,
};
use uuid::Uuid;

use crate::kernel::error::column;
use crate::operations::operator::PgOperatorWork;

/// Names the record of the transaction, which row-level security asks for, and bounds its statements.
const OPEN: &str =
    "SELECT set_config('app.bypass_event', $1, true), set_config('statement_timeout', '3000', true)";

// Each is a range of the primary key, read from its end. Between two positions there are the rows of one tenant, or of all.

const USERS: &str = "\
SELECT r.tenant_id, r.id, r.email, r.full_name, r.role, r.is_active, r.email_verified, r.created_at, r.updated_at \
  FROM users r JOIN tenants t ON t.id = r.tenant_id \
 WHERE (r.tenant_id, r.id) < ($1, $2) AND (r.tenant_id, r.id) > ($3, $4) \
   AND r.deleted_at IS NULL AND t.deleted_at IS NULL \
 ORDER BY r.tenant_id DESC, r.id DESC LIMIT $5";

const PROJECTS: &str = "\
SELECT r.tenant_id, r.id, r.name, r.status, r.owner_id, r.created_at, r.updated_at \
  FROM projects r JOIN tenants t ON t.id = r.tenant_id \
 WHERE (r.tenant_id, r.id) < ($1, $2) AND (r.tenant_id, r.id) > ($3, $4) \
   AND r.deleted_at IS NULL AND t.deleted_at IS NULL \
 ORDER BY r.tenant_id DESC, r.id DESC LIMIT $5";

const TASKS: &str = "\
SELECT r.tenant_id, r.id, r.project_id, r.title, r.status, r.priority, r.assignee_id, r.due_at, r.created_at, r.updated_at \
  FROM tasks r JOIN tenants t ON t.id = r.tenant_id \
 WHERE (r.tenant_id, r.id) < ($1, $2) AND (r.tenant_id, r.id) > ($3, $4) \
   AND r.deleted_at IS NULL AND t.deleted_at IS NULL \
 ORDER BY r.tenant_id DESC, r.id DESC LIMIT $5";

const AUDIT_EVENTS: &str = "\
SELECT r.tenant_id, r.id, r.created_at, r.actor_type, r.actor_id, r.action, r.target_type, r.target_id, r.ip, r.user_agent, \
       r.request_id, r.outcome, r.risk \
  FROM audit_events r JOIN tenants t ON t.id = r.tenant_id \
 WHERE (r.tenant_id, r.id) < ($1, $2) AND (r.tenant_id, r.id) > ($3, $4) AND t.deleted_at IS NULL \
   AND ($6::uuid IS NULL OR r.actor_id = $6) AND ($7::text IS NULL OR r.actor_type = $7) \
   AND ($8::text IS NULL OR r.action = $8) AND ($9::text IS NULL OR r.target_type = $9) \
   AND ($10::uuid IS NULL OR r.target_id = $10) AND ($11::text IS NULL OR r.risk = $11) \
   AND ($12::timestamptz IS NULL OR r.created_at >= $12) AND ($13::timestamptz IS NULL OR r.created_at < $13) \
 ORDER BY r.tenant_id DESC, r.id DESC LIMIT $5";

/// `$6` the names of types with commas between them.
const EVENTS: &str = "\
SELECT r.tenant_id, r.id, r.position, r.kind, r.created_at, r.actor_kind, r.actor_id, r.entity, r.entity_id, r.trace_parent \
  FROM events r JOIN tenants t ON t.id = r.tenant_id \
 WHERE (r.tenant_id, r.id) < ($1, $2) AND (r.tenant_id, r.id) > ($3, $4) AND t.deleted_at IS NULL \
   AND ($6::text IS NULL OR r.kind = ANY (string_to_array($6, ','))) \
   AND ($7::timestamptz IS NULL OR r.created_at >= $7) AND ($8::timestamptz IS NULL OR r.created_at < $8) \
 ORDER BY r.tenant_id DESC, r.id DESC LIMIT $5";

/// `$1` behind which entry of the log, `$2` of how many entries, `$3` behind how many positions there is no further entry.
const LAST_ENTRY: &str = "\
SELECT max(l.number) AS last FROM (SELECT f.number, sum(f.positions) OVER (ORDER BY f.number) - f.positions AS before FROM (\
SELECT e.number, e.last_position - e.first_position + 1 AS positions FROM event_log e WHERE e.number > $1 \
 ORDER BY e.number LIMIT $2) f) l WHERE l.before < $3";

/// The same of the entries of the tenant `$4`, which have an index of their own.
const LAST_ENTRY_OF: &str = "\
SELECT max(l.number) AS last FROM (SELECT f.number, sum(f.positions) OVER (ORDER BY f.number) - f.positions AS before FROM (\
SELECT e.number, e.last_position - e.first_position + 1 AS positions FROM event_log e WHERE e.of_tenant = $4 AND e.number > $1 \
 ORDER BY e.number LIMIT $2) f) l WHERE l.before < $3";

/// Behind the position `$2` in the entry `$1`, up to the entry `$3`; `$4` the names of types with commas between them, `$5` how many.
macro_rules! logged_events {
    ($of:literal) => {
        concat!(
            "SELECT l.number, r.tenant_id, r.id, r.position, r.kind, r.created_at, r.actor_kind, r.actor_id, r.entity, r.entity_id, \
             r.trace_parent FROM event_log l JOIN tenants t ON t.id = l.of_tenant \
             JOIN events r ON r.tenant_id = l.of_tenant AND r.position >= l.first_position AND r.position <= l.last_position \
             WHERE l.number >= $1 AND l.number <= $3 AND (l.number > $1 OR r.position > $2) AND t.deleted_at IS NULL \
             AND ($4::text IS NULL OR r.kind = ANY (string_to_array($4, ',')))",
            $of,
            " ORDER BY l.number, r.position LIMIT $5"
        )
    };
}

const LOGGED_EVENTS: &str = logged_events!("");

/// `$6` the tenant.
const LOGGED_EVENTS_OF: &str = logged_events!(" AND l.of_tenant = $6");

const TENANTS: &str = "\
SELECT t.id FROM tenants t WHERE t.id < $1 AND t.id >= $2 AND t.id <= $3 AND t.deleted_at IS NULL \
 ORDER BY t.id DESC LIMIT $4";

const USAGE: &str = "\
SELECT r.tenant_id, r.meter, r.day, r.quantity, r.events FROM usage_days r \
 WHERE r.tenant_id = ANY($1) AND r.day >= $2 AND r.day < $3 ORDER BY r.tenant_id DESC, r.meter, r.day";

#[async_trait]
impl PlatformRows for PgOperatorWork {
    async fn open(&mut self, record: OperatorEventId) -> Result<(), StoreError> {
        let record = record.uuid().to_string();
        self.tx.fetch_fixed(OPEN, [record.into()]).await.map(|_| ())
    }

    async fn users(&mut self, range: &RowRange) -> Result<Vec<PlatformUser>, StoreError> {
        let rows = self.tx.fetch_fixed(USERS, bounds(range)).await?;
        rows.iter().map(user).collect()
    }

    async fn projects(&mut self, range: &RowRange) -> Result<Vec<PlatformProject>, StoreError> {
        let rows = self.tx.fetch_fixed(PROJECTS, bounds(range)).await?;
        rows.iter().map(project).collect()
    }

    async fn tasks(&mut self, range: &RowRange) -> Result<Vec<PlatformTask>, StoreError> {
        let rows = self.tx.fetch_fixed(TASKS, bounds(range)).await?;
        rows.iter().map(task).collect()
    }

    async fn audit_events(
        &mut self,
        filter: &AuditFilter,
        range: &RowRange,
    ) -> Result<Vec<PlatformAuditEvent>, StoreError> {
        let conditions: [Value; 8] = [
            filter.actor_id.into(),
            filter.actor_kind.clone().into(),
            filter.action.clone().into(),
            filter.entity.clone().into(),
            filter.entity_id.into(),
            filter.risk.map(|risk| risk.as_str().to_owned()).into(),
            filter.from.into(),
            filter.to.into(),
        ];
        let arguments = bounds(range).into_iter().chain(conditions);
        let rows = self.tx.fetch_fixed(AUDIT_EVENTS, arguments).await?;
        rows.iter().map(audit_event).collect()
    }

    async fn events(
        &mut self,
        kinds: &[&'static str],
        (from, to): (Option<Time>, Option<Time>),
        range: &RowRange,
    ) -> Result<Vec<PlatformEvent>, StoreError> {
        let kinds = (!kinds.is_empty()).then(|| kinds.join(","));
        let conditions: [Value; 3] = [kinds.into(), from.into(), to.into()];
        let arguments = bounds(range).into_iter().chain(conditions);
        let rows = self.tx.fetch_fixed(EVENTS, arguments).await?;
        rows.iter().map(event).collect()
    }

    async fn logged_events(
        &mut self,
        kinds: &[&'static str],
        range: &LogRange,
    ) -> Result<LoggedEvents, StoreError> {
        let (behind, tenant) = (range.behind, range.tenant.map(TenantId::uuid));
        let most = [range.entries, range.positions].map(i64::from);
        let arguments = [behind.number, most[0], most[1]].map(Value::from);
        let rows = match tenant {
            Some(tenant) => {
                let arguments = arguments.into_iter().chain([tenant.into()]);
                self.tx.fetch_fixed(LAST_ENTRY_OF, arguments).await?
            }
            None => self.tx.fetch_fixed(LAST_ENTRY, arguments).await?,
        };
        let last = rows.first().map(|row| column::<Option<i64>>(row, "last"));
        let last = last.transpose()?.flatten();
        let kinds = (!kinds.is_empty()).then(|| kinds.join(","));
        let arguments: [Value; 5] = [
            behind.number.into(),
            behind.position.into(),
            last.unwrap_or(behind.number).into(),
            kinds.into(),
            (i64::from(range.limit) + 1).into(),
        ];
        let rows = match tenant {
            Some(tenant) => {
                let arguments = arguments.into_iter().chain([tenant.into()]);
                self.tx.fetch_fixed(LOGGED_EVENTS_OF, arguments).await?
            }
            None => self.tx.fetch_fixed(LOGGED_EVENTS, arguments).await?,
        };
        let events = rows.iter().map(|row| Ok((column(row, "number")?, event(row)?)));
        Ok(LoggedEvents {
            events: events.collect::<Result<_, StoreError>>()?,
            last,
        })
    }

    async fn tenants_of_page(&mut self, range: &RowRange) -> Result<Vec<TenantId>, StoreError> {
        let rows = self.tx.fetch_fixed(TENANTS, tenant_bounds(range)).await?;
        rows.iter()
            .map(|row| Ok(column::<Uuid>(row, "id")?.into()))
            .collect()
    }

    async fn usage(
        &mut self,
        tenants: &[TenantId],
        from: Time,
        to: Time,
    ) -> Result<Vec<PlatformUsage>, StoreError> {
        let tenants: Vec<Uuid> = tenants.iter().map(|tenant| tenant.uuid()).collect();
        let arguments = [tenants.into(), from.into(), to.into()];
        let rows = self.tx.fetch_fixed(USAGE, arguments).await?;
        rows.iter().map(usage).collect()
    }
}

/// Below which tenant the page begins, and between which tenants all pages lie; and how many tenants there are at the most.
fn tenant_bounds(range: &RowRange) -> [Value; 4] {
    let below = range.after.map_or(Uuid::max(), |after| after.tenant.uuid());
    let (lowest, highest) = match range.tenant {
        Some(tenant) => (tenant.uuid(), tenant.uuid()),
        None => (Uuid::nil(), Uuid::max()),
    };
    [
        below.into(),
        lowest.into(),
        highest.into(),
        (i64::from(range.limit) + 1).into(),
    ]
}

/// The positions between which the rows lie, both excluded, and how many rows there are at the most.
fn bounds(range: &RowRange) -> [Value; 5] {
    let highest = range.tenant.map_or(Uuid::max(), TenantId::uuid);
    let (tenant, id) = match range.after {
        Some(after) => (after.tenant.uuid(), after.id),
        None => (highest, Uuid::max()),
    };
    let lowest = range.tenant.map_or(Uuid::nil(), TenantId::uuid);
    [
        tenant.into(),
        id.into(),
        lowest.into(),
        Uuid::nil().into(),
        (i64::from(range.limit) + 1).into(),
    ]
}

fn user(row: &QueryResult) -> Result<PlatformUser, StoreError> {
    Ok(PlatformUser {
        tenant_id: column::<Uuid>(row, "tenant_id")?.into(),
        id: column(row, "id")?,
        email: column(row, "email")?,
        full_name: column(row, "full_name")?,
        role: column(row, "role")?,
        is_active: column(row, "is_active")?,
        email_verified: column(row, "email_verified")?,
        created_at: column(row, "created_at")?,
        updated_at: column(row, "updated_at")?,
    })
}

fn project(row: &QueryResult) -> Result<PlatformProject, StoreError> {
    Ok(PlatformProject {
        tenant_id: column::<Uuid>(row, "tenant_id")?.into(),
        id: column(row, "id")?,
        name: column(row, "name")?,
        status: column(row, "status")?,
        owner_id: column(row, "owner_id")?,
        created_at: column(row, "created_at")?,
        updated_at: column(row, "updated_at")?,
    })
}

fn task(row: &QueryResult) -> Result<PlatformTask, StoreError> {
    Ok(PlatformTask {
        tenant_id: column::<Uuid>(row, "tenant_id")?.into(),
        id: column(row, "id")?,
        project_id: column(row, "project_id")?,
        title: column(row, "title")?,
        status: column(row, "status")?,
        priority: column(row, "priority")?,
        assignee_id: column(row, "assignee_id")?,
        due_at: column(row, "due_at")?,
        created_at: column(row, "created_at")?,
        updated_at: column(row, "updated_at")?,
    })
}

fn audit_event(row: &QueryResult) -> Result<PlatformAuditEvent, StoreError> {
    Ok(PlatformAuditEvent {
        tenant_id: column::<Uuid>(row, "tenant_id")?.into(),
        id: column(row, "id")?,
        at: column(row, "created_at")?,
        actor_kind: column(row, "actor_type")?,
        actor_id: column(row, "actor_id")?,
        action: column(row, "action")?,
        entity: column(row, "target_type")?,
        entity_id: column(row, "target_id")?,
        address: column(row, "ip")?,
        user_agent: column(row, "user_agent")?,
        request_id: column(row, "request_id")?,
        outcome: column(row, "outcome")?,
        risk: column(row, "risk")?,
    })
}

fn event(row: &QueryResult) -> Result<PlatformEvent, StoreError> {
    Ok(PlatformEvent {
        tenant_id: column::<Uuid>(row, "tenant_id")?.into(),
        id: column(row, "id")?,
        position: column(row, "position")?,
        r#type: column(row, "kind")?,
        timestamp: column(row, "created_at")?,
        actor_kind: column(row, "actor_kind")?,
        actor_id: column(row, "actor_id")?,
        entity: column(row, "entity")?,
        entity_id: column(row, "entity_id")?,
        trace_parent: column(row, "trace_parent")?,
    })
}

fn usage(row: &QueryResult) -> Result<PlatformUsage, StoreError> {
    Ok(PlatformUsage {
        tenant_id: column::<Uuid>(row, "tenant_id")?.into(),
        meter: column(row, "meter")?,
        day: column(row, "day")?,
        quantity: column(row, "quantity")?,
        events: column(row, "events")?,
    })
}
