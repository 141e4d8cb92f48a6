//! Two tenants, with somebody of each role in each: what one writes, the other never sees.

use serde_json::json;
use tenantry_tests::{Options, World};

#[actix_web::test]
async fn a_note_is_seen_in_its_tenant_only() {
    let world = World::with(Options {
        extension: notes::extension(),
        ..Options::default()
    });
    let world = world.await;
    let (acme, globex) = (&world.acme, &world.globex);
    let before = world.digest(globex).await;
    let notes = format!("/api/v1/tasks/{}/notes", acme.task);
    let new = json!({"text": "Ours"});
    let made = world.post(&acme.member, &notes, &new).send().await;
    let id = made.expect(201).json()["id"].as_str().unwrap().to_owned();
    let note = format!("/api/v1/notes/{id}");
    world.get(&acme.viewer, &note).send().await.expect(200);
    world
        .get(&globex.admin, &note)
        .send()
        .await
        .problem(404, "not_found");
    let refused = world.post(&globex.admin, &notes, &new).send().await;
    refused.problem(404, "not_found");
    assert_eq!(world.digest(globex).await, before);
    let audited = world.audit(acme).await;
    assert!(audited.iter().any(|(action, _)| action == "note.created"));
}
