//! `tenantry dev`: everything on this machine.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tenantry_devdb::{Cluster, ClusterOptions, Durability};
use tenantry_domain::identity::PasswordHasher as _;
use tenantry_domain::kernel::Clock;
use tenantry_migration::{Bootstrap, RolePasswords};
use tenantry_stripe_fake::{FakeConfig, StripeFake};
use tenantry_system::{Argon2Passwords, PasswordCost, SystemClock};

use crate::boot::{self, Overrides, compose};
use crate::config::{self, Configuration, ConfigurationError, Profile, Secret};
use crate::console::progress;
use crate::demo::Claim;
use crate::demo_payments::{self, FakeTime};
use crate::extension::Schema;
use crate::guard::Guard;
use crate::migrate::database_of;
use crate::serve::{self, StopSignals};
use crate::sources::Sources;
use crate::tenant::other;
use crate::{CommandError, console, log, seed};

/// Where, and with what.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Bring everything up, then end: for a look at the messages, and for tests.
    #[arg(long)]
    check: bool,
    /// With DATABASE_URL: give the tenantry roles of that server the passwords kept in the data folder.
    #[arg(long)]
    reset_role_passwords: bool,
    /// Whom tenants pay: `fake` starts a fake of Stripe beside the server.
    #[arg(long, value_name = "WHO")]
    stripe: Option<Stripe>,
}

/// What stands in for Stripe.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Stripe {
    /// A stand-in on a free port, with a clock that can be moved.
    Fake,
}

