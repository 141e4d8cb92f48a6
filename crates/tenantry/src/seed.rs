//! The demo: two tenants with a user of each role, projects and tasks, made through the use cases.

use std::sync::Arc;

use tenantry_domain::kernel::{RequestId, Role, SystemScope};
use tenantry_domain::operations::OperatorRole;
use tenantry_domain::tenant::{NewTenant, Slug, TenantSelector};
use tenantry_domain::work::{NewProject, NewResource, NewTask, Priority, TaskStatus};
use tenantry_tenancy::admin::operator;
use tenantry_tenancy::admin::operator::{NewOperator, OperatorError};
use tenantry_tenancy::identity::user;
use tenantry_tenancy::identity::user::AddUser;
use tenantry_tenancy::tenant::provision;
use tenantry_tenancy::tenant::provision::{NewAdmin, SignUpError};
use tenantry_tenancy::work::{project, resource, task};
use tenantry_tenancy::{Cx, OperatorCx, Origin, Tenancy};

use crate::{CommandError, console};

/// The password of every demo user; only `tenantry dev` makes them, on loopback.
pub const PASSWORD: &str = "demo-password";

/// The slugs of the demo tenants.
pub const TENANTS: [(&str, &str, &str); 2] = [("acme", "Acme Inc", "pro"), ("globex", "Globex Corp", "free")];

/// The address of the demo operator.
pub const OPERATOR: &str = "operator@tenantry.example";

/// Makes the demo tenants that are not there yet, and the demo operator.
pub async fn seed(app: &Arc<Tenancy>) -> Result<(), CommandError> {
    seed_operator(app).await?;
    for (slug, name, plan) in TENANTS {
        if !exists(app, slug).await? {
            console::progress(&format!("seeding tenant {slug}"));
            seed_tenant(app, slug, name, plan).await?;
        }
    }
    Ok(())
}

async fn seed_operator(app: &Arc<Tenancy>) -> Result<(), CommandError> {
    let cx = OperatorCx::command(app, SystemScope::because("seed the demo"));
    let new = NewOperator {
        email: OPERATOR.to_owned(),
        full_name: "Demo operator".to_owned(),
        role: OperatorRole::Owner,
        password: Some(PASSWORD.into()),
        is_own_password: true,
    };
    match operator::create(&cx, new).await {
        Ok(_) | Err(OperatorError::EmailTaken) => Ok(()),
        Err(error) => Err(failed(&error)),
    }
}

async fn exists(app: &Tenancy, slug: &str) -> Result<bool, CommandError> {
    let Some(slug) = Slug::parse(slug) else {
        return Ok(false);
    };
    let request = RequestId::next(app.ports.ids.as_ref());
    match app.ports.gate.guest(&TenantSelector::Slug(slug), request).await {
        Ok(_) | Err(tenantry_domain::tenant::Denied::TenantGone) => Ok(true),
        Err(tenantry_domain::tenant::Denied::TenantNotFound) => Ok(false),
        Err(error) => Err(failed(&error)),
    }
}

async fn seed_tenant(app: &Arc<Tenancy>, slug: &str, name: &str, plan: &str) -> Result<(), CommandError> {
    let cx = found(app, slug, name, plan).await?;
    for role in [Role::Member, Role::Viewer] {
        let data = AddUser {
            email: format!("{}@{slug}.example", role.as_str()),
            full_name: format!("{name} {}", role.as_str()),
            role,
            custom_role: None,
            password: Some(PASSWORD.into()),
            is_own_password: true,
        };
        user::create(&cx, data).await.map_err(|error| failed(&error))?;
    }
    for title in ["Website", "Mobile app"] {
        let data = NewProject {
            name: title.into(),
            description: Some(format!("The {title} of {name}")),
        };
        let project = project::create(&cx, data).await.map_err(|error| failed(&error))?;
        for (title, status, priority) in [
            ("Collect what is wanted", TaskStatus::Done, Priority::Normal),
            ("Draw the first sketch", TaskStatus::InProgress, Priority::High),
            ("Ask three customers", TaskStatus::Todo, Priority::Normal),
        ] {
            let owner = cx.scope().user();
            let data = NewTask {
                title: title.into(),
                description: None,
                status,
                priority,
                assignee_id: owner,
                due_at: None,
            };
            task::create(&cx, project.id, data)
                .await
                .map_err(|error| failed(&error))?;
        }
        let data = NewResource {
            project_id: Some(project.id),
            name: "Notes".into(),
            kind: None,
            content: Some(format!("# {title}\n\nWritten by {name}.\n")),
            url: None,
        };
        resource::create(&cx, data)
            .await
            .map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Founds the tenant and acts as its admin from then on, by the admin's own token.
async fn found(app: &Arc<Tenancy>, slug: &str, name: &str, plan: &str) -> Result<Cx, CommandError> {
    let tenant = NewTenant {
        name: name.into(),
        slug: slug.into(),
        subdomain: None,
        plan: Some(plan.into()),
    };
    let admin = NewAdmin {
        email: format!("admin@{slug}.example"),
        full_name: format!("{name} admin"),
        password: Some(PASSWORD.into()),
    };
    let because = SystemScope::because("seed the demo");
    let request = RequestId::next(app.ports.ids.as_ref());
    let founded = provision::found(app, because, Origin::default(), request.clone(), tenant, admin).await;
    let founded = founded.map_err(|error: SignUpError| failed(&error))?;
    let admission = app.ports.gate.bearer(&founded.login.access_token, request).await;
    let admission = admission.map_err(|error| failed(&error))?;
    Ok(Cx::new(Arc::clone(app), admission.scope, Origin::default()))
}

fn failed(error: &dyn std::error::Error) -> CommandError {
    CommandError::Other(format!("the demo cannot be seeded: {error}"))
}
