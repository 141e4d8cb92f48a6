//! `tenantry doctor`: whether a database keeps its tenants apart.

use std::path::{Path, PathBuf};

use tenantry_doctor::{Certificate, Manifest, Occasion, Options, Report, connect, examine, record};
use tenantry_domain::kernel::Clock as _;
use tenantry_persistence::Transport;
use tenantry_system::SystemClock;

use crate::config::ConfigurationError;
use crate::sources::Sources;
use crate::{CommandError, Extension, console};

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
    /// Check the data keys of all tenants as well, with the keys of the configuration: what `tenantry keys check` does.
    #[arg(long, conflicts_with_all = ["url", "fix", "record"])]
    pub(crate) keys: bool,
    /// The column that says whose a row is.
    #[arg(long, default_value = "tenant_id")]
    tenant_column: String,
    /// The run-time setting that says whose rows a transaction may touch.
    #[arg(long, default_value = "app.current_tenant")]
    setting: String,
    /// The table with a row for each tenant.
    #[arg(long, default_value = "tenants")]
    tenants_table: String,
    /// The role the application connects as; tenantry_app, else the role of the URL, when absent. The platform role and the
    /// owner are examined in any case.
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
    /// An object that is meant although no migration makes it, as a finding names it ("schema reports"); may be given
    /// several times.
    #[arg(long, value_name = "OBJECT")]
    allow: Vec<String>,
    /// What the catalogue has to be, as --record wrote it; in a database of Tenantry's, what its migrations make, when absent.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// What the migrations of another service over the same database make, as --record with --beyond-own wrote it; may be given
    /// several times. A server reads guard.catalogues.
    #[arg(long, value_name = "FILE", conflicts_with = "expect")]
    catalogue: Vec<PathBuf>,
    /// Write what the catalogue is into this file, for --expect, and examine nothing. A service that embeds Tenantry writes what its
    /// own migrations make.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["expect", "fix", "certificate"])]
    record: Option<PathBuf>,
    /// With --record: leave out all that the migrations of this program make, so that what other services made is left.
    #[arg(long, requires = "record")]
    beyond_own: bool,
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
    let options = options(sources, args)?;
    if let Some(file) = &args.record {
        let manifest = record(&mut connection, &options).await.map_err(failed)?;
        let recorded = manifest.to_string();
        let facts = match args.beyond_own {
            true => sources.extension.foreign_facts(&recorded),
            false => sources.extension.own_facts(&recorded),
        };
        std::fs::write(file, facts).map_err(|error| unusable(file, error))?;
        console::progress(&format!("wrote {}", file.display()));
        return Ok(());
    }
    let report = examine(&mut connection, &options).await.map_err(failed)?;
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
    Err(CommandError::Other(complaint(&report)))
}

/// How many checks failed, and what to do.
fn complaint(report: &Report) -> String {
    let failed = match report.failures().count() {
        1 => "1 check failed".to_owned(),
        failures => format!("{failures} checks failed"),
    };
    let (findings, program) = (report.findings(), console::program());
    match report.mendable() {
        0 => format!(
            "{failed}; no SQL is known that mends what was found: the report says what to do about each finding"
        ),
        mendable if mendable == findings => {
            format!("{failed}; {program} doctor --fix prints the SQL that mends what was found")
        }
        mendable => format!(
            "{failed}; {program} doctor --fix prints the SQL that mends {mendable} of {findings} findings, and what to do about the others"
        ),
    }
}

/// The database that the options or the environment name, else that of the configuration or of the running demo.
fn url(sources: &Sources, args: &Args) -> Result<String, CommandError> {
    let given = args
        .url
        .clone()
        .or_else(|| std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()));
    if let Some(url) = given {
        Transport::of(&url)
            .map_err(|error| CommandError::Other(format!("--url, or DATABASE_URL: {error}")))?;
        return Ok(url);
    }
    let config = sources.of_database_command()?;
    if config.database.url.is_empty() {
        let problem = "a PostgreSQL URL is required, or --url, or DATABASE_URL";
        return Err(sources.hinted(ConfigurationError::invalid("database.url", problem).into()));
    }
    Ok(config.database.url.reveal().to_owned())
}

fn options(sources: &Sources, args: &Args) -> Result<Options, CommandError> {
    let options = Options {
        tenant_column: args.tenant_column.clone(),
        setting: args.setting.clone(),
        tenants_table: args.tenants_table.clone(),
        runtime_role: args.role.clone(),
        schemas: args.schema.clone(),
        global_tables: global_tables(&args.global_table),
        allowed_definer_functions: definer_functions(&args.allow_function),
        allowed_objects: args.allow.clone(),
        ..Options::default()
    };
    let usual = Options::default();
    let named_like_ours = (&options.tenant_column, &options.setting, &options.tenants_table)
        == (&usual.tenant_column, &usual.setting, &usual.tenants_table);
    let expected = match &args.expect {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|error| unusable(file, error))?;
            let manifest = text.parse::<Manifest>();
            Some(manifest.map_err(|error| unusable(file, error))?)
        }
        None if named_like_ours => Some(migrated(&sources.extension, &args.catalogue)?),
        None => None,
    };
    Ok(Options { expected, ..options })
}

/// What the migrations make: those of the service, and those of other services whose catalogues are in files.
pub fn migrated(extension: &Extension, others: &[PathBuf]) -> Result<Manifest, CommandError> {
    let mut facts = extension.facts();
    for file in others {
        let text = std::fs::read_to_string(file).map_err(|error| unusable(file, error))?;
        text.parse::<Manifest>().map_err(|error| unusable(file, error))?;
        facts.push('\n');
        facts.push_str(&text);
    }
    facts.parse::<Manifest>().map_err(failed)
}

/// The tables of Tenantry's, and further ones, that are no tenant's.
pub fn global_tables(further: &[String]) -> Vec<String> {
    let own = tenantry_migration::GLOBAL_TABLES
        .iter()
        .map(|&table| table.to_owned());
    own.chain(further.iter().cloned()).collect()
}

/// The functions that triggers of Tenantry's tables run as the owner of the tables, and further ones that are allowed.
pub fn definer_functions(further: &[String]) -> Vec<String> {
    let own = tenantry_migration::DEFINER_FUNCTIONS
        .iter()
        .map(|&function| function.to_owned());
    own.chain(further.iter().cloned()).collect()
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
    let command = format!("{} doctor --certificate <folder>", console::program());
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

/// An examination that could not be carried out.
pub fn failed(error: tenantry_doctor::DoctorError) -> CommandError {
    CommandError::Other(error.to_string())
}
