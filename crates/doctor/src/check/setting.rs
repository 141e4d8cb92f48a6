//! What is set for roles and databases.

use super::{Check, Verdict, count};
use crate::catalogue::RoleSetting;
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