/// Starts the database, makes roles, schema and demo, and serves until it is told to stop.
pub async fn run(sources: &Sources, args: &Args) -> Result<(), CommandError> {
    let mut config = sources.load(Profile::Development)?;
    log::init(&config.log, &config.tracing);
    let data_dir = &sources.data_dir;
    std::fs::create_dir_all(data_dir).map_err(|error| unusable(data_dir, &error))?;
    let claim = Claim::of(data_dir)?;
    let key = data_dir.join("signing-key.pem");
    if config.auth.signing_key.is_empty() && config.auth.signing_key_file.is_none() {
        boot::development_key(&key)?;
        config.auth.signing_key_file = Some(key);
    }
    if config.archive.directory.as_os_str().is_empty() {
        config.archive.directory = data_dir.join("exports");
    }
    if config.metering.spool_dir.as_os_str().is_empty() {
        config.metering.spool_dir = data_dir.join("usage");
    }
    if let Some(url) = given("REDIS_URL") {
        config.redis.url = Secret::new(url);
    }
    let stripe = match args.stripe {
        Some(Stripe::Fake) => Some(start_fake(&mut config, data_dir)?),
        None => None,
    };
    let existing = existing_server(&config);
    let cluster = match &existing {
        Some(_) => None,
        None => Some(start_cluster(data_dir).await?),
    };
    let database = (existing, cluster.as_ref());
    let outcome = bring_up(&mut config, (sources, args), database, stripe.as_ref(), &claim).await;
    if let Some(cluster) = &cluster {
        progress("stopping PostgreSQL");
        cluster.stop().await?;
    }
    outcome
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

/// The server that the user has, as its administrator.
fn existing_server(config: &Configuration) -> Option<String> {
    given("DATABASE_URL").or_else(|| {
        let url = &config.database.admin_url;
        (!url.is_empty()).then(|| url.reveal().to_owned())
    })
}

fn given(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

async fn start_cluster(data_dir: &Path) -> Result<Cluster, CommandError> {
    progress("starting PostgreSQL");
    let options = ClusterOptions {
        data_dir: data_dir.join("postgres"),
        durability: Durability::Durable,
    };
    let cluster = Cluster::start(options).await?;
    progress(&format!("PostgreSQL is up on 127.0.0.1:{}", cluster.port()));
    Ok(cluster)
}

async fn bring_up(
    config: &mut Configuration,
    (sources, args): (&Sources, &Args),
    (existing, cluster): (Option<String>, Option<&Cluster>),
    stripe: Option<&StripeFake>,
    claim: &Claim,
) -> Result<(), CommandError> {
    let ours = cluster.map(|cluster| cluster.admin_url("postgres"));
    let (admin_url, database) = match (existing, ours) {
        (Some(url), _) => {
            let named = database_of(&url).to_owned();
            (
                url,
                if named.is_empty() {
                    "tenantry".to_owned()
                } else {
                    named
                },
            )
        }
        (None, Some(url)) => (url, "tenantry".to_owned()),
        (None, None) => return Err(CommandError::Other("no database to work with".into())),
    };
    let passwords = role_passwords(&sources.data_dir)?;
    let reset_passwords = cluster.is_some() || args.reset_role_passwords;
    prepare(
        &admin_url,
        &database,
        &passwords,
        reset_passwords,
        sources.extension.schema,
    )
    .await?;
    config.database.url = role_url(&admin_url, "tenantry_app", &passwords.app, &database)?;
    config.database.platform_url = role_url(&admin_url, "tenantry_platform", &passwords.platform, &database)?;
    config.database.owner_url = role_url(&admin_url, "tenantry_owner", &passwords.owner, &database)?;
    let listener = serve::free_port(&config.server)?;
    let address = listener
        .local_addr()
        .map_err(|error| CommandError::Other(error.to_string()))?;
    let address = format!("http://{address}");
    lead_here(config, &format!("{address}/"));
    config.validate()?;
    let clock = stripe.map(|fake| Arc::new(FakeTime(fake.clock())) as Arc<dyn Clock>);
    let overrides = Overrides {
        payment_clock: clock,
        ..Overrides::default()
    };
    let booted = compose(config, overrides)?;
    booted.plans.sync(&booted).await.map_err(|error| other(&error))?;
    if stripe.is_some() {
        demo_payments::prepare(&booted).await?;
    }
    seed::seed(&booted.app).await?;
    let guard = Guard::before_serving(config).await?;
    claim.publish(&address, config)?;
    let stop = StopSignals::listen()?;
    welcome(&address, sources);
    if let Some(fake) = stripe {
        fake.webhook_to(&format!("{address}/webhooks/stripe"), FAKE_WEBHOOK_SECRET);
        present(fake);
    }
    if args.check {
        return Ok(());
    }
    if let Some(fake) = stripe {
        demo_payments::follow(Arc::clone(&booted.app), fake.clock());
    }
    serve::serve(config, booted, guard, (listener, stop)).await
}

/// Where people use the product and come back to is this server, unless the configuration says otherwise.
fn lead_here(config: &mut Configuration, address: &str) {
    if config.mail.app_url == config::Mail::default().app_url {
        address.clone_into(&mut config.mail.app_url);
    }
    if config.billing.return_url == config::Billing::default().return_url {
        address.clone_into(&mut config.billing.return_url);
    }
}

/// What the stand-in signs webhooks with.
const FAKE_WEBHOOK_SECRET: &str = "whsec_fake";

/// Starts the fake of Stripe with what it had at its last start over this data, and lets the configuration lead to it.
fn start_fake(config: &mut Configuration, data_dir: &Path) -> Result<StripeFake, CommandError> {
    let fake = StripeFake::start(FakeConfig {
        secret_key: config::Stripe::FAKE_KEY.into(),
        now: SystemClock::new().now(),
        runs: true,
        journal: Some(data_dir.join("stripe-fake.jsonl")),
        ..FakeConfig::default()
    });
    let fake = fake.map_err(|error| CommandError::Other(format!("the stand-in for Stripe: {error}")))?;
    config.billing.stripe = config::Stripe {
        secret_key: Secret::new(config::Stripe::FAKE_KEY.into()),
        webhook_secrets: vec![Secret::new(FAKE_WEBHOOK_SECRET.into())],
        api_base: fake.url().to_owned(),
        ..config.billing.stripe.clone()
    };
    Ok(fake)
}

/// Says where the stand-in for Stripe is, and what can be done with it.
fn present(fake: &StripeFake) {
    let url = fake.url();
    let lines = [
        String::new(),
        format!("A stand-in for Stripe is at {url}   (what it can do: curl -s {url}/_fake)"),
        format!("  curl -s {url}/_fake/clock/advance -d days=31     (periods end, invoices are collected)"),
        format!("  curl -s {url}/_fake/customers/cus_…/card -d card=declines"),
        format!("  curl -s {url}/_fake/fail -d failure=timeout_after_effect -d path=/v1/subscriptions"),
    ];
    console::say(&lines.join("\n"));
}

async fn prepare(
    admin_url: &str,
    database: &str,
    passwords: &StoredPasswords,
    reset_passwords: bool,
    schema: Schema,
) -> Result<(), CommandError> {
    let bootstrap = Bootstrap {
        admin_url: admin_url.to_owned(),
        database: database.to_owned(),
        passwords: RolePasswords {
            owner: passwords.owner.clone(),
            app: passwords.app.clone(),
            platform: passwords.platform.clone(),
        },
        reset_passwords,
    };
    tenantry_migration::bootstrap(&bootstrap).await?;
    let owner = role_url(admin_url, "tenantry_owner", &passwords.owner, database)?;
    let applied = (schema.up)(owner.reveal().to_owned(), None)
        .await
        .map_err(|error| {
            let hint = "when the roles tenantry_* have other passwords here, add --reset-role-passwords";
            CommandError::Other(if reset_passwords {
                error.to_string()
            } else {
                format!("{error} ({hint})")
            })
        })?;
    if !applied.is_empty() {
        progress(&format!("applied {} migrations", applied.len()));
    }
    Ok(())
}

/// The roles' passwords, made once and kept beside the data.
#[derive(Serialize, Deserialize)]
struct StoredPasswords {
    owner: String,
    app: String,
    platform: String,
}

fn role_passwords(data_dir: &Path) -> Result<StoredPasswords, CommandError> {
    let path = data_dir.join("roles.json");
    if let Ok(text) = std::fs::read_to_string(&path) {
        let problem = |error| CommandError::Other(format!("{}: {error}; remove the file", path.display()));
        return serde_json::from_str(&text).map_err(problem);
    }
    let source = Argon2Passwords::new(PasswordCost::default(), 1, 1);
    let generate = || source.generate().reveal().to_owned();
    let made = StoredPasswords {
        owner: generate(),
        app: generate(),
        platform: generate(),
    };
    let text = serde_json::to_string(&made).map_err(|error| CommandError::Other(error.to_string()))?;
    write_private(&path, &text).map_err(|error| unusable(&path, &error))?;
    Ok(made)
}

/// The administrator's URL with another user, password and database; host, port and parameters stay.
fn role_url(
    admin_url: &str,
    role: &str,
    password: &str,
    database: &str,
) -> Result<Secret, ConfigurationError> {
    let invalid =
        || ConfigurationError::invalid("database.admin_url", "must be postgres://user@host/database");
    let (scheme, rest) = admin_url.split_once("://").ok_or_else(invalid)?;
    let (authority, tail) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let parameters = tail
        .split_once('?')
        .map(|(_, parameters)| format!("?{parameters}"))
        .unwrap_or_default();
    Ok(Secret::new(format!(
        "{scheme}://{role}:{password}@{host}/{database}{parameters}"
    )))
}

fn welcome(address: &str, sources: &Sources) {
    let mut lines = vec![
        String::new(),
        format!("Tenantry is at {address}   (API document: {address}/docs/)"),
        String::new(),
        "Demo users, each with the password demo-password:".to_owned(),
    ];
    for (slug, name, plan) in seed::TENANTS {
        lines.push(format!(
            "  {name} ({plan}): admin@{slug}.example, member@{slug}.example, viewer@{slug}.example"
        ));
    }
    lines.push(format!("  The platform's operator: {}", seed::OPERATOR));
    let (password, program) = (seed::PASSWORD, console::program());
    lines.extend([
        String::new(),
        "Try:".to_owned(),
        format!(
            "  TOKEN=$(curl -s {address}/api/v1/auth/login -H 'Content-Type: application/json' \
             -d '{{\"tenant_slug\":\"acme\",\"email\":\"admin@acme.example\",\"password\":\"{password}\"}}' \
             | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')"
        ),
        format!("  curl -s {address}/api/v1/tasks?limit=3 -H \"Authorization: Bearer $TOKEN\""),
        format!("  curl -si {address}/api/v1/tenant -H \"Authorization: Bearer $TOKEN\" -H 'X-Tenant-Slug: globex'"),
        format!(
            "  curl -s {address}/api/v1/admin/login -H 'Content-Type: application/json' \
             -d '{{\"email\":\"{}\",\"password\":\"{password}\"}}'   (its token is for /api/v1/admin/tenants)",
            seed::OPERATOR
        ),
        String::new(),
        format!("In another terminal, this line makes `{program}` work on the demo (then try: {program} doctor):"),
        format!("  {}", for_another_terminal(sources)),
        String::new(),
        "Ctrl-C stops everything.".to_owned(),
    ]);
    console::say(&lines.join("\n"));
}

/// The shell command after which `tenantry` is this program, and works on this demo from any folder.
fn for_another_terminal(sources: &Sources) -> String {
    let folder = std::env::current_exe().unwrap_or_default();
    let folder = folder.parent().unwrap_or(Path::new(""));
    let quoted = |path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
    };
    let config_dir = sources.config_dir.as_deref().unwrap_or(Path::new("config"));
    // Without a folder the configuration that is compiled in applies, wherever the command is given.
    let config = match config_dir.join("development.toml").is_file() {
        true => format!(" TENANTRY_CONFIG_DIR={}", quoted(config_dir)),
        false => String::new(),
    };
    format!(
        "export PATH={}:\"$PATH\" TENANTRY_PROFILE=development TENANTRY_DATA_DIR={}{config}",
        quoted(folder),
        quoted(&sources.data_dir),
    )
}

fn unusable(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::Other(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_takes_the_administrators_place_in_the_url() {
        let url = role_url(
            "postgres://root:pw@db:5433/other?sslmode=require",
            "tenantry_app",
            "x",
            "tenantry",
        );
        assert_eq!(
            url.unwrap().reveal(),
            "postgres://tenantry_app:x@db:5433/tenantry?sslmode=require"
        );
        let url = role_url("postgres://db", "tenantry_app", "x", "tenantry");
        assert_eq!(url.unwrap().reveal(), "postgres://tenantry_app:x@db/tenantry");
    }

    #[test]
    fn the_database_is_what_stands_between_host_and_parameters() {
        assert_eq!(
            database_of("postgres://root:pw@db:5433/other?sslmode=require"),
            "other"
        );
        assert_eq!(database_of("postgres://root:pw@db:5433"), "");
    }
}
