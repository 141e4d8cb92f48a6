use uuid::Uuid;

use crate::kernel::Time;

/// Where a page of a newest-first list begins: after the row with this time and id.
///
/// A position carries no authority: it is applied inside a scope like any other filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// `created_at` of the last row seen.
    pub created_at: Time,
    /// Its id, which breaks ties.
    pub id: Uuid,
}

impl From<(Time, Uuid)> for Position {
    fn from((created_at, id): (Time, Uuid)) -> Self {
        Self { created_at, id }
    }
}

/// Which page of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// How many rows at the most, 1..=100.
    pub limit: u32,
    /// After which row; `None` for the first page.
    pub after: Option<Position>,
}

/// One page, newest row first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page begins; `None` when this one is the last.
    pub next: Option<Position>,
}

impl<T> Page<T> {
    /// Makes a page out of `limit + 1` fetched rows: the one too many only tells that there is a next page.
    pub fn from_rows(mut rows: Vec<T>, request: PageRequest, position: impl Fn(&T) -> Position) -> Self {
        let limit = request.limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(position) } else { None };
        Self { items: rows, next }
    }

    /// The same page of other things.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(f).collect(),
            next: self.next,
        }
    }

    /// The same page of other things, if all of them can be made.
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn try_map<U, E>(self, f: impl FnMut(T) -> Result<U, E>) -> Result<Page<U>, E> {
        Ok(Page {
            items: self.items.into_iter().map(f).collect::<Result<_, E>>()?,
            next: self.next,
        })
    }
}
