//! Whether a policy lets more through than the rows of one tenant.

use super::policy::{SIDES, Side, standardised, tenant_policies};
use super::{Check, Verdict};
use crate::catalogue::{Policy, Relation};
use crate::command::COMMANDS;
use crate::expression::Form;
use crate::subject::{Subject, grantee};
use crate::{Finding, Severity};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "RLS004",
        title: "Policies compare the tenant column with the setting, and nothing lets other rows by",
        why: "A condition that speaks of the tenant but is no plain comparison may hold for other tenants' rows too.",
        severity: Severity::Critical,
        guards: true,
        look: no_other_form,
    },
    Check {
        id: "RLS005",
        title: "No policy lets the runtime role past the tenant",
        why: "Permissive policies add up: one that says `true` makes all others of its command mean nothing.",
        severity: Severity::Critical,
        guards: true,
        look: nothing_widens,
    },
    Check {
        id: "RLS006",
        title: "Only platform roles have policies that are wider than a tenant",
        why: "A role for reports or support that sees all tenants is a way around the rule, and should be on record.",
        severity: Severity::Warning,
        guards: false,
        look: others_are_narrow,
    },
];

fn no_other_form(subject: &Subject<'_>) -> Verdict {
    openings(subject, Form::Other, |role| subject.is_ours(role))
}

fn nothing_widens(subject: &Subject<'_>) -> Verdict {
    openings(subject, Form::Unrelated, |role| subject.is_ours(role))
}

fn others_are_narrow(subject: &Subject<'_>) -> Verdict {
    let is_other = |role: Option<&str>| {
        role.is_some_and(|role| !subject.reachable.contains(role) && !subject.is_platform(role))
    };
    let mut verdict = openings(subject, Form::Unrelated, is_other);
    verdict
        .findings
        .extend(openings(subject, Form::Other, is_other).findings);
    let why =
        "A role that is meant to see the rows of all tenants belongs on the list of platform roles instead.";
    verdict.findings = verdict
        .findings
        .into_iter()
        .map(|finding| finding.caution(why))
        .collect();
    verdict
}

/// The permissive policies for certain roles that let more through than one tenant's rows, in that form.
fn openings(subject: &Subject<'_>, form: Form, concerns: impl Fn(Option<&str>) -> bool) -> Verdict {
    let concerned = tenant_policies(subject)
        .filter(|(_, policy)| policy.permissive && policy.roles.iter().any(|role| concerns(role.as_deref())));
    Verdict::of_each("policy", concerned, |(table, policy)| {
        let conditions = SIDES
            .into_iter()
            .filter_map(|side| Some((side, policy.condition(side)?)));
        let forms: Vec<(Form, &str)> = conditions
            .map(|(side, condition)| (side, subject.rule(table).form(condition), condition))
            .filter(|(_, form, _)| !matches!(form, Form::Standard(_)))
            .filter(|(side, ..)| !is_restricted(subject, table, policy, *side))
            .map(|(_, form, condition)| (form, condition))
            .collect();
        // One finding for one policy, and the plainer one: unrelated before misunderstood.
        let worst = [Form::Unrelated, Form::Other];
        let (found, condition) = worst
            .iter()
            .find_map(|bad| forms.iter().find(|(form, _)| form == bad))?;
        (*found == form).then(|| opening(subject, table, policy, condition))
    })
}

fn opening(subject: &Subject<'_>, table: &Relation, policy: &Policy, condition: &str) -> Finding {
    let roles: Vec<String> = policy.roles.iter().map(|role| grantee(role.as_deref())).collect();
    let condition = condition.split_whitespace().collect::<Vec<&str>>().join(" ");
    let standard = subject.rule(table).standard();
    let found = format!(
        "lets {} by with {condition} instead of {standard}",
        roles.join(", ")
    );
    standardised(subject, table, policy, found)
}

/// Whether restrictive policies keep a permissive one to the tenant in every command that it is for.
fn is_restricted(subject: &Subject<'_>, table: &Relation, policy: &Policy, side: Side) -> bool {
    let commands = COMMANDS
        .iter()
        .filter(|command| side.matters_to(command) && policy.is_for(command));
    let rule = subject.rule(table);
    commands.into_iter().all(|command| {
        subject.policies(table).any(|other| {
            let standard = other
                .condition(side)
                .is_some_and(|text| matches!(rule.form(text), Form::Standard(_)));
            standard && !other.permissive && other.is_for(command) && covers(subject, other, policy)
        })
    })
}

/// Whether a restrictive policy holds for everybody whom a permissive one lets by.
fn covers(subject: &Subject<'_>, restrictive: &Policy, permissive: &Policy) -> bool {
    let holds = |role: &Option<String>| restrictive.roles.contains(role);
    let everybody = restrictive.roles.contains(&None);
    // A permissive policy for everybody is of interest as far as it is for the runtime role.
    let runtime =
        restrictive.applies(|role| subject.users.contains(&role)) && permissive.roles.contains(&None);
    everybody || runtime || permissive.roles.iter().all(holds)
}
