//! `tenantry tombstones`: what is left of tenants that were purged, and purging them again after a backup was restored.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::SystemScope;
use tenantry_domain::tenant::Tombstone;
use tenantry_tenancy::tenant::lifecycle;
use tenantry_tenancy::{OperatorCx, Tenancy};

use crate::boot::boot;
use crate::config::Configuration;
use crate::reason::Reason;
use crate::tenant::{other, settle, told};
use crate::{CommandError, console};

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print the tombstones, one JSON object on a line. Keep them outside of the database, beside its backups.
    #[command(after_help = "Example: tenantry tombstones list > tombstones.ndjson")]
    List,
    /// Purge again what a restored backup brought back: the tenants of the tombstones in the database, and of those in a file.
    #[command(after_help = "Example: tenantry tombstones apply tombstones.ndjson")]
    Apply {
        /// What `tombstones list` printed before the backup was restored.
        file: Option<PathBuf>,
        #[command(flatten)]
        reason: Reason,
    },
}

const BECAUSE: SystemScope = SystemScope::because("tenants that were purged are purged again");

/// Runs the command.
pub async fn run(config: &Configuration, args: &Args) -> Result<(), CommandError> {
    let booted = boot(config)?;
    let stored = booted.app.ports.tenant_rows.tombstones(BECAUSE).await;
    let stored = stored.map_err(|error| other(&error))?;
    match &args.action {
        Action::List => stored
            .iter()
            .try_for_each(|tombstone| print(&booted.app, tombstone))?,
        Action::Apply { file, reason } => {
            let cx = reason.context(&booted.app, BECAUSE)?;
            // A file that does not fit is refused before anything is purged.
            let further = file
                .as_deref()
                .map_or(Ok(Vec::new()), |file| read(&booted.app, file))?;
            let mut purged = 0;
            for tombstone in stored.iter().chain(&further) {
                purged += apply(&cx, tombstone).await?;
            }
            console::say(&format!("purged {purged} tenants that a backup had brought back"));
        }
    }
    booted.finish().await;
    Ok(())
}

/// A tombstone outside of the database.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    tombstone: Tombstone,
    /// The keyed digest of its text, in base64: shows that this installation has written it.
    digest: String,
}

fn print(app: &Tenancy, tombstone: &Tombstone) -> Result<(), CommandError> {
    let digest = app
        .ports
        .seal
        .digest(Tombstone::PLACE, tombstone.text().as_bytes());
    let line = Line {
        tombstone: tombstone.clone(),
        digest: STANDARD.encode(digest),
    };
    let line = serde_json::to_string(&line).map_err(|error| other(&error))?;
    console::say(&line);
    Ok(())
}

fn is_ours(app: &Tenancy, line: &Line) -> bool {
    let digest = STANDARD.decode(&line.digest).ok();
    let digest = digest.and_then(|digest| <[u8; 32]>::try_from(digest).ok());
    let text = line.tombstone.text();
    let is_signed = digest.is_some_and(|digest| {
        app.ports
            .seal
            .is_digest(Tombstone::PLACE, text.as_bytes(), &digest)
    });
    is_signed && line.tombstone.is_intact()
}

fn read(app: &Tenancy, file: &Path) -> Result<Vec<Tombstone>, CommandError> {
    let name = file.display();
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| CommandError::Other(format!("{name}: {error}")))?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let parse = |(index, line): (usize, &str)| {
        let wrong = |problem: String| CommandError::Other(format!("{name}, line {}: {problem}", index + 1));
        let line: Line = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        if !is_ours(app, &line) {
            return Err(wrong(
                "`tombstones list` of this installation has not written this line, or did so with a secret that the \
                 server does not know any more; nothing was purged"
                    .to_owned(),
            ));
        }
        Ok(line.tombstone)
    };
    lines.map(parse).collect()
}

/// Purges the tenant if it is there; how many that are.
async fn apply(cx: &OperatorCx, tombstone: &Tombstone) -> Result<usize, CommandError> {
    let found = cx.app().ports.tenant_rows.tenant(BECAUSE, tombstone.id).await;
    let Some(tenant) = found.map_err(|error| other(&error))? else {
        return Ok(0);
    };
    if tenant.created_at > tombstone.deleted_at {
        return Err(CommandError::Other(format!(
            "tenant {} was created after the tombstone says that it was deleted; it is not purged",
            tenant.id
        )));
    }
    lifecycle::purge_again(cx, tombstone.id).await.map_err(told)?;
    settle(cx.app(), tombstone.id).await?;
    Ok(1)
}
