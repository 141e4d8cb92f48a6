use serde_json::{Value, json};

use super::{ColumnShape, TableShape};

/// What an archive has of a table, and what an import does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Rows that are exported and imported.
    Data,
    /// Rows that are exported and never imported, with the reason: what was billed, measured or recorded here happened once, and only
    /// here.
    Record(&'static str),
    /// Nothing, with the reason.
    LeftOut(&'static str),
}
use Content::{Data, LeftOut, Record};

/// What an inserted row has in a column that the archive leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// A password hash that no password has: the user asks for a new password.
    UnusablePassword,
    /// A SHA-256 that no token has.
    UnusableHash,
    /// An empty JSON object.
    EmptyObject,
}

/// A column that is left out of a table that is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excuse {
    /// Its name in the catalogue of the database.
    pub column: String,
    /// Why it is left out.
    pub reason: &'static str,
    /// What an imported row has in it; nothing where it may be null, or where rows are not imported.
    pub fill: Option<Fill>,
}

const CREDENTIAL: &str = "a credential, or what one is recognized by";
const MOMENT: &str = "of a moment: it has no meaning elsewhere or later";
const MEASURED: &str = "what was measured here is not measured a second time";
const BILLED: &str = "what was billed here is not billed a second time";
const RECORDED: &str = "a record of what happened in this tenant";
const SEALED: &str = "a secret, which is sealed for this tenant";

/// What is exported of each table of the product. A table that is not in here is left out, and a test fails until it is.
const TABLES: [(&str, Content); 63] = [
    ("account_links", LeftOut(CREDENTIAL)),
    ("account_notices", LeftOut(MOMENT)),
    (
        "api_keys",
        Record("a key without its secret is of no use to anybody"),
    ),
    ("audit_blocks", Record(RECORDED)),
    ("audit_events", Record(RECORDED)),
    ("audit_heads", Record(RECORDED)),
    ("audit_streams", LeftOut(MOMENT)),
    ("billing_accounts", Record(BILLED)),
    ("brandings", Data),
    ("custom_roles", Data),
    ("data_keys", LeftOut(SEALED)),
    (
        "erasures",
        LeftOut("erased people are anonymous in their rows already"),
    ),
    (
        "event_consumers",
        LeftOut("a position in the feed, which no import brings back"),
    ),
    ("event_outbox", LeftOut(MOMENT)),
    ("event_progress", LeftOut(MOMENT)),
    ("events", Record(RECORDED)),
    ("flag_overrides", Data),
    ("idempotency_keys", LeftOut(MOMENT)),
    ("invitations", Data),
    ("invoices", Record(BILLED)),
    ("jobs", LeftOut(MOMENT)),
    ("lockouts", LeftOut(MOMENT)),
    ("meter_outbox", Record(BILLED)),
    ("mfa_challenges", LeftOut(CREDENTIAL)),
    ("notification_positions", LeftOut(MOMENT)),
    ("notification_preferences", Data),
    ("notifications", Record(RECORDED)),
    ("passkey_ceremonies", LeftOut(CREDENTIAL)),
    (
        "passkeys",
        Record("an authenticator belongs to the user of this tenant"),
    ),
    ("project_members", Data),
    ("projects", Data),
    ("quota_alerts", Record(MEASURED)),
    ("quota_counters", Record(MEASURED)),
    ("quota_leases", LeftOut(MOMENT)),
    ("quota_reservations", Record(MEASURED)),
    ("recovery_codes", LeftOut(CREDENTIAL)),
    ("refresh_sessions", LeftOut(CREDENTIAL)),
    ("resource_versions", Data),
    ("resources", Data),
    ("security_alerts", Record(RECORDED)),
    ("security_detections", LeftOut(MOMENT)),
    ("storage_usage", Record("computed from the resources")),
    ("support_access_uses", Record(RECORDED)),
    (
        "support_accesses",
        Record("an access was given to this tenant, for minutes"),
    ),
    ("tasks", Data),
    (
        "tenant_domains",
        Record("a domain is proven for one tenant: another claims it and proves it again"),
    ),
    ("tenant_exports", LeftOut(MOMENT)),
    ("tenant_setting_versions", Data),
    ("tenant_settings", Data),
    (
        "tenants",
        Record("name, plan and state of a tenant are changed by its admins and operators"),
    ),
    ("totp_factors", LeftOut(CREDENTIAL)),
    ("trusted_devices", LeftOut(CREDENTIAL)),
    ("usage_days", Record(MEASURED)),
    ("usage_dirty", LeftOut(MOMENT)),
    ("usage_events", Record(MEASURED)),
    ("usage_hours", Record(MEASURED)),
    ("usage_intake", Record(MEASURED)),
    ("usage_keys", Record(MEASURED)),
    ("users", Data),
    (
        "webhook_attempts",
        LeftOut("what a receiver has answered, for some days"),
    ),
    (
        "webhook_deliveries",
        Record("what was sent from here is not sent a second time"),
    ),
    (
        "webhook_endpoints",
        Record("an endpoint has secrets of this tenant: it is created again, with others"),
    ),
    ("webhook_lanes", LeftOut(MOMENT)),
];

