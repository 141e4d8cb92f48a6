use sqlx::{ConnectOptions as _, PgConnection, postgres::PgConnectOptions};

use crate::DoctorError;

/// A connection for [`examine`](crate::examine()) or [`guard`](crate::guard()), for callers that have no driver of
/// their own.
///
/// # Errors
/// [`DoctorError::Database`]; the message holds no password.
pub async fn connect(url: &str) -> Result<PgConnection, DoctorError> {
    let options: PgConnectOptions = url.parse()?;
    Ok(options
        .application_name("tenantry doctor")
        .disable_statement_logging()
        .connect()
        .await?)
}

/// The user that a URL names, else the one that PostgreSQL takes by default.
///
/// # Errors
/// A URL that cannot be read.
pub fn user_of(url: &str) -> Result<String, DoctorError> {
    let options: PgConnectOptions = url.parse()?;
    Ok(options.get_username().to_owned())
}
