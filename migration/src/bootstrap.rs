use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row};

use crate::connection::{connect, failed, lock, options, run};
use crate::quote::{identifier, literal};
use crate::roles::Role;
use crate::{APP_ROLE, Bootstrap, MigrationError, OWNER_ROLE, PLATFORM_ROLE};

/// Makes the three roles and the database, or makes those that are there ready. Doing it again changes
/// nothing.
///
/// Without the right to make roles (neither superuser nor CREATEROLE) it makes nothing and checks everything,
/// so that a deployment where somebody else makes roles can run it all the same.
///
/// Passwords are kept out of our own log, and out of the server's where the administrator may say so (a
/// superuser may). Settings of a role that somebody has changed stay changed.
///
/// # Errors
/// No connection, a right that is missing, a role that is more than it should be; in a sentence that says
/// which.
pub async fn bootstrap(plan: &Bootstrap) -> Result<(), MigrationError> {
    plan.check()?;
    let admin_options = options(&plan.admin_url)?;
    let mut admin = connect(&admin_options).await?;
    // Roles are of the whole cluster, while the lock is of one database: those who came in through two
    // different databases can still meet, and the loser finds the work done when it tries again.
    lock(&mut admin).await?;
    let mut attempt = 1;
    let outcome = loop {
        match prepare(&mut admin, &admin_options, plan).await {
            Err(error) if error.is_race() && attempt < 4 => attempt += 1,
            outcome => break outcome,
        }
    };
    admin.close().await.ok();
    outcome
}

/// What the administrator may do.
struct Rights {
    superuser: bool,
    make_roles: bool,
    /// Whether it has the owner's rights without being asked to join.
    owner: bool,
}

async fn prepare(
    admin: &mut PgConnection,
    admin_options: &PgConnectOptions,
    plan: &Bootstrap,
) -> Result<(), MigrationError> {
    let rights = rights(admin).await?;
    let database = admin_options.clone().database(&plan.database);
    if !rights.superuser && !rights.make_roles {
        return check_only(admin, &database, plan).await;
    }
    if rights.superuser {
        hush(admin).await?;
    }
    for role in plan.roles() {
        ensure_role(admin, &role, plan.reset_passwords).await?;
    }
    ensure_membership(admin).await?;
    // A superuser may do anything to what is the owner's. Everybody else has to be one of the owner's own.
    let joins = !rights.superuser && !rights.owner;
    if joins {
        run(
            &mut *admin,
            "join tenantry_owner",
            format!("GRANT {OWNER_ROLE} TO CURRENT_USER"),
        )
        .await?;
    }
    let outcome = ensure_database(admin, &database, plan).await;
    let left = match joins {
        true => {
            run(
                &mut *admin,
                "leave tenantry_owner",
                format!("REVOKE {OWNER_ROLE} FROM CURRENT_USER"),
            )
            .await
        }
        false => Ok(()),
    };
    outcome.and(left)?;
    tracing::info!(database = plan.database, "roles and database are ready");
    Ok(())
}

async fn rights(admin: &mut PgConnection) -> Result<Rights, MigrationError> {
    let sql = "SELECT rolsuper, rolcreaterole, coalesce((SELECT pg_has_role(r.oid, 'USAGE') FROM pg_roles r
                   WHERE r.rolname = $1), false) AS owner
               FROM pg_roles WHERE rolname = current_user";
    let read = async {
        let row = sqlx::query(sql).bind(OWNER_ROLE).fetch_one(admin).await?;
        let (superuser, make_roles, owner) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(Rights {
            superuser,
            make_roles,
            owner,
        })
    };
    read.await
        .map_err(|cause| failed("look up the administrator's rights", cause))
}

/// Keeps the server's log free of the passwords to come, even where it logs statements, failed or slow ones.
async fn hush(admin: &mut PgConnection) -> Result<(), MigrationError> {
    let sql = "SET log_statement = 'none'; SET log_min_error_statement = 'panic'; \
               SET log_min_duration_statement = -1; SET log_min_duration_sample = -1";
    run(admin, "keep passwords out of the server's log", sql.to_owned()).await
}

