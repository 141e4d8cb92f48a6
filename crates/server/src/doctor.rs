//! `tenantry doctor`: whether a database keeps its tenants apart; and the guard that asks before serving.

use std::path::{Path, PathBuf};

use tenantry_doctor::{Certificate, Occasion, Options, Report, connect, examine, guard};
use tenantry_domain::Clock as _;
use tenantry_system::SystemClock;

use crate::settings::{Settings, SettingsError};
use crate::sources::Sources;
use crate::{CommandError, console};

/// Which database, and what to say of it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database; DATABASE_URL, else database.url, when absent. Any role will do.
    #[arg(long)]
    url: Option<String>,
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    /// Print one script that mends what was found, instead of the report.
    #[arg(long)]
    fix: bool,
    /// Write certificate.md and certificate.json into this folder as well.
    #[arg(long, value_name = "FOLDER")]
    certificate: Option<PathBuf>,
    /// JSON with the counts of the last test run, for the certificate: a file, or a folder of such files;
    /// target/test-evidence, when that is there, if absent.
    #[arg(long, value_name = "PATH", requires = "certificate")]
    evidence: Option<PathBuf>,
    /// The column that says whose a row is.
    #[arg(long, default_value = "tenant_id")]
    tenant_column: String,
    /// The run-time setting that says whose rows a transaction may touch.
    #[arg(long, default_value = "app.current_tenant")]
    setting: String,
    /// The table with a row for each tenant.
    #[arg(long, default_value = "tenants")]
    tenants_table: String,
    /// The role the application connects as; tenantry_app, else the role of the URL, when absent.
    #[arg(long)]
    role: Option<String>,
    /// Only this schema; may be given several times.
    #[arg(long)]
    schema: Vec<String>,
    /// A further table that is nobody's; may be given several times.
    #[arg(long)]
    global_table: Vec<String>,
    /// A SECURITY DEFINER function that is meant; may be given several times.
    #[arg(long)]
    allow_function: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For a person.
    Human,
    /// For a program.
    Json,
    /// For code scanning.
    Sarif,
}

/// Prints the report, or the script that mends; fails when a check did.
pub async fn run(sources: &Sources, args: &Args) -> Result<(), CommandError> {
    let mut connection = connect(&url(sources, args)?).await.map_err(failed)?;
    let report = examine(&mut connection, &options(args)).await.map_err(failed)?;
    if let Some(folder) = &args.certificate {
        certify(&report, folder, args.evidence.as_deref())?;
    }
    let text = match (args.fix, args.format) {
        (true, _) => report.fix_script(),
        (false, Format::Human) => report.to_human(),
        (false, Format::Json) => pretty(&report.to_json())?,
        (false, Format::Sarif) => pretty(&report.to_sarif())?,
    };
    console::say(text.trim_end());
    if report.passed() {
        return Ok(());
    }
    let failures = report.failures().count();
    Err(CommandError::Other(format!(
        "{failures} checks failed; tenantry doctor --fix prints what mends them"
    )))
}

/// Asks the critical questions as the runtime role, before anything is served.
///
/// # Errors
/// When one fails and the settings do not say to serve anyway; each finding with what mends it.
pub async fn before_serving(settings: &Settings) -> Result<Guarded, CommandError> {
    let mut connection = connect(settings.database.url.reveal()).await.map_err(failed)?;
    let options = Options {
        global_tables: global_tables(&settings.guard.global_tables),
        ..Options::default()
    };
    let report = guard(&mut connection, &options).await.map_err(failed)?;
    if report.passed() {
        return Ok(Guarded::Passed);
    }
    if settings.guard.serve_anyway {
        let findings = findings(&report);
        tracing::error!(
            findings,
            "tenants are NOT kept apart by this database; guard.serve_anyway is set"
        );
        return Ok(Guarded::Overridden);
    }
    Err(CommandError::Other(format!(
        "this database does not keep tenants apart, so nothing is served:\n{}\nmend it (tenantry doctor --fix prints \
         a script), or set TENANTRY__GUARD__SERVE_ANYWAY=true to serve in spite of it",
        findings(&report)
    )))
}

