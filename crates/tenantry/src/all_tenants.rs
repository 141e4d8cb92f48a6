//! Commands that go through all tenants, and through all of them also when something is wrong with one.

use crate::{CommandError, console};

/// Counts the tenants in which a command has failed.
#[derive(Debug, Default)]
pub struct FailedTenants(usize);

impl FailedTenants {
    /// Prints and counts a failure.
    pub fn note(&mut self, slug: &str, done: Result<(), CommandError>) {
        if let Err(error) = done {
            console::error(&format!("{slug} {error}"));
            self.0 += 1;
        }
    }

    /// Returns how the command ends.
    ///
    /// # Errors
    /// [`CommandError`] with the number of tenants in which it has failed.
    pub fn summary(&self) -> Result<(), CommandError> {
        match self.0 {
            0 => Ok(()),
            failed => Err(CommandError::Other(format!("{failed} tenant(s) failed"))),
        }
    }
}
