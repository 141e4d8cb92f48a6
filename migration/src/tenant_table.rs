use std::collections::BTreeSet;

use sea_orm_migration::SchemaManager;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbErr};

use crate::{APP_ROLE, OWNER_ROLE, TableError};

/// The run-time setting that says whose rows a transaction may touch.
pub const TENANT_SETTING: &str = "app.current_tenant";

/// The condition of every policy, for the column that says whose a row is.
///
/// Without the setting it is NULL, so no row at all. On a connection that had the setting in an earlier
/// transaction it reads as the empty text rather than as missing, hence `nullif`.
pub fn policy_expression(column: &str) -> String {
    format!("{column} = nullif(current_setting('{TENANT_SETTING}', true), '')::uuid")
}

/// [`policy_expression`] as PostgreSQL's catalogue gives it back (`pg_policies.qual`).
pub fn policy_expression_in_catalogue(column: &str) -> String {
    format!("({column} = (NULLIF(current_setting('{TENANT_SETTING}'::text, true), ''::text))::uuid)")
}

/// A tenant-scoped table with all that belongs to one.
///
/// Every such table has `tenant_id`, `id` and `created_at`, the primary key `(tenant_id, id)`, a foreign key
/// to `tenants`, an index on `(tenant_id, created_at, id)`, row-level security enabled and forced, a policy
/// for each of the four commands, and grants for the runtime role. What can be added keeps to the rule:
/// references, unique keys and indexes all begin with `tenant_id` without anybody having to say so, because
/// PostgreSQL checks references and unique keys past row-level security.
///
/// ```
/// use tenantry_migration::{OnDelete, TenantTable};
///
/// let sql = TenantTable::new("notes")
///     .column("body", "text NOT NULL")
///     .belongs_to("task_id", "tasks", OnDelete::Cascade)
///     .versioned()
///     .up_sql()?;
/// assert!(sql[0].starts_with("CREATE TABLE notes"));
/// # Ok::<(), tenantry_migration::TableError>(())
/// ```
#[derive(Debug, Clone)]
pub struct TenantTable {
    name: String,
    columns: Vec<Column>,
    references: Vec<Reference>,
    uniques: Vec<Key>,
    indexes: Vec<Key>,
    checks: Vec<(String, String)>,
    append_only: bool,
    generated_id: bool,
    single: bool,
    partitioned_by: Option<String>,
}

/// What happens to a row when the row it refers to is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelete {
    /// The other row cannot be deleted.
    Restrict,
    /// The row goes with it.
    Cascade,
}

