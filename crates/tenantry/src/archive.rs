//! `tenantry tenant export|import|diff` and `tenantry export verify`: archives from the command line.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tenantry_domain::archive::{AboutPerson, ArchiveError};
use tenantry_domain::kernel::SystemScope;
use tenantry_domain::tenant::{Slug, Tenant, TenantStatus};
use tenantry_system::{FileArchiveReader, FileArchiveWriter};
use tenantry_tenancy::archive::diff::TableDiff;
use tenantry_tenancy::archive::trust::{Signer, unhex};
use tenantry_tenancy::archive::write::Subject;
use tenantry_tenancy::archive::{self, ArchiveProgress, diff, file_export, read};
use tenantry_tenancy::{OperatorCx, Tenancy};

use crate::boot::{Booted, boot};
use crate::config::Configuration;
use crate::reason::Reason;
use crate::tenant::{find_any, other};
use crate::{CommandError, console};

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Verify the signature and every file of an archive. Ends with code 1 and names the first file that is wrong.
    #[command(after_help = "Example: tenantry export verify acme.tar")]
    Verify {
        /// The archive.
        file: PathBuf,
        #[command(flatten)]
        trust: Trust,
    },
}

/// What is done with the archives of a tenant, among the commands of tenants.
#[derive(Debug, clap::Subcommand)]
pub enum TenantAction {
    /// Write everything that a tenant owns into an archive: one file, signed, of one point in time.
    #[command(after_help = "Example: tenantry tenant export acme --out acme.tar")]
    Export {
        /// Slug of the tenant.
        slug: String,
        /// The file, which only you can read.
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        reason: Reason,
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
        how: How,
        /// The plan of a new tenant; the default plan without.
        #[arg(long, conflicts_with = "restore")]
        plan: Option<String>,
        /// Restore what is shown.
        #[arg(long, conflicts_with = "as_new")]
        yes: bool,
        #[command(flatten)]
        trust: Trust,
        #[command(flatten)]
        reason: Reason,
    },
    /// Compare an archive with the tenant that it is of.
    #[command(after_help = "Example: tenantry tenant diff acme.tar")]
    Diff {
        /// The archive.
        file: PathBuf,
        #[command(flatten)]
        trust: Trust,
        #[command(flatten)]
        reason: Reason,
    },
}

impl TenantAction {
    /// Whether it may create a tenant, which gets a version of a plan.
    pub fn imports(&self) -> bool {
        matches!(self, Self::Import { .. })
    }
}

/// Other installations whose archives are accepted.
#[derive(Debug, clap::Args)]
pub struct Trust {
    /// The public key of another installation: 64 hexadecimal digits, `signature.public_key` of its manifests.
    #[arg(long = "trust-key", value_name = "HEX", value_parser = key)]
    keys: Vec<Key>,
}

/// A public key.
#[derive(Debug, Clone)]
struct Key(Vec<u8>);

fn key(text: &str) -> Result<Key, String> {
    let bytes = unhex(text).filter(|bytes| bytes.len() == 32);
    bytes
        .map(Key)
        .ok_or_else(|| "must be 64 hexadecimal digits".to_owned())
}

impl Trust {
    fn keys(&self) -> Vec<Vec<u8>> {
        self.keys.iter().map(|key| key.0.clone()).collect()
    }
}

const BECAUSE: SystemScope = SystemScope::because("an archive of a tenant is used on the command line");

/// Maximum time that an archive may be written.
const LONGEST: chrono::Duration = chrono::Duration::hours(12);

impl TenantAction {
    /// Runs the command.
    pub async fn run(&self, app: &Arc<Tenancy>) -> Result<(), CommandError> {
        match self {
            Self::Export { slug, out, reason } => {
                let tenant = find_any(app, slug).await?;
                export(&reason.context(app, BECAUSE)?, &tenant, None, out).await
            }
            Self::Import {
                file,
                how,
                plan,
                yes,
                trust,
                reason,
            } => {
                let cx = reason.context(app, BECAUSE)?;
                import(&cx, file, how, (plan.as_deref(), *yes, trust)).await
            }
            Self::Diff { file, trust, reason } => compare(&reason.context(app, BECAUSE)?, file, trust).await,
        }
    }
}

/// Runs `tenantry export`.
pub async fn run(config: &Configuration, args: &Args) -> Result<(), CommandError> {
    let booted = boot(config)?;
    let Action::Verify { file, trust } = &args.action;
    let done = verify(&booted, file, &trust.keys()).await;
    booted.finish().await;
    done
}

async fn verify(booted: &Booted, file: &Path, trusted: &[Vec<u8>]) -> Result<(), CommandError> {
    let mut source = FileArchiveReader::open(file).await.map_err(failed)?;
    let verified = read::verify(&booted.app, &mut source, trusted)
        .await
        .map_err(failed)?;
    let by = match verified.signer {
        Signer::Own => "this installation",
        Signer::Trusted => "an installation that you trust",
    };
    let manifest = verified.source.manifest();
    for table in &manifest.tables {
        let (name, content, rows) = (&table.name, table.content.as_str(), table.rows);
        console::say(&format!("{name} {content} {rows} rows, {} bytes", table.bytes));
    }
    if let Some(person) = &manifest.person {
        console::say(&format!("of one person: {}", person.id));
    }
    let (slug, at) = (&manifest.tenant.slug, manifest.taken_at.to_rfc3339());
    console::say(&format!(
        "ok: {slug} ({}) at {at}, signed by {by}",
        manifest.tenant.id
    ));
    Ok(())
}

