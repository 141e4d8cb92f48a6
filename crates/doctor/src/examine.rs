use sqlx::PgConnection;

use crate::catalogue::{Catalogue, Depth};
use crate::check::{Check, checks};
use crate::options::TENANTRYS;
use crate::subject::Subject;
use crate::{DoctorError, Manifest, Options, Report};

/// Runs every check.
///
/// It reads the catalogue in one read-only transaction of its own, and any role may do so. The connection must
/// not be in a transaction; one opened by hand rather than by `begin()` would be ended without notice.
///
/// # Errors
/// No connection, a role or a schema that does not exist, or a connection in a transaction.
pub async fn examine(connection: &mut PgConnection, options: &Options) -> Result<Report, DoctorError> {
    let catalogue = Catalogue::read(connection, options, Depth::Full).await?;
    let role = runtime_role(&catalogue, options)?;
    let subject = Subject::new(&catalogue, options, vec![role]);
    Ok(report(&subject, checks()))
}

/// Runs the critical checks for a server that is about to serve on such connections, in one round trip; in two where
/// the catalogue is compared with a manifest.
///
/// The role examined is the user of the connection whatever [`Options::runtime_role`] says: what another role may
/// do says nothing about this one.
///
/// # Errors
/// As for [`examine`].
pub async fn guard(connection: &mut PgConnection, options: &Options) -> Result<Report, DoctorError> {
    let catalogue = Catalogue::read(connection, options, Depth::Critical).await?;
    let server = &catalogue.server;
    let mut users = vec![server.current_user.as_str()];
    // Whoever came by SET ROLE can go back.
    if server.session_user != server.current_user {
        users.push(&server.session_user);
    }
    let subject = Subject::new(&catalogue, options, users);
    Ok(report(&subject, checks().filter(|check| check.guards)))
}

/// Writes down what the database is. It changes nothing; any role may do so that can read which migrations were applied.
///
/// # Errors
/// No connection, or one in a transaction.
pub async fn record(connection: &mut PgConnection, options: &Options) -> Result<Manifest, DoctorError> {
    Manifest::record(connection, options).await
}

fn runtime_role<'a>(catalogue: &'a Catalogue, options: &'a Options) -> Result<&'a str, DoctorError> {
    let missing_schema = options
        .schemas
        .iter()
        .find(|name| !catalogue.schemas.iter().any(|schema| schema.name == **name));
    if let Some(schema) = missing_schema {
        return Err(DoctorError::NoSuchSchema {
            schema: schema.clone(),
        });
    }
    let exists = |name: &str| catalogue.roles.iter().any(|role| role.name == name);
    match &options.runtime_role {
        Some(role) if !exists(role) => Err(DoctorError::NoSuchRole { role: role.clone() }),
        Some(role) if !options.is_other(role) => Ok(role),
        _ if exists(TENANTRYS) => Ok(TENANTRYS),
        _ => Ok(&catalogue.server.current_user),
    }
}

fn report(subject: &Subject<'_>, checks: impl Iterator<Item = &'static Check>) -> Report {
    let server = &subject.catalogue.server;
    Report {
        database: server.database.clone(),
        server_version: server.version.clone(),
        role: subject.runtime().to_owned(),
        other_roles: subject.others().map(str::to_owned).collect(),
        connected_as: server.session_user.clone(),
        tenant_tables: subject.tenant_tables().count(),
        global_tables: subject.global_tables().count(),
        options: subject.options.clone(),
        checks: checks.map(|check| check.run(subject)).collect(),
    }
}
