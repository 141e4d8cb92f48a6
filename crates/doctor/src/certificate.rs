use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::format::{canonical, value};
use crate::quote::printable;
use crate::{Outcome, Report, Severity};

/// A page about one report, for somebody who has to be convinced and was not there.
///
/// It is made from a report and vouches for nothing more: the hashes say which report and which evidence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Certificate {
    /// The version of Tenantry that examined.
    pub version: String,
    /// When and how.
    #[serde(flatten)]
    pub occasion: Occasion,
    /// Name of the database that was examined.
    pub database: String,
    /// Version of PostgreSQL, as the server reports it.
    pub server_version: String,
    /// The role that was examined.
    pub role: String,
    /// The platform roles and owners that were examined as well.
    pub other_roles: Vec<String>,
    /// What came of it.
    pub summary: Summary,
    /// Each check.
    pub checks: Vec<CertifiedCheck>,
    /// What a certificate like this is silent about.
    pub not_covered: Vec<String>,
    /// SHA-256 of the report as JSON: sorted members, one line, a line break at the end.
    pub report_sha256: String,
    /// The same of the evidence.
    pub evidence_sha256: Option<String>,
}

/// What the caller knows about an examination and the report does not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Occasion {
    /// When it was made, in RFC 3339.
    pub generated_at: String,
    /// What to type in order to have it again.
    pub command: String,
    /// What the last run of the tests counted, as an object of names and numbers.
    pub test_evidence: Option<Value>,
}

/// A report in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Whether nothing failed.
    pub passed: bool,
    /// How many checks passed.
    pub passes: usize,
    /// How many failed.
    pub failures: usize,
    /// How many have something to say that is no failure.
    pub notices: usize,
    /// How many have nothing to look at in this database.
    pub not_applicable: usize,
    /// The worst failure.
    pub worst: Option<Severity>,
    /// How many tables have rows of tenants.
    pub tenant_tables: usize,
    /// How many are on record as nobody's.
    pub global_tables: usize,
}

/// A line of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertifiedCheck {
    /// The check.
    pub id: &'static str,
    /// What holds when it passes.
    pub title: &'static str,
    /// How bad a failure is.
    pub severity: Severity,
    /// How it went.
    pub outcome: Outcome,
    /// What was looked at.
    pub examined: String,
    /// How many objects break the rule.
    pub findings: usize,
}

