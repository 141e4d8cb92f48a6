//! What the policies say.

use super::{Check, Verdict, count};
use crate::catalogue::{Policy, Relation};
use crate::command::{COMMANDS, Command};
use crate::expression::{Care, Form};
use crate::options::listed;
use crate::subject::{Subject, grantee};
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "RLS003",
        title: "The runtime role has a policy for each of the four commands",
        why: "A command without a policy touches no row and says nothing; whoever mends that in a hurry writes `true`.",
        severity: Severity::Error,
        guards: true,
        look: commands_are_covered,
    },
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

/// Which of the two conditions of a policy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Using,
    Check,
}

const SIDES: [Side; 2] = [Side::Using, Side::Check];

fn commands_are_covered(subject: &Subject<'_>) -> Verdict {
    let mut tables = 0;
    let mut findings = Vec::new();
    for table in subject.roots() {
        tables += 1;
        let bare = COMMANDS
            .iter()
            .filter(|command| !is_covered(subject, table, command));
        findings.extend(bare.map(|command| uncovered(subject, table, command)));
    }
    Verdict::of(
        format!("4 commands on {}", count(tables, "tenant table")),
        findings,
    )
}

/// A policy without a condition is none: PostgreSQL leaves it out, and without another nothing is allowed.
fn is_covered(subject: &Subject<'_>, table: &Relation, command: &Command) -> bool {
    let sides = SIDES.iter().filter(|side| match side {
        Side::Using => command.finds,
        Side::Check => command.makes,
    });
    let mut policies = subject.policies(table).filter(|policy| {
        policy.permissive
            && policy.is_for(command)
            && applies(policy, |role| subject.inherited.contains(role))
    });
    policies.any(|policy| sides.clone().all(|side| policy.condition(*side).is_some()))
}

fn uncovered(subject: &Subject<'_>, table: &Relation, command: &Command) -> Finding {
    let (name, role, rule) = (
        table.sql_name(),
        subject.runtime(),
        subject.rule(table).standard(),
    );
    let mut clauses = String::new();
    if command.finds {
        clauses.push_str(&format!(" USING ({rule})"));
    }
    if command.makes {
        clauses.push_str(&format!(" WITH CHECK ({rule})"));
    }
    let policy = quote::identifier(&free_name(subject, table, command));
    let to = quote::identifier(role);
    let sql = format!(
        "CREATE POLICY {policy} ON {name} FOR {} TO {to}{clauses}",
        command.word
    );
    let found = format!("no policy for {} by {to}", command.word);
    Finding::new(Object::new("table", name), found).mend(Step::Policies, [sql])
}

/// A name for a policy that the table does not have yet, and that PostgreSQL need not shorten.
fn free_name(subject: &Subject<'_>, table: &Relation, command: &Command) -> String {
    let mut stem = table.name.clone();
    while stem.len() > 50 {
        stem.pop();
    }
    let first = format!("{stem}_{}", command.word.to_lowercase());
    let taken = |name: &String| subject.policies(table).any(|policy| policy.name == *name);
    let numbered = (2..).map(|number| format!("{first}_{number}"));
    let mut names = std::iter::once(first.clone()).chain(numbered);
    names.find(|name| !taken(name)).unwrap_or(first)
}

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
    let policies = subject
        .all_with_tenant()
        .flat_map(|table| subject.policies(table).map(move |one| (table, one)));
    let concerned = policies
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

/// A finding whose mend gives the policy the standard condition.
fn standardised(subject: &Subject<'_>, table: &Relation, policy: &Policy, found: String) -> Finding {
    let (name, rule) = (table.sql_name(), subject.rule(table).standard());
    let object = Object::part("policy", &policy.name, &name);
    let mut sql = format!("ALTER POLICY {} ON {name}", quote::identifier(&policy.name));
    if policy.command != 'a' {
        sql.push_str(&format!(" USING ({rule})"));
    }
    if matches!(policy.command, 'a' | 'w' | '*') {
        sql.push_str(&format!(" WITH CHECK ({rule})"));
    }
    Finding::new(object, found).mend(Step::Policies, [sql])
}

/// Whether restrictive policies keep a permissive one to the tenant in every command that it is for.
fn is_restricted(subject: &Subject<'_>, table: &Relation, policy: &Policy, side: Side) -> bool {
    let commands = COMMANDS.iter().filter(|command| {
        let relevant = match side {
            Side::Using => command.finds,
            Side::Check => command.makes,
        };
        relevant && policy.is_for(command)
    });
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
        applies(restrictive, |role| subject.users.contains(&role)) && permissive.roles.contains(&None);
    everybody || runtime || permissive.roles.iter().all(holds)
}

fn careful(subject: &Subject<'_>) -> Verdict {
    let policies = subject
        .all_with_tenant()
        .flat_map(|table| subject.policies(table).map(move |one| (table, one)));
    let concerned =
        policies.filter(|(_, policy)| policy.roles.iter().any(|role| subject.is_ours(role.as_deref())));
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

/// Functions of PostgreSQL that policies of ours call without a value of a row. `xid` shortens the number of the present transaction.
const BLIND: [&str; 3] = ["current_setting", "pg_current_xact_id", "xid"];

fn leakproof(subject: &Subject<'_>) -> Verdict {
    let policies = subject
        .all_with_tenant()
        .map(|table| subject.policies(table).count())
        .sum();
    let calls = subject.catalogue.leaky_calls.iter().filter_map(|call| {
        // None sees the row: their argument is the name of the setting, or nothing.
        let is_blind = call.schema == "pg_catalog" && BLIND.contains(&call.function.as_str());
        if is_blind || listed(&subject.options.tenant_functions, &call.schema, &call.function) {
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

fn applies(policy: &Policy, to: impl Fn(&str) -> bool) -> bool {
    policy.roles.iter().any(|role| role.as_deref().is_none_or(&to))
}

impl Policy {
    fn is_for(&self, command: &Command) -> bool {
        self.command == '*' || self.command == command.letter
    }

    /// The condition on one side. What can be seen can also be made where nothing else is said.
    fn condition(&self, side: Side) -> Option<&str> {
        match side {
            Side::Using => self.using.as_deref(),
            Side::Check if matches!(self.command, 'a' | 'w' | '*') => {
                self.check.as_deref().or(self.using.as_deref())
            }
            Side::Check => None,
        }
    }

    fn conditions(&self) -> impl Iterator<Item = &str> {
        self.using.iter().chain(&self.check).map(String::as_str)
    }
}
