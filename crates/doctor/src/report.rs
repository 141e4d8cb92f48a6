use serde::Serialize;

use crate::{Finding, Options, Severity};

/// What an examination found: every check, whether it passed or not.
///
/// It holds no time and no password; two reports of the same state are equal, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Name of the database that was examined.
    pub database: String,
    /// The version of the server, such as `15.14`.
    pub server_version: String,
    /// The role that was examined.
    pub role: String,
    /// The platform roles and owners that were examined as well.
    pub other_roles: Vec<String>,
    /// The user of the connection, who may be another.
    pub connected_as: String,
    /// How many tables have rows of tenants, the tenants' own included.
    pub tenant_tables: usize,
    /// How many tables are on the list of global tables and lack the tenant column.
    pub global_tables: usize,
    /// What the doctor was told about the database.
    pub options: Options,
    /// The checks, in a fixed order.
    pub checks: Vec<CheckResult>,
}

/// A check and what it found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// Its name, which never changes its meaning.
    pub id: &'static str,
    /// What holds when it passes.
    pub title: &'static str,
    /// Why that matters.
    pub why: &'static str,
    /// How bad a failure is.
    pub severity: Severity,
    /// How it went.
    pub outcome: Outcome,
    /// What was looked at.
    pub examined: String,
    /// What breaks the rule; empty unless the check failed or has something to say.
    pub findings: Vec<Finding>,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The rule holds.
    Pass,
    /// Something breaks the rule.
    Fail,
    /// Something is worth knowing, and nothing has to be done: what a check of [`Severity::Info`] finds.
    Notice,
    /// The rule is about something this database does not have.
    NotApplicable,
}

impl CheckResult {
    /// What to do about a finding that no SQL mends, in a sentence without a full stop.
    pub(crate) fn advice(&self) -> &'static str {
        match self.id {
            "CAT001" => "Apply the migrations: tenantry migrate up",
            "CAT002" => {
                "Use the version that made it, or record what another service made (doctor --record FILE --beyond-own) and name the file \
                 (doctor --catalogue, guard.catalogues)"
            }
            id if id.starts_with("CAT") => {
                "Define it again as stated, or restore a backup from before it changed; what differs on purpose belongs on the list of \
                 allowed objects (doctor --allow, guard.allow)"
            }
            _ => {
                "Change it until the check holds; what breaks it on purpose belongs on the list of allowed objects (doctor --allow, guard.allow)"
            }
        }
    }
}

impl Report {
    /// Whether no check failed.
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &CheckResult> {
        self.checks.iter().filter(|check| check.outcome == Outcome::Fail)
    }

    /// How many objects break rules, notices apart.
    pub fn findings(&self) -> usize {
        self.failures().map(|check| check.findings.len()).sum()
    }

    /// How many of them have SQL that mends them, to be run after thinking included.
    pub fn mendable(&self) -> usize {
        let findings = self.failures().flat_map(|check| &check.findings);
        findings.filter(|finding| finding.mend.is_some()).count()
    }

    /// The severity of the worst failure.
    pub fn worst(&self) -> Option<Severity> {
        self.failures().map(|check| check.severity).max()
    }

    /// How many checks went that way.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.checks
            .iter()
            .filter(|check| check.outcome == outcome)
            .count()
    }

    /// The check of that id.
    pub fn check(&self, id: &str) -> Option<&CheckResult> {
        self.checks.iter().find(|check| check.id == id)
    }
}
