//! Archives that were made by hand and signed with a key that the operator trusts: what is imported is decided here.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::Duration;
use serde_json::{Value, json};
use tenantry_domain::archive::{
    ArchiveError, ArchiveSink as _, ArchiveSource as _, Manifest, ManifestTable, TableContent,
};
use tenantry_domain::kernel::{Clock as _, SystemScope};
use tenantry_system::{FileArchiveReader, FileArchiveWriter};
use tenantry_tenancy::archive::{import, read, trust, write};
use tenantry_tests::{World, operator_cx};

const BECAUSE: SystemScope = SystemScope::because("a test of archives made by hand");

/// The rows of each table.
type Tables = BTreeMap<String, Vec<String>>;

/// An archive of acme, taken apart.
struct Forge<'w> {
    world: &'w World,
    manifest: Manifest,
    tables: Tables,
    folder: PathBuf,
}

impl<'w> Forge<'w> {
    async fn new(world: &'w World) -> Self {
        let folder = world.database.exports().join("forged");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("acme.tar");
        let rows = &world.app.ports.tenant_rows;
        let acme = rows.tenant(BECAUSE, world.acme.id).await.unwrap().unwrap();
        let sink = Box::new(FileArchiveWriter::create(&path).unwrap());
        let until = world.clock.now() + Duration::hours(1);
        write::write(
            &world.app,
            BECAUSE,
            write::Subject {
                tenant: &acme,
                person: None,
            },
            sink,
            (until, &|_| ()),
        )
        .await
        .unwrap();
        let mut source = FileArchiveReader::open(&path).await.unwrap();
        let manifest = source.manifest().clone();
        let mut tables = Tables::new();
        for table in &manifest.tables {
            source.open(&table.name).await.unwrap();
            let rows = tables.entry(table.name.clone()).or_default();
            loop {
                let some = source.next(1 << 20).await.unwrap();
                if some.is_empty() {
                    break;
                }
                rows.extend(some);
            }
        }
        Self {
            world,
            manifest,
            tables,
            folder,
        }
    }

    /// Imports a changed archive, as that of another installation.
    async fn import(
        &self,
        slug: &str,
        change: impl FnOnce(&mut Manifest, &mut Tables),
    ) -> Result<import::Imported, ArchiveError> {
        let (mut manifest, mut tables) = (self.manifest.clone(), self.tables.clone());
        change(&mut manifest, &mut tables);
        let path = self.folder.join(format!("{slug}.tar"));
        let mut sink = Box::new(FileArchiveWriter::create(&path).unwrap());
        for table in &mut manifest.tables {
            sink.begin(&Manifest::schema_of(&table.name)).await.unwrap();
            sink.write(b"{}".to_vec()).await.unwrap();
            table.json_schema_sha256 = sink.end().await.unwrap().sha256;
            sink.begin(&Manifest::file_of(&table.name)).await.unwrap();
            let rows = &tables[&table.name];
            for row in rows {
                sink.write(format!("{row}\n").into_bytes()).await.unwrap();
            }
            let stored = sink.end().await.unwrap();
            (table.rows, table.bytes, table.sha256) = (rows.len() as u64, stored.bytes, stored.sha256);
        }
        trust::sign(&self.world.app.ports, &mut manifest).unwrap();
        let signature = manifest.signature.as_mut().unwrap();
        // Nothing of it was sealed here.
        "00".clone_into(&mut signature.sealed_key);
        let key = trust::unhex(&signature.public_key).unwrap();
        sink.finish(&manifest).await.unwrap();
        let mut source = FileArchiveReader::open(&path).await.unwrap();
        let verified = read::verify(&self.world.app, &mut source, &[key]).await.unwrap();
        import::as_new(
            &operator_cx(&self.world.app),
            BECAUSE,
            verified,
            (slug, None),
            &|_| (),
        )
        .await
    }

