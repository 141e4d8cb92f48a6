use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

use crate::audit::AuditFilter;
use crate::events::LogPosition;
use crate::kernel::{OperatorEventId, StoreError, TenantId, Time};

/// Where a page of rows of several tenants begins: after this row, in the order of tenants and ids, the greatest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPosition {
    /// The tenant of the last row seen.
    pub tenant: TenantId,
    /// Its id in the tenant.
    pub id: Uuid,
}

/// Which rows an operator sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowRange {
    /// Only of this tenant.
    pub tenant: Option<TenantId>,
    /// After which row; `None` for the first page.
    pub after: Option<RowPosition>,
    /// How many rows at the most, 1..=100; of usage, how many tenants.
    pub limit: u32,
}

/// A row of some tenant.
pub trait PlatformRow {
    /// Whose row it is, and which.
    fn position(&self) -> RowPosition;
}

/// A user, as operators see one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlatformUser {
    /// Whose row it is.
    pub tenant_id: TenantId,
    /// The user.
    pub id: Uuid,
    /// The mail address.
    pub email: String,
    /// What the user is called, in 1 to 120 characters.
    pub full_name: String,
    /// The role in the tenant.
    pub role: String,
    /// Whether the user may log in.
    pub is_active: bool,
    /// Whether the owner of the address has shown to be the user.
    pub email_verified: bool,
    /// When the user was added.
    pub created_at: Time,
    /// When the user was last changed.
    pub updated_at: Time,
}

/// A project, as operators see one: without its description.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlatformProject {
    /// Whose row it is.
    pub tenant_id: TenantId,
    /// The project.
    pub id: Uuid,
    /// Unique in the tenant among projects that are not deleted.
    pub name: String,
    /// Whether it is active or archived.
    pub status: String,
    /// The user who owns it.
    pub owner_id: Uuid,
    /// When it was created.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
}

/// A task, as operators see one: without its description.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlatformTask {
    /// Whose row it is.
    pub tenant_id: TenantId,
    /// The task.
    pub id: Uuid,
    /// The project of the task.
    pub project_id: Uuid,
    /// What is to be done, in a line.
    pub title: String,
    /// How far it is.
    pub status: String,
    /// How urgent it is.
    pub priority: String,
    /// The user who does it.
    pub assignee_id: Option<Uuid>,
    /// When it has to be done.
    pub due_at: Option<Time>,
    /// When it was created.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
}

/// An entry of a tenant's audit log, as operators see one: without the states before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlatformAuditEvent {
    /// Whose row it is.
    pub tenant_id: TenantId,
    /// The entry.
    pub id: Uuid,
    /// When it happened.
    pub at: Time,
    /// What acted: `user`, `api_key`, `operator`, `job`, `system`, `guest` or `founder`.
    pub actor_kind: String,
    /// The user, API key or operator who did it; `None` for the system and for callers without an account.
    pub actor_id: Option<Uuid>,
    /// What happened, for example `project.created`.
    pub action: String,
    /// The kind of thing it happened to.
    pub entity: String,
    /// The id of that thing.
    pub entity_id: Option<Uuid>,
    /// The IP address of the caller, where there was one.
    pub address: Option<String>,
    /// The caller's `User-Agent`.
    pub user_agent: Option<String>,
    /// The request that caused it.
    pub request_id: String,
    /// Whether it was done.
    pub outcome: String,
    /// How much it deserves attention.
    pub risk: String,
}

/// An event of a tenant, as operators see one: without what happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlatformEvent {
    /// Whose row it is.
    pub tenant_id: TenantId,
    /// The event.
    pub id: Uuid,
    /// Its number in the tenant's feed.
    pub position: i64,
    /// The name of its type, for example `task.updated`.
    pub r#type: String,
    /// When it happened.
    pub timestamp: Time,
    /// What acted: `user`, `api_key`, `operator`, `job`, `system`, `guest` or `founder`.
    pub actor_kind: String,
    /// The id of the actor; of a job that of the user for whom it ran.
    pub actor_id: Option<Uuid>,
    /// The kind of thing it happened to.
    pub entity: String,
    /// The id of that thing.
    pub entity_id: Option<Uuid>,
    /// The W3C `traceparent` of the request or job that caused it.
    pub trace_parent: Option<String>,
}

