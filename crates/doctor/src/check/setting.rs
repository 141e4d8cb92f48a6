//! What is set for roles and databases.

use super::{Check, Verdict, count};
use crate::catalogue::{RoleSetting, Schema};
use crate::subject::Subject;
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "SET001",
        title: "Row-level security is not switched off by a setting",
        why: "With `row_security = off` every query of a tenant table fails, and whoever may bypass it does.",
        severity: Severity::Error,
        guards: true,
        look: row_security_is_on,
    },
    Check {
        id: "SET002",
        title: "No session begins with a tenant",
        why: "Where the tenant is set for a role or a database, a transaction that forgot it works for that tenant \
              instead of for none.",
        severity: Severity::Error,
        guards: true,
        look: no_tenant_to_begin_with,
    },
    Check {
        id: "SET003",
        title: "No setting switches off foreign keys, takes another role or changes what SQL means",
        why: "With `session_replication_role = replica` rows may refer to other tenants' rows; with `role` every session is \
              somebody else.",
        severity: Severity::Error,
        guards: true,
        look: nothing_is_switched_off,
    },
    Check {
        id: "SET004",
        title: "The search paths of the application's roles name schemas that only owners can create in",
        why: "Whoever can create in a schema of the path can put a table or a function before the one that is meant.",
        severity: Severity::Error,
        guards: true,
        look: paths_are_closed,
    },
];

fn row_security_is_on(subject: &Subject<'_>) -> Verdict {
    let is_off = |value: &str| ["off", "false", "no", "0"].contains(&value.to_ascii_lowercase().as_str());
    let off = |setting: &RoleSetting| {
        let mine = setting
            .role
            .as_deref()
            .is_none_or(|role| subject.reachable.contains(role));
        mine && setting.name == "row_security" && is_off(&setting.value)
    };
    let connection = (!subject.catalogue.server.row_security).then(|| "row_security is off".to_owned());
    settings(subject, off, connection)
}

fn no_tenant_to_begin_with(subject: &Subject<'_>) -> Verdict {
    let name = &subject.options.setting;
    let pinned = |setting: &RoleSetting| setting.name.eq_ignore_ascii_case(name) && !setting.value.is_empty();
    let value = subject.catalogue.server.setting.as_ref();
    let connection = value.map(|value| format!("{name} is {value} before anybody has set it"));
    settings(subject, pinned, connection)
}

/// Names and the value that does no harm.
const HARMFUL: &[(&str, &[&str])] = &[
    ("session_replication_role", &["origin", "local"]),
    ("role", &["none", ""]),
    ("session_authorization", &["default", ""]),
    ("standard_conforming_strings", &["on", "true", "yes", "1"]),
    ("transform_null_equals", &["off", "false", "no", "0"]),
    ("allow_system_table_mods", &["off", "false", "no", "0"]),
    ("lo_compat_privileges", &["off", "false", "no", "0"]),
    ("session_preload_libraries", &[""]),
    ("local_preload_libraries", &[""]),
];

fn nothing_is_switched_off(subject: &Subject<'_>) -> Verdict {
    let harmful = |setting: &RoleSetting| {
        let mine = concerns(subject, setting);
        let known = HARMFUL
            .iter()
            .find(|(name, _)| setting.name.eq_ignore_ascii_case(name));
        let value = setting.value.to_ascii_lowercase();
        mine && known.is_some_and(|(_, harmless)| !harmless.contains(&value.trim_matches('"')))
    };
    let current = &subject.catalogue.server.session_replication_role;
    let replica = current == "replica";
    let connection = replica.then(|| "session_replication_role is replica".to_owned());
    settings(subject, harmful, connection)
}

/// Whether it holds for the runtime role, a platform role, or what they can become.
fn concerns(subject: &Subject<'_>, setting: &RoleSetting) -> bool {
    let role = setting.role.as_deref();
    role.is_none_or(|role| subject.reachable.contains(role) || subject.platform.contains(&role))
}