    /// Imports an archive that is refused with this text, and leaves no tenant behind.
    async fn refused(&self, change: impl FnOnce(&mut Manifest, &mut Tables), expected: &str) {
        let refused = self.import("forged", change).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{expected}: {refused}");
        let left = self.world.sql("SELECT FROM tenants WHERE slug = 'forged'").await;
        assert_eq!(left, 0, "{expected}");
    }

    /// A row with these members more.
    fn row(&self, members: &Value) -> String {
        let mut row = json!({
            "id": "01a22b71-1e9e-7157-b9c3-000000000001",
            "tenant_id": self.world.acme.id,
            "created_at": "2026-01-01T00:00:00+00:00",
            "updated_at": "2026-01-01T00:00:00+00:00",
            "version": 1,
        });
        let all = row.as_object_mut().unwrap();
        all.extend(members.as_object().unwrap().clone());
        row.to_string()
    }

    /// The first user, changed.
    fn user(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut user: Value = serde_json::from_str(&self.tables["users"][0]).unwrap();
        change(&mut user);
        user.to_string()
    }
}

fn table_of<'m>(manifest: &'m mut Manifest, name: &str) -> &'m mut ManifestTable {
    manifest
        .tables
        .iter_mut()
        .find(|table| table.name == name)
        .unwrap()
}

#[actix_web::test]
async fn archive_of_another_installation_is_imported() {
    let world = World::new().await;
    let forge = Forge::new(&world).await;
    let imported = forge
        .import("copy", |_, tables| {
            let settings = json!({"values": {"security.password_min_length": 16}});
            tables.insert("tenant_settings".into(), vec![forge.row(&settings)]);
            let role = json!({"name": "readers", "description": "", "base_role": "viewer", "permissions": ["tasks.read"]});
            tables.insert("custom_roles".into(), vec![forge.row(&role)]);
        })
        .await
        .unwrap();
    assert!(imported.put.inserted > 0);
    assert_eq!(imported.tenant.slug.as_str(), "copy");
}

/// A manifest cannot turn records and what is left out into data: keys of the API, the audit log, billing, jobs.
#[actix_web::test]
async fn tables_that_are_imported_are_decided_here() {
    let world = World::new().await;
    let forge = Forge::new(&world).await;
    for name in [
        "api_keys",
        "audit_events",
        "billing_accounts",
        "tenants",
        "passkeys",
    ] {
        let expected =
            format!("the table {name} is 'data' in it, and 'record' in exports of this installation");
        let change = |manifest: &mut Manifest, _: &mut Tables| {
            table_of(manifest, name).content = TableContent::Data;
        };
        forge.refused(change, &expected).await;
    }
    for name in ["jobs", "refresh_sessions"] {
        let expected = format!("the table {name} is 'data' in it, and 'left out' in exports");
        let change = |manifest: &mut Manifest, tables: &mut Tables| {
            let table = ManifestTable {
                name: name.into(),
                file: Manifest::file_of(name),
                json_schema: Manifest::schema_of(name),
                left_out: Vec::new(),
                ..table_of(manifest, "users").clone()
            };
            manifest.tables.push(table);
            tables.insert(name.into(), Vec::new());
        };
        forge.refused(change, &expected).await;
    }
    let change = |manifest: &mut Manifest, _: &mut Tables| {
        table_of(manifest, "users").content = TableContent::Record;
    };
    forge
        .refused(change, "the table users is 'record' in it, and 'data' in exports")
        .await;
}

