//! `--reason` of the commands that change something, and the context in which they do.

use std::sync::Arc;

use tenantry_domain::kernel::SystemScope;
use tenantry_tenancy::{OperatorCx, Tenancy};

use crate::CommandError;
use crate::tenant::invalid;

/// Why, where the same change over HTTP needs no reason.
#[derive(Debug, clap::Args)]
pub struct Reason {
    /// Why, for the log of operators: 1 to 500 characters.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Reason {
    /// The context of a command, whose records have the reason.
    ///
    /// # Errors
    /// [`CommandError`] when the reason is not a line of 1 to 500 characters.
    pub fn context(&self, app: &Arc<Tenancy>, because: SystemScope) -> Result<OperatorCx, CommandError> {
        context(app, because, self.reason.as_deref())
    }
}

/// Why, where the same change over HTTP needs a reason.
#[derive(Debug, clap::Args)]
pub struct MandatoryReason {
    /// Why, for the log of operators and that of the tenant: 1 to 500 characters.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

impl MandatoryReason {
    /// The context of a command, whose records have the reason.
    ///
    /// # Errors
    /// [`CommandError`] when the reason is not a line of 1 to 500 characters.
    pub fn context(&self, app: &Arc<Tenancy>, because: SystemScope) -> Result<OperatorCx, CommandError> {
        context(app, because, Some(&self.reason))
    }
}

/// The context of a command, whose records have the reason where there is one.
///
/// # Errors
/// [`CommandError`] when the reason is not a line of 1 to 500 characters.
pub fn context(
    app: &Arc<Tenancy>,
    because: SystemScope,
    reason: Option<&str>,
) -> Result<OperatorCx, CommandError> {
    let cx = OperatorCx::command(app, because);
    match reason {
        Some(reason) => cx.with_reason(reason).map_err(|error| invalid(&error)),
        None => Ok(cx),
    }
}
