//! Reading the feed of a tenant's events.

use tenantry_domain::events::{Event, EventType, FeedEnds};
use tenantry_domain::kernel::{Invalid, Permission};

use crate::Cx;
use crate::events::publish::EventError;

/// How many positions a page looks at, so that one with few events of its types ends too.
const POSITIONS: i64 = 10_000;

/// Where a reader goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedStart {
    /// With the oldest event that is kept.
    Oldest,
    /// With the next event that is published.
    Latest,
    /// Behind the event with this position.
    After(i64),
    /// Behind the event with this position, which a consumer has stored.
    Stored(i64),
}

/// Which events are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedRequest {
    /// Where to go on.
    pub start: FeedStart,
    /// The types of events; all when there are none.
    pub kinds: Vec<&'static str>,
    /// How many events at the most.
    pub limit: u32,
}

/// A part of the feed.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedPage {
    /// The events in their order.
    pub events: Vec<Event>,
    /// Behind which position the reader goes on. Everything up to there is in `events`, or of another type.
    pub next: i64,
    /// Whether there is more to read at once. It can be so although `events` is empty: then only other types were found so far.
    pub has_more: bool,
}

/// The types of events that there are.
///
/// # Errors
/// [`EventError`].
pub fn types(cx: &Cx) -> Result<&[EventType], EventError> {
    cx.require(Permission::ReadEventTypes)?;
    Ok(cx.ports().event_types.all())
}

/// The next events of the tenant's feed.
///
/// # Errors
/// [`EventError`]; `expired` at `/query/after` or `/query/consumer` when events behind that position were deleted because of their age, or the position is not
/// of this feed.
pub async fn read(cx: &Cx, request: &FeedRequest) -> Result<FeedPage, EventError> {
    cx.require(Permission::ReadEvents)?;
    cx.read(async |work| {
        let ends = work.events().ends().await?;
        let at = request.start.pointer();
        let after = beginning(request.start, ends, at)?;
        let through = ends.newest.min(after.saturating_add(POSITIONS));
        // The one too many only says that there are more.
        let mut events = work
            .events()
            .between((after, through), &request.kinds, request.limit.saturating_add(1))
            .await?;
        // A retention that has run meanwhile may have deleted what was to be read.
        beginning(request.start, work.events().ends().await?, at)?;
        let is_cut = events.len() > request.limit as usize;
        events.truncate(request.limit as usize);
        let last = events.last().map(|event| event.position);
        Ok(FeedPage {
            next: last.filter(|_| is_cut).unwrap_or(through),
            events,
            has_more: is_cut || through < ends.newest,
        })
    })
    .await
}

impl FeedStart {
    /// Which parameter of a request is at fault when it cannot be read from here.
    fn pointer(self) -> &'static str {
        match self {
            Self::Stored(_) => "/query/consumer",
            Self::Oldest | Self::Latest | Self::After(_) => "/query/after",
        }
    }
}

/// Returns behind which position a reader begins.
///
/// # Errors
/// `expired` at the pointer when events behind it were deleted because of their age, or the position is not of this feed.
pub(crate) fn beginning(start: FeedStart, ends: FeedEnds, at: &str) -> Result<i64, Invalid> {
    match start {
        FeedStart::Oldest => Ok(ends.before_oldest()),
        FeedStart::Latest => Ok(ends.newest),
        FeedStart::After(position) | FeedStart::Stored(position) if ends.has(position) => Ok(position),
        FeedStart::After(_) => {
            let detail = "events behind this cursor are not kept any more: begin anew without a cursor";
            Err(Invalid::one(at, "expired", detail))
        }
        FeedStart::Stored(_) => {
            let detail =
                "events behind the stored cursor are not kept any more: store another one, such as `oldest`";
            Err(Invalid::one(at, "expired", detail))
        }
    }
}

/// Returns the position of the newest event. A follower compares it with what it has read.
///
/// # Errors
/// [`EventError`].
pub(crate) async fn newest(cx: &Cx) -> Result<i64, EventError> {
    cx.require(Permission::ReadEvents)?;
    cx.read(async |work| Ok(work.events().ends().await?.newest)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_whose_events_are_gone_is_refused() {
        let ends = FeedEnds { oldest: 5, newest: 9 };
        let at = |position| beginning(FeedStart::After(position), ends, "").ok();
        assert_eq!([3, 4, 9, 10].map(at), [None, Some(4), Some(9), None]);
        assert_eq!(beginning(FeedStart::Oldest, ends, ""), Ok(4));
        assert_eq!(beginning(FeedStart::Latest, ends, ""), Ok(9));
        let empty = FeedEnds::default();
        for start in [FeedStart::Oldest, FeedStart::Latest, FeedStart::After(0)] {
            assert_eq!(beginning(start, empty, ""), Ok(0));
        }
        assert!(beginning(FeedStart::After(1), empty, "").is_err());
        assert!(beginning(FeedStart::Stored(3), ends, "").is_err());
    }
}
