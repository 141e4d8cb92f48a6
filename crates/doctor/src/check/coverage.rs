//! Whether there is a policy at all.

use super::policy::SIDES;
use super::{Check, Verdict, count};
use crate::catalogue::Relation;
use crate::command::{COMMANDS, Command};
use crate::subject::Subject;
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[Check {
    id: "RLS003",
    title: "The runtime role has a policy for each of the four commands",
    why: "A command without a policy touches no row and says nothing; whoever mends that in a hurry writes `true`.",
    severity: Severity::Error,
    guards: true,
    look: commands_are_covered,
}];

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
    let sides = SIDES.iter().filter(|side| side.matters_to(command));
    let mut policies = subject.policies(table).filter(|policy| {
        policy.permissive && policy.is_for(command) && policy.applies(|role| subject.inherited.contains(role))
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
