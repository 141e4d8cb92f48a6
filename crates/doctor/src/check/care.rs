//! What policies do besides keeping tenants apart.

use super::policy::{SIDES, standardised, tenant_policies};
use super::{Check, Verdict, count};
use crate::expression::{Care, Form};
use crate::options::listed;
use crate::subject::Subject;
use crate::{Finding, Object, Severity, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "RLS007",
        title: "Policies stay quiet when there is no tenant",
        why: "Without `missing_ok` a query before the first tenant fails; without `nullif` one after a transaction does, \
              because the setting is then the empty text.",
        severity: Severity::Warning,
        guards: false,
        look: careful,
    },
    Check {
        id: "RLS008",
        title: "Policies call only leakproof functions",
        why: "A policy is evaluated for rows of every tenant; a function that fails with its argument in the message, \
              or is slow for some, tells of rows that are not shown.",
        severity: Severity::Warning,
        guards: false,
        look: leakproof,
    },
];

fn careful(subject: &Subject<'_>) -> Verdict {
    let concerned = tenant_policies(subject)
        .filter(|(_, policy)| policy.roles.iter().any(|role| subject.is_ours(role.as_deref())));
    Verdict::of_each("policy", concerned, |(table, policy)| {
        let conditions = SIDES.into_iter().filter_map(|side| policy.condition(side));
        let problem = conditions
            .into_iter()
            .find_map(|text| match subject.rule(table).form(text) {
                Form::Standard(Care {
                    missing_ok: false, ..
                }) => Some("fails while the setting has never been set"),
                Form::Standard(Care { empty_ok: false, .. }) => {
                    Some("does not turn the empty text into NULL")
                }
                _ => None,
            })?;
        let finding = standardised(subject, table, policy, problem.to_owned());
        Some(match policy.conditions().any(|text| text.contains(" AND ")) {
            true => finding.caution("The policy has further conditions, which this leaves out."),
            false => finding,
        })
    })
}

fn leakproof(subject: &Subject<'_>) -> Verdict {
    let policies = tenant_policies(subject).count();
    let calls = subject.catalogue.leaky_calls.iter().filter_map(|call| {
        // Neither sees the row: their argument is the name of the setting, or nothing.
        let setting = call.schema == "pg_catalog" && call.function == "current_setting";
        if setting || listed(&subject.options.tenant_functions, &call.schema, &call.function) {
            return None;
        }
        let table = subject
            .relation(call.relation)
            .filter(|table| subject.is_tenant(table))?;
        let object = Object::part("policy", &call.policy, &table.sql_name());
        let function = quote::qualified(&call.schema, &call.function);
        Some(Finding::new(
            object,
            format!("calls {function}, which is not leakproof"),
        ))
    });
    Verdict::of(count(policies, "policy"), calls.collect())
}
