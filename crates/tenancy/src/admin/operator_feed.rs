//! Events of all tenants in the order in which they were published, as operators' services read them: forward from a place in the log, and
//! without passing over any. Each page is recorded as other reads of rows of tenants are; looking whether there is one reads no row, and is not.

use tenantry_domain::events::{LogEnds, LogPosition};
use tenantry_domain::kernel::{Invalid, SystemScope, TenantId};
use tenantry_domain::operations::{LogRange, OperatorPermission, PlatformEvent, RowRange};

use crate::OperatorCx;
use crate::admin::operator_rows::{Reading, RowError, check_reason};

/// How many entries of the log a page looks at, so that one with few events of its types ends too.
const ENTRIES: u32 = 1_000;

/// Behind how many positions a page looks at no further entry, so that its statement is short although none of its types is there.
const POSITIONS: u32 = 5_000;

const BECAUSE: SystemScope = SystemScope::because("an operator follows the events of tenants");

/// Where an operator's service goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStart {
    /// With the oldest entry of the log that is kept.
    Oldest,
    /// With the next event that is published.
    Latest,
    /// Behind this place.
    Behind(LogPosition),
}

/// Which events are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// Where to go on.
    pub start: LogStart,
    /// Only events of this tenant.
    pub tenant: Option<TenantId>,
    /// The types of events; all when there are none.
    pub kinds: Vec<&'static str>,
    /// How many events at the most.
    pub limit: u32,
}

/// A part of the events of all tenants.
#[derive(Debug, Clone, PartialEq)]
pub struct LogPage {
    /// The events in the order of the log.
    pub events: Vec<PlatformEvent>,
    /// Behind which place the reader goes on. Everything up to there is in `events`, of another type or tenant, or gone.
    pub next: LogPosition,
    /// Whether there was more to read when the page was begun.
    pub has_more: bool,
}

/// Returns the place at which a request begins, and whether there is something behind it, of this tenant if one is named. Nothing of a tenant
/// is read. When only other tenants have entries behind the place, it is moved behind them.
///
/// # Errors
/// [`RowError`]; `expired` at `/query/after` when entries behind the place were deleted because of their age, or it is none of this log.
pub async fn look(
    cx: &OperatorCx,
    reason: &str,
    (start, tenant): (LogStart, Option<TenantId>),
) -> Result<(LogPosition, bool), RowError> {
    cx.require(OperatorPermission::ReadRows)?;
    check_reason(reason)?;
    let ahead = Ahead::look(cx, tenant).await?;
    let place = beginning(start, ahead.ends)?;
    let is_inside = place.position != i64::MAX;
    match is_inside || place.number < ahead.last {
        true => Ok((place, true)),
        false => Ok((ahead.passed(place), false)),
    }
}

/// What there was to read at a time.
#[derive(Debug, Clone, Copy)]
struct Ahead {
    ends: LogEnds,
    /// The last entry of the tenant, or of all.
    last: i64,
}

impl Ahead {
    async fn look(cx: &OperatorCx, tenant: Option<TenantId>) -> Result<Self, RowError> {
        let published = &cx.app().ports.published_events;
        let ends = published.ends(BECAUSE).await?;
        // After the ends, so that each entry of the tenant up to them is seen.
        let last = match tenant {
            Some(tenant) => published.last_of(BECAUSE, tenant).await?,
            None => ends.last,
        };
        Ok(Self { ends, last })
    }

    /// Returns the place behind the entries of others, when there is none of the tenant behind `place`.
    fn passed(self, place: LogPosition) -> LogPosition {
        LogPosition::behind(place.number.max(self.ends.last))
    }
}

/// Returns the next events behind the place at which the request begins.
///
/// # Errors
/// As [`look`].
pub async fn read(cx: &OperatorCx, reason: &str, request: &LogRequest) -> Result<LogPage, RowError> {
    cx.require(OperatorPermission::ReadRows)?;
    let (tenant, limit) = (request.tenant, request.limit);
    check_reason(reason)?;
    let ahead = Ahead::look(cx, tenant).await?;
    let behind = beginning(request.start, ahead.ends)?;
    let range = RowRange {
        tenant,
        after: None,
        limit,
    };
    let mut reading = Reading::follow(cx, "events", reason, range).await?;
    let range = LogRange {
        tenant,
        behind,
        entries: ENTRIES,
        positions: POSITIONS,
        limit,
    };
    let found = reading.work.rows().logged_events(&request.kinds, &range).await?;
    // Entries that have expired meanwhile were not read, and are not passed over in silence.
    let ends = cx.app().ports.published_events.ends(BECAUSE).await?;
    beginning(LogStart::Behind(behind), ends)?;
    let (mut events, last) = (found.events, found.last.unwrap_or(behind.number));
    let is_cut = events.len() > limit as usize;
    events.truncate(limit as usize);
    let next = match events.last().filter(|_| is_cut) {
        Some((number, event)) => LogPosition {
            number: *number,
            position: event.position,
        },
        None => LogPosition::behind(last),
    };
    let rows: Vec<PlatformEvent> = events.into_iter().map(|(_, event)| event).collect();
    let page = reading.finish_shown(rows, |event| event.tenant_id).await?;
    // Of what there was at first: a page that is read to there is not followed at once by what came meanwhile.
    let has_more = is_cut || next.number < ahead.last;
    Ok(LogPage {
        events: page.rows,
        next: if has_more { next } else { ahead.passed(next) },
        has_more,
    })
}

fn beginning(start: LogStart, ends: LogEnds) -> Result<LogPosition, Invalid> {
    match start {
        LogStart::Oldest => Ok(LogPosition::behind(ends.floor)),
        LogStart::Latest => Ok(LogPosition::behind(ends.last)),
        LogStart::Behind(place) if ends.has(place) => Ok(place),
        LogStart::Behind(_) => {
            let detail = "events behind this cursor are not kept any more: begin anew with `after=oldest`";
            Err(Invalid::one("/query/after", "expired", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_whose_entries_are_gone_is_refused() {
        let ends = LogEnds { floor: 3, last: 9 };
        let at = |number| beginning(LogStart::Behind(LogPosition::behind(number)), ends).is_ok();
        assert_eq!([2, 3, 9, 10].map(at), [false, true, true, false]);
        let behind = |number| Ok(LogPosition::behind(number));
        assert_eq!(beginning(LogStart::Oldest, ends), behind(3));
        assert_eq!(beginning(LogStart::Latest, ends), behind(9));
    }
}
