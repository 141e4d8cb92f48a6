/// Which version a caller expects to change (`If-Match`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Whatever there is.
    None,
    /// One of these versions.
    Versions(Vec<i64>),
    /// None of these versions.
    NoneOf(Vec<i64>),
    /// Nothing yet: a change that only makes something new.
    Absent,
    /// Both of these hold.
    Both(Box<(Precondition, Precondition)>),
}

/// The resource is not at the version that the caller expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the precondition does not hold: the resource is at version {current} now")]
pub struct Stale {
    /// The present version.
    pub current: i64,
}

impl Precondition {
    /// Whether the version is one that the caller expects; 0 is that of something that is not there yet.
    ///
    /// # Errors
    /// [`Stale`] when it is not.
    pub fn check(&self, current: i64) -> Result<(), Stale> {
        let holds = match self {
            Self::None => true,
            Self::Versions(expected) => expected.contains(&current),
            Self::NoneOf(versions) => !versions.contains(&current),
            Self::Absent => current == 0,
            Self::Both(both) => return both.0.check(current).and_then(|()| both.1.check(current)),
        };
        if holds { Ok(()) } else { Err(Stale { current }) }
    }
}
