use std::sync::Arc;

use crate::kernel::IdSource;

/// The id of the request (or job run) on whose behalf something happens; 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Takes over a caller's id when it is sane: 1 to 128 characters of `A-Z a-z 0-9 . _ : -`.
    pub fn parse(text: &str) -> Option<Self> {
        let sane = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
        ((1..=128).contains(&text.len()) && text.chars().all(sane)).then(|| Self(text.into()))
    }

    /// A new id.
    pub fn next(ids: &dyn IdSource) -> Self {
        Self(ids.uuid().to_string().into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