/// The columns that are left out of the tables above.
const COLUMNS: [(&str, &str, &str, Option<Fill>); 16] = [
    ("api_keys", "secret_hash", CREDENTIAL, None),
    ("api_keys", "former_hash", CREDENTIAL, None),
    ("audit_heads", "public_key", SEALED, None),
    ("invitations", "token_hash", CREDENTIAL, Some(Fill::UnusableHash)),
    ("notification_preferences", "refused_address", MOMENT, None),
    ("tenant_settings", "secrets", SEALED, Some(Fill::EmptyObject)),
    (
        "tenant_setting_versions",
        "secrets",
        SEALED,
        Some(Fill::EmptyObject),
    ),
    (
        "tenant_domains",
        "token",
        "what proves a domain for this tenant",
        None,
    ),
    ("tenants", "row_work", MOMENT, None),
    ("tenants", "row_counts", MOMENT, None),
    (
        "tenants",
        "agreed",
        "what the operator has agreed on with this tenant",
        None,
    ),
    (
        "users",
        "erased_at",
        "a restoration must not change who is erased",
        None,
    ),
    ("users", "first_password_hash", CREDENTIAL, None),
    ("users", "password_expires_at", CREDENTIAL, None),
    ("users", "password_hash", CREDENTIAL, Some(Fill::UnusablePassword)),
    ("webhook_endpoints", "sealed_credentials", SEALED, None),
];

const UNKNOWN: &str = "it is not decided yet whether it may be exported";

const NAMED_SO: &str = "its name says that it is a secret";

/// Words in the names of columns that hold secrets. Their plurals count as well, and so does a name such as `apiKey`. Words that are
/// joined by `_` stand one behind the other.
const SECRET_WORDS: [&str; 24] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "credential",
    "token",
    "jwt",
    "cookie",
    "otp",
    "totp",
    "hash",
    "sealed",
    "encrypted",
    "ciphertext",
    "digest",
    "salt",
    "api_key",
    "access_key",
    "private_key",
    "signing_key",
    "encryption_key",
    "apikey",
];

/// Types of which no value is a secret. Every other type is taken for one that can hold it, so that a new type opens nothing.
const NO_SECRETS: [&str; 10] = [
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "real",
    "double precision",
    "date",
    "time without time zone",
    "timestamp with time zone",
    "interval",
];

/// Whether the name of a column says that it holds a secret.
fn is_secret_name(name: &str) -> bool {
    let mut words = String::from("_");
    let mut was_lower = false;
    for c in name.chars() {
        match c.is_alphanumeric() {
            true if c.is_uppercase() && was_lower => words.push('_'),
            true => {}
            false => words.push('_'),
        }
        words.extend(c.to_lowercase().filter(|c| c.is_alphanumeric()));
        was_lower = c.is_lowercase() || c.is_numeric();
    }
    words.push('_');
    SECRET_WORDS.iter().any(|word| {
        let forms = ["", "s", "es"];
        forms
            .iter()
            .any(|plural| words.contains(&format!("_{word}{plural}_")))
    })
}

