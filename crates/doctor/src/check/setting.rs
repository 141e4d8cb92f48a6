//! What is set for roles and databases.

use super::{Check, Verdict, count};
use crate::catalogue::{Effective, RoleSetting, Schema, UNKNOWN};
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
    Check {
        id: "SET005",
        title: "The log of the server has no statements that write rows",
        why: "Statements and their parameters hold values of every tenant, and every reader of the log sees them.",
        severity: Severity::Warning,
        guards: false,
        look: statements_are_not_logged,
    },
    Check {
        id: "SET006",
        title: "What was committed outlasts a crash",
        why: "Without `fsync` or `full_page_writes` a crash may leave a database that cannot be read; without \
              `synchronous_commit` it loses the last answers that were given, and what a tenant is billed for.",
        severity: Severity::Warning,
        guards: false,
        look: commits_last,
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
    let connection = effective(subject, |one| one.name == "row_security" && is_off(&one.value));
    settings(subject, off, connection)
}

fn no_tenant_to_begin_with(subject: &Subject<'_>) -> Verdict {
    let name = &subject.options.setting;
    let pinned = |setting: &RoleSetting| setting.name.eq_ignore_ascii_case(name) && !setting.value.is_empty();
    let value = subject.catalogue.server.setting.as_ref();
    let object = Object::new("connection", format!("of {}", connected_as(subject)));
    let connection =
        value.map(|value| Finding::new(object, format!("{name} is {value} before anybody has set it")));
    settings(subject, pinned, connection.into_iter().collect())
}

/// Names and the values that do no harm.
const HARMFUL: &[(&str, &[&str])] = &[
    ("session_replication_role", &["origin", "local"]),
    ("role", &["none", ""]),
    ("session_authorization", &["default", ""]),
    ("standard_conforming_strings", ON),
    ("array_nulls", ON),
    ("transform_null_equals", OFF),
    ("allow_system_table_mods", OFF),
    ("ignore_system_indexes", OFF),
    ("lo_compat_privileges", OFF),
    ("default_transaction_isolation", &["read committed"]),
    ("default_transaction_read_only", OFF),
    ("default_transaction_deferrable", OFF),
    ("default_table_access_method", &["heap"]),
    ("dynamic_library_path", &["$libdir"]),
    ("plpgsql.variable_conflict", &["error"]),
    ("shared_preload_libraries", LIBRARIES),
    ("session_preload_libraries", LIBRARIES),
    ("local_preload_libraries", LIBRARIES),
];

const ON: &[&str] = &["on", "true", "yes", "1"];
const OFF: &[&str] = &["off", "false", "no", "0"];

/// Libraries that count, log or slow down, and leave queries as they are.
const LIBRARIES: &[&str] = &[
    "",
    "auth_delay",
    "auto_explain",
    "passwordcheck",
    "pg_prewarm",
    "pg_stat_statements",
    "pgaudit",
];

fn is_harmful(name: &str, value: &str) -> bool {
    let known = HARMFUL.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
    let value = value.to_ascii_lowercase();
    known.is_some_and(|(_, harmless)| !value.split(',').map(bare).all(|part| harmless.contains(&part)))
}

/// An entry of a list of libraries, or any other value, without what is only another way to write it.
fn bare(part: &str) -> &str {
    let part = part.trim().trim_matches('"');
    part.strip_prefix("$libdir/").unwrap_or(part)
}

fn nothing_is_switched_off(subject: &Subject<'_>) -> Verdict {
    let harmful =
        |setting: &RoleSetting| concerns(subject, setting) && is_harmful(&setting.name, &setting.value);
    let connection = effective(subject, |one| is_harmful(&one.name, &one.value));
    settings(subject, harmful, connection)
}

fn statements_are_not_logged(subject: &Subject<'_>) -> Verdict {
    let logged =
        |setting: &RoleSetting| concerns(subject, setting) && logs_statements(&setting.name, &setting.value);
    let connection = effective(subject, |one| logs_statements(&one.name, &one.value));
    settings(subject, logged, connection)
}

/// Whether a setting writes statements to the log as such, and not only the slow or the failed ones. A duration alone, of `log_duration`, tells
/// nothing.
fn logs_statements(name: &str, value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim();
    let is_zero = !number.is_empty() && number.trim_matches(['0', '.']).is_empty();
    match name.to_ascii_lowercase().as_str() {
        "log_statement" => ["mod", "all"].contains(&value.as_str()),
        "log_min_duration_statement" | "log_min_duration_sample" | "auto_explain.log_min_duration" => is_zero,
        "log_transaction_sample_rate" | "log_parameter_max_length_on_error" => !is_zero,
        // From there on each statement is a message of its own.
        "log_min_messages" => ["debug2", "debug3", "debug4", "debug5", "debug"].contains(&value.as_str()),
        "debug_print_parse" | "debug_print_rewritten" | "debug_print_plan" => !OFF.contains(&value.as_str()),
        _ => false,
    }
}

