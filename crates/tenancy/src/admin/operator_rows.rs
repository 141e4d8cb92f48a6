//! Rows of all tenants, as operators see them: with a reason, and never without a record, neither of the platform's nor of the tenants'.
//!
//! The record is stored first, in the transaction that reads: row-level security shows the platform role nothing without it. What was read
//! is answered when it is also in the log of each tenant whose rows are among it. The reason is shown to a tenant only when the read is of
//! this tenant alone: another one may be named in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::Duration;
use serde_json::json;
use tenantry_domain::audit::AuditFilter;
use tenantry_domain::kernel::{
    Check, Invalid, OperatorEventId, Period, StoreError, SystemScope, TenantId, Time,
};
use tenantry_domain::operations::{
    OperatorPermission, OperatorWork, PlatformAuditEvent, PlatformEvent, PlatformProject, PlatformRow,
    PlatformTask, PlatformUsage, PlatformUser, RowPosition, RowRange,
};
use tenantry_domain::tenant::Denied;
use uuid::Uuid;

use crate::audit::log::check_filter;
use crate::{Cx, OperatorCx, OwnReason, Tenancy, UseCaseError};

/// Errors of operators' reads of tenants' rows.
pub type RowError = UseCaseError<RowReason>;

/// Why no rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowReason {
    /// As many reads as one server allows at once are under way.
    #[error("too many reads across tenants at once")]
    Busy,
}

impl OwnReason for RowReason {}

/// How many reads across tenants one server allows at once: few, so that the tenants' requests keep the database. Services that follow events
/// have as many of their own, so that lists find a place while services catch up.
pub const AT_ONCE: usize = 2;

/// The length of a reason, in characters.
pub const REASON_LENGTH: std::ops::RangeInclusive<usize> = 10..=500;

/// The longest period of usage, in days.
pub const USAGE_DAYS: i64 = 31;

const BECAUSE: SystemScope = SystemScope::because("an operator reads rows of tenants");

/// A page of rows of several tenants.
#[derive(Debug, Clone, PartialEq)]
pub struct RowPage<T> {
    /// The rows, by tenant and id, the greatest first.
    pub rows: Vec<T>,
    /// After which row the next page begins; `None` on the last page.
    pub next: Option<RowPosition>,
}

/// A page of users.
///
/// # Errors
/// [`RowError`].
pub async fn users(
    cx: &OperatorCx,
    reason: &str,
    range: RowRange,
) -> Result<RowPage<PlatformUser>, RowError> {
    cx.require(OperatorPermission::ReadRows)?;
    let read = Reading::begin(cx, "users", reason, range).await?;
    read.page(async |work| work.rows().users(&range).await).await
}

/// A page of projects.
///
/// # Errors
/// [`RowError`].
pub async fn projects(
    cx: &OperatorCx,
    reason: &str,
    range: RowRange,
) -> Result<RowPage<PlatformProject>, RowError> {
    cx.require(OperatorPermission::ReadRows)?;
    let read = Reading::begin(cx, "projects", reason, range).await?;
    read.page(async |work| work.rows().projects(&range).await).await
}

/// A page of tasks.
///
/// # Errors
/// [`RowError`].
pub async fn tasks(
    cx: &OperatorCx,
    reason: &str,
    range: RowRange,
) -> Result<RowPage<PlatformTask>, RowError> {
    cx.require(OperatorPermission::ReadRows)?;
    let read = Reading::begin(cx, "tasks", reason, range).await?;
    read.page(async |work| work.rows().tasks(&range).await).await
}

/// A page of entries of audit logs.
///
/// # Errors
/// [`RowError`].
pub async fn audit_events(
    cx: &OperatorCx,
    reason: &str,
    filter: &AuditFilter,
    range: RowRange,
) -> Result<RowPage<PlatformAuditEvent>, RowError> {
    cx.require(OperatorPermission::ReadRows)?;
    check_filter(filter)?;
    let read = Reading::begin(cx, "audit_events", reason, range).await?;
    read.page(async |work| work.rows().audit_events(filter, &range).await)
        .await
}

