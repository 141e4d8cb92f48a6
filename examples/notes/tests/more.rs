//! Changes with a version, jobs and meters: another service, whose tenants have labels.

use sea_orm::entity::prelude::*;
use serde_json::json;
use tenantry::billing::usage;
use tenantry::domain::usage::{MeterKey, NewUsage, UsageKey, UsageOrigin};
use tenantry::persistence::Lock;
use tenantry::prelude::*;
use tenantry::tenancy::operations::job::{self, JobFailure, JobHandler, Terms};
use tenantry_tests::{Options, World};

tenantry::migrator! {
    /// Tenantry's migrations, and the table of labels behind them.
    pub Migrator {
        // `versioned` makes `updated_at` and `version`.
        "m20270101_000001_labels" => TenantTable::new("labels").column("name", "text NOT NULL").versioned(),
    }
}

tenantry::permission! {
    /// Create and rename labels.
    pub WriteLabels = "labels.write" writes for Role::Member;
}

tenantry::routes! { routes:
    "/labels" => post(create);
    "/labels/{id}" => patch(rename);
}

fn extension() -> Extension {
    Extension::new("labels")
        .migrations::<Migrator>()
        .permission::<WriteLabels>()
        .jobs(|handlers| handlers.with(Announce))
        .serve(routes())
}

/// A label.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, ToSchema)]
#[sea_orm(table_name = "labels")]
#[schema(as = Label)]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    #[serde(skip)]
    pub tenant_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub name: String,
    pub created_at: chrono::DateTime<chrono::Utc>,
    pub updated_at: chrono::DateTime<chrono::Utc>,
    pub version: i64,
}
tenantry::tenant_entity!(Entity, Model, ActiveModel, Column);
// Gives `Changed::created`, `updated` and `deleted`, which record the states; `label.created` and so on are the actions.
tenantry::audited!(Model, "label");

/// The name of a label.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Name {
    #[schema(min_length = 1, max_length = 50)]
    name: String,
}

/// Create a label
#[utoipa::path(post, path = "/api/v1/labels", operation_id = "create_label", tag = "Labels", params(IdempotencyKey),
    request_body = Name, responses((status = 201, body = Model)), security(("bearer" = [])))]
async fn create(cx: Ctx<WriteLabels>, key: IdempotencyKey, body: Body<Name>) -> Answer {
    let add = async |cx: &Cx| add(cx, &body.0.name).await;
    let answer = |label: Model| {
        let path = format!("/api/v1/labels/{}", label.id);
        created(&path, Some(label.version), &label)
    };
    key.once(&cx, add, answer).await
}

async fn add(cx: &Cx, name: &str) -> Result<Model, ApiError> {
    cx.require(WriteLabels::PERMISSION)?;
    Check::all(|check| check.line("/name", name, 1..=50))?;
    let label = Model {
        tenant_id: cx.scope().tenant().uuid(),
        id: cx.ids().uuid(),
        name: name.to_owned(),
        created_at: cx.now(),
        updated_at: cx.now(),
        version: 1,
    };
    cx.write(async |work| {
        tenant_tx(work)?.insert(label.clone().into_active_model()).await?;
        cx.record(work, Changed::created(&label)).await?;
        // Row, entry, usage and job are committed together, or none of them.
        usage::record(cx, work, &[made(label.id)?]).await?;
        let queued = job::enqueue::<Announce>(cx, work, &Which { label: label.id }, Terms::default()).await;
        queued.map_err(job::store_error)?;
        Ok(label.clone())
    })
    .await
}

/// One unit of the meter `labels`, which the plan file defines. Its key counts once, however often it is recorded.
fn made(label: Uuid) -> Result<NewUsage, StoreError> {
    let meter = MeterKey::parse("labels").ok_or_else(|| StoreError::Other("no key of a meter".into()))?;
    Ok(NewUsage {
        key: UsageKey::new("labels", label.to_string()),
        meter,
        quantity: 1,
        event_at: None,
        subject: None,
        properties: None,
        origin: UsageOrigin::Server,
    })
}