/// What an archive has of a table. All tables of a service that embeds the product are data.
pub fn content_of(table: &TableShape) -> Content {
    if !table.own {
        let missing = excuses_of(table).into_iter().any(|excuse| {
            let column = table.column(&excuse.column);
            column.is_some_and(|column| !column.nullable && !column.default)
        });
        return match missing {
            false => Data,
            true => Record("its rows cannot be without a secret that is left out"),
        };
    }
    let known = TABLES.iter().find(|(name, _)| *name == table.name);
    known.map_or(LeftOut(UNKNOWN), |(_, content)| *content)
}

/// The columns of a table that are left out. Of a table of a service that embeds the product, those are the ones that have the name
/// of a secret.
pub fn excuses_of(table: &TableShape) -> Vec<Excuse> {
    if table.own {
        let listed = COLUMNS.iter().filter(|(name, ..)| *name == table.name);
        return listed
            .map(|&(_, column, reason, fill)| Excuse {
                column: column.to_owned(),
                reason,
                fill,
            })
            .collect();
    }
    let secret = table.columns.iter().filter(|column| is_secret(table, column));
    secret.map(named_so).collect()
}

/// The columns that an archive of one person leaves out of a table, which may be one of which an archive of the tenant has nothing: those
/// of [`excuses_of`], all others that have the name of a secret, and bytes.
pub(super) fn secrets_of(table: &TableShape) -> Vec<Excuse> {
    let mut excuses = excuses_of(table);
    let further = table.columns.iter().filter(|column| {
        let is_excused = excuses.iter().any(|excuse| excuse.column == column.name);
        !is_excused && (column.kind == "bytea" || is_secret(table, column))
    });
    let further: Vec<_> = further.map(named_so).collect();
    excuses.extend(further);
    excuses
}

/// Whether a column has the name of a secret, and a type that can hold one.
fn is_secret(table: &TableShape, column: &ColumnShape) -> bool {
    let refers = || {
        let mut refers = table.refers.iter();
        refers.any(|reference| reference.columns.contains(&column.name))
    };
    let identifies = column.kind == "uuid"
        && (column.name.ends_with("_id") || table.key.contains(&column.name) || refers());
    let is_harmless = identifies || NO_SECRETS.contains(&column.kind.trim_end_matches("[]"));
    !is_harmless && is_secret_name(&column.name)
}

fn named_so(column: &ColumnShape) -> Excuse {
    Excuse {
        column: column.name.clone(),
        reason: NAMED_SO,
        fill: None,
    }
}

