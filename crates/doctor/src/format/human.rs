use crate::quote::printable;
use crate::{CheckResult, Finding, Outcome, Report};

impl Report {
    /// The report as text for a terminal: failures with reasons and SQL, the rest on a line each.
    pub fn to_human(&self) -> String {
        let mut lines = vec![heading(self), String::new()];
        for check in &self.checks {
            lines.push(line(check));
            if matches!(check.outcome, Outcome::Fail | Outcome::Notice) {
                lines.push(format!("      why: {}", check.why));
                lines.extend(check.findings.iter().flat_map(|one| finding(check, one)));
                lines.push(String::new());
            }
        }
        lines.push(String::new());
        lines.push(summary(self));
        lines.join("\n") + "\n"
    }
}

fn heading(report: &Report) -> String {
    format!(
        "Database {} on PostgreSQL {}, as seen by the role {}{}\n{} tenant tables by {}, {} global tables, setting {}",
        printable(&report.database),
        printable(&report.server_version),
        printable(&report.role),
        others(report),
        report.tenant_tables,
        printable(&report.options.tenant_column),
        report.global_tables,
        printable(&report.options.setting),
    )
}

/// The other roles of the application.
fn others(report: &Report) -> String {
    if report.other_roles.is_empty() {
        return String::new();
    }
    format!("; also examined: {}", printable(&report.other_roles.join(", ")))
}

fn line(check: &CheckResult) -> String {
    let word = match check.outcome {
        Outcome::Pass => "ok  ",
        Outcome::Fail => "FAIL",
        Outcome::Notice => "note",
        Outcome::NotApplicable => "n/a ",
    };
    let severity = match check.outcome {
        Outcome::Fail | Outcome::Notice => format!(" [{}]", check.severity),
        Outcome::Pass | Outcome::NotApplicable => String::new(),
    };
    format!(
        "{word}  {:<8}  {}{severity} ({})",
        check.id,
        check.title,
        printable(&check.examined)
    )
}

fn finding(check: &CheckResult, finding: &Finding) -> Vec<String> {
    let mut lines = vec![format!(
        "      - {}: {}",
        finding.object,
        printable(&finding.found)
    )];
    if let Some(mend) = &finding.mend {
        let statements = mend.statements.iter();
        lines.extend(statements.map(|statement| format!("          {};", printable(statement))));
        lines.extend(
            mend.caution
                .iter()
                .map(|caution| format!("          Think first: {caution}")),
        );
    } else if check.outcome == Outcome::Fail {
        lines.push(format!(
            "          No SQL is known that mends it. {}.",
            check.advice()
        ));
    }
    lines
}

fn summary(report: &Report) -> String {
    let counts = format!(
        "{} checks: {} passed, {} failed, {} with a notice, {} not applicable.",
        report.checks.len(),
        report.count(Outcome::Pass),
        report.count(Outcome::Fail),
        report.count(Outcome::Notice),
        report.count(Outcome::NotApplicable)
    );
    match report.worst() {
        Some(worst) => format!("{counts} The worst failure is of severity {worst}."),
        None => counts,
    }
}
