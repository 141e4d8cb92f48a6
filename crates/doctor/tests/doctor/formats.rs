use serde_json::{Value, json};
use tenantry_doctor::{Certificate, Mend, Occasion, Outcome, Report};

use crate::support::{Database, ROLES, options, run};

/// The checks by id. What has been published stays: an id may be added, never taken away or given another meaning.
const IDS: &[&str] = &[
    "TEN001", "TEN002", "TEN003", "TEN004", "TEN005", "TEN006", "RLS001", "RLS002", "RLS003", "RLS004",
    "RLS005", "RLS006", "RLS007", "RLS008", "RLS009", "RLS010", "SET001", "SET002", "SET003", "SET004",
    "SET005", "SET006", "KEY001", "KEY002", "KEY003", "KEY004", "KEY005", "VIEW001", "VIEW002", "VIEW003",
    "VIEW004", "FUN001", "FUN002", "FUN003", "FUN004", "FUN005", "FUN006", "EXT001", "EXT002", "EXT003",
    "EXT004", "ROLE001", "ROLE002", "ROLE003", "ROLE004", "ROLE005", "ROLE006", "ROLE007", "ROLE008",
    "ROLE009", "ROLE010", "ROLE011", "GRANT001", "GRANT002", "GRANT003", "GRANT004", "GRANT005", "GRANT006",
    "GRANT007", "GRANT008", "GRANT009", "PUB001", "LOB001", "SYS001", "SYS002", "SYS003", "SYS004", "SYS005",
    "TRG001", "TRG002", "TRG003", "SUB001", "CAT001", "CAT002", "CAT003", "CAT004", "CAT005", "CAT006",
    "CAT007", "CAT008", "CAT009", "CAT010", "CAT011",
];

async fn broken() -> Report {
    let database = Database::migrated().await;
    let sql = "ALTER TABLE tasks DISABLE ROW LEVEL SECURITY; CREATE INDEX titles ON tasks (title); \
               GRANT SELECT ON tasks TO PUBLIC; SELECT lo_create(0)";
    database.admin_runs(sql).await;
    Report {
        database: "acme".to_owned(),
        ..database.examine(&options()).await
    }
}

#[tokio::test]
async fn ids_stay() {
    let _roles = ROLES.read().await;
    let report = Database::migrated().await.examine(&options()).await;
    let ids: Vec<&str> = report.checks.iter().map(|check| check.id).collect();
    assert_eq!(ids, IDS);
    for check in &report.checks {
        assert!(
            check.why.ends_with('.') && !check.title.ends_with('.'),
            "{}",
            check.id
        );
        assert!(!check.examined.is_empty(), "{}", check.id);
    }
}

#[tokio::test]
async fn json_has_every_check_and_its_findings() {
    let _roles = ROLES.read().await;
    let json = broken().await.to_json();
    assert_eq!(json["database"], "acme");
    assert_eq!(json["checks"].as_array().unwrap().len(), IDS.len());
    let check = json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["id"] == "RLS001")
        .unwrap();
    assert_eq!(check["severity"], "critical");
    assert_eq!(check["outcome"], "fail");
    let expected = json!([{
        "object": {"kind": "table", "name": "public.tasks"},
        "found": "row-level security is not enabled",
        "mend": {
            "statements": ["ALTER TABLE public.tasks ENABLE ROW LEVEL SECURITY"],
            "step": "row_security",
            "caution": null,
        },
    }]);
    assert_eq!(check["findings"], expected);
}

