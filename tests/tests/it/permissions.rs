//! Permissions: their names, the least role of each, and what an API key may have of them.

use std::fmt::Write as _;

use serde_json::Value;
use tenantry_domain::kernel::{Permission, Role};
use tenantry_tests::World;

/// One row for each permission; who has it, whether a suspended tenant loses it, whether it can be a scope.
#[test]
fn permission_matrix() {
    let mut matrix = format!(
        "{:<24}{:<8}{:<8}{:<8}{:<8}{}\n",
        "permission", "viewer", "member", "admin", "scope", "suspended"
    );
    let mark = |yes| if yes { "yes" } else { "-" };
    for permission in Permission::ALL {
        let has = |role: Role| mark(permission.least_role().is_some_and(|least| role >= least));
        let [viewer, member, admin] = Role::ALL.map(has);
        let scope = mark(permission.is_scope());
        let suspended = mark(!permission.writes());
        let name = permission.as_str();
        writeln!(
            matrix,
            "{name:<24}{viewer:<8}{member:<8}{admin:<8}{scope:<8}{suspended}"
        )
        .unwrap();
    }
    insta::assert_snapshot!(matrix);
}

#[actix_web::test]
async fn permissions_of_users_are_listed() {
    let world = World::new().await;
    let reply = world.get(&world.acme.viewer, "/api/v1/permissions").send().await;
    let reply = reply.expect(200).json();
    let listed = reply["data"].as_array().unwrap();
    let of_users = Permission::ALL.iter().filter(|one| one.least_role().is_some());
    let names: Vec<&str> = of_users.map(|permission| permission.as_str()).collect();
    let given: Vec<&str> = listed.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(given, names);
    let row = |name: &str| -> &Value { listed.iter().find(|row| row["name"] == name).unwrap() };
    assert_eq!(row("tasks.write")["least_role"], "member");
    assert_eq!(row("tasks.write")["scope"], true);
    assert_eq!(row("users.manage")["least_role"], "admin");
    assert_eq!(row("users.manage")["scope"], false);
    let refused = world.client.get("/api/v1/permissions").send().await;
    refused.expect(401);
}