/// What came of the guard's questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarded {
    /// The guarantee holds.
    Passed,
    /// It does not, and the settings say to serve anyway.
    Overridden,
}

impl Guarded {
    /// What readiness says of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Overridden => "overridden",
        }
    }
}

/// The database that the options or the environment name, else that of the settings or of the running demo.
fn url(sources: &Sources, args: &Args) -> Result<String, CommandError> {
    let given = args
        .url
        .clone()
        .or_else(|| std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()));
    if let Some(url) = given {
        return Ok(url);
    }
    let settings = sources.of_database_command()?;
    if settings.database.url.is_empty() {
        let problem = "a PostgreSQL URL is required, or --url, or DATABASE_URL";
        return Err(sources.hinted(SettingsError::invalid("database.url", problem).into()));
    }
    Ok(settings.database.url.reveal().to_owned())
}

fn options(args: &Args) -> Options {
    Options {
        tenant_column: args.tenant_column.clone(),
        setting: args.setting.clone(),
        tenants_table: args.tenants_table.clone(),
        runtime_role: args.role.clone(),
        schemas: args.schema.clone(),
        global_tables: global_tables(&args.global_table),
        allowed_definer_functions: args.allow_function.clone(),
        ..Options::default()
    }
}

fn global_tables(further: &[String]) -> Vec<String> {
    let own = tenantry_migration::GLOBAL_TABLES
        .iter()
        .map(|&table| table.to_owned());
    own.chain(further.iter().cloned()).collect()
}

fn findings(report: &Report) -> String {
    let lines = report.failures().flat_map(|check| {
        check.findings.iter().map(move |finding| {
            let mend = finding
                .mend
                .as_ref()
                .map(|mend| format!("\n    mend: {}", mend.sql()))
                .unwrap_or_default();
            format!(
                "  {} {}: {} {}{mend}",
                check.id, check.title, finding.object.name, finding.found
            )
        })
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn unusable(path: &Path, problem: impl std::fmt::Display) -> CommandError {
    CommandError::Other(format!("{}: {problem}", path.display()))
}

fn read_json(file: &Path) -> Result<serde_json::Value, CommandError> {
    let text = std::fs::read_to_string(file).map_err(|error| unusable(file, error))?;
    serde_json::from_str(&text).map_err(|error| unusable(file, error))
}

/// The JSON files of a folder, by their names.
fn read_folder(folder: &Path) -> Result<serde_json::Value, CommandError> {
    let mut all = serde_json::Map::new();
    for entry in std::fs::read_dir(folder).map_err(|error| unusable(folder, error))? {
        let path = entry.map_err(|error| unusable(folder, error))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            all.insert(name, read_json(&path)?);
        }
    }
    Ok(all.into())
}

fn certify(report: &Report, folder: &Path, evidence: Option<&Path>) -> Result<(), CommandError> {
    let usual = Path::new("target/test-evidence");
    let test_evidence = match evidence.or_else(|| usual.is_dir().then_some(usual)) {
        Some(folder) if folder.is_dir() => Some(read_folder(folder)?),
        Some(file) => Some(read_json(file)?),
        None => None,
    };
    let generated_at = SystemClock::new().now().to_rfc3339();
    let command = "tenantry doctor --certificate <folder>".to_owned();
    let certificate = Certificate::new(
        report,
        Occasion {
            generated_at,
            command,
            test_evidence,
        },
    );
    std::fs::create_dir_all(folder).map_err(|error| unusable(folder, error))?;
    let json = pretty(&certificate.to_json())?;
    for (name, text) in [
        ("certificate.md", certificate.to_markdown()),
        ("certificate.json", json),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| unusable(&path, error))?;
        console::progress(&format!("wrote {}", path.display()));
    }
    Ok(())
}

fn pretty(json: &serde_json::Value) -> Result<String, CommandError> {
    serde_json::to_string_pretty(json).map_err(|error| CommandError::Other(error.to_string()))
}

fn failed(error: tenantry_doctor::DoctorError) -> CommandError {
    CommandError::Other(error.to_string())
}