impl TenantTable {
    /// A table of that name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            columns: Vec::new(),
            references: Vec::new(),
            uniques: Vec::new(),
            indexes: Vec::new(),
            checks: Vec::new(),
            append_only: false,
            generated_id: false,
            single: false,
            partitioned_by: None,
        }
    }

    /// A column, with its type and what goes with that. Keys, references and checks have methods of their
    /// own, and are refused in here.
    #[must_use]
    pub fn column(mut self, name: &str, definition: &str) -> Self {
        self.columns.push(Column {
            name: name.to_owned(),
            definition: definition.to_owned(),
        });
        self
    }

    /// A column that refers to a row of another table of the same tenant.
    ///
    /// The constraint is `<table>_<column>_fkey`. Where no index begins with the column, it gets one:
    /// without, deleting a row of the other table would read all of this tenant's rows here.
    #[must_use]
    pub fn belongs_to(self, column: &str, table: &str, on_delete: OnDelete) -> Self {
        self.reference(column, "uuid NOT NULL", table, on_delete)
    }

    /// Like [`Self::belongs_to`], but the row may belong to none.
    #[must_use]
    pub fn may_belong_to(self, column: &str, table: &str, on_delete: OnDelete) -> Self {
        self.reference(column, "uuid", table, on_delete)
    }

    /// A unique key within the tenant.
    #[must_use]
    pub fn unique(mut self, name: &str, columns: &[&str]) -> Self {
        self.uniques.push(Key::new(name, columns, None));
        self
    }

    /// A unique key within those rows of the tenant for which the condition holds.
    #[must_use]
    pub fn unique_where(mut self, name: &str, columns: &[&str], condition: &str) -> Self {
        self.uniques.push(Key::new(name, columns, Some(condition)));
        self
    }

    /// An index led by `tenant_id`, with these columns behind it.
    #[must_use]
    pub fn index(mut self, name: &str, columns: &[&str]) -> Self {
        self.indexes.push(Key::new(name, columns, None));
        self
    }

    /// An index of those rows for which the condition holds.
    #[must_use]
    pub fn index_where(mut self, name: &str, columns: &[&str], condition: &str) -> Self {
        self.indexes.push(Key::new(name, columns, Some(condition)));
        self
    }

    /// A condition that holds for every row.
    #[must_use]
    pub fn check(mut self, name: &str, condition: &str) -> Self {
        self.checks.push((name.to_owned(), condition.to_owned()));
        self
    }

    /// Rows that can be changed: `updated_at`, and `version`, which counts from 1.
    #[must_use]
    pub fn versioned(self) -> Self {
        let name = format!("{}_version_check", self.name);
        self.column("updated_at", "timestamptz NOT NULL")
            .column("version", "bigint NOT NULL")
            .check(&name, "version > 0")
    }

    /// Rows that are deleted by saying so: `deleted_at`.
    #[must_use]
    pub fn soft_deleted(self) -> Self {
        self.column("deleted_at", "timestamptz")
    }

    /// The database makes the `id`, for rows that nobody speaks of by their id.
    #[must_use]
    pub fn generated_id(mut self) -> Self {
        self.generated_id = true;
        self
    }

    /// At most one row of each tenant, for what a tenant has one of. The constraint is `<table>_tenant_key`.
    #[must_use]
    pub fn single(mut self) -> Self {
        self.single = true;
        self
    }

    /// A table that says which rows of other tables belong together: the pair (or more) is unique, and the
    /// database makes the `id`.
    #[must_use]
    pub fn junction(self, unique_name: &str, columns: &[&str]) -> Self {
        self.unique(unique_name, columns).generated_id()
    }

    /// The runtime role can read and add rows, and neither change nor delete any.
    #[must_use]
    pub fn append_only(mut self) -> Self {
        self.append_only = true;
        self
    }

    /// A table whose rows lie in partitions by ranges of a column, which becomes a part of the primary key. Rows for which
    /// there is no range go to the partition `<table>_default`, which is made here.
    ///
    /// A partition that is named itself has only its own policies; so each has row-level security forced, no policy and no
    /// grant, and can be reached through the table alone.
    #[must_use]
    pub fn partitioned_by(mut self, column: &str) -> Self {
        self.partitioned_by = Some(column.to_owned());
        self
    }

    /// The SQL that makes the table.
    ///
    /// # Errors
    /// A name that is not fit to be one, a column that is not there, or a key in a column's definition.
    pub fn up_sql(&self) -> Result<Vec<String>, TableError> {
        let keys = self.all_indexes();
        self.verify(&keys)?;
        let mut sql = vec![self.table_sql()];
        sql.extend(keys.iter().map(|(key, unique)| self.index_sql(key, *unique)));
        let grants = if self.append_only {
            "SELECT, INSERT"
        } else {
            "SELECT, INSERT, UPDATE, DELETE"
        };
        if self.append_only {
            sql.extend(purge_policies(&self.name, &self.name));
        }
        sql.extend(security_sql(&self.name, "tenant_id", grants));
        if self.partitioned_by.is_some() {
            sql.extend(self.default_partition_sql());
        }
        Ok(sql)
    }

    /// The SQL that drops the table, unless others refer to it.
    ///
    /// # Errors
    /// As for [`Self::up_sql`].
    pub fn down_sql(&self) -> Result<Vec<String>, TableError> {
        self.verify(&self.all_indexes())?;
        Ok(vec![format!("DROP TABLE {}", self.name)])
    }

    /// Makes the table.
    ///
    /// # Errors
    /// As for [`Self::up_sql`], or the database's own.
    pub async fn create(&self, manager: &SchemaManager<'_>) -> Result<(), DbErr> {
        let sql = self
            .up_sql()
            .map_err(|error| DbErr::Migration(error.to_string()))?;
        execute_all(manager, &sql).await
    }

    /// Drops the table.
    ///
    /// # Errors
    /// As for [`Self::down_sql`], or the database's own.
    pub async fn drop(&self, manager: &SchemaManager<'_>) -> Result<(), DbErr> {
        let sql = self
            .down_sql()
            .map_err(|error| DbErr::Migration(error.to_string()))?;
        execute_all(manager, &sql).await
    }

    fn reference(mut self, column: &str, definition: &str, table: &str, on_delete: OnDelete) -> Self {
        self.references.push(Reference {
            column: column.to_owned(),
            table: table.to_owned(),
            on_delete,
        });
        self.column(column, definition)
    }

    fn table_sql(&self) -> String {
        let id = if self.generated_id {
            "uuid NOT NULL DEFAULT gen_random_uuid()"
        } else {
            "uuid NOT NULL"
        };
        let mut lines = vec![
            "tenant_id uuid NOT NULL".to_owned(),
            format!("id {id}"),
            "created_at timestamptz NOT NULL".to_owned(),
        ];
        lines.extend(
            self.columns
                .iter()
                .map(|column| format!("{} {}", column.name, column.definition)),
        );
        let partition_key = self.partitioned_by.iter().map(|column| format!(", {column}"));
        lines.push(format!(
            "CONSTRAINT {}_pkey PRIMARY KEY (tenant_id, id{})",
            self.name,
            partition_key.collect::<String>()
        ));
        lines.push(self.tenant_sql());
        lines.extend(self.references.iter().map(|reference| reference.sql(&self.name)));
        let uniques = self.uniques.iter().filter(|key| key.condition.is_none());
        lines.extend(uniques.map(|key| format!("CONSTRAINT {} UNIQUE {}", key.name, key.list())));
        if self.single {
            lines.push(format!("CONSTRAINT {}_tenant_key UNIQUE (tenant_id)", self.name));
        }
        let checks = self.checks.iter();
        lines.extend(checks.map(|(name, condition)| format!("CONSTRAINT {name} CHECK ({condition})")));
        let by = self.partitioned_by.iter();
        let partitioning: String = by
            .map(|column| format!(" PARTITION BY RANGE ({column})"))
            .collect();
        format!(
            "CREATE TABLE {} (\n    {}\n){partitioning}",
            self.name,
            lines.join(",\n    ")
        )
    }

    fn default_partition_sql(&self) -> Vec<String> {
        let (table, name) = (&self.name, format!("{}_default", self.name));
        vec![
            format!("CREATE TABLE {name} PARTITION OF {table} DEFAULT"),
            format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"),
            format!("ALTER TABLE {name} FORCE ROW LEVEL SECURITY"),
            format!("REVOKE ALL ON TABLE {name} FROM PUBLIC, {APP_ROLE}"),
        ]
    }

    fn tenant_sql(&self) -> String {
        let rest = "FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE RESTRICT";
        format!("CONSTRAINT {}_tenant_id_fkey {rest}", self.name)
    }

    fn index_sql(&self, key: &Key, unique: bool) -> String {
        let what = if unique { "UNIQUE INDEX" } else { "INDEX" };
        let condition = key
            .condition
            .as_ref()
            .map(|condition| format!(" WHERE {condition}"))
            .unwrap_or_default();
        format!(
            "CREATE {what} {} ON {} {}{condition}",
            key.name,
            self.name,
            key.list()
        )
    }

    /// Everything that needs a CREATE INDEX, with whether it is unique: what was asked for, what every table
    /// has, and what references need.
    fn all_indexes(&self) -> Vec<(Key, bool)> {
        let newest_first = Key::new(
            &format!("{}_created_at_idx", self.name),
            &["created_at", "id"],
            None,
        );
        let partial = self.uniques.iter().filter(|key| key.condition.is_some());
        let mut all = vec![(newest_first, false)];
        all.extend(partial.map(|key| (key.clone(), true)));
        all.extend(self.indexes.iter().map(|key| (key.clone(), false)));
        let bare = self
            .references
            .iter()
            .filter(|reference| !self.is_indexed(&reference.column));
        all.extend(bare.map(|reference| {
            let name = format!("{}_{}_idx", self.name, reference.column);
            (Key::new(&name, &[reference.column.as_str()], None), false)
        }));
        all
    }

    /// Whether an index can answer "which rows refer to that one". A partial one can when all that it leaves
    /// out is rows that refer to none.
    fn is_indexed(&self, column: &str) -> bool {
        let not_null = format!("{column} IS NOT NULL");
        self.uniques.iter().chain(&self.indexes).any(|key| {
            let whole = key
                .condition
                .as_ref()
                .is_none_or(|condition| *condition == not_null);
            whole && key.columns.first().is_some_and(|first| first == column)
        })
    }

    fn verify(&self, indexes: &[(Key, bool)]) -> Result<(), TableError> {
        let fail = |problem: String| {
            Err(TableError {
                table: self.name.clone(),
                problem,
            })
        };
        if !is_name(&self.name) {
            return fail(NOT_A_NAME.to_owned());
        }
        let mut columns: BTreeSet<&str> = BUILT_IN.into_iter().collect();
        for column in &self.columns {
            if !is_name(&column.name) {
                return fail(format!("column {}: {NOT_A_NAME}", column.name));
            }
            if !columns.insert(&column.name) {
                return fail(format!("column {} is there twice", column.name));
            }
            if let Some(word) = column.forbidden_word() {
                return fail(format!(
                    "column {}: {word} belongs into a method of its own",
                    column.name
                ));
            }
        }
        self.references
            .iter()
            .try_for_each(|reference| match is_name(&reference.table) {
                true => Ok(()),
                false => fail(format!(
                    "column {} refers to {}: {NOT_A_NAME}",
                    reference.column, reference.table
                )),
            })?;
        if let Some(column) = &self.partitioned_by
            && !columns.contains(column.as_str())
        {
            return fail(format!("partitioned by {column}: there is no such column"));
        }
        self.verify_keys(&columns, indexes).or_else(fail)
    }

    fn verify_keys(&self, columns: &BTreeSet<&str>, indexes: &[(Key, bool)]) -> Result<(), String> {
        let whole = self.uniques.iter().filter(|key| key.condition.is_none());
        let keys: Vec<&Key> = whole.chain(indexes.iter().map(|(key, _)| key)).collect();
        let references = self.references.iter().map(|reference| reference.name(&self.name));
        let own = [
            format!("{}_pkey", self.name),
            format!("{}_tenant_id_fkey", self.name),
        ];
        let checks = self.checks.iter().map(|(name, _)| name.clone());
        let mut names = BTreeSet::new();
        for name in keys
            .iter()
            .map(|key| key.name.clone())
            .chain(references)
            .chain(own)
            .chain(checks)
        {
            if !is_constraint_name(&name) {
                return Err(format!(
                    "{name}: not of a-z, 0-9 and '_', or longer than 63 bytes"
                ));
            }
            if !names.insert(name.clone()) {
                return Err(format!("{name} is there twice"));
            }
        }
        keys.into_iter().try_for_each(|key| key.verify(columns))
    }
}

