use crate::kernel::PublicUrl;

/// An address in a value, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// JSON pointer into the change.
    pub pointer: String,
    /// The address.
    pub url: PublicUrl,
}
