//! `tenantry tenant`: what an operator does to tenants from the command line.

use std::sync::Arc;

use tenantry_domain::kernel::{Invalid, RequestId, SystemScope, TenantId};
use tenantry_domain::tenant::{Denied, NewTenant, Slug, Tenant, TenantSelector};
use tenantry_tenancy::tenant::lifecycle::{LifecycleError, LifecycleReason};
use tenantry_tenancy::tenant::provision::NewAdmin;
use tenantry_tenancy::tenant::{lifecycle, provision};
use tenantry_tenancy::{OperatorCx, Origin, Tenancy};

use crate::boot::boot;
use crate::config::Settings;
use crate::{CommandError, console};

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List all tenants: id, slug, plan, status, name.
    #[command(after_help = "Example: tenantry tenant list")]
    List,
    /// Create a tenant; prints the admin's generated password.
    #[command(
        after_help = "Example: tenantry tenant create --name 'Acme Inc' --slug acme \\\n         \
                            --admin-email ada@acme.example --admin-name 'Ada Acme' --plan pro"
    )]
    Create {
        #[arg(long)]
        name: String,
        #[arg(long)]
        slug: String,
        #[arg(long)]
        plan: Option<String>,
        #[arg(long)]
        admin_email: String,
        #[arg(long)]
        admin_name: String,
    },
    /// Make a tenant read-only.
    #[command(after_help = "Example: tenantry tenant suspend acme --reason 'invoice unpaid'")]
    Suspend {
        slug: String,
        /// Goes into the tenant's audit log.
        #[arg(long)]
        reason: String,
    },
    /// Let a suspended tenant write again.
    #[command(after_help = "Example: tenantry tenant resume acme --reason 'invoice paid'")]
    Resume {
        slug: String,
        /// Goes into the tenant's audit log.
        #[arg(long)]
        reason: String,
    },
}

/// Runs the command.
pub async fn run(settings: &Settings, args: &Args) -> Result<(), CommandError> {
    let booted = boot(settings)?;
    booted.plans.sync(&booted).await.map_err(|error| other(&error))?;
    let app = &booted.app;
    match &args.action {
        Action::List => list(app).await?,
        Action::Create {
            name,
            slug,
            plan,
            admin_email,
            admin_name,
        } => {
            let tenant = NewTenant {
                name: name.clone(),
                slug: slug.clone(),
                subdomain: None,
                plan: plan.clone(),
            };
            let admin = NewAdmin {
                email: admin_email.clone(),
                full_name: admin_name.clone(),
                password: None,
            };
            create(app, tenant, admin).await?;
        }
        Action::Suspend { slug, reason } => {
            let id = find(app, slug).await?;
            say(&lifecycle::suspend(&command(app), id, reason)
                .await
                .map_err(told)?);
        }
        Action::Resume { slug, reason } => {
            let id = find(app, slug).await?;
            say(&lifecycle::resume(&command(app), id, reason).await.map_err(told)?);
        }
    }
    booted.finish().await;
    Ok(())
}

async fn list(app: &Tenancy) -> Result<(), CommandError> {
    let because = SystemScope::because("an operator lists all tenants");
    let mut after = None;
    loop {
        let tenants = app
            .ports
            .registry
            .list(because, after, 500)
            .await
            .map_err(|error| other(&error))?;
        let Some(last) = tenants.last() else { return Ok(()) };
        after = Some(last.id);
        tenants.iter().for_each(say);
    }
}

async fn create(app: &Arc<Tenancy>, tenant: NewTenant, admin: NewAdmin) -> Result<(), CommandError> {
    let because = SystemScope::because("an operator founds a tenant");
    let request = RequestId::next(app.ports.ids.as_ref());
    let signed_up = provision::found(app, because, Origin::default(), request, tenant, admin).await;
    let signed_up = signed_up.map_err(|error| match error {
        provision::SignUpError::Invalid(bad) => invalid(&bad),
        other => CommandError::Other(other.to_string()),
    })?;
    say(&signed_up.login.tenant);
    if let Some(password) = signed_up.generated_password {
        console::say(&format!(
            "admin {} password {}",
            signed_up.login.user.email.as_str(),
            password.reveal()
        ));
    }
    Ok(())
}

pub async fn find(app: &Tenancy, slug: &str) -> Result<TenantId, CommandError> {
    let unknown = || {
        let program = console::program();
        CommandError::Other(format!("there is no tenant '{slug}': see {program} tenant list"))
    };
    let selector = TenantSelector::Slug(Slug::parse(slug).ok_or_else(unknown)?);
    let request = RequestId::next(app.ports.ids.as_ref());
    match app.ports.gate.guest(&selector, request).await {
        Ok(admission) => Ok(admission.tenant.id),
        Err(Denied::TenantNotFound) => Err(unknown()),
        Err(error) => Err(other(&error)),
    }
}

fn command(app: &Arc<Tenancy>) -> OperatorCx {
    OperatorCx::command(
        app,
        SystemScope::because("a tenant is changed from the command line"),
    )
}

fn told(error: LifecycleError) -> CommandError {
    match error {
        LifecycleError::Invalid(bad) => invalid(&bad),
        error @ (LifecycleError::Refused(_)
        | LifecycleError::Stale(_)
        | LifecycleError::NotFound
        | LifecycleError::NotInPlan(_)
        | LifecycleError::Denied(_)
        | LifecycleError::Own(LifecycleReason::WrongState { .. })
        | LifecycleError::Store(_)) => other(&error),
    }
}

/// Every field that does not hold, in one line.
pub fn invalid(invalid: &Invalid) -> CommandError {
    let details = invalid
        .0
        .iter()
        .map(|field| format!("{}: {}", field.pointer, field.detail));
    CommandError::Other(details.collect::<Vec<_>>().join("; "))
}

fn say(tenant: &Tenant) {
    let (slug, status) = (tenant.slug.as_str(), tenant.status.as_str());
    console::say(&format!(
        "{} {slug} {} {status} {}",
        tenant.id, tenant.plan, tenant.name
    ));
}

pub fn other(error: &dyn std::error::Error) -> CommandError {
    CommandError::Other(error.to_string())
}