/// Row-level security and grants of a table whose `column` says which tenant a row is of.
///
/// The policies are for the runtime role alone, so everybody else who is not exempt sees nothing: the owner,
/// for whom it is forced, too, apart from [`purge_policies`]. Each command has its own policy, so that none is covered by accident
/// only.
pub(crate) fn security_sql(table: &str, column: &str, grants: &str) -> Vec<String> {
    let rule = policy_expression(column);
    let policy = |command: &str, clauses: String| {
        let name = command.to_lowercase();
        format!("CREATE POLICY {table}_{name} ON {table} FOR {command} TO {APP_ROLE} {clauses}")
    };
    vec![
        format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"),
        format!("ALTER TABLE {table} FORCE ROW LEVEL SECURITY"),
        policy("SELECT", format!("USING ({rule})")),
        policy("INSERT", format!("WITH CHECK ({rule})")),
        policy("UPDATE", format!("USING ({rule}) WITH CHECK ({rule})")),
        policy("DELETE", format!("USING ({rule})")),
        format!("REVOKE ALL ON TABLE {table} FROM PUBLIC, {APP_ROLE}"),
        format!("GRANT {grants} ON TABLE {table} TO {APP_ROLE}"),
    ]
}

/// What lets the function of the owner that purges tenants find and erase rows of the tenant that is set, in a table of which the
/// runtime role may delete none. The owner is held by row-level security, which is forced, and sees no other row.
pub(crate) fn purge_policies(table: &str, prefix: &str) -> [String; 2] {
    let rule = policy_expression("tenant_id");
    let policy = |name: &str, command: &str| {
        format!("CREATE POLICY {prefix}_{name} ON {table} FOR {command} TO {OWNER_ROLE} USING ({rule})")
    };
    [policy("purge_select", "SELECT"), policy("purge", "DELETE")]
}

