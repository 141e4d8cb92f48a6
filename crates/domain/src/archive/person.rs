//! What an archive of one person has, and what an import makes of a person who was erased since.

use serde_json::{Value, json};

use super::content::secrets_of;
use super::id_map::row_columns;
use super::{Excuse, TableShape};
use crate::audit::{Salt, erased, erased_text};
use crate::kernel::UserId;

/// The person whose rows are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AboutPerson {
    /// Identifies the account whose rows are read.
    pub id: UserId,
    /// The addresses that are [proven](crate::identity::Persons::proven_addresses) to be the person's. Anybody can give an account an
    /// address that is not, and would get what is stored about its owner.
    pub proven: Vec<String>,
}

/// Which rows of a table are about a person, and what is left out of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PersonRows {
    /// Columns with the id of the person.
    pub ids: Vec<String>,
    /// Columns of text with an address or the id of the person.
    pub addresses: Vec<String>,
    /// JSON columns in which either may be.
    pub states: Vec<String>,
    /// A column that is null where a caller without a credential chose what is in `states`: there only the id counts, which such a caller
    /// does not choose.
    pub chosen_by: Option<&'static str>,
    /// Columns that no row of the archive has, with the reasons.
    pub left_out: Vec<Excuse>,
}

/// Tables of which a person gets nothing although rows name them, with the reason.
const LEFT_OUT: [(&str, &str); 9] = [
    ("event_outbox", "events that are published within a second"),
    (
        "events",
        "changes of which the audit log has the same, for some days",
    ),
    ("idempotency_keys", "answers that are kept for a day, sealed"),
    (
        "jobs",
        "work of the server, of which the audit log has what was done",
    ),
    (
        "mfa_challenges",
        "a login that waits for its second factor, for minutes",
    ),
    (
        "passkey_ceremonies",
        "a login or enrollment that is under way, for minutes",
    ),
    ("recovery_codes", "hashes of credentials and nothing else"),
    ("erasures", "there is none of a person who can be exported"),
    ("lockouts", "keyed digests, from which nobody finds the person"),
];

/// Columns besides references to users that name a person.
const FURTHER: [(&str, &str, Names); 7] = [
    ("users", "id", Names::Id),
    ("audit_events", "actor_id", Names::Id),
    ("audit_events", "target_id", Names::Id),
    ("audit_events", "before", Names::Either),
    ("audit_events", "after", Names::Either),
    ("invitations", "email", Names::Address),
    ("security_alerts", "subject", Names::Address),
];

/// Of these tables a row without a value in the column is written for a caller without a credential.
const CHOSEN_BY: [(&str, &str); 1] = [("audit_events", "actor_id")];

/// Columns that tell about the tenant rather than about the person who is named beside them.
const OF_OTHERS: [(&str, &str, &str); 2] = [
    ("tenant_setting_versions", "values", "settings of the tenant"),
    (
        "tenant_exports",
        "open_key",
        "of no meaning outside of the database",
    ),
];

/// What a column names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Id,
    Address,
    Either,
}

/// Which rows of a table an archive of one person has; `None` when no column names a person.
///
/// # Errors
/// The reason why nothing is in the archive although there are such columns.
pub fn person_rows_of(table: &TableShape) -> Result<Option<PersonRows>, &'static str> {
    if let Some((_, reason)) = LEFT_OUT.iter().find(|(name, _)| table.own && *name == table.name) {
        return Err(reason);
    }
    let further = |names: Names| {
        let of_table = FURTHER
            .iter()
            .filter(move |(name, _, what)| table.own && *name == table.name && *what == names);
        of_table.map(|(_, column, _)| (*column).to_owned())
    };
    let mut ids: Vec<String> = table.users().map(|(_, column)| column.clone()).collect();
    ids.extend(further(Names::Id));
    ids.dedup();
    let rows = PersonRows {
        ids,
        addresses: further(Names::Address).collect(),
        states: further(Names::Either).collect(),
        chosen_by: CHOSEN_BY
            .iter()
            .find(|(name, _)| table.own && *name == table.name)
            .map(|(_, column)| *column),
        left_out: left_out_of(table),
    };
    let is_none = rows.ids.is_empty() && rows.addresses.is_empty() && rows.states.is_empty();
    Ok((!is_none).then_some(rows))
}

/// Columns that hold secrets, and those that tell about others.
fn left_out_of(table: &TableShape) -> Vec<Excuse> {
    let of_others = OF_OTHERS
        .iter()
        .filter(|(name, ..)| table.own && *name == table.name);
    let of_others = of_others.map(|(_, column, reason)| Excuse {
        column: (*column).to_owned(),
        reason,
        fill: None,
    });
    secrets_of(table).into_iter().chain(of_others).collect()
}

