//! Permissions: their names, the least role of each, and what an API key may have of them.

use serde_json::Value;
use tenantry_domain::kernel::{Permission, PermissionRegistry};
use tenantry_tests::World;

#[test]
fn permission_matrix() {
    let matrix = tenantry_tests::permission_matrix(&PermissionRegistry::default());
    insta::assert_snapshot!(matrix);
}

#[actix_web::test]
async fn permissions_of_users_are_listed() {
    let world = World::new().await;
    let reply = world.get(&world.acme.viewer, "/api/v1/permissions").await;
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
    let refused = world.client.get("/api/v1/permissions").await;
    refused.expect(401);
}