/// Writes the archive of a tenant, or of one person of it, into a file.
pub async fn export(
    operators: &OperatorCx,
    tenant: &Tenant,
    person: Option<&AboutPerson>,
    out: &Path,
) -> Result<(), CommandError> {
    let keys = tenantry_compose::read_keys(operators.app()).await;
    keys.map_err(|error| other(&error))?;
    let sink = FileArchiveWriter::create(out).map_err(failed)?;
    let until = operators.app().ports.clock.now() + LONGEST;
    let shown = Shown::default();
    let show = |progress: &ArchiveProgress| shown.show(progress);
    let written = file_export::export(
        operators,
        BECAUSE,
        Subject { tenant, person },
        Box::new(sink),
        (until, &show),
    );
    let written = written.await;
    let written = written.map_err(failed)?;
    let (rows, tables, bytes) = (written.rows(), written.manifest.tables.len(), written.bytes);
    console::say(&format!(
        "{}: {rows} rows of {tables} tables, {bytes} bytes",
        out.display()
    ));
    Ok(())
}

/// How an archive is imported.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct How {
    /// Create a tenant with this slug. Every row gets a new id. A run that was killed goes on when it is started again.
    #[arg(long, value_name = "SLUG")]
    as_new: Option<String>,
    /// Write what is missing in the tenant of the archive, or differs. Without --yes the differences are only shown.
    #[arg(long)]
    restore: bool,
}

/// Imports an archive.
async fn import(
    operators: &OperatorCx,
    file: &Path,
    how: &How,
    (plan, yes, trust): (Option<&str>, bool, &Trust),
) -> Result<(), CommandError> {
    let app = operators.app();
    let mut source = FileArchiveReader::open(file).await.map_err(failed)?;
    let verified = read::verify(app, &mut source, &trust.keys())
        .await
        .map_err(failed)?;
    let shown = Shown::default();
    let show = |progress: &ArchiveProgress| shown.show(progress);
    let Some(slug) = &how.as_new else {
        let restoration = archive::import::plan_restore(operators, BECAUSE, verified)
            .await
            .map_err(failed)?;
        restoration.diffs.iter().for_each(say);
        let is_equal = !restoration.diffs.iter().any(TableDiff::is_restorable);
        if is_equal {
            console::say("nothing is to be restored");
        }
        if !yes {
            if !is_equal {
                console::say("nothing was written: add --yes to write what is missing or differs");
            }
            return Ok(());
        }
        // Also where nothing is missing: a run that was killed may have left the rest of its work.
        let put = restoration.run(operators, BECAUSE, &show).await.map_err(failed)?;
        console::say(&format!(
            "restored: {} rows inserted, {} changed",
            put.inserted, put.replaced
        ));
        return Ok(());
    };
    let imported = archive::import::as_new(operators, BECAUSE, verified, (slug, plan), &show).await;
    let imported = match imported {
        Ok(imported) => imported,
        Err(error) => return Err(unfinished(app, slug, &error).await),
    };
    let (id, rows) = (imported.tenant.id, imported.put.inserted);
    console::say(&format!("{id} {slug}: {rows} rows imported"));
    Ok(())
}

/// The error of an import, with what to do about a tenant that holds the slug and is not in use.
async fn unfinished(app: &Tenancy, slug: &str, error: &ArchiveError) -> CommandError {
    let named = async {
        let slug = Slug::parse(slug)?;
        let found = app.ports.tenant_rows.tenant_named(BECAUSE, &slug).await;
        found.ok().flatten()
    };
    let is_provisioning = |tenant: &Tenant| tenant.status == TenantStatus::Provisioning;
    if !named.await.as_ref().is_some_and(is_provisioning) {
        return other(error);
    }
    CommandError::Other(format!(
        "{error}; the tenant {slug} is still provisioning: start its import again, or erase the tenant with \
         `tenantry tenant purge {slug} --confirm --reason TEXT`, which frees the slug"
    ))
}

/// Compares an archive with the tenant that it is of.
async fn compare(operators: &OperatorCx, file: &Path, trust: &Trust) -> Result<(), CommandError> {
    let mut source = FileArchiveReader::open(file).await.map_err(failed)?;
    let verified = read::verify(operators.app(), &mut source, &trust.keys())
        .await
        .map_err(failed)?;
    let diffs = diff::diff(operators, BECAUSE, verified).await.map_err(failed)?;
    diffs.iter().for_each(say);
    Ok(())
}

fn say(diff: &TableDiff) {
    let TableDiff {
        table,
        same,
        missing,
        different,
        surplus,
        changes,
    } = diff;
    let kept = if *different > 0 && !changes {
        " (kept: rows are only added)"
    } else {
        ""
    };
    console::say(&format!(
        "{table}: {same} equal, {missing} missing, {different} different{kept}, {surplus} only in the tenant"
    ));
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function of errors")]
fn failed(error: ArchiveError) -> CommandError {
    other(&error)
}

/// Shows the progress a few times a second.
#[derive(Default)]
struct Shown {
    last: Mutex<Option<Instant>>,
}

impl Shown {
    fn show(&self, progress: &ArchiveProgress) {
        let Ok(mut last) = self.last.lock() else { return };
        if last.is_none_or(|last| last.elapsed() >= Duration::from_millis(250)) {
            *last = Some(Instant::now());
            let ArchiveProgress {
                work, table, rows, ..
            } = progress;
            console::progress(&format!("{work} {table}: {rows} rows"));
        }
    }
}