/// What a tenant used of a meter on a day.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlatformUsage {
    /// Whose row it is.
    pub tenant_id: TenantId,
    /// What is counted, by its key in the plan catalogue.
    pub meter: String,
    /// The beginning of the day, in UTC.
    pub day: Time,
    /// How much, as the meter combines events.
    pub quantity: i64,
    /// How many events.
    pub events: i64,
}

/// Which part of the log of all tenants' events is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRange {
    /// Only events of this tenant.
    pub tenant: Option<TenantId>,
    /// Behind which place.
    pub behind: LogPosition,
    /// The most entries of the log that are looked at.
    pub entries: u32,
    /// Behind how many positions no further entry is looked at.
    pub positions: u32,
    /// The most events.
    pub limit: u32,
}

/// Events of several tenants, in the order of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedEvents {
    /// The events, each with the number of its entry: up to one more than the limit, to tell that there are more.
    pub events: Vec<(i64, PlatformEvent)>,
    /// The number of the last entry that was looked at; `None` when there is none behind the place.
    pub last: Option<i64>,
}

/// Rows of all tenants that are not deleted, read only: a part of an operator's transaction, which shows nothing before
/// [`PlatformRows::open`].
#[async_trait]
pub trait PlatformRows: Send {
    /// Opens the rows for the rest of the transaction, which has stored the record of it, with a reason. Statements end after seconds.
    async fn open(&mut self, record: OperatorEventId) -> Result<(), StoreError>;

    /// Users that are not deleted: up to one more than the limit, to tell that there are more. So with the others.
    async fn users(&mut self, range: &RowRange) -> Result<Vec<PlatformUser>, StoreError>;

    /// Projects that are not deleted.
    async fn projects(&mut self, range: &RowRange) -> Result<Vec<PlatformProject>, StoreError>;

    /// Tasks that are not deleted.
    async fn tasks(&mut self, range: &RowRange) -> Result<Vec<PlatformTask>, StoreError>;

    /// Entries of audit logs that match a filter.
    async fn audit_events(
        &mut self,
        filter: &AuditFilter,
        range: &RowRange,
    ) -> Result<Vec<PlatformAuditEvent>, StoreError>;

    /// Events of these types, or of all when there are none, between two times, without what happened.
    async fn events(
        &mut self,
        kinds: &[&'static str],
        times: (Option<Time>, Option<Time>),
        range: &RowRange,
    ) -> Result<Vec<PlatformEvent>, StoreError>;

    /// Events of these types, or of all when there are none, in the order in which they were published, without what happened.
    async fn logged_events(
        &mut self,
        kinds: &[&'static str],
        range: &LogRange,
    ) -> Result<LoggedEvents, StoreError>;

    /// The tenants of a page, the greatest id first.
    async fn tenants_of_page(&mut self, range: &RowRange) -> Result<Vec<TenantId>, StoreError>;

    /// What these tenants used on days from `from` until before `to`.
    async fn usage(
        &mut self,
        tenants: &[TenantId],
        from: Time,
        to: Time,
    ) -> Result<Vec<PlatformUsage>, StoreError>;
}

macro_rules! platform_rows {
    ($($row:ident)*) => {$(
        impl PlatformRow for $row {
            fn position(&self) -> RowPosition {
                RowPosition {
                    tenant: self.tenant_id,
                    id: self.id,
                }
            }
        }
    )*};
}

platform_rows! {
    PlatformUser PlatformProject PlatformTask PlatformAuditEvent PlatformEvent
}
