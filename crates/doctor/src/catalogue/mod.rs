//! What the catalogue says, as plain values: checks are functions of these and touch no database.

mod default_privilege;
mod extension;
mod foreign_key;
mod function;
mod grant;
mod index;
mod policy;
mod publication;
mod relation;
mod role;
mod rule;
mod schema;
mod server;
mod setting;
mod sql;
mod trigger;
mod view;

use serde::Deserialize;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{DoctorError, Options};

pub(crate) use default_privilege::DefaultPrivilege;
pub(crate) use extension::{Extension, ForeignServer};
pub(crate) use foreign_key::ForeignKey;
pub(crate) use function::{Function, TenantFunction};
pub(crate) use grant::Grant;
pub(crate) use index::Index;
pub(crate) use policy::{LeakyCall, Policy};
pub(crate) use publication::Published;
pub(crate) use relation::{Kind, Relation};
pub(crate) use role::{Membership, Role};
pub(crate) use rule::RewriteRule;
pub(crate) use schema::Schema;
pub(crate) use server::Server;
pub(crate) use setting::RoleSetting;
pub(crate) use trigger::DefinerTrigger;
pub(crate) use view::ViewSource;

/// How much to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What the guard needs.
    Critical,
    /// Everything.
    Full,
}

/// The catalogue of one database, as far as it has to do with tenants. What was not read is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Catalogue {
    pub(crate) server: Server,
    pub(crate) roles: Vec<Role>,
    pub(crate) memberships: Vec<Membership>,
    pub(crate) settings: Vec<RoleSetting>,
    pub(crate) schemas: Vec<Schema>,
    pub(crate) relations: Vec<Relation>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) tenant_functions: Vec<TenantFunction>,
    pub(crate) leaky_calls: Vec<LeakyCall>,
    pub(crate) foreign_keys: Vec<ForeignKey>,
    pub(crate) indexes: Vec<Index>,
    pub(crate) view_sources: Vec<ViewSource>,
    pub(crate) rules: Vec<RewriteRule>,
    pub(crate) functions: Vec<Function>,
    pub(crate) triggers: Vec<DefinerTrigger>,
    pub(crate) default_privileges: Vec<DefaultPrivilege>,
    pub(crate) published: Vec<Published>,
    pub(crate) extensions: Vec<Extension>,
    pub(crate) foreign_servers: Vec<ForeignServer>,
}

impl Catalogue {
    /// Reads the catalogue, in one statement and one round trip.
    pub(crate) async fn read(
        connection: &mut PgConnection,
        options: &Options,
        depth: Depth,
    ) -> Result<Self, DoctorError> {
        if connection.is_in_transaction() {
            return Err(DoctorError::InTransaction);
        }
        let sql = format!("{BEGIN}; {}; ROLLBACK", statement(options, depth));
        let answer = sqlx::raw_sql(AssertSqlSafe(sql))
            .fetch_all(&mut *connection)
            .await;
        let rows = match answer {
            Ok(rows) => rows,
            Err(error) => {
                // The ROLLBACK at the end was not reached.
                sqlx::raw_sql("ROLLBACK").execute(connection).await.ok();
                return Err(error.into());
            }
        };
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let text: &str = sqlx::Row::try_get(row, 0)?;
        Ok(serde_json::from_str(text)?)
    }
}

/// With an empty search path every name outside of `pg_catalog` comes with its schema, so that nobody's function
/// can pass for a built-in one. Compiling a statement that is run once takes longer than running it.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SET LOCAL search_path = ''; SET LOCAL jit = off";

fn statement(options: &Options, depth: Depth) -> String {
    let mut sections = vec![
        ("server", server::sql(options)),
        ("roles", sql::list(role::ROLES)),
        ("memberships", sql::list(role::MEMBERSHIPS)),
        ("settings", sql::list(setting::SQL)),
        ("schemas", sql::list(&schema::sql())),
        ("relations", sql::list(&relation::sql(options, depth))),
        ("policies", sql::list(policy::POLICIES)),
        (
            "tenant_functions",
            sql::list(&function::tenant_functions(options)),
        ),
    ];
    if depth == Depth::Full {
        sections.extend([
            ("leaky_calls", sql::list(policy::LEAKY_CALLS)),
            ("foreign_keys", sql::list(foreign_key::SQL)),
            ("indexes", sql::list(&index::sql(options))),
            ("view_sources", sql::list(view::SQL)),
            ("rules", sql::list(rule::SQL)),
            ("functions", sql::list(&function::functions())),
            ("triggers", sql::list(trigger::SQL)),
            ("default_privileges", sql::list(&default_privilege::sql())),
            ("published", sql::list(publication::SQL)),
            ("extensions", sql::list(extension::EXTENSIONS)),
            ("foreign_servers", sql::list(&extension::foreign_servers())),
        ]);
    }
    let members: Vec<String> = sections
        .iter()
        .map(|(name, sql)| format!("'{name}', {sql}"))
        .collect();
    format!(
        "{} SELECT json_build_object({})::text",
        sql::examined(options),
        members.join(", ")
    )
}