/// Settings without which a commit is lost in a crash, and the values with which it is not.
const LASTING: &[(&str, &[&str])] = &[
    ("fsync", ON),
    ("full_page_writes", ON),
    (
        "synchronous_commit",
        &["on", "true", "yes", "1", "local", "remote_write", "remote_apply"],
    ),
];

fn commits_last(subject: &Subject<'_>) -> Verdict {
    let loses = |name: &str, value: &str| {
        let mut known = LASTING
            .iter()
            .filter(|(known, _)| name.eq_ignore_ascii_case(known));
        known.any(|(_, lasting)| !lasting.contains(&value.to_ascii_lowercase().as_str()))
    };
    let own = |setting: &RoleSetting| concerns(subject, setting) && loses(&setting.name, &setting.value);
    let connection = effective(subject, |one| loses(&one.name, &one.value));
    settings(subject, own, connection)
}

/// Whether it holds for the runtime role, a platform role, or what they can become.
fn concerns(subject: &Subject<'_>, setting: &RoleSetting) -> bool {
    let role = setting.role.as_deref();
    role.is_none_or(|role| subject.reachable.contains(role) || subject.platform.contains(&role))
}

fn paths_are_closed(subject: &Subject<'_>) -> Verdict {
    let all = subject.catalogue.settings.iter();
    let paths = all.filter(|setting| setting.name == "search_path" && concerns(subject, setting));
    let findings = paths.filter_map(|setting| {
        let problem = open_path(subject, &setting.value)?;
        let finding = bad_setting(setting);
        Some(Finding {
            found: format!("{}: {problem}", finding.found),
            ..finding
        })
    });
    let open = |one: &Effective| one.name == "search_path" && open_path(subject, &one.value).is_some();
    let findings = findings.chain(effective(subject, open)).collect();
    Verdict::of("the search paths of roles and of the server", findings)
}

/// Why a search path is not safe.
fn open_path(subject: &Subject<'_>, path: &str) -> Option<String> {
    let entries: Vec<&str> = path
        .split(',')
        .map(|entry| entry.trim().trim_matches('"'))
        .filter(|entry| !entry.is_empty())
        .collect();
    let mut places = entries.iter().enumerate();
    places.find_map(|(place, entry)| open_schema(subject, entry, place == 0, place + 1 == entries.len()))
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

fn settings(
    subject: &Subject<'_>,
    is_bad: impl Fn(&RoleSetting) -> bool,
    connection: Vec<Finding>,
) -> Verdict {
    let all = &subject.catalogue.settings;
    let own = all.iter().filter(|setting| is_bad(setting)).map(bad_setting);
    let findings: Vec<Finding> = own.filter(|finding| !subject.allows(&finding.object)).collect();
    // The tenant that a session begins with may come from a role or a database, which are reported then.
    let connection = connection
        .into_iter()
        .filter(|finding| finding.object.kind == "setting" || findings.is_empty());
    let findings = findings.iter().cloned().chain(connection).collect();
    Verdict::of(
        format!("{} and the connection's own", count(all.len(), "setting")),
        findings,
    )
}

/// What sessions begin with by the configuration of the server, or by how this connection was made. What is set for roles
/// and databases is reported of those.
fn effective(subject: &Subject<'_>, is_bad: impl Fn(&Effective) -> bool) -> Vec<Finding> {
    let all = subject.catalogue.effective.iter();
    let elsewhere = ["global", "database", "user", "database user"];
    let user = &subject.catalogue.server.session_user;
    let settings = &subject.catalogue.settings;
    // Where the setting of a library that is not loaded comes from is not known.
    let is_placed = |one: &Effective| match one.source.as_str() {
        UNKNOWN => settings
            .iter()
            .any(|setting| setting.name == one.name && setting.role.as_ref().is_none_or(|role| role == user)),
        source => elsewhere.contains(&source),
    };
    let bad = all.filter(|one| !is_placed(one) && is_bad(one));
    let findings = bad.map(|Effective { name, value, source }| {
        if ["client", "session"].contains(&source.as_str()) {
            let object = Object::new("connection", format!("of {}", connected_as(subject)));
            return Finding::new(object, format!("{name} is {value}"));
        }
        let object = Object::new("setting", format!("{name} of the server"));
        let mend = format!(
            "ALTER SYSTEM RESET {} and a reload, or a change of the file, mend it",
            quote::setting(name)
        );
        Finding::new(object, format!("is {value}, set in the {source}; {mend}"))
    });
    findings
        .filter(|finding| !subject.allows(&finding.object))
        .collect()
}

/// The user of the connection, as SQL writes it.
fn connected_as(subject: &Subject<'_>) -> String {
    quote::identifier(&subject.catalogue.server.session_user)
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
