//! `tenantry tenant`: what an operator does to tenants from the command line.

use std::sync::Arc;

use tenantry_domain::kernel::{Invalid, RequestId, SystemScope, TenantId};
use tenantry_domain::tenant::{Denied, NewTenant, RowWork, Slug, Tenant, TenantSelector, TenantStatus};
use tenantry_tenancy::tenant::lifecycle::{LifecycleError, LifecycleReason};
use tenantry_tenancy::tenant::provision::NewAdmin;
use tenantry_tenancy::tenant::row_work::{self, RowProgress, Settled};
use tenantry_tenancy::tenant::{archive_files, lifecycle, provision};
use tenantry_tenancy::{OperatorCx, Tenancy};

use crate::all_tenants::TenantPages;
use crate::boot::boot;
use crate::config::Configuration;
use crate::reason::{MandatoryReason, Reason};
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
        #[command(flatten)]
        reason: Reason,
    },
    /// Make a tenant read-only.
    #[command(after_help = "Example: tenantry tenant suspend acme --reason 'invoice unpaid'")]
    Suspend {
        /// Slug of the tenant.
        slug: String,
        #[command(flatten)]
        reason: MandatoryReason,
    },
    /// Delete a tenant: it is gone at once, and can be restored until it is purged.
    #[command(after_help = "Example: tenantry tenant delete acme --reason 'contract ended'")]
    Delete {
        /// Slug of the tenant.
        slug: String,
        #[command(flatten)]
        reason: MandatoryReason,
    },
    /// Restore a deleted tenant, exactly as it was.
    #[command(after_help = "Example: tenantry tenant restore acme --reason 'deleted by mistake'")]
    Restore {
        /// Slug of the tenant.
        slug: String,
        #[command(flatten)]
        reason: MandatoryReason,
    },
    /// Erase every row of a deleted tenant now. It cannot be undone; a tombstone stays.
    #[command(after_help = "Example: tenantry tenant purge acme --confirm --reason 'erasure was asked for'")]
    Purge {
        /// Slug of the tenant.
        slug: String,
        /// Confirms that the rows are to be erased for good.
        #[arg(long)]
        confirm: bool,
        #[command(flatten)]
        reason: MandatoryReason,
    },
    #[command(flatten)]
    Archive(archive::TenantAction),
    /// Let a suspended tenant write again.
    #[command(after_help = "Example: tenantry tenant resume acme --reason 'invoice paid'")]
    Resume {
        /// Slug of the tenant.
        slug: String,
        #[command(flatten)]
        reason: MandatoryReason,
    },
}

const BECAUSE: SystemScope = SystemScope::because("a tenant is changed from the command line");

/// Runs the command.
pub async fn run(config: &Configuration, args: &Args) -> Result<(), CommandError> {
    let booted = boot(config)?;
    let creates = match &args.action {
        Action::Create { .. } => true,
        Action::Archive(action) => action.imports(),
        _ => false,
    };
    let read = match creates {
        true => booted.plans.sync(&booted).await,
        false => booted.plans.preview().await,
    };
    read.map_err(|error| other(&error))?;
    let app = &booted.app;
    match &args.action {
        Action::List => list(app).await?,
        Action::Create {
            name,
            slug,
            plan,
            admin_email,
            admin_name,
            reason,
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
            create(&reason.context(app, BECAUSE)?, tenant, admin).await?;
        }
        Action::Suspend { slug, reason } => {
            let (cx, id) = (reason.context(app, BECAUSE)?, find(app, slug).await?);
            say(&lifecycle::suspend(&cx, id, &reason.reason).await.map_err(told)?);
        }
        Action::Resume { slug, reason } => {
            let (cx, id) = (reason.context(app, BECAUSE)?, find(app, slug).await?);
            say(&lifecycle::resume(&cx, id, &reason.reason).await.map_err(told)?);
        }
        Action::Delete { slug, reason } => {
            delete(&reason.context(app, BECAUSE)?, slug, &reason.reason).await?;
        }
        Action::Restore { slug, reason } => {
            restore(&reason.context(app, BECAUSE)?, slug, &reason.reason).await?;
        }
        Action::Purge {
            slug,
            confirm,
            reason,
        } => purge(&reason.context(app, BECAUSE)?, slug, *confirm, &reason.reason).await?,
        Action::Archive(action) => action.run(app).await?,
    }
    booted.finish().await;
    Ok(())
}

async fn delete(cx: &OperatorCx, slug: &str, reason: &str) -> Result<(), CommandError> {
    let tenant = find_any(cx.app(), slug).await?;
    // A deletion that was interrupted goes on.
    if (tenant.status, tenant.row_work) != (TenantStatus::Deleted, Some(RowWork::Delete)) {
        lifecycle::delete(cx, tenant.id, reason).await.map_err(told)?;
    }
    settle_and_say(cx, tenant.id).await
}

async fn restore(cx: &OperatorCx, slug: &str, reason: &str) -> Result<(), CommandError> {
    let id = find_any(cx.app(), slug).await?.id;
    let begun = lifecycle::begin_restore(cx, id, reason).await;
    begun.map_err(told)?;
    settle_and_say(cx, id).await
}

async fn purge(cx: &OperatorCx, slug: &str, confirm: bool, reason: &str) -> Result<(), CommandError> {
    let tenant = find_any(cx.app(), slug).await?;
    if !confirm {
        return Err(CommandError::Other(format!(
            "every row of '{slug}' ({}) would be erased for good: add --confirm",
            tenant.name
        )));
    }
    // Before anything is changed: nothing leads back.
    archive_files::require_folder(cx.app(), tenant.id)
        .await
        .map_err(told)?;
    lifecycle::purge(cx, tenant.id, reason).await.map_err(told)?;
    settle(cx.app(), tenant.id).await?;
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

async fn settle_and_say(cx: &OperatorCx, id: TenantId) -> Result<(), CommandError> {
    settle(cx.app(), id).await?;
    let tenant = lifecycle::get(cx, id).await.map_err(told)?;
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

async fn create(cx: &OperatorCx, tenant: NewTenant, admin: NewAdmin) -> Result<(), CommandError> {
    let inside = provision::operator_cx(cx).map_err(|error| other(&error))?;
    let signed_up = provision::create_as_operator(cx, &inside, tenant, admin).await;
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

pub fn told(error: LifecycleError) -> CommandError {
    match error {
        LifecycleError::Invalid(bad) => invalid(&bad),
        error @ (LifecycleError::Refused(_)
        | LifecycleError::Stale(_)
        | LifecycleError::NotFound
        | LifecycleError::NotInPlan(_)
        | LifecycleError::Denied(_)
        | LifecycleError::Own(
            LifecycleReason::InvalidTransition(_)
            | LifecycleReason::NameInUse
            | LifecycleReason::ArchivesElsewhere,
        )
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
