//! What the catalogue says, as plain values: checks are functions of these and touch no database.

mod built_in;
mod default_privilege;
mod extension;
mod fact;
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
mod stored;
mod trigger;
mod view;

use serde::Deserialize;
use sqlx::{AssertSqlSafe, Connection, Executor as _, PgConnection, Row as _};

use crate::{DoctorError, Options};

pub(crate) use built_in::{Alteration, Digest, Language, Meaning, SystemGrant};
pub(crate) use default_privilege::DefaultPrivilege;
pub(crate) use extension::{Extension, ForeignServer};
pub(crate) use fact::Fact;
pub(crate) use foreign_key::ForeignKey;
pub(crate) use function::{Function, TenantFunction};
pub(crate) use grant::Grant;
pub(crate) use index::Index;
pub(crate) use policy::{Deed, Hidden, LeakyCall, Policy};
pub(crate) use publication::{Published, Subscription};
pub(crate) use relation::{Kind, Relation};
pub(crate) use role::{Membership, Role};
pub(crate) use rule::RewriteRule;
pub(crate) use schema::Schema;
pub(crate) use server::{LargeObjects, Server};
pub(crate) use setting::{Effective, RoleSetting, UNKNOWN};
pub(crate) use stored::{Constrained, Risk, Risky};
pub(crate) use trigger::{DefinerTrigger, EventTrigger, SendingTrigger, SilentTrigger};
pub(crate) use view::ViewSource;

/// How much to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What the guard needs.
    Critical,
    /// Everything.
    Full,
    /// What a manifest is made of, and nothing else.
    Facts,
}

/// The catalogue of one database, as far as it has to do with tenants. What was not read is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Catalogue {
    pub(crate) server: Server,
    pub(crate) roles: Vec<Role>,
    pub(crate) memberships: Vec<Membership>,
    pub(crate) settings: Vec<RoleSetting>,
    /// Read apart, before anything is set for the transaction.
    #[serde(skip)]
    pub(crate) effective: Vec<Effective>,
    pub(crate) schemas: Vec<Schema>,
    pub(crate) relations: Vec<Relation>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) tenant_functions: Vec<TenantFunction>,
    pub(crate) hidden: Vec<Hidden>,
    pub(crate) leaky_calls: Vec<LeakyCall>,
    pub(crate) foreign_keys: Vec<ForeignKey>,
    pub(crate) indexes: Vec<Index>,
    pub(crate) view_sources: Vec<ViewSource>,
    pub(crate) rules: Vec<RewriteRule>,
    pub(crate) functions: Vec<Function>,
    pub(crate) triggers: Vec<DefinerTrigger>,
    pub(crate) silent_triggers: Vec<SilentTrigger>,
    pub(crate) sending_triggers: Vec<SendingTrigger>,
    pub(crate) event_triggers: Vec<EventTrigger>,
    pub(crate) default_privileges: Vec<DefaultPrivilege>,
    pub(crate) published: Vec<Published>,
    pub(crate) extensions: Vec<Extension>,
    pub(crate) foreign_servers: Vec<ForeignServer>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) alterations: Vec<Alteration>,
    pub(crate) digests: Vec<Digest>,
    pub(crate) system_grants: Vec<SystemGrant>,
    pub(crate) languages: Vec<Language>,
    pub(crate) meanings: Vec<Meaning>,
    /// For a comparison with a manifest.
    pub(crate) facts: Vec<Fact>,
    /// What an unknown migration is no excuse for. Empty where every migration is known.
    pub(crate) risky: Vec<Risky>,
    /// The columns of constraints. Empty where every migration is known.
    pub(crate) constrained: Vec<Constrained>,
    /// The migrations that were applied; `None` when nobody asked, or the current user cannot read them.
    pub(crate) migrations: Option<Vec<Fact>>,
}

