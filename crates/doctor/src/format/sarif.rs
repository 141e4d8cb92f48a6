use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{CheckResult, Finding, Report, Severity};

impl Report {
    /// The report as a SARIF 2.1.0 log, which code scanning services take: a rule for each check, and a result for
    /// each finding. What passed has no result.
    pub fn to_sarif(&self) -> Value {
        let rules: Vec<Value> = self.checks.iter().map(rule).collect();
        let results: Vec<Value> = self
            .checks
            .iter()
            .enumerate()
            .flat_map(|(index, check)| {
                check
                    .findings
                    .iter()
                    .map(move |finding| result(index, check, finding))
            })
            .collect();
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": {"driver": {
                    "name": "tenantry-doctor",
                    "version": env!("CARGO_PKG_VERSION"),
                    "informationUri": env!("CARGO_PKG_REPOSITORY"),
                    "rules": rules,
                }},
                "invocations": [{"executionSuccessful": true}],
                "properties": {
                    "database": self.database,
                    "serverVersion": self.server_version,
                    "role": self.role,
                },
                "results": results,
            }],
        })
    }
}

fn rule(check: &CheckResult) -> Value {
    json!({
        "id": check.id,
        "shortDescription": {"text": check.title},
        "fullDescription": {"text": check.why},
        "help": {"text": check.why},
        "defaultConfiguration": {"level": level(check.severity)},
        "properties": {"tags": ["security", "multi-tenancy"], "security-severity": score(check.severity)},
    })
}

fn result(index: usize, check: &CheckResult, finding: &Finding) -> Value {
    let mut text = format!("{}: {}.", finding.object, finding.found);
    if let Some(mend) = &finding.mend {
        text.push_str(&format!("\nTo mend it:\n{}", mend.sql()));
    }
    json!({
        "ruleId": check.id,
        "ruleIndex": index,
        "level": level(check.severity),
        "message": {"text": text},
        "locations": [{"logicalLocations": [{
            "fullyQualifiedName": finding.object.name,
            "kind": finding.object.kind,
        }]}],
        "partialFingerprints": {"object/v1": fingerprint(check, finding)},
    })
}

/// What stays the same from run to run, so that a service knows a finding again.
fn fingerprint(check: &CheckResult, finding: &Finding) -> String {
    let digest = Sha256::digest(format!("{}\0{}", check.id, finding.object));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    }
}

/// In the scale of CVSS, by which services sort.
fn score(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "9.5",
        Severity::Error => "7.5",
        Severity::Warning => "4.5",
        Severity::Info => "1.0",
    }
}