#[tokio::test]
async fn sarif_has_what_its_schema_requires() {
    let _roles = ROLES.read().await;
    let sarif = broken().await.to_sarif();
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    let driver = &run["tool"]["driver"];
    assert!(driver["name"].is_string());
    let rules = driver["rules"].as_array().unwrap();
    assert_eq!(rules.iter().map(|rule| &rule["id"]).collect::<Vec<_>>(), IDS);
    let results = run["results"].as_array().unwrap();
    let found: Vec<(&str, &str)> = results
        .iter()
        .map(|result| (text(&result["ruleId"]), text(&result["level"])))
        .collect();
    let expected = [
        ("RLS001", "error"),
        ("KEY005", "warning"),
        ("GRANT006", "error"),
        ("LOB001", "note"),
    ];
    assert_eq!(found, expected);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert!(!text(&result["message"]["text"]).is_empty());
        let location = &result["locations"][0]["logicalLocations"][0];
        assert!(!text(&location["fullyQualifiedName"]).is_empty());
        assert_eq!(text(&result["partialFingerprints"]["object/v1"]).len(), 32);
    }
    assert!(sarif.to_string().parse::<Value>().is_ok());
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test]
async fn text_says_why_and_how() {
    let _roles = ROLES.read().await;
    let text = broken().await.to_human();
    for part in [
        "Database acme on PostgreSQL ",
        "FAIL  RLS001    Row-level security is enabled on every tenant table [critical]",
        "      why: Until it is enabled",
        "      - table public.tasks: row-level security is not enabled",
        "          ALTER TABLE public.tasks ENABLE ROW LEVEL SECURITY;",
        "          Think first: It drops the old index",
        "ok    RLS002    ",
        "The worst failure is of severity critical.",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[tokio::test]
async fn the_script_runs_only_what_is_safe() {
    let _roles = ROLES.read().await;
    let report = broken().await;
    let script = report.fix_script();
    let mends = report
        .failures()
        .flat_map(|check| &check.findings)
        .filter_map(|finding| finding.mend.as_ref());
    let mends: Vec<&Mend> = mends.collect();
    assert_eq!(mends.len(), 3);
    for mend in mends {
        for statement in &mend.statements {
            let line = if mend.is_safe() {
                format!("\n{statement};")
            } else {
                format!("\n-- {statement};")
            };
            assert!(script.contains(&line), "{script}");
        }
    }
    assert!(
        script.contains("\nBEGIN;\n") && script.ends_with("\nCOMMIT;\n"),
        "{script}"
    );
}

#[tokio::test]
async fn a_reference_is_not_added_unchecked() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    database
        .admin_runs("ALTER TABLE tasks DROP CONSTRAINT tasks_tenant_id_fkey")
        .await;
    let script = database.examine(&options()).await.fix_script();
    let mut owner = database.connect("tenantry_owner", "owner").await;
    let error = run(&mut owner, &script).await.unwrap_err().to_string();
    assert!(error.contains("run this as a superuser"), "{error}");
    database.admin_runs(&script).await;
}

#[tokio::test]
async fn a_certificate_is_about_one_report() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let report = Report {
        database: "ac|me".to_owned(),
        ..database.examine(&options()).await
    };
    let occasion = |evidence| Occasion {
        generated_at: "2026-11-21T08:00:00Z".to_owned(),
        command: "tenantry doctor --certificate".to_owned(),
        test_evidence: evidence,
    };
    let certificate = Certificate::new(
        &report,
        occasion(Some(json!({"operations swept": 53, "leaks": 0}))),
    );
    assert_eq!(
        certificate,
        Certificate::new(
            &report,
            occasion(Some(json!({"leaks": 0, "operations swept": 53})))
        )
    );
    assert_eq!(certificate.report_sha256.len(), 64);
    let page = certificate.to_markdown();
    for part in [
        "**No check failed.**",
        "| Database | ac\\|me |",
        "2026-11-21T08:00:00Z",
        "| operations swept | 53 |",
        "$ tenantry doctor --certificate\n",
        "## What this does not cover",
        &certificate.report_sha256,
        certificate.evidence_sha256.as_deref().unwrap(),
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    assert!(IDS.iter().all(|id| page.contains(&format!("| {id} |"))));
    // Each table is counted once: the tenants' own among those of tenants, although the list of global tables has it, too.
    let counted: (i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE c.relname = 'tenants' OR a.attname IS NOT NULL), count(*) \
         FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped \
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition",
    )
    .fetch_one(&mut database.admin().await)
    .await
    .unwrap();
    let summary = &certificate.summary;
    let [of_tenants, others] =
        [summary.tenant_tables, summary.global_tables].map(|count| i64::try_from(count).unwrap());
    assert_eq!((of_tenants, of_tenants + others), counted);
    let tables = format!(
        "{} with rows of tenants, the table of the tenants itself among them; {} others",
        summary.tenant_tables, summary.global_tables
    );
    assert!(page.contains(&tables), "{page}");
    let json = certificate.to_json();
    assert_eq!(json["generated_at"], "2026-11-21T08:00:00Z");
    assert_eq!(json["summary"]["passed"], true);
    let other = Report {
        role: "somebody".to_owned(),
        ..report
    };
    let other = Certificate::new(&other, occasion(None));
    assert_ne!(other.report_sha256, certificate.report_sha256);
    assert_eq!(other.evidence_sha256, None);
    assert!(
        other
            .to_markdown()
            .contains("No evidence of a test run was given.")
    );
}

#[tokio::test]
async fn a_certificate_hides_no_failure() {
    let _roles = ROLES.read().await;
    let report = broken().await;
    let occasion = Occasion {
        generated_at: String::new(),
        command: String::new(),
        test_evidence: None,
    };
    let certificate = Certificate::new(&report, occasion);
    assert!(!certificate.summary.passed);
    assert_eq!(certificate.summary.failures, report.count(Outcome::Fail));
    let page = certificate.to_markdown();
    assert!(
        page.contains("**Isolation is not given.** The worst failure is of severity critical."),
        "{page}"
    );
    assert!(page.contains("| **fail** (critical, 1) |"), "{page}");
}