impl Certificate {
    /// A certificate about that report.
    pub fn new(report: &Report, occasion: Occasion) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            database: report.database.clone(),
            server_version: report.server_version.clone(),
            role: report.role.clone(),
            other_roles: report.other_roles.clone(),
            summary: Summary::of(report),
            checks: report.checks.iter().map(CertifiedCheck::of).collect(),
            not_covered: NOT_COVERED.iter().map(|&line| line.to_owned()).collect(),
            report_sha256: sha256(&report.to_json()),
            evidence_sha256: occasion.test_evidence.as_ref().map(sha256),
            occasion,
        }
    }

    /// The certificate as JSON.
    pub fn to_json(&self) -> Value {
        value(self)
    }

    /// The certificate as a page of Markdown.
    pub fn to_markdown(&self) -> String {
        let parts = [
            self.heading(),
            self.table(),
            self.evidence(),
            self.silence(),
            self.proof(),
        ];
        parts.join("\n")
    }

    fn heading(&self) -> String {
        let Summary {
            passes,
            failures,
            notices,
            not_applicable,
            tenant_tables,
            global_tables,
            ..
        } = self.summary;
        let verdict = match self.summary.worst {
            None => "**No check failed.**".to_owned(),
            Some(worst) if worst < Severity::Error => {
                format!(
                    "**No check of severity error or critical failed.** The worst failure is of severity {worst}."
                )
            }
            Some(worst) => format!("**Isolation is not given.** The worst failure is of severity {worst}."),
        };
        format!(
            "# Certificate of tenant isolation\n\n{verdict}\n\n\
             | | |\n|---|---|\n\
             | Database | {} |\n| Server | PostgreSQL {} |\n| Role of the application | {} |\n\
             | Other roles | {} |\n\
             | Examined | {} |\n| By | Tenantry {} |\n\
             | Tables | {tenant_tables} with rows of tenants, the table of the tenants itself among them; \
             {global_tables} others on the list of global tables |\n\
             | Checks | {passes} passed, {failures} failed, {notices} with a notice, {not_applicable} not applicable |\n",
            cell(&self.database),
            cell(&self.server_version),
            cell(&self.role),
            cell(&self.other_roles.join(", ")),
            cell(&self.occasion.generated_at),
            cell(&self.version),
        )
    }

    fn table(&self) -> String {
        let rows = self.checks.iter().map(|check| {
            let outcome = match check.outcome {
                Outcome::Pass => "pass".to_owned(),
                Outcome::Fail => format!("**fail** ({}, {})", check.severity, check.findings),
                Outcome::Notice => format!("notice ({})", check.findings),
                Outcome::NotApplicable => "not applicable".to_owned(),
            };
            format!(
                "| {} | {} | {} | {outcome} |\n",
                check.id,
                cell(check.title),
                cell(&check.examined)
            )
        });
        let rows: String = rows.collect();
        format!(
            "## What was examined\n\n| Check | What holds | Looked at | Outcome |\n|---|---|---|---|\n{rows}"
        )
    }

    fn evidence(&self) -> String {
        let Some(evidence) = &self.occasion.test_evidence else {
            return "## What was tried\n\nNo evidence of a test run was given.\n".to_owned();
        };
        let rows: String = match evidence {
            Value::Object(members) => members.iter().map(|(name, one)| row(name, one)).collect(),
            other => row("evidence", other),
        };
        format!("## What was tried\n\nThe last run of the tests counted:\n\n| | |\n|---|---|\n{rows}")
    }

    fn silence(&self) -> String {
        let lines: String = self
            .not_covered
            .iter()
            .map(|line| format!("- {line}\n"))
            .collect();
        format!("## What this does not cover\n\n{lines}")
    }

    fn proof(&self) -> String {
        let evidence = self
            .evidence_sha256
            .as_ref()
            .map(|hash| format!("| Evidence, SHA-256 | `{hash}` |\n"));
        format!(
            "## To repeat it\n\n```console\n$ {}\n```\n\n\
             The hashes are of the JSON as `jq -cS .` writes it.\n\n| | |\n|---|---|\n| Report, SHA-256 | `{}` |\n{}",
            printable(&self.occasion.command).replace("```", ""),
            self.report_sha256,
            evidence.unwrap_or_default()
        )
    }
}

impl Summary {
    fn of(report: &Report) -> Self {
        Self {
            passed: report.passed(),
            passes: report.count(Outcome::Pass),
            failures: report.count(Outcome::Fail),
            notices: report.count(Outcome::Notice),
            not_applicable: report.count(Outcome::NotApplicable),
            worst: report.worst(),
            tenant_tables: report.tenant_tables,
            global_tables: report.global_tables,
        }
    }
}

impl CertifiedCheck {
    fn of(check: &crate::CheckResult) -> Self {
        Self {
            id: check.id,
            title: check.title,
            severity: check.severity,
            outcome: check.outcome,
            examined: check.examined.clone(),
            findings: check.findings.len(),
        }
    }
}

const NOT_COVERED: &[&str] = &[
    "What the application does with the rows it is allowed to read, and what it keeps outside of this database: \
     caches, files, search indexes, logs, messages.",
    "Injected SQL: whoever may run any statement as the application's role may also choose the tenant.",
    "Superusers, owners of tables and whoever has access to the machine, its disks or its backups.",
    "Other databases of the server, and servers that rows are replicated to.",
    "Large objects, and what functions do that build their SQL at run time.",
    "Time after the examination: a later change of the schema or of a role is not in it.",
];

fn sha256(of: &Value) -> String {
    let digest = Sha256::digest(canonical(of));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn row(name: &str, value: &Value) -> String {
    format!("| {} | {} |\n", cell(name), cell(&words(value)))
}

/// A value for a person: the members of an object one after another.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(members) => {
            let members = members.iter().map(|(name, one)| match one {
                Value::Object(_) => format!("{name} ({})", words(one)),
                Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                    format!("{name} {}", words(one))
                }
            });
            members.collect::<Vec<_>>().join(", ")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
    }
}

/// Text in a table: no markup, no end of the cell.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in printable(text).chars() {
        if matches!(letter, '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#') {
            safe.push('\\');
        }
        safe.push(letter);
    }
    safe
}
