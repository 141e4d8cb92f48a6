//! The checks: each is a function of the catalogue, with the reasons a reader of the report gets to see.

mod built_in;
mod excuse;
mod expected;
mod extension;
mod function;
mod grant;
mod index;
mod large_object;
mod login;
mod membership;
mod ownership;
mod partition;
mod policy;
mod public;
mod publication;
mod reference;
mod role;
mod row_security;
mod service_table;
mod setting;
mod table;
mod tenant_column;
mod trigger;
mod view;

use crate::subject::Subject;
use crate::{CheckResult, Finding, Outcome, Severity};

/// A rule, and how to find what breaks it.
pub(crate) struct Check {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) why: &'static str,
    pub(crate) severity: Severity,
    /// Whether a server refuses to start when it fails.
    pub(crate) guards: bool,
    pub(crate) look: fn(&Subject<'_>) -> Verdict,
}

/// What a check found.
pub(crate) struct Verdict {
    /// What was looked at.
    examined: String,
    findings: Vec<Finding>,
    applicable: bool,
}

/// Every check, in the order of a report.
pub(crate) fn checks() -> impl Iterator<Item = &'static Check> {
    let groups = [
        table::CHECKS,
        tenant_column::CHECKS,
        row_security::CHECKS,
        policy::CHECKS,
        partition::CHECKS,
        setting::CHECKS,
        reference::CHECKS,
        index::CHECKS,
        view::CHECKS,
        function::CHECKS,
        extension::CHECKS,
        role::CHECKS,
        ownership::CHECKS,
        membership::CHECKS,
        login::CHECKS,
        grant::CHECKS,
        public::CHECKS,
        publication::CHECKS,
        large_object::CHECKS,
        built_in::CHECKS,
        trigger::CHECKS,
        expected::CHECKS,
    ];
    groups.into_iter().flatten()
}

impl Check {
    pub(crate) fn run(&self, subject: &Subject<'_>) -> CheckResult {
        let verdict = (self.look)(subject);
        let outcome = match (verdict.applicable, verdict.findings.is_empty()) {
            (false, _) => Outcome::NotApplicable,
            (true, true) => Outcome::Pass,
            (true, false) if self.severity == Severity::Info => Outcome::Notice,
            (true, false) => Outcome::Fail,
        };
        CheckResult {
            id: self.id,
            title: self.title,
            why: self.why,
            severity: self.severity,
            outcome,
            examined: verdict.examined,
            findings: verdict.findings,
        }
    }
}

impl Verdict {
    /// What was looked at, and what was found there.
    fn of(examined: impl Into<String>, findings: Vec<Finding>) -> Self {
        Self {
            examined: examined.into(),
            findings,
            applicable: true,
        }
    }

    /// One answer for each of many objects.
    fn of_each<T>(
        noun: &str,
        objects: impl Iterator<Item = T>,
        judge: impl Fn(T) -> Option<Finding>,
    ) -> Self {
        let mut number = 0;
        let findings = objects.inspect(|_| number += 1).filter_map(judge).collect();
        Self::of(count(number, noun), findings)
    }

    /// Why there is nothing to look at.
    fn not_applicable(why: impl Into<String>) -> Self {
        Self {
            examined: why.into(),
            findings: Vec::new(),
            applicable: false,
        }
    }
}

/// A number and what it counts.
fn count(number: usize, noun: &str) -> String {
    const IRREGULAR: &[(&str, &str)] = &[
        ("child", "children"),
        ("entry", "entries"),
        ("index", "indexes"),
        ("policy", "policies"),
    ];
    let irregular = IRREGULAR.iter().find(|(one, _)| *one == noun);
    match (number, irregular) {
        (1, _) => format!("1 {noun}"),
        (_, Some((_, many))) => format!("{number} {many}"),
        (_, None) => format!("{number} {noun}s"),
    }
}
