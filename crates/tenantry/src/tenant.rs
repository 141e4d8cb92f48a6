//! `tenantry tenant`: what an operator does to tenants from the command line.

use std::path::PathBuf;
use std::sync::Arc;

use tenantry_domain::kernel::{Invalid, RequestId, SystemScope, TenantId};
use tenantry_domain::tenant::{Denied, NewTenant, Slug, Tenant, TenantSelector};
use tenantry_tenancy::tenant::lifecycle::{LifecycleError, LifecycleReason};
use tenantry_tenancy::tenant::provision::NewAdmin;
use tenantry_tenancy::tenant::row_work::{self, RowProgress, Settled};
use tenantry_tenancy::tenant::{lifecycle, provision};
use tenantry_tenancy::{OperatorCx, Origin, Tenancy};

use crate::all_tenants::TenantPages;
use crate::boot::boot;
use crate::config::Settings;
use crate::{CommandError, archive, console};

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
        /// Name of the tenant.
        #[arg(long)]
        name: String,
        /// Slug of the tenant: 3 to 63 of a-z, 0-9 and '-'.
        #[arg(long)]
        slug: String,
        /// Plan of the tenant; the default plan when it is absent.
        #[arg(long)]
        plan: Option<String>,
        /// E-mail address of the first admin.
        #[arg(long)]
        admin_email: String,
        /// Name of the first admin.
        #[arg(long)]
        admin_name: String,
    },
    /// Make a tenant read-only.
    #[command(after_help = "Example: tenantry tenant suspend acme --reason 'invoice unpaid'")]
    Suspend {
        /// Slug of the tenant.
        slug: String,
        /// Goes into the tenant's audit log.
        #[arg(long)]
        reason: String,
    },
    /// Delete a tenant: it is gone at once, and can be restored until it is purged.
    #[command(after_help = "Example: tenantry tenant delete acme --reason 'contract ended'")]
    Delete {
        /// Slug of the tenant.
        slug: String,
        /// Goes into the tenant's audit log.
        #[arg(long)]
        reason: String,
    },
    /// Restore a deleted tenant, exactly as it was.
    #[command(after_help = "Example: tenantry tenant restore acme --reason 'deleted by mistake'")]
    Restore {
        /// Slug of the tenant.
        slug: String,
        /// Goes into the tenant's audit log.
        #[arg(long)]
        reason: String,
    },
    /// Erase every row of a deleted tenant now. It cannot be undone; a tombstone stays.
    #[command(after_help = "Example: tenantry tenant purge acme --confirm")]
    Purge {
        /// Slug of the tenant.
        slug: String,
        /// Confirms that the rows are to be erased for good.
        #[arg(long)]
        confirm: bool,
        /// Goes into the operators' log.
        #[arg(long, default_value = "purged from the command line")]
        reason: String,
    },
    /// Write everything that a tenant owns into an archive: one file, signed, of one point in time.
    #[command(after_help = "Example: tenantry tenant export acme --out acme.tar")]
    Export {
        /// Slug of the tenant.
        slug: String,
        /// The file, which only you can read.
        #[arg(long)]
        out: PathBuf,
    },
    /// Import an archive as a new tenant, or restore rows of the tenant that it is of.
    #[command(
        after_help = "Example: tenantry tenant import acme.tar --as-new acme-copy\n         \
                            tenantry tenant import acme.tar --restore --yes"
    )]
    Import {
        /// The archive.
        file: PathBuf,
        #[command(flatten)]
        how: archive::How,
        /// The plan of a new tenant; the default plan without.
        #[arg(long, conflicts_with = "restore")]
        plan: Option<String>,
        /// Restore what is shown.
        #[arg(long, conflicts_with = "as_new")]
        yes: bool,
        #[command(flatten)]
        trust: archive::Trust,
    },
    /// Compare an archive with the tenant that it is of.
    #[command(after_help = "Example: tenantry tenant diff acme.tar")]
    Diff {
        /// The archive.
        file: PathBuf,
        #[command(flatten)]
        trust: archive::Trust,
    },
    /// Let a suspended tenant write again.
    #[command(after_help = "Example: tenantry tenant resume acme --reason 'invoice paid'")]
    Resume {
        /// Slug of the tenant.
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
        Action::Delete { slug, reason } => delete(app, slug, reason).await?,
        Action::Restore { slug, reason } => restore(app, slug, reason).await?,
        Action::Purge {
            slug,
            confirm,
            reason,
        } => purge(app, slug, *confirm, reason).await?,
        Action::Export { slug, out } => {
            let tenant = find_any(app, slug).await?;
            archive::export(&booted, &tenant, None, out).await?;
        }
        Action::Import {
            file,
            how,
            plan,
            yes,
            trust,
        } => archive::import(&booted, file, how, (plan.as_deref(), *yes, trust)).await?,
        Action::Diff { file, trust } => archive::compare(&booted, file, trust).await?,
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

async fn delete(app: &Arc<Tenancy>, slug: &str, reason: &str) -> Result<(), CommandError> {
    let id = find_any(app, slug).await?.id;
    lifecycle::delete(&command(app), id, reason).await.map_err(told)?;
    settle_and_say(app, id).await
}

async fn restore(app: &Arc<Tenancy>, slug: &str, reason: &str) -> Result<(), CommandError> {
    let id = find_any(app, slug).await?.id;
    let begun = lifecycle::begin_restore(&command(app), id, reason).await;
    begun.map_err(told)?;
    settle_and_say(app, id).await
}

async fn purge(app: &Arc<Tenancy>, slug: &str, confirm: bool, reason: &str) -> Result<(), CommandError> {
    let tenant = find_any(app, slug).await?;
    if !confirm {
        return Err(CommandError::Other(format!(
            "every row of '{slug}' ({}) would be erased for good: add --confirm",
            tenant.name
        )));
    }
    lifecycle::purge(&command(app), tenant.id, reason)
        .await
        .map_err(told)?;
    settle(app, tenant.id).await?;
    console::say(&format!("{} {slug} purged", tenant.id));
    Ok(())
}

/// Does what is to be done to the rows of a tenant, and shows how far it is.
pub async fn settle(app: &Arc<Tenancy>, id: TenantId) -> Result<(), CommandError> {
    let show = |progress: &RowProgress| {
        let RowProgress { work, table, rows } = progress;
        if *rows > 0 {
            console::progress(&format!("{} {table}: {rows} rows", work.as_str()));
        }
    };
    while row_work::settle(app, id, None, &show).await.map_err(told)? == Settled::Later {}
    Ok(())
}

async fn settle_and_say(app: &Arc<Tenancy>, id: TenantId) -> Result<(), CommandError> {
    settle(app, id).await?;
    let tenant = lifecycle::get(&command(app), id).await.map_err(told)?;
    say(&tenant);
    Ok(())
}

async fn list(app: &Tenancy) -> Result<(), CommandError> {
    let because = SystemScope::because("an operator lists all tenants");
    let mut pages = TenantPages::new(app, because);
    while let Some(tenants) = pages.next().await? {
        tenants.iter().for_each(say);
    }
    Ok(())
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
    let unknown = || unknown(slug);
    let selector = TenantSelector::Slug(Slug::parse(slug).ok_or_else(unknown)?);
    let request = RequestId::next(app.ports.ids.as_ref());
    match app.ports.gate.guest(&selector, request).await {
        Ok(admission) => Ok(admission.tenant.id),
        Err(Denied::TenantNotFound) => Err(unknown()),
        Err(error) => Err(other(&error)),
    }
}

fn unknown(slug: &str) -> CommandError {
    let program = console::program();
    CommandError::Other(format!("there is no tenant '{slug}': see {program} tenant list"))
}

/// The tenant with a slug, deleted ones included.
pub async fn find_any(app: &Tenancy, slug: &str) -> Result<Tenant, CommandError> {
    let unknown = || unknown(slug);
    let because = SystemScope::because("a tenant is named on the command line");
    let slug = Slug::parse(slug).ok_or_else(unknown)?;
    let found = app.ports.tenant_rows.tenant_named(because, &slug).await;
    found.map_err(|error| other(&error))?.ok_or_else(unknown)
}

pub fn command(app: &Arc<Tenancy>) -> OperatorCx {
    OperatorCx::command(
        app,
        SystemScope::because("a tenant is changed from the command line"),
    )
}

pub fn told(error: LifecycleError) -> CommandError {
    match error {
        LifecycleError::Invalid(bad) => invalid(&bad),
        error @ (LifecycleError::Refused(_)
        | LifecycleError::Stale(_)
        | LifecycleError::NotFound
        | LifecycleError::NotInPlan(_)
        | LifecycleError::Denied(_)
        | LifecycleError::Own(LifecycleReason::InvalidTransition(_) | LifecycleReason::NameInUse)
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
