//! Functions that do more than their caller may.

use super::{Check, Verdict};
use crate::catalogue::Function;
use crate::options::listed;
use crate::subject::{Subject, grantee};
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "FUN001",
        title: "SECURITY DEFINER functions have a pinned search_path",
        why: "Without one, whoever calls it decides which tables and operators it uses, with the rights of its owner.",
        severity: Severity::Error,
        guards: false,
        look: search_path_is_pinned,
    },
    Check {
        id: "FUN002",
        title: "The runtime role runs no SECURITY DEFINER function that is not allowed",
        why: "Such a function works with the rights and under the policies of its owner, whatever tenant is set.",
        severity: Severity::Critical,
        guards: true,
        look: definers_are_allowed,
    },
    Check {
        id: "FUN003",
        title: "No trigger on a tenant table runs a SECURITY DEFINER function that is not allowed",
        why: "A trigger needs no right to run its function, so each write of a tenant does what the owner may.",
        severity: Severity::Error,
        guards: false,
        look: triggers_are_harmless,
    },
    Check {
        id: "FUN004",
        title: "Functions are granted, not everybody's",
        why: "By default every role may run a new function; one that becomes SECURITY DEFINER later is then open to all.",
        severity: Severity::Warning,
        guards: false,
        look: functions_are_granted,
    },
    Check {
        id: "FUN005",
        title: "The runtime role runs no function in an untrusted language",
        why: "Such a function can do on the server whatever the server can, past every rule of the database.",
        severity: Severity::Error,
        guards: false,
        look: languages_are_trusted,
    },
    Check {
        id: "FUN006",
        title: "No function of users is LEAKPROOF",
        why: "Such a function runs before the policy, on rows of every tenant; what it tells, by an error or otherwise, is \
              theirs.",
        severity: Severity::Critical,
        guards: true,
        look: nothing_claims_to_be_leakproof,
    },
];

fn search_path_is_pinned(subject: &Subject<'_>) -> Verdict {
    // Compiled code looks nothing up by name.
    let interpreted =
        definers(subject).filter(|function| !["c", "internal"].contains(&function.language.as_str()));
    Verdict::of_each("SECURITY DEFINER function", interpreted, |function| {
        let pins = |setting: &String| setting.to_ascii_lowercase().starts_with("search_path=");
        let name = function.sql_name();
        let path = quote::identifier(&function.schema);
        let sql = format!("ALTER ROUTINE {name} SET search_path = {path}, pg_temp");
        let finding = Finding::new(
            Object::new("function", name),
            "the caller's search_path holds in it",
        );
        (!function.settings.iter().any(pins)).then(|| finding.mend(Step::Code, [sql]))
    })
}

fn definers_are_allowed(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each("SECURITY DEFINER function", definers(subject), |function| {
        let allowed = &subject.options.allowed_definer_functions;
        let grantees = runners(subject, function);
        if grantees.is_empty() || listed(allowed, &function.schema, &function.name) {
            return None;
        }
        let owner = quote::identifier(&function.owner);
        let found = format!("{} may run it, as its owner {owner}", grantees.join(" and "));
        Some(revoked(function, found, &grantees))
    })
}

fn triggers_are_harmless(subject: &Subject<'_>) -> Verdict {
    let allowed = &subject.options.allowed_definer_functions;
    Verdict::of_each(
        "SECURITY DEFINER trigger",
        subject.catalogue.triggers.iter(),
        |trigger| {
            let table = subject
                .relation(trigger.relation)
                .filter(|table| subject.is_tenant(table))?;
            if listed(allowed, &trigger.schema, &trigger.function) {
                return None;
            }
            let function = quote::qualified(&trigger.schema, &trigger.function);
            let object = Object::part("trigger", &trigger.name, &table.sql_name());
            let sql = format!("ALTER FUNCTION {function}() SECURITY INVOKER");
            let finding = Finding::new(object, format!("runs {function} as its owner"));
            Some(
                finding
                    .mend(Step::Code, [sql])
                    .caution("What it writes has to be granted to the runtime role first."),
            )
        },
    )
}

fn functions_are_granted(subject: &Subject<'_>) -> Verdict {
    let plain = own(subject).filter(|function| !function.definer);
    Verdict::of_each("other function", plain, |function| {
        let everybody = function.grants.iter().any(|grant| grant.grantee.is_none());
        let (name, role) = (function.sql_name(), quote::identifier(subject.runtime()));
        let sql = [
            format!("GRANT EXECUTE ON ROUTINE {name} TO {role}"),
            format!("REVOKE EXECUTE ON ROUTINE {name} FROM PUBLIC"),
        ];
        let finding = Finding::new(Object::new("function", name), "everybody may run it");
        everybody.then(|| finding.mend(Step::Grants, sql))
    })
}

fn languages_are_trusted(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each("function", own(subject), |function| {
        let grantees = runners(subject, function);
        let found = format!(
            "{} may run it, and it is in the language {}",
            grantees.join(" and "),
            function.language
        );
        (!function.trusted && !grantees.is_empty()).then(|| revoked(function, found, &grantees))
    })
}

fn nothing_claims_to_be_leakproof(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each("function", own(subject), |function| {
        let name = function.sql_name();
        let sql = format!("ALTER ROUTINE {name} NOT LEAKPROOF");
        let finding = Finding::new(Object::new("function", name), "is LEAKPROOF");
        function.leakproof.then(|| finding.mend(Step::Code, [sql]))
    })
}

fn revoked(function: &Function, found: String, grantees: &[String]) -> Finding {
    let name = function.sql_name();
    let sql = format!("REVOKE EXECUTE ON ROUTINE {name} FROM {}", grantees.join(", "));
    Finding::new(Object::new("function", name), found).mend(Step::Grants, [sql])
}

fn definers<'a>(subject: &Subject<'a>) -> impl Iterator<Item = &'a Function> {
    let all = subject.catalogue.functions.iter();
    all.filter(|function| function.definer && !function.built_in)
}

/// Functions that belong neither to PostgreSQL nor to an extension.
fn own<'a>(subject: &Subject<'a>) -> impl Iterator<Item = &'a Function> {
    let all = subject.catalogue.functions.iter();
    all.filter(|function| !function.built_in && function.extension.is_none())
}

/// Those grantees, PUBLIC among them, through whom the runtime role may run a function.
fn runners(subject: &Subject<'_>, function: &Function) -> Vec<String> {
    let held = function.grants.iter().filter(|grant| subject.holds(grant));
    held.map(|grant| grantee(grant.grantee.as_deref())).collect()
}