/// Work in the background, in the tenant that asked for it. A failure is tried again, so a run may find that it was done.
struct Announce;

#[derive(Serialize, Deserialize)]
struct Which {
    label: Uuid,
}

impl JobHandler for Announce {
    const KIND: &'static str = "label.announce";
    type Payload = Which;

    async fn run(&self, cx: &Cx, which: Which) -> Result<(), JobFailure> {
        let found = cx.read(async |work| tenant_tx(work)?.get::<Entity>(which.label).await);
        match found.await? {
            Some(_label) => Ok(()),
            None => Err(JobFailure::Permanent("the label is gone".into())),
        }
    }
}

/// Rename a label
#[utoipa::path(patch, path = "/api/v1/labels/{id}", operation_id = "rename_label", tag = "Labels",
    params(("id" = Uuid, Path), IfMatch), request_body = Name, responses((status = 200, body = Model)),
    security(("bearer" = [])))]
async fn rename(cx: Ctx<WriteLabels>, id: Id<Uuid>, when: IfMatch, body: Body<Name>) -> Answer {
    let label = update(&cx, id.0, &when, &body.0.name).await?;
    Ok(entity(label.version, &label))
}

async fn update(cx: &Cx, id: Uuid, when: &IfMatch, name: &str) -> Result<Model, ApiError> {
    cx.require(WriteLabels::PERMISSION)?;
    Check::all(|check| check.line("/name", name, 1..=50))?;
    cx.write(async |work| {
        let find = tenant_tx(work)?.find::<Entity>().filter(Column::Id.eq(id));
        let before = find.lock(Lock::Update).one().await?;
        let before = before.ok_or(ErrorCode::NotFound)?;
        // 412 `stale_version`, unless the caller has seen this version.
        when.0.check(before.version)?;
        let row = ActiveModel {
            name: Set(name.to_owned()),
            updated_at: Set(cx.now()),
            version: Set(before.version + 1),
            ..Default::default()
        };
        let update = tenant_tx(work)?.update::<Entity>().set(row);
        update.filter(Column::Id.eq(id)).run().await?;
        let after = tenant_tx(work)?.get::<Entity>(id).await?;
        let after = after.ok_or(ErrorCode::NotFound)?;
        cx.record(work, Changed::updated(&before, &after)).await?;
        Ok(after)
    })
    .await
}

#[actix_web::test]
async fn label_is_renamed_at_the_version_that_was_seen() {
    let world = World::with(Options {
        extension: extension(),
        ..Options::default()
    });
    let world = world.await;
    let member = &world.acme.member;
    let made = world.post(member, "/api/v1/labels", &json!({"name": "Urgent"}));
    let made = made.await.expect(201).json();
    let path = format!("/api/v1/labels/{}", made["id"].as_str().unwrap());
    let name = json!({"name": "Later"});
    let rename = async |tag: &str| world.patch(member, &path, &name).header("If-Match", tag).await;
    let renamed = rename("\"1\"").await.expect(200);
    assert_eq!(
        (renamed.header("etag"), &renamed.json()["name"]),
        (Some("\"2\""), &name["name"])
    );
    rename("\"1\"").await.problem(412, "stale_version");
    let foreign = world.patch(&world.globex.member, &path, &name);
    foreign.await.problem(404, "not_found");
    let audited = world.audit(&world.acme).await;
    let updated = audited.iter().find(|(action, _)| action == "label.updated");
    assert_eq!(updated.unwrap().1["before"]["name"], "Urgent");
    for table in ["usage_events", "jobs"] {
        let of_labels = format!(
            "DELETE FROM {table} t WHERE t::text LIKE '%{}%'",
            made["id"].as_str().unwrap()
        );
        assert_eq!(world.sql(of_labels).await, 1, "{table}");
    }
}