async fn ensure_role(admin: &mut PgConnection, role: &Role<'_>, reset: bool) -> Result<(), MigrationError> {
    let name = role.name;
    match excess(admin, name).await? {
        None => {
            let inherit = if role.inherits { "INHERIT" } else { "NOINHERIT" };
            let password = literal(role.password);
            let sql = format!(
                "CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS NOREPLICATION {inherit} \
                 PASSWORD {password}"
            );
            run(&mut *admin, &format!("create role {name}"), sql).await?;
            tracing::info!(role = name, "role created");
        }
        Some(excess) if !excess.is_empty() => return Err(MigrationError::Refused(too_much(name, &excess))),
        Some(_) if reset => {
            let sql = format!("ALTER ROLE {name} PASSWORD {}", literal(role.password));
            run(&mut *admin, &format!("set the password of {name}"), sql).await?;
            tracing::info!(role = name, "password set");
        }
        Some(_) => {}
    }
    let present = settings(admin, name).await?;
    for (setting, value) in role
        .settings
        .iter()
        .filter(|(setting, _)| !present.iter().any(|one| one == setting))
    {
        let sql = format!("ALTER ROLE {name} SET {setting} = {value}");
        run(&mut *admin, &format!("set {setting} of {name}"), sql).await?;
    }
    Ok(())
}

/// What a role has that none of ours may have (or lacks that it needs); `None` when there is no such role.
async fn excess(admin: &mut PgConnection, name: &str) -> Result<Option<Vec<String>>, MigrationError> {
    let sql = "SELECT array_remove(ARRAY[
                   CASE WHEN NOT rolcanlogin THEN 'NOLOGIN' END, CASE WHEN rolsuper THEN 'SUPERUSER' END,
                   CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
                   CASE WHEN rolbypassrls THEN 'BYPASSRLS' END], NULL)
               FROM pg_roles WHERE rolname = $1";
    let found = sqlx::query_scalar(sql).bind(name).fetch_optional(admin).await;
    found.map_err(|cause| failed(&format!("look up role {name}"), cause))
}

fn too_much(name: &str, excess: &[String]) -> String {
    format!(
        "role {name} exists and is {}, which it must not be",
        excess.join(", ")
    )
}

async fn settings(admin: &mut PgConnection, name: &str) -> Result<Vec<String>, MigrationError> {
    let sql = "SELECT split_part(unnest(setconfig), '=', 1) FROM pg_db_role_setting
               WHERE setdatabase = 0 AND setrole = $1::regrole";
    let found = sqlx::query_scalar(sql).bind(name).fetch_all(admin).await;
    found.map_err(|cause| failed(&format!("look up the settings of {name}"), cause))
}

/// Lets the owner take the place of the other two, which data migrations do with SET ROLE.
///
/// This direction is harmless: the owner could do anything to the tables anyway, and in their place can do
/// less. The other direction would give the runtime role the right to switch row-level security off.
async fn ensure_membership(admin: &mut PgConnection) -> Result<(), MigrationError> {
    for role in [APP_ROLE, PLATFORM_ROLE] {
        if !is_member(admin, OWNER_ROLE, role).await? {
            let sql = format!("GRANT {role} TO {OWNER_ROLE}");
            run(&mut *admin, &format!("make {OWNER_ROLE} a member of {role}"), sql).await?;
        }
    }
    Ok(())
}

async fn is_member(admin: &mut PgConnection, member: &str, role: &str) -> Result<bool, MigrationError> {
    let found = sqlx::query_scalar("SELECT pg_has_role($1::name, $2::name, 'MEMBER')")
        .bind(member)
        .bind(role);
    found
        .fetch_one(admin)
        .await
        .map_err(|cause| failed("look up memberships", cause))
}

async fn ensure_database(
    admin: &mut PgConnection,
    database: &PgConnectOptions,
    plan: &Bootstrap,
) -> Result<(), MigrationError> {
    let name = identifier(&plan.database);
    if has_database(admin, &plan.database).await? {
        let sql = format!("GRANT CREATE, TEMPORARY ON DATABASE {name} TO {OWNER_ROLE}");
        run(
            &mut *admin,
            &format!("let {OWNER_ROLE} create in database {name}"),
            sql,
        )
        .await?;
    } else {
        // template0, because nobody can be connected to it, and its encoding can be chosen.
        let sql = format!("CREATE DATABASE {name} OWNER {OWNER_ROLE} TEMPLATE template0 ENCODING 'UTF8'");
        run(&mut *admin, &format!("create database {name}"), sql).await?;
        tracing::info!(database = plan.database, "database created");
    }
    let sql = format!(
        "REVOKE ALL ON DATABASE {name} FROM PUBLIC; \
         GRANT CONNECT ON DATABASE {name} TO {OWNER_ROLE}, {APP_ROLE}, {PLATFORM_ROLE}"
    );
    run(
        &mut *admin,
        &format!("close database {name} to everybody else"),
        sql,
    )
    .await?;
    let mut inside = connect(database).await?;
    ensure_schema(&mut inside).await?;
    // A GRANT or REVOKE by somebody who is not entitled to it is a warning only, so the outcome is looked at.
    let problems = missing_rights(&mut inside).await?;
    inside.close().await.ok();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(MigrationError::Refused(problems.join("; ")))
    }
}