impl Catalogue {
    /// Reads the catalogue in one statement and one round trip; where it is compared with a manifest, a round trip
    /// before that asks whether the table of migrations can be read.
    pub(crate) async fn read(
        connection: &mut PgConnection,
        options: &Options,
        depth: Depth,
    ) -> Result<Self, DoctorError> {
        if connection.is_in_transaction() {
            return Err(DoctorError::InTransaction);
        }
        let compares = depth == Depth::Facts || options.expected.is_some();
        let scope = Scope {
            depth,
            facts: compares,
            migrations: compares && has_migrations(connection).await?,
            // Grants on parameters and publications of schemas are new in version 15.
            modern: connection
                .server_version_num()
                .is_none_or(|version| version >= 150_000),
        };
        let sql = format!(
            "{BEGIN}; {}; {LOCAL}; {}; ROLLBACK",
            setting::EFFECTIVE,
            scope.statement(options)
        );
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
        let [settings, catalogue] = rows.as_slice() else {
            return Err(sqlx::Error::RowNotFound.into());
        };
        let (settings, catalogue): (&str, &str) = (settings.try_get(0)?, catalogue.try_get(0)?);
        Ok(Self {
            effective: serde_json::from_str(settings)?,
            ..serde_json::from_str(catalogue)?
        })
    }
}

async fn has_migrations(connection: &mut PgConnection) -> Result<bool, DoctorError> {
    let row = connection.fetch_one(sqlx::raw_sql(fact::HAS_MIGRATIONS)).await?;
    Ok(row.try_get(0)?)
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// With an empty search path every name outside of `pg_catalog` comes with its schema, so that no function of users
/// can pass for a built-in one. Quotes around every name would make each fact another. Compiling a statement that is
/// run once takes longer than running it.
const LOCAL: &str = "SET LOCAL search_path = ''; SET LOCAL quote_all_identifiers = off; SET LOCAL jit = off";

/// What is read.
struct Scope {
    depth: Depth,
    facts: bool,
    migrations: bool,
    modern: bool,
}

impl Scope {
    fn statement(&self, options: &Options) -> String {
        let mut sections = vec![("server", server::sql(options))];
        if self.depth != Depth::Facts {
            sections.extend(self.critical(options));
        }
        if self.depth == Depth::Full {
            sections.extend([
                ("leaky_calls", sql::list(policy::LEAKY_CALLS)),
                ("foreign_keys", sql::list(foreign_key::SQL)),
                ("indexes", sql::list(&index::sql(options))),
                ("sending_triggers", sql::list(&trigger::sending())),
                ("event_triggers", sql::list(&trigger::event_triggers())),
                ("default_privileges", sql::list(&default_privilege::sql())),
                ("published", sql::list(publication::SQL)),
                ("subscriptions", sql::list(publication::SUBSCRIPTIONS)),
                ("extensions", sql::list(extension::EXTENSIONS)),
                ("foreign_servers", sql::list(&extension::foreign_servers())),
            ]);
        }
        if self.facts {
            sections.push(("facts", fact::facts(options, self.modern)));
        }
        if self.migrations {
            sections.push(("migrations", sql::list(fact::MIGRATIONS)));
            if self.depth != Depth::Facts {
                let manifest = options.expected.as_ref();
                sections.push(("risky", stored::risky(manifest)));
                sections.push(("constrained", stored::constrained(manifest)));
            }
        }
        let members: Vec<String> = sections
            .iter()
            .map(|(name, sql)| format!("'{name}', {sql}"))
            .collect();
        format!(
            "{} SELECT json_build_object({})::text",
            sql::common(options),
            members.join(", ")
        )
    }

    /// What the checks need that a server makes before it serves.
    fn critical(&self, options: &Options) -> Vec<(&'static str, String)> {
        vec![
            ("roles", sql::list(role::ROLES)),
            ("memberships", sql::list(role::MEMBERSHIPS)),
            ("settings", sql::list(setting::SQL)),
            ("schemas", sql::list(&schema::sql())),
            ("relations", sql::list(&relation::sql(options))),
            ("policies", sql::list(policy::POLICIES)),
            ("hidden", sql::list(&policy::hidden())),
            (
                "tenant_functions",
                sql::list(&function::tenant_functions(options)),
            ),
            ("view_sources", sql::list(view::SQL)),
            ("rules", sql::list(rule::SQL)),
            ("functions", sql::list(&function::functions())),
            ("triggers", sql::list(&trigger::definers())),
            ("silent_triggers", sql::list(trigger::SILENT)),
            ("alterations", sql::list(&built_in::alterations())),
            ("digests", sql::list(built_in::DIGESTS)),
            ("system_grants", sql::list(&built_in::grants(self.modern))),
            ("languages", sql::list(built_in::LANGUAGES)),
            ("meanings", sql::list(&built_in::meanings())),
        ]
    }
}
