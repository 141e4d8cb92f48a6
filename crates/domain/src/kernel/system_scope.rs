/// Leave to do something across tenants, with the reason for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemScope(&'static str);

impl SystemScope {
    /// The reason is a literal, so that every use of this door can be found by searching for it.
    pub const fn because(reason: &'static str) -> Self {
        Self(reason)
    }

    /// Returns the text that `because` was given, for logs and audit entries.
    pub const fn reason(self) -> &'static str {
        self.0
    }
}