async fn has_database(admin: &mut PgConnection, name: &str) -> Result<bool, MigrationError> {
    let found = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)").bind(name);
    found
        .fetch_one(admin)
        .await
        .map_err(|cause| failed("look up the database", cause))
}

/// In the schema only the owner makes things, and what it makes is nobody's to run until it is granted.
async fn ensure_schema(inside: &mut PgConnection) -> Result<(), MigrationError> {
    let become_owner = schema_owner(inside)
        .await?
        .map(|owner| format!("SET ROLE {}; ", identifier(&owner)));
    let sql = format!(
        "{}REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
         GRANT USAGE, CREATE ON SCHEMA public TO {OWNER_ROLE}; \
         GRANT USAGE ON SCHEMA public TO {APP_ROLE}, {PLATFORM_ROLE}; \
         RESET ROLE; \
         ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER_ROLE} REVOKE ALL ON FUNCTIONS FROM PUBLIC",
        become_owner.unwrap_or_default()
    );
    run(inside, "set the rights on schema public", sql).await
}

/// The role to become for granting rights on the schema, when the administrator has its rights only by
/// becoming it.
///
/// The schema belongs to whoever owns the database (`pg_database_owner`), and `tenantry_owner` inherits
/// nothing, that included; so a member of it does not either. Left alone, the GRANTs would then do nothing
/// but warn.
async fn schema_owner(inside: &mut PgConnection) -> Result<Option<String>, MigrationError> {
    let sql = "SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = 'public'
               AND NOT pg_has_role(nspowner, 'USAGE') AND pg_has_role(nspowner, 'MEMBER')";
    let found = sqlx::query_scalar(sql).fetch_optional(inside).await;
    found.map_err(|cause| failed("look up the owner of schema public", cause))
}

/// For an administrator who may not make roles: whether somebody who may has done so.
async fn check_only(
    admin: &mut PgConnection,
    database: &PgConnectOptions,
    plan: &Bootstrap,
) -> Result<(), MigrationError> {
    let mut problems = Vec::new();
    for role in plan.roles() {
        match excess(admin, role.name).await? {
            None => problems.push(format!("role {} is missing", role.name)),
            Some(excess) if !excess.is_empty() => problems.push(too_much(role.name, &excess)),
            Some(_) => {}
        }
    }
    if !has_database(admin, &plan.database).await? {
        problems.push(format!("database {} is missing", plan.database));
    }
    if problems.is_empty() {
        let mut inside = connect(database).await?;
        problems = missing_rights(&mut inside).await?;
        inside.close().await.ok();
    }
    if plan.reset_passwords {
        problems.push("passwords cannot be reset".to_owned());
    }
    if problems.is_empty() {
        tracing::info!(
            database = plan.database,
            "roles and database are ready, nothing had to be done"
        );
        return Ok(());
    }
    let user = database.get_username();
    Err(MigrationError::Refused(format!(
        "{user} may not make roles, and {}",
        problems.join("; ")
    )))
}

async fn missing_rights(inside: &mut PgConnection) -> Result<Vec<String>, MigrationError> {
    let sql = "SELECT problem FROM (VALUES
        (has_database_privilege($1, current_database(), 'CONNECT'), $1 || ' may not connect'),
        (has_database_privilege($2, current_database(), 'CONNECT'), $2 || ' may not connect'),
        (has_database_privilege($3, current_database(), 'CONNECT'), $3 || ' may not connect'),
        (has_schema_privilege($1, 'public', 'CREATE'), $1 || ' may not create in schema public'),
        (has_schema_privilege($2, 'public', 'USAGE'), $2 || ' may not use schema public'),
        (has_schema_privilege($3, 'public', 'USAGE'), $3 || ' may not use schema public'),
        (NOT has_schema_privilege($2, 'public', 'CREATE'), $2 || ' may create in schema public'),
        (NOT has_schema_privilege($3, 'public', 'CREATE'), $3 || ' may create in schema public'),
        (pg_has_role($1::name, $2::name, 'MEMBER'), $1 || ' is not a member of ' || $2),
        (pg_has_role($1::name, $3::name, 'MEMBER'), $1 || ' is not a member of ' || $3),
        (NOT pg_has_role($2::name, $1::name, 'MEMBER'), $2 || ' is a member of ' || $1),
        (NOT pg_has_role($3::name, $1::name, 'MEMBER'), $3 || ' is a member of ' || $1)
        ) AS rules (holds, problem) WHERE NOT holds";
    let found = sqlx::query_scalar(sql)
        .bind(OWNER_ROLE)
        .bind(APP_ROLE)
        .bind(PLATFORM_ROLE);
    found
        .fetch_all(inside)
        .await
        .map_err(|cause| failed("look up the rights of the roles", cause))
}
