//! What depends on a version of PostgreSQL, or on a server, that the tests cannot have at hand.

use serde_json::{Value, json};

use super::checks;
use crate::catalogue::Catalogue;
use crate::subject::Subject;
use crate::{CheckResult, Options, Outcome};

fn check(id: &str, catalogue: Value, users: Vec<&str>) -> CheckResult {
    let catalogue: Catalogue = serde_json::from_value(catalogue).unwrap();
    let options = Options::default();
    let subject = Subject::new(&catalogue, &options, users);
    checks().find(|check| check.id == id).unwrap().run(&subject)
}

fn server(version: u32) -> Value {
    json!({
        "version": "x", "version_number": version, "database": "d", "database_owner": "owner", "database_grants": [],
        "current_user": "app", "session_user": "app", "row_security": true, "setting": null,
        "lo_compat_privileges": false, "large_objects": 0,
    })
}

fn relation(oid: u32, name: &str, kind: &str, grants: Value) -> Value {
    json!({
        "oid": oid, "schema": "public", "name": name, "kind": kind, "owner": "owner", "enabled": true, "forced": true,
        "partition": false, "invoker": false, "parents": [], "extension": null, "grants": grants,
        "tenant": {"name": "tenant_id", "not_null": true, "type": "uuid"},
    })
}

fn role(name: &str, bypasses: bool) -> Value {
    json!({
        "name": name, "superuser": false, "bypasses": bypasses, "makes_roles": false, "makes_databases": false,
        "replicates": false,
    })
}

#[test]
fn maintain_is_too_much_on_17() {
    let grants = json!([{"grantee": "app", "privilege": "MAINTAIN", "column": null}]);
    let catalogue = json!({"server": server(170_000), "relations": [relation(1, "tasks", "r", grants)]});
    let found = check("GRANT003", catalogue, vec!["app"]);
    let mend = found.findings[0].mend.as_ref().unwrap();
    assert_eq!(mend.sql(), "REVOKE MAINTAIN ON TABLE public.tasks FROM app;");
}

#[test]
fn a_view_cannot_be_mended_on_14() {
    for (version, can) in [(140_000, false), (150_000, true)] {
        let relations = [
            relation(1, "tasks", "r", json!([])),
            relation(2, "v", "v", json!([])),
        ];
        let sources = json!([{"view": 2, "reads": 1}]);
        let catalogue = json!({"server": server(version), "relations": relations, "view_sources": sources});
        let found = check("VIEW001", catalogue, vec!["app"]);
        assert_eq!(found.outcome, Outcome::Fail);
        assert_eq!(found.findings[0].mend.is_some(), can);
    }
}

#[test]
fn a_reference_never_takes_the_tenant_from_a_row() {
    for (version, action) in [(140_000, ""), (150_000, " ON DELETE SET NULL (task_id)")] {
        let relations = [
            relation(1, "tasks", "r", json!([])),
            relation(2, "notes", "r", json!([])),
        ];
        let keys = json!([{
            "name": "k", "from": 2, "columns": ["task_id"], "to": 1, "to_columns": ["id"], "on_delete": "n",
            "on_update": "a", "validated": true,
        }]);
        let catalogue = json!({"server": server(version), "relations": relations, "foreign_keys": keys});
        let found = check("KEY001", catalogue, vec!["app"]);
        let expected = [
            "ALTER TABLE public.tasks ADD UNIQUE (tenant_id, id)".to_owned(),
            format!(
                "ALTER TABLE public.notes ADD FOREIGN KEY (tenant_id, task_id) \
                 REFERENCES public.tasks (tenant_id, id){action}"
            ),
        ];
        assert_eq!(found.findings[0].mend.as_ref().unwrap().statements, expected);
    }
}

#[test]
fn a_role_is_reached_whether_it_is_inherited_or_not() {
    for inherits in [true, false] {
        let memberships = json!([
            {"role": "middle", "member": "app", "inherits": inherits},
            {"role": "boss", "member": "middle", "inherits": inherits},
        ]);
        let roles = [role("app", false), role("middle", false), role("boss", true)];
        let catalogue = json!({"server": server(160_000), "roles": roles, "memberships": memberships});
        let found = check("ROLE007", catalogue, vec!["app"]);
        assert_eq!(
            found.findings[0].found,
            "is in boss through middle, which bypasses row-level security"
        );
    }
}

#[test]
fn a_policy_of_a_role_that_is_not_inherited_does_not_count() {
    for (inherits, outcome) in [(true, Outcome::Pass), (false, Outcome::Fail)] {
        let policy = json!({
            "relation": 1, "name": "p", "permissive": true, "command": "*", "roles": ["group"],
            "using": "(tenant_id = 1)", "check": null,
        });
        let catalogue = json!({
            "server": server(160_000), "relations": [relation(1, "tasks", "r", json!([]))], "policies": [policy],
            "roles": [role("app", false), role("group", false)],
            "memberships": [{"role": "group", "member": "app", "inherits": inherits}],
        });
        assert_eq!(check("RLS003", catalogue, vec!["app"]).outcome, outcome);
    }
}

#[test]
fn who_was_somebody_else_before_is_looked_at_too() {
    let roles = [role("app", false), role("admin", true)];
    let catalogue = || json!({"server": server(150_000), "roles": roles});
    assert_eq!(check("ROLE002", catalogue(), vec!["app"]).outcome, Outcome::Pass);
    assert_eq!(
        check("ROLE002", catalogue(), vec!["app", "admin"]).outcome,
        Outcome::Fail
    );
}