/// A page of events of these types, or of all when there are none, between two times.
///
/// # Errors
/// [`RowError`].
pub async fn events(
    cx: &OperatorCx,
    reason: &str,
    (kinds, from, to): (&[&'static str], Option<Time>, Option<Time>),
    range: RowRange,
) -> Result<RowPage<PlatformEvent>, RowError> {
    cx.require(OperatorPermission::ReadRows)?;
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        let detail = "must be later than `from`";
        return Err(Invalid::one("/query/to", "out_of_range", detail).into());
    }
    let read = Reading::begin(cx, "events", reason, range).await?;
    read.page(async |work| work.rows().events(kinds, (from, to), &range).await)
        .await
}

/// What the tenants of a page used on the days of a period of up to [`USAGE_DAYS`].
///
/// # Errors
/// [`RowError`].
pub async fn usage(
    cx: &OperatorCx,
    reason: &str,
    range: RowRange,
    period: Period,
) -> Result<RowPage<PlatformUsage>, RowError> {
    cx.require(OperatorPermission::ReadUsage)?;
    if period.end - period.start > Duration::days(USAGE_DAYS) {
        let detail = format!("must be at most {USAGE_DAYS} days after from");
        return Err(Invalid::one("/query/to", "range", detail).into());
    }
    let mut read = Reading::begin(cx, "usage", reason, range).await?;
    let mut tenants = read.work.rows().tenants_of_page(&range).await?;
    let next = next_of(&mut tenants, range, |tenant| RowPosition {
        tenant: *tenant,
        id: Uuid::nil(),
    });
    let rows = read.work.rows().usage(&tenants, period.start, period.end).await?;
    read.finish(rows, |row| row.tenant_id, next).await
}

/// Whether a reason is a line of the [length of a reason](REASON_LENGTH).
pub(crate) fn check_reason(reason: &str) -> Result<(), Invalid> {
    Check::all(|check| check.line("/header/X-Bypass-Reason", reason, REASON_LENGTH))
}

/// A read that is on record, with the transaction in which the rows are open.
pub(crate) struct Reading<'cx> {
    cx: &'cx OperatorCx,
    kind: &'static str,
    reason: String,
    range: RowRange,
    record: OperatorEventId,
    /// The transaction in which the rows are open.
    pub(crate) work: Box<dyn OperatorWork>,
    _turn: Turn,
}

impl<'cx> Reading<'cx> {
    /// Stores the record of the read and opens the rows.
    pub(crate) async fn begin(
        cx: &'cx OperatorCx,
        kind: &'static str,
        reason: &str,
        range: RowRange,
    ) -> Result<Self, RowError> {
        check_reason(reason)?;
        let turn = Turn::take(cx.app(), Reader::List).ok_or(RowReason::Busy)?;
        Self::open(cx, kind, (reason, range), turn).await
    }

    /// The same for a service that follows events.
    pub(crate) async fn follow(
        cx: &'cx OperatorCx,
        kind: &'static str,
        reason: &str,
        range: RowRange,
    ) -> Result<Self, RowError> {
        check_reason(reason)?;
        let turn = Turn::take(cx.app(), Reader::Follower).ok_or(RowReason::Busy)?;
        Self::open(cx, kind, (reason, range), turn).await
    }

    async fn open(
        cx: &'cx OperatorCx,
        kind: &'static str,
        (reason, range): (&str, RowRange),
        turn: Turn,
    ) -> Result<Self, RowError> {
        let mut record = cx.record(
            "rows.read",
            range.tenant,
            json!({"rows": kind, "limit": range.limit}),
        );
        record.reason = Some(reason.to_owned());
        let id = record.id;
        let mut work = cx.begin().await?;
        work.record(record).await?;
        work.rows().open(id).await?;
        Ok(Self {
            cx,
            kind,
            reason: reason.to_owned(),
            range,
            record: id,
            work,
            _turn: turn,
        })
    }

    async fn page<T: PlatformRow>(
        mut self,
        fetch: impl AsyncFnOnce(&mut dyn OperatorWork) -> Result<Vec<T>, StoreError>,
    ) -> Result<RowPage<T>, RowError> {
        let mut rows = fetch(self.work.as_mut()).await?;
        let next = next_of(&mut rows, self.range, PlatformRow::position);
        self.finish(rows, |row| row.position().tenant, next).await
    }

    /// Stores what was read, first with the operators and then with each tenant, also with the one that the read is of when it has no rows.
    /// Rows of a tenant that was deleted meanwhile, which has no log any more, are left out.
    pub(crate) async fn finish<T>(
        self,
        rows: Vec<T>,
        tenant_of: impl Fn(&T) -> TenantId,
        next: Option<RowPosition>,
    ) -> Result<RowPage<T>, RowError> {
        let touched = self.range.tenant.map(|tenant| (tenant, 0));
        let rows = self.store(rows, tenant_of, touched.into_iter().collect()).await?;
        Ok(RowPage { rows, next })
    }