fn paths_are_closed(subject: &Subject<'_>) -> Verdict {
    let all = subject.catalogue.settings.iter();
    let paths = all.filter(|setting| setting.name == "search_path" && concerns(subject, setting));
    Verdict::of_each("search path", paths, |setting| {
        let entries: Vec<&str> = setting
            .value
            .split(',')
            .map(|entry| entry.trim().trim_matches('"'))
            .filter(|entry| !entry.is_empty())
            .collect();
        let mut places = entries.iter().enumerate();
        let problem = places
            .find_map(|(place, entry)| open_schema(subject, entry, place == 0, place + 1 == entries.len()))?;
        let finding = bad_setting(setting);
        Some(Finding {
            found: format!("{}: {problem}", finding.found),
            ..finding
        })
    })
}

/// Why an entry of a search path is not safe in its place.
fn open_schema(subject: &Subject<'_>, entry: &str, first: bool, last: bool) -> Option<String> {
    let name = quote::printable(entry);
    if entry == "pg_catalog" {
        return (!first).then(|| "pg_catalog is not the first".to_owned());
    }
    if entry == "pg_temp" {
        return (!last).then(|| "pg_temp is not the last".to_owned());
    }
    if entry == "$user" {
        let taken = subject.workers().any(|role| schema_of(subject, role).is_some());
        return taken.then(|| "there is a schema with the name of a role".to_owned());
    }
    let Some(schema) = schema_of(subject, entry) else {
        return Some(format!("{name} does not exist or is not examined"));
    };
    let creator = schema.grants.iter().find(|grant| {
        // What PUBLIC and the application's roles can create there is another check's.
        let other = grant
            .grantee
            .as_deref()
            .filter(|role| !subject.any_holds(Some(*role)));
        grant.privilege == "CREATE" && other.is_some_and(|role| !subject.owns_something(role))
    });
    creator.map(|grant| {
        let who = crate::subject::grantee(grant.grantee.as_deref());
        format!("{who} can create in {name}")
    })
}

fn schema_of<'a>(subject: &Subject<'a>, name: &str) -> Option<&'a Schema> {
    subject
        .catalogue
        .schemas
        .iter()
        .find(|schema| schema.name == name)
}

/// What the connection itself has is news only where none of the settings explains it: then it comes from the
/// server's configuration or from whoever connected.
fn settings(
    subject: &Subject<'_>,
    is_bad: impl Fn(&RoleSetting) -> bool,
    connection: Option<String>,
) -> Verdict {
    let all = &subject.catalogue.settings;
    let mut findings: Vec<Finding> = all
        .iter()
        .filter(|setting| is_bad(setting))
        .map(bad_setting)
        .collect();
    if let (true, Some(found)) = (findings.is_empty(), connection) {
        let user = quote::identifier(&subject.catalogue.server.session_user);
        findings.push(Finding::new(
            Object::new("connection", format!("of {user}")),
            found,
        ));
    }
    Verdict::of(
        format!("{} and the connection's own", count(all.len(), "setting")),
        findings,
    )
}

fn bad_setting(setting: &RoleSetting) -> Finding {
    let role = setting.role.as_deref().map(quote::identifier);
    let database = setting.database.as_deref().map(quote::identifier);
    let whose = match (&role, &database) {
        (None, Some(database)) => format!("DATABASE {database}"),
        (Some(role), None) => format!("ROLE {role}"),
        (Some(role), Some(database)) => format!("ROLE {role} IN DATABASE {database}"),
        (None, None) => "ROLE ALL".to_owned(),
    };
    let sql = format!("ALTER {whose} RESET {}", quote::setting(&setting.name));
    let object = Object::new("setting", format!("{} of {whose}", setting.name));
    Finding::new(object, format!("is {}", setting.value)).mend(Step::Roles, [sql])
}
