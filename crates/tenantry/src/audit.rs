//! `tenantry audit`: verify the hash chains of tenants' audit logs.

use tenantry_domain::kernel::{SystemScope, TenantId, hex};
use tenantry_tenancy::audit::verify::{self, Verified};

use crate::all_tenants::{FailedTenants, TenantPages};
use crate::boot::{Booted, boot};
use crate::config::Configuration;
use crate::tenant::{find, other};
use crate::{CommandError, console};

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Chain what has committed, then compute the hash chain of each tenant anew and compare it with the stored one and with its
    /// signed heads. A line for each tenant: slug, `ok` or `WRONG`, how many entries were verified, the number and hash of the
    /// last one, and the first wrong entry. Ends with code 1 when a chain is wrong.
    #[command(after_help = "Example: tenantry audit verify\n         \
                            tenantry audit verify --tenant acme")]
    Verify {
        /// Only of this tenant.
        #[arg(long)]
        tenant: Option<String>,
    },
}

const BECAUSE: SystemScope = SystemScope::because("an operator verifies audit logs");
/// Runs the command.
pub async fn run(config: &Configuration, args: &Args) -> Result<(), CommandError> {
    let booted = boot(config)?;
    booted.plans.preview().await.map_err(|error| other(&error))?;
    let read = tenantry_compose::read_keys(&booted.app).await;
    read.map_err(|error| other(&error))?;
    let Action::Verify { tenant } = &args.action;
    let wrong = match tenant {
        Some(slug) => {
            let tenant = find(&booted.app, slug).await?;
            verify_one(&booted, tenant, slug).await.map(u64::from)
        }
        None => verify_all(&booted).await,
    };
    booted.finish().await;
    match wrong? {
        0 => Ok(()),
        wrong => Err(CommandError::Other(format!(
            "{wrong} audit logs are not as they were written; see docs/audit.md"
        ))),
    }
}

/// Verifies every tenant's log, with a line of progress for each few hundred. Returns how many are wrong.
async fn verify_all(booted: &Booted) -> Result<u64, CommandError> {
    let (mut wrong, mut seen, mut failed) = (0, 0, FailedTenants::default());
    let mut pages = TenantPages::new(&booted.app, BECAUSE);
    while let Some(tenants) = pages.next().await? {
        for tenant in &tenants {
            let slug = tenant.slug.as_str();
            match verify_one(booted, tenant.id, slug).await {
                Ok(is_wrong) => wrong += u64::from(is_wrong),
                failure => failed.note(slug, failure.map(drop)),
            }
        }
        seen += tenants.len();
        console::progress(&format!("{seen} tenants verified, {wrong} wrong"));
    }
    failed.summary()?;
    Ok(wrong)
}

/// Whether the log of a tenant is wrong. One that is deleted is passed over.
async fn verify_one(booted: &Booted, tenant: TenantId, slug: &str) -> Result<bool, CommandError> {
    let verified = verify::verify_of(&booted.app, BECAUSE, tenant).await;
    let Some(verified) = verified.map_err(|error| other(&error))? else {
        return Ok(false);
    };
    console::say(&line(slug, &verified));
    Ok(verified.wrong.is_some())
}

fn line(slug: &str, verified: &Verified) -> String {
    let verdict = if verified.wrong.is_some() { "WRONG" } else { "ok" };
    let mut line = format!(
        "{slug} {verdict} {} entries, last {} {}",
        verified.entries,
        verified.last_sequence,
        hex(&verified.last_hash)
    );
    if let Some(checkpoint) = verified.checkpoint {
        line += &format!(", from checkpoint {checkpoint}");
    }
    if let Some(head) = &verified.signed {
        line += &format!(", signed up to {} by {}", head.sequence, head.kid);
    }
    if verified.unverifiable > 0 {
        line += &format!(", {} signatures of unknown keys", verified.unverifiable);
    }
    if verified.unchained > 0 {
        line += &format!(", {} not chained yet", verified.unchained);
    }
    if let Some(wrong) = &verified.wrong {
        let id = wrong.id.map(|id| format!(" ({id})")).unwrap_or_default();
        line += &format!(
            ", first wrong entry {}{id}: {}: {}",
            wrong.sequence,
            wrong.reason.as_str(),
            wrong.reason.about()
        );
    }
    line
}