/// Values that the use cases would not store are refused with the row that has them.
#[actix_web::test]
async fn values_that_no_use_case_stores_are_refused() {
    let world = World::new().await;
    let forge = Forge::new(&world).await;
    let role = |name: &str, permissions: &[&str]| {
        forge
            .row(&json!({"name": name, "description": "", "base_role": "viewer", "permissions": permissions}))
    };
    let branding = |logo: Value, css: &str| {
        forge.row(&json!({
            "display_name": null, "logo_url": logo, "favicon_url": null, "primary_color": "#1d4ed8",
            "accent_color": "#0f766e", "support_email": null, "custom_css": css,
        }))
    };
    let resource = |url: &str| {
        forge.row(&json!({
            "name": "A link", "kind": "link", "content": null, "url": url, "project_id": null, "deleted_at": null,
            "created_by": world.acme.admin.id, "size_bytes": 0,
        }))
    };
    let settings = |values: Value| forge.row(&json!({"values": values}));
    for (table, row, expected) in [
        (
            "tenant_settings",
            settings(json!({"security.password_min_length": 1})),
            "row 1 of the table tenant_settings: the setting security.password_min_length must be",
        ),
        (
            "tenant_settings",
            settings(json!({"retention.audit_days": 1})),
            "the setting retention.audit_days can be changed by the operator only",
        ),
        (
            "tenant_settings",
            settings(json!({"no.such": 1})),
            "the setting no.such is not known here",
        ),
        (
            "custom_roles",
            role("readers", &["everything.write"]),
            "must be a permission",
        ),
        (
            "custom_roles",
            role("readers", &["users.write"]),
            "row 1 of the table custom_roles: permissions",
        ),
        (
            "custom_roles",
            role("Not a name", &["tasks.read"]),
            "name must have",
        ),
        (
            "brandings",
            branding(json!("https://127.0.0.1/x.png"), ""),
            "row 1 of the table brandings: logo_url",
        ),
        (
            "brandings",
            branding(Value::Null, "@import url(https://evil.example/x.css);"),
            "row 1 of the table brandings: ",
        ),
        (
            "resources",
            resource("javascript:alert(1)"),
            "url must be an http or https address",
        ),
        (
            "users",
            forge.user(|user| user["email"] = "Ada@Example.com".into()),
            "email is not in its normal form",
        ),
        (
            "users",
            forge.user(|user| user["full_name"] = "".into()),
            "row 1 of the table users: full_name",
        ),
    ] {
        let change = |_: &mut Manifest, tables: &mut Tables| {
            tables.insert(table.into(), vec![row]);
        };
        forge.refused(change, expected).await;
    }
}

/// Each row is compared with its table before any is written.
#[actix_web::test]
async fn rows_that_do_not_fit_are_refused_before_any_is_written() {
    let world = World::new().await;
    let forge = Forge::new(&world).await;
    let number = forge.tables["users"].len() + 1;
    let rows = [
        ("{\"id\":".to_owned(), "it is not a JSON object"),
        ("null".to_owned(), "it is not a JSON object"),
        ("{}".to_owned(), "it has other columns"),
        (
            format!("{{\"id\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)),
            "it is nested too deeply",
        ),
        (
            forge.user(|user| user["password_hash"] = "x".into()),
            "it has other columns",
        ),
        (
            forge.tables["users"][0].replace(&world.acme.id.to_string(), &world.globex.id.to_string()),
            "the column tenant_id has another tenant",
        ),
        (
            forge.tables["users"][0].replacen("\"email\": \"", "\"email\": \"\\u0061", 1),
            "it has an escaped character",
        ),
    ];
    for (row, expected) in rows {
        let expected = format!("row {number} of the table users: {expected}");
        let change = |_: &mut Manifest, tables: &mut Tables| {
            tables.get_mut("users").unwrap().push(row);
        };
        forge.refused(change, &expected).await;
    }
    let dashless = |_: &mut Manifest, tables: &mut Tables| {
        let mut user: Value = serde_json::from_str(&forge.tables["users"][0]).unwrap();
        let plain = user["id"].as_str().unwrap().to_owned();
        user["id"] = plain.replace('-', "").into();
        let row = forge.tables["users"][0].replace(&plain, user["id"].as_str().unwrap());
        tables.get_mut("users").unwrap()[0] = row;
    };
    forge
        .refused(
            dashless,
            "row 1 of the table users: the column id must be an id in small letters with dashes",
        )
        .await;
    let secret = |_: &mut Manifest, tables: &mut Tables| {
        tables.insert(
            "users".into(),
            vec![forge.user(|user| user["password_hash"] = "x".into())],
        );
    };
    forge
        .refused(secret, "the column password_hash is left out of archives")
        .await;
}