/// What inserted rows have in the columns that are left out.
pub fn fills_of(table: &TableShape, unusable_password: &str) -> Value {
    let fills = excuses_of(table).into_iter().filter_map(|excuse| {
        let value = match excuse.fill? {
            Fill::UnusablePassword => json!(unusable_password),
            Fill::UnusableHash => json!(format!("\\x{}", "0".repeat(64))),
            Fill::EmptyObject => json!({}),
        };
        Some((excuse.column, value))
    });
    Value::Object(fills.collect())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// The columns of each table of the product, with their types.
    fn catalogue() -> BTreeMap<&'static str, Vec<(&'static str, &'static str)>> {
        let lines = include_str!("../../../../migration/catalogue.txt").lines();
        let mut tables: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for line in lines.filter_map(|line| line.strip_prefix("column\tpublic.")) {
            let (name, kind) = line.split_once('\t').unwrap();
            let (table, column) = name.split_once('.').unwrap();
            tables
                .entry(table)
                .or_default()
                .push((column.trim_matches('"'), kind));
        }
        let of_tenants = |table: &str, columns: &[(&str, &str)]| {
            table == TableShape::TENANTS || columns.iter().any(|(name, _)| *name == "tenant_id")
        };
        tables.retain(|table, columns| of_tenants(table, columns));
        tables
    }

    /// A new table of tenants is exported or excused: decide, and add it to `TABLES`.
    #[test]
    fn every_table_of_the_catalogue_is_exported_or_excused() {
        let known: BTreeSet<_> = catalogue().into_keys().collect();
        let decided: BTreeSet<_> = TABLES.iter().map(|(table, _)| *table).collect();
        assert_eq!(known, decided);
    }

    /// Columns of exported tables that look like secrets are left out, or are on this list with what they are instead.
    #[test]
    fn every_secret_of_the_catalogue_is_excused() {
        let no_secrets = [
            "audit_blocks.links",                   // the hash chain itself, to verify the log with
            "audit_heads.hash",                     // public: it is in the server's log
            "audit_heads.signature",                // public, as above
            "notification_preferences.digests_off", // whether digests are mailed
            "passkeys.credential_id",               // the name of a key
            "passkeys.public_key",                  // public
            "usage_keys.payload_hash",              // of figures that are in the archive
        ];
        let tables = catalogue();
        let excused: BTreeSet<_> = COLUMNS
            .iter()
            .map(|(table, column, ..)| format!("{table}.{column}"))
            .collect();
        for name in &excused {
            let (table, column) = name.split_once('.').unwrap();
            assert!(
                tables[table].iter().any(|(known, _)| *known == column),
                "there is no {name}"
            );
        }
        for (table, content) in TABLES {
            if matches!(content, LeftOut(_)) {
                continue;
            }
            for (column, kind) in &tables[table] {
                let named_so = is_secret_name(column);
                let name = format!("{table}.{column}");
                let looks_so = kind.starts_with("bytea") || named_so;
                assert_eq!(
                    looks_so && !no_secrets.contains(&name.as_str()),
                    excused.contains(&name) && looks_so,
                    "{name} {kind}"
                );
            }
        }
    }

    /// A column that must have a value and is left out has a fill, where rows are imported.
    #[test]
    fn every_left_out_column_that_needs_a_value_has_a_fill() {
        let tables = catalogue();
        for (table, column, _, fill) in COLUMNS {
            let content = TABLES.iter().find(|(name, _)| *name == table).unwrap().1;
            let kind = tables[table].iter().find(|(name, _)| *name == column).unwrap().1;
            if content == Data && kind.contains("not null") {
                assert!(fill.is_some(), "{table}.{column}");
            }
        }
    }

    #[test]
    fn names_of_secrets_are_recognized() {
        for name in [
            "password",
            "api_key",
            "api_keys",
            "apiKey",
            "ApiKey",
            "private_key",
            "credential",
            "credentials",
            "passphrase",
            "token_hashes",
            "stripe_secret_key",
            "refresh-token",
            "totp",
            "old_passwords",
            "apikey",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "key",
            "keyboard",
            "hashtag",
            "tokenized",
            "monkey",
            "public_key",
            "salted_fish",
            "title",
            "basalt",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    /// docs/archives.md has the list of the code.
    #[test]
    fn words_of_secrets_are_in_the_documentation() {
        let page = include_str!("../../../../docs/archives.md");
        let words: Vec<_> = SECRET_WORDS.iter().map(|word| format!("`{word}`")).collect();
        let list = words.join(", ");
        assert!(
            page.contains(&list),
            "docs/archives.md must have this list of words: {list}"
        );
    }

    #[test]
    fn a_table_of_a_service_is_exported_without_its_secrets() {
        let column = ColumnShape::plain;
        let mut table = TableShape::notes(vec![
            column("id", "uuid", false),
            column("api_token", "text", true),
            column("token_count", "integer", false),
            column("api_keys", "text[]", true),
            column("private_key", "character", true),
            column("token_id", "uuid", false),
            column("invite_token", "uuid", true),
        ]);
        table.refers = vec![super::super::ReferenceShape {
            table: "tokens".into(),
            columns: vec!["tenant_id".into(), "token_id".into()],
            cascades: false,
        }];
        assert_eq!(content_of(&table), Data);
        let excuses: Vec<_> = excuses_of(&table)
            .into_iter()
            .map(|excuse| excuse.column)
            .collect();
        assert_eq!(excuses, ["api_token", "api_keys", "private_key", "invite_token"]);
        table.columns[1].nullable = false;
        assert!(matches!(content_of(&table), Record(_)));
        table.own = true;
        assert!(
            matches!(content_of(&table), LeftOut(_)),
            "an own table that nobody has decided on"
        );
    }
}
