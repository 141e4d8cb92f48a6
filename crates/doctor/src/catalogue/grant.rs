use serde::Deserialize;

/// Something granted to somebody.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Grant {
    /// To whom; `None` is everybody.
    pub(crate) grantee: Option<String>,
    pub(crate) privilege: String,
    /// The column, where it is not for the whole.
    #[serde(default)]
    pub(crate) column: Option<String>,
}