    /// The same with the tenants alone whose rows are shown. A read that is repeated when others have published stores nothing with a tenant
    /// that has not: the times of its entries would tell about the others.
    pub(crate) async fn finish_shown<T>(
        self,
        rows: Vec<T>,
        tenant_of: impl Fn(&T) -> TenantId,
    ) -> Result<RowPage<T>, RowError> {
        let rows = self.store(rows, tenant_of, BTreeMap::new()).await?;
        Ok(RowPage { rows, next: None })
    }

    async fn store<T>(
        self,
        mut rows: Vec<T>,
        tenant_of: impl Fn(&T) -> TenantId,
        mut touched: BTreeMap<TenantId, usize>,
    ) -> Result<Vec<T>, RowError> {
        for row in &rows {
            *touched.entry(tenant_of(row)).or_default() += 1;
        }
        let details = json!({"event": self.record, "rows": rows.len(), "tenants": touched.len()});
        let shown = self.cx.record("rows.shown", self.range.tenant, details);
        self.work.commit(shown).await?;
        let record = TenantRecord {
            cx: self.cx,
            kind: self.kind,
            reason: self.range.tenant.map(|_| self.reason.as_str()),
            record: self.record,
        };
        let open = record.store_in_each(&touched).await?;
        rows.retain(|row| open.contains(&tenant_of(row)));
        Ok(rows)
    }
}

/// What is recorded of a read in the logs of tenants.
struct TenantRecord<'cx> {
    cx: &'cx OperatorCx,
    kind: &'static str,
    /// Only of a read of this tenant alone.
    reason: Option<&'cx str>,
    record: OperatorEventId,
}

impl TenantRecord<'_> {
    /// Adds an entry to the log of each tenant; the tenants that have one.
    async fn store_in_each(&self, touched: &BTreeMap<TenantId, usize>) -> Result<Vec<TenantId>, RowError> {
        let ids: Vec<TenantId> = touched.keys().copied().collect();
        let gate = &self.cx.app().ports.gate;
        let mut open = Vec::new();
        for (tenant, scope) in gate.system_each(BECAUSE, &ids).await? {
            let scope = match scope {
                Ok(scope) => scope,
                Err(Denied::TenantGone | Denied::TenantNotFound) => continue,
                Err(denied) => return Err(denied.into()),
            };
            self.record(&self.cx.inside(scope), touched.get(&tenant).copied().unwrap_or(0))
                .await?;
            open.push(tenant);
        }
        Ok(open)
    }

    async fn record(&self, inside: &Cx, rows: usize) -> Result<(), StoreError> {
        let mut details = json!({
            "rows": self.kind, "count": rows, "operator_id": self.cx.scope().operator(), "operator_event": self.record,
        });
        if let Some(reason) = self.reason {
            details["reason"] = json!(reason);
        }
        let tenant = inside.scope().tenant().uuid();
        inside
            .write(async |work| {
                let event = inside.security("operator.rows_read", "tenant", Some(tenant), details.clone());
                work.audit().record(event).await
            })
            .await
    }
}

/// Makes a page out of `limit + 1` rows.
fn next_of<T>(
    rows: &mut Vec<T>,
    range: RowRange,
    position: impl Fn(&T) -> RowPosition,
) -> Option<RowPosition> {
    let limit = range.limit as usize;
    let more = rows.len() > limit;
    rows.truncate(limit);
    rows.last().filter(|_| more).map(position)
}

/// The reads that are under way on this server, by their readers.
#[derive(Debug, Default)]
struct Readers([AtomicUsize; 2]);

/// What reads.
#[derive(Debug, Clone, Copy)]
enum Reader {
    /// A request for a list.
    List,
    /// A service that follows events.
    Follower,
}

/// One of the [`AT_ONCE`] places for a read.
struct Turn(Arc<Readers>, Reader);

impl Turn {
    fn take(app: &Tenancy, reader: Reader) -> Option<Self> {
        let readers = app.state::<Readers>();
        let is_free = readers.0[reader as usize].fetch_add(1, Ordering::AcqRel) < AT_ONCE;
        // Dropped when it is one too many.
        let turn = Self(readers, reader);
        is_free.then_some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0[self.1 as usize].fetch_sub(1, Ordering::AcqRel);
    }
}