/// Runs statements one after the other.
pub(crate) async fn execute_all(manager: &SchemaManager<'_>, sql: &[String]) -> Result<(), DbErr> {
    for statement in sql {
        manager.get_connection().execute_unprepared(statement).await?;
    }
    Ok(())
}

const BUILT_IN: [&str; 3] = ["tenant_id", "id", "created_at"];

const NOT_A_NAME: &str = "a name is a letter and up to 40 more of a-z, 0-9 and '_'";

#[derive(Debug, Clone)]
struct Column {
    name: String,
    definition: String,
}

impl Column {
    /// What would make a key or a reference without the tenant in it, or a constraint without a name.
    fn forbidden_word(&self) -> Option<&'static str> {
        let upper = self.definition.to_uppercase();
        let words: Vec<&str> = upper
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .collect();
        ["REFERENCES", "UNIQUE", "PRIMARY", "CHECK", "CONSTRAINT"]
            .into_iter()
            .find(|word| words.contains(word))
    }
}

#[derive(Debug, Clone)]
struct Reference {
    column: String,
    table: String,
    on_delete: OnDelete,
}

impl Reference {
    fn name(&self, table: &str) -> String {
        format!("{table}_{}_fkey", self.column)
    }

    fn sql(&self, table: &str) -> String {
        let (name, column, other) = (self.name(table), &self.column, &self.table);
        let action = match self.on_delete {
            OnDelete::Restrict => "RESTRICT",
            OnDelete::Cascade => "CASCADE",
        };
        let from = format!("CONSTRAINT {name} FOREIGN KEY (tenant_id, {column})");
        format!("{from} REFERENCES {other} (tenant_id, id) ON DELETE {action}")
    }
}

#[derive(Debug, Clone)]
struct Key {
    name: String,
    columns: Vec<String>,
    condition: Option<String>,
}

impl Key {
    fn new(name: &str, columns: &[&str], condition: Option<&str>) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self {
            name: name.to_owned(),
            columns,
            condition: condition.map(str::to_owned),
        }
    }

    fn verify(&self, known: &BTreeSet<&str>) -> Result<(), String> {
        if self.columns.is_empty() {
            return Err(format!("{} has no columns", self.name));
        }
        if let Some(missing) = self
            .columns
            .iter()
            .find(|column| !known.contains(column.as_str()))
        {
            return Err(format!("{}: there is no column {missing}", self.name));
        }
        if self.columns.iter().any(|column| column == "tenant_id") {
            return Err(format!("{}: tenant_id is there already", self.name));
        }
        Ok(())
    }

    fn list(&self) -> String {
        format!("(tenant_id, {})", self.columns.join(", "))
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= 41 && is_constraint_name(text)
}

fn is_constraint_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(inner)
}