/// An entry of the audit log as the person may see it: what it tells about other people is in the form of an erased entry.
/// `salt` are random bytes that are kept nowhere.
pub fn without_others(row: &str, about: &AboutPerson, salt: &Salt) -> String {
    let Ok(mut row) = serde_json::from_str::<Value>(row) else {
        return String::new();
    };
    let person = json!(about.id);
    let is_of = |row: &Value, column: &str| row[column] == person;
    // An actor without an id is a caller before a login: of an entry about the account or its session it is taken for the person.
    let is_guest =
        row["actor_id"].is_null() && (is_of(&row, "target_id") || row["after"]["user_id"] == person);
    if !is_guest && !is_of(&row, "actor_id") {
        for column in ["ip", "user_agent"] {
            if let Some(text) = row[column].as_str() {
                row[column] = erased_text(text, salt).into();
            }
        }
    }
    if !is_of(&row, "target_id") {
        for column in ["before", "after"] {
            row[column] = keep_own(&row[column], &erased(&row[column], salt), about);
        }
    }
    row.to_string()
}

/// The erased form, except for addresses of the person.
fn keep_own(plain: &Value, gone: &Value, about: &AboutPerson) -> Value {
    match (plain, gone) {
        (Value::String(text), _) if about.proven.contains(text) => plain.clone(),
        (Value::Object(plain), Value::Object(gone)) => {
            let member = |(name, value): (&String, &Value)| {
                let kept = keep_own(value, gone.get(name).unwrap_or(&Value::Null), about);
                (name.clone(), kept)
            };
            plain.iter().map(member).collect()
        }
        (Value::Array(plain), Value::Array(gone)) => {
            let pairs = plain.iter().zip(gone);
            pairs.map(|(plain, gone)| keep_own(plain, gone, about)).collect()
        }
        _ => gone.clone(),
    }
}

