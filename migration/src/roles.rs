use std::fmt;

use crate::MigrationError;

/// Owns the tables and runs the migrations; nothing else uses it.
pub const OWNER_ROLE: &str = "tenantry_owner";

/// What the server is when it works for a tenant: it owns nothing, and row-level security holds for it.
pub const APP_ROLE: &str = "tenantry_app";

/// What operators and the tenant directory are: policies that name it let it see the tenants, not their rows.
pub const PLATFORM_ROLE: &str = "tenantry_platform";

/// What [`bootstrap`](crate::bootstrap()) needs to know.
#[derive(Clone)]
pub struct Bootstrap {
    /// The URL of a maintenance database (`postgres`) for a superuser, or for a user with CREATEROLE and
    /// CREATEDB. A user with neither can only have everything checked.
    pub admin_url: String,
    /// The database to make, or to make ready.
    pub database: String,
    /// The passwords of the roles that have to be made.
    pub passwords: RolePasswords,
    /// Whether roles that are there already get these passwords too.
    pub reset_passwords: bool,
}

/// A password for each role.
#[derive(Clone)]
pub struct RolePasswords {
    /// Of [`OWNER_ROLE`].
    pub owner: String,
    /// Of [`APP_ROLE`].
    pub app: String,
    /// Of [`PLATFORM_ROLE`].
    pub platform: String,
}

impl fmt::Debug for Bootstrap {
    /// Leaves out the URL and the passwords.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Bootstrap")
            .field("database", &self.database)
            .field("reset_passwords", &self.reset_passwords)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RolePasswords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RolePasswords(…)")
    }
}

/// A role as it is to be made.
pub(crate) struct Role<'a> {
    pub(crate) name: &'static str,
    pub(crate) password: &'a str,
    pub(crate) inherits: bool,
    pub(crate) settings: &'static [(&'static str, &'static str)],
}

impl Bootstrap {
    pub(crate) fn roles(&self) -> [Role<'_>; 3] {
        let role = |name, password, inherits, settings| Role {
            name,
            password,
            inherits,
            settings,
        };
        [
            // The owner is a member of the other two for data migrations, which take their place with SET
            // ROLE. Not inheriting means that it has none of their policies until it does so.
            role(OWNER_ROLE, &self.passwords.owner, false, &[]),
            role(APP_ROLE, &self.passwords.app, true, RUNTIME_SETTINGS),
            role(PLATFORM_ROLE, &self.passwords.platform, true, RUNTIME_SETTINGS),
        ]
    }

    /// Whether it can be carried out at all.
    pub(crate) fn check(&self) -> Result<(), MigrationError> {
        let refuse = |why: String| Err(MigrationError::Refused(why));
        if self.database.is_empty() || self.database.len() > 63 || self.database.contains('\0') {
            return refuse("the name of the database must be 1 to 63 bytes long".to_owned());
        }
        for role in self.roles() {
            // With an empty password PostgreSQL makes a role that can never log in, and says so in a NOTICE.
            if role.password.is_empty() || role.password.contains('\0') {
                return refuse(format!(
                    "the password of {} is empty or has a NUL in it",
                    role.name
                ));
            }
        }
        Ok(())
    }
}

/// Limits that hold for whatever the runtime roles do, also where somebody forgot to set one: no statement,
/// no forgotten transaction and no queue behind a lock may hold a connection for long. The fixed
/// `search_path` means that nobody's temporary or personal schema can put a table before ours.
const RUNTIME_SETTINGS: &[(&str, &str)] = &[
    ("statement_timeout", "'30s'"),
    ("idle_in_transaction_session_timeout", "'60s'"),
    ("lock_timeout", "'5s'"),
    ("search_path", "public"),
];