/// The row of a user who was erased, as an import as a new tenant writes it: anonymous, for the records that refer to it. Its columns stay in
/// their order. `None` of a row that is no JSON object.
pub fn erased_user(row: &str, taken_at: &Value) -> Option<String> {
    let columns = row_columns(row);
    let mut row: Value = serde_json::from_str(row).ok()?;
    let id = row["id"].as_str().unwrap_or_default().to_owned();
    let anonymous = [
        ("email", json!(format!("erased-{id}@erased.invalid"))),
        ("full_name", json!("Erased user")),
        ("role", json!("viewer")),
        ("custom_role", Value::Null),
        ("is_active", json!(false)),
        ("email_verified", json!(false)),
        ("self_registered", json!(false)),
        ("mailbox_proven_at", Value::Null),
    ];
    for (column, value) in anonymous {
        if row.get(column).is_some() {
            row[column] = value;
        }
    }
    if row["deleted_at"].is_null() {
        row["deleted_at"] = taken_at.clone();
    }
    let members = columns.iter().filter_map(|name| {
        let value = row.get(name)?;
        Some(format!("{}: {value}", json!(name)))
    });
    let members: Vec<_> = members.collect();
    Some(format!("{{{}}}", members.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::ColumnShape;
    use super::*;

    const CATALOGUE: &str = include_str!("../../../../migration/catalogue.txt");

    /// Table and column of each line of a kind in the catalogue.
    fn columns() -> impl Iterator<Item = (&'static str, &'static str)> {
        let lines = CATALOGUE.lines();
        lines.filter_map(|line| {
            let (name, _) = line.strip_prefix("column\tpublic.")?.split_once('\t')?;
            name.split_once('.')
        })
    }

    /// Columns that name a person by their name. One that is new is a reference to users, is added to `FURTHER`, or is on the list of this
    /// test with the reason.
    #[test]
    fn every_column_that_names_a_person_is_decided() {
        const NO_PERSON: [(&str, &str); 37] = [
            ("account_links", "email"), // found by the person beside it; links of others may be to any address
            ("api_keys", "service_account"), // whether it is one
            ("audit_events", "actor_type"), // a kind
            ("audit_events", "ip"),     // found by the person beside it
            ("audit_events", "user_agent"), // likewise
            ("brandings", "support_email"), // of the tenant
            ("erasures", "addresses"),  // deleted when the erasure ends
            ("event_outbox", "actor_id"), // left out
            ("event_outbox", "actor_kind"), // left out
            ("events", "actor_id"),     // left out
            ("events", "actor_kind"),   // left out
            ("jobs", "actor_id"),       // left out
            ("jobs", "actor_type"),     // left out
            ("lockouts", "account"),    // left out
            ("notification_preferences", "refused_address"), // a keyed digest, found by the person beside it
            ("notifications", "actor_id"), // an id, found by the person beside it
            ("notifications", "actor_kind"), // a kind
            ("operator_events", "ip"),  // of operators, who are no users of tenants
            ("operators", "email"),     // likewise
            ("passkeys", "mailbox"),    // found by the person beside it
            ("passkeys", "mailbox_proven_at"), // a time
            ("operator_lockouts", "account"), // of operators
            ("refresh_sessions", "ip"), // found by the person beside it
            ("refresh_sessions", "mailbox"), // likewise
            ("refresh_sessions", "mailbox_proven_at"), // a time
            ("refresh_sessions", "user_agent"), // found by the person beside it
            ("security_alerts", "subject_kind"), // a kind
            ("sent_mails", "recipient"), // a hash, for some days
            ("tenants", "status_actor"), // a kind
            ("tenants", "status_actor_id"), // an operator or an admin, by the id
            ("trusted_devices", "ip"),  // found by the person beside it
            ("trusted_devices", "user_agent"), // likewise
            ("usage_events", "subject"), // chosen by the tenant's program
            ("user_addresses", "of_user"), // deleted with the address, by a trigger
            ("user_addresses", "address_digest"), // likewise
            ("users", "mailbox_proven_at"), // a time
            ("workspace_requests", "email"), // for minutes
        ];
        const WORDS: [&str; 15] = [
            "email",
            "mailbox",
            "user",
            "actor",
            "person",
            "ip",
            "recipient",
            "owner",
            "assignee",
            "author",
            "addresses",
            "address",
            "subject",
            "account",
            "invited",
        ];
        let referring: BTreeSet<_> = CATALOGUE
            .lines()
            .filter_map(|line| {
                let line = line.strip_prefix("constraint\t")?;
                let table = line.split_once(" on public.")?.1.split_once('\t')?.0;
                let column = line
                    .split_once("FOREIGN KEY (tenant_id, ")?
                    .1
                    .split_once(") REFERENCES public.users(")?
                    .0;
                Some((table, column))
            })
            .collect();
        assert!(referring.len() > 15 && referring.contains(&("tasks", "assignee_id")));
        let undecided: Vec<_> = columns()
            .filter(|(table, column)| {
                let named_so = column.split('_').any(|word| WORDS.contains(&word));
                let further = FURTHER.iter().any(|(of, name, _)| (of, name) == (table, column));
                let of_users = *table == "users" && column.starts_with("email");
                named_so && !further && !of_users && !referring.contains(&(*table, *column))
            })
            .filter(|both| !NO_PERSON.contains(both))
            .collect();
        assert_eq!(undecided, []);
        for both in NO_PERSON {
            assert!(columns().any(|one| one == both), "there is no {both:?}");
        }
    }

    fn column(name: &str, kind: &str) -> ColumnShape {
        ColumnShape {
            name: name.into(),
            kind: kind.into(),
            nullable: false,
            generated: false,
            default: false,
        }
    }

    #[test]
    fn rows_of_a_table_of_a_service_are_found_by_its_reference() {
        let mut table = TableShape {
            name: "notes".into(),
            own: false,
            columns: vec![
                column("author_id", "uuid"),
                column("pin_hash", "text"),
                column("photo", "bytea"),
            ],
            key: vec!["id".into()],
            refers: vec![super::super::ReferenceShape {
                table: "users".into(),
                columns: vec!["tenant_id".into(), "author_id".into()],
                cascades: true,
            }],
            changes: true,
        };
        let rows = person_rows_of(&table).unwrap().unwrap();
        assert_eq!(rows.ids, ["author_id"]);
        let left_out: Vec<_> = rows
            .left_out
            .iter()
            .map(|excuse| excuse.column.as_str())
            .collect();
        assert_eq!(left_out, ["pin_hash", "photo"]);
        table.refers.clear();
        assert_eq!(person_rows_of(&table), Ok(None));
    }

    /// A service's table is exported without the secrets that an archive of its tenant leaves out.
    #[test]
    fn secrets_are_those_of_the_archive_of_the_tenant() {
        let mut table = TableShape {
            name: "integrations".into(),
            own: false,
            columns: vec![
                column("user_id", "uuid"),
                column("api_key", "text"),
                column("recovery_tokens", "jsonb"),
                column("accessToken", "text"),
                column("token_count", "integer"),
                column("title", "text"),
            ],
            key: vec!["id".into()],
            refers: Vec::new(),
            changes: true,
        };
        let left_out = |table: &TableShape| -> Vec<String> {
            let excuses = left_out_of(table).into_iter();
            excuses.map(|excuse| excuse.column).collect()
        };
        assert_eq!(left_out(&table), ["api_key", "recovery_tokens", "accessToken"]);
        table.name = "tenant_setting_versions".into();
        table.own = true;
        table.columns = vec![column("secrets", "jsonb"), column("values", "jsonb")];
        assert_eq!(left_out(&table), ["secrets", "values"]);
    }

    /// What is stored of no archive of a tenant, such as sessions, is stored for an archive of a person with no secret.
    #[test]
    fn every_secret_of_the_catalogue_is_left_out() {
        let mut tables = std::collections::BTreeMap::<_, Vec<_>>::new();
        for line in CATALOGUE.lines() {
            let found = line
                .strip_prefix("column\tpublic.")
                .and_then(|line| line.split_once('\t'));
            let Some((name, kind)) = found else { continue };
            let (table, name) = name.split_once('.').unwrap();
            let kind = kind
                .split(" not null")
                .next()
                .unwrap()
                .split(" default")
                .next()
                .unwrap();
            tables.entry(table).or_default().push(column(name, kind));
        }
        for (name, columns) in tables {
            let table = TableShape {
                name: name.into(),
                own: true,
                columns,
                key: Vec::new(),
                refers: Vec::new(),
                changes: true,
            };
            let left_out = left_out_of(&table);
            let kept = table
                .columns
                .iter()
                .filter(|column| !left_out.iter().any(|one| one.column == column.name));
            let kept: Vec<_> = kept
                .filter(|column| column.kind.starts_with("bytea") || column.name.contains("secret"))
                .collect();
            assert!(kept.is_empty(), "{name}: {kept:?}");
        }
    }

    /// An import refuses rows whose columns differ from those of the first one, or are in another order.
    #[test]
    fn row_of_an_erased_user_keeps_its_columns_in_order() {
        let row = r#"{"id": "7", "role": "admin", "email": "ada@x.example", "full_name": "Ada", "deleted_at": null}"#;
        let erased = erased_user(row, &json!("2026-01-31T12:00:00Z")).unwrap();
        assert_eq!(row_columns(&erased), row_columns(row));
        assert!(!erased.contains("Ada") && !erased.contains("ada@"), "{erased}");
        assert!(erased.contains("2026-01-31T12:00:00Z"), "{erased}");
    }

    #[test]
    fn entries_show_a_person_nothing_about_others() {
        let about = AboutPerson {
            id: uuid::Uuid::from_u128(7).into(),
            proven: vec!["ada@x.example".into()],
        };
        let other = uuid::Uuid::from_u128(8);
        let row = json!({"actor_id": other, "target_id": about.id, "ip": "192.0.2.1", "user_agent": "x", "before": null,
            "after": {"email": "ada@x.example", "full_name": "Ada"}});
        let shown: Value = serde_json::from_str(&without_others(&row.to_string(), &about, &[1; 16])).unwrap();
        assert_eq!(shown["after"], row["after"]);
        assert!(shown["ip"].as_str().unwrap().starts_with("erased:"));
        let row = json!({"actor_id": about.id, "target_id": other, "ip": "192.0.2.2", "user_agent": "x", "before": null,
            "after": {"email": "bob@x.example", "by": {"email": "ada@x.example"}, "role": "admin"}});
        let shown: Value = serde_json::from_str(&without_others(&row.to_string(), &about, &[1; 16])).unwrap();
        assert_eq!(
            (&shown["ip"], &shown["after"]["role"]),
            (&json!("192.0.2.2"), &json!("admin"))
        );
        assert_eq!(shown["after"]["by"]["email"], "ada@x.example");
        assert!(!shown.to_string().contains("bob@"), "{shown}");
        // A caller without a credential is the person where the entry is about the account, and may be anybody elsewhere.
        for (row, is_shown) in [
            (
                json!({"actor_id": null, "target_id": about.id, "ip": "192.0.2.3", "before": null, "after": {}}),
                true,
            ),
            (
                json!({"actor_id": null, "target_id": other, "ip": "192.0.2.3", "before": null, "after": {"user_id": about.id}}),
                true,
            ),
            (
                json!({"actor_id": null, "target_id": other, "ip": "192.0.2.3", "before": null, "after": {"person_id": about.id}}),
                false,
            ),
        ] {
            let shown = without_others(&row.to_string(), &about, &[1; 16]);
            assert_eq!(shown.contains("192.0.2.3"), is_shown, "{row}");
        }
    }
}
