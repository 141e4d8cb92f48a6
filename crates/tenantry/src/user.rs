//! `tenantry user`: what an operator does to users of a tenant from the command line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tenantry_domain::identity::Email;
use tenantry_domain::kernel::{Invalid, Role, SystemScope, counted};
use tenantry_tenancy::identity::address_correction::{self, CorrectionError};
use tenantry_tenancy::identity::mfa::{self, MfaError};
use tenantry_tenancy::identity::user::UserError;
use tenantry_tenancy::identity::user_import::{self, ImportCounts, ImportUser, Imported};
use tenantry_tenancy::{Cx, OperatorCx};

use crate::boot::{Booted, boot};
use crate::config::Configuration;
use crate::reason::Reason;
use crate::tenant::{find, invalid, other};
use crate::{CommandError, console, person};

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create users who move in from another system, with their password hashes. Users of addresses that the tenant has already
    /// are left as they are, so the same file can be imported again. No mail is sent.
    ///
    /// Each line of the file is a JSON object with `email`, `full_name`, `role` (admin, member, viewer) and, where there is
    /// one, `custom_role` (the name of a custom role of the tenant) and `password_hash`: bcrypt, or a PHC string of argon2id,
    /// pbkdf2-sha256, pbkdf2-sha512 or scrypt. It is replaced at the first login. A user without a hash resets the password
    /// before the first login.
    #[command(
        after_help = "Example: tenantry user import --tenant acme --file users.ndjson --verified\n         \
                            {\"email\":\"ada@acme.example\",\"full_name\":\"Ada\",\"role\":\"member\",\
                            \"password_hash\":\"$2b$12$…\"}"
    )]
    Import {
        /// The slug of the tenant.
        #[arg(long)]
        tenant: String,
        /// The file, in UTF-8; `-` reads standard input.
        #[arg(long)]
        file: PathBuf,
        /// The other system has verified the addresses. Otherwise they are unverified.
        #[arg(long)]
        verified: bool,
        #[command(flatten)]
        reason: Reason,
    },
    /// Remove the authenticator app, the recovery codes, the trusted devices and the passkeys of a user, and end their sessions. For a
    /// user who has lost them, or shares them with a thief, and has no other admin to ask. The user gets a mail. Check who asks
    /// before you run it: afterwards the password alone logs in.
    #[command(after_help = "Example: tenantry user reset-mfa --tenant acme --email ada@acme.example")]
    ResetMfa {
        /// The slug of the tenant.
        #[arg(long)]
        tenant: String,
        /// The address of the user.
        #[arg(long)]
        email: String,
        #[command(flatten)]
        reason: Reason,
    },
    /// Give the only admin of a tenant another address, in place of one that was never verified: a mistyped one at sign-up, whose mails nobody
    /// reads. A link to choose a password is mailed to the new address. Check who asks before you run it: that link opens the account.
    #[command(
        after_help = "Example: tenantry user correct-email --tenant acme --email ada@acme.exmaple --to ada@acme.example"
    )]
    CorrectEmail {
        /// The slug of the tenant.
        #[arg(long)]
        tenant: String,
        /// The address of the account, as it is stored.
        #[arg(long)]
        email: String,
        /// The right address.
        #[arg(long)]
        to: String,
        #[command(flatten)]
        reason: Reason,
    },
    /// Write what is stored about one person into a signed archive: of the account with an address, or of the last one that had it. Secrets are not
    /// in it, nor what the audit log tells about others. `export verify` checks it.
    #[command(
        after_help = "Example: tenantry user export --tenant acme --email ada@acme.example --out ada.tar"
    )]
    Export {
        /// The slug of the tenant.
        #[arg(long)]
        tenant: String,
        /// The address of the user.
        #[arg(long)]
        email: String,
        /// The file, which only you can read.
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        reason: Reason,
    },
    /// Erase a person: every account of the tenant that has the address, removed ones included. The accounts become anonymous, their
    /// sessions, factors, keys and memberships go, and entries of the audit log no longer name them. Nothing leads back. A command that was
    /// killed goes on when it is started again, and so does the server.
    #[command(
        after_help = "Example: tenantry user erase --tenant acme --email ada@acme.example --confirm ada@acme.example"
    )]
    Erase {
        /// The slug of the tenant.
        #[arg(long)]
        tenant: String,
        /// The address of the user.
        #[arg(long)]
        email: String,
        /// The address again.
        #[arg(long)]
        confirm: String,
        #[command(flatten)]
        reason: Reason,
    },
}

const BECAUSE: SystemScope = SystemScope::because("a user is administered from the command line");

/// Runs the command.
pub async fn run(config: &Configuration, args: &Args) -> Result<(), CommandError> {
    let booted = boot(config)?;
    let done = match &args.action {
        Action::Import {
            tenant,
            file,
            verified,
            reason,
        } => {
            let cx = reason.context(&booted.app, BECAUSE)?;
            import(&booted, &cx, (tenant, file), *verified).await
        }
        Action::ResetMfa {
            tenant,
            email,
            reason,
        } => reset_mfa(&reason.context(&booted.app, BECAUSE)?, tenant, email).await,
        Action::CorrectEmail {
            tenant,
            email,
            to,
            reason,
        } => correct_email(&reason.context(&booted.app, BECAUSE)?, tenant, (email, to)).await,
        Action::Export {
            tenant,
            email,
            out,
            reason,
        } => {
            let cx = reason.context(&booted.app, BECAUSE)?;
            person::export(&cx, (tenant, email), out).await
        }
        Action::Erase {
            tenant,
            email,
            confirm,
            reason,
        } => {
            let cx = reason.context(&booted.app, BECAUSE)?;
            person::erase(&cx, (tenant, email), confirm).await
        }
    };
    booted.finish().await;
    done
}

async fn reset_mfa(operators: &OperatorCx, slug: &str, email: &str) -> Result<(), CommandError> {
    let email = Email::parse(email, "/email").map_err(|error| invalid(&error))?;
    let tenant = find(operators.app(), slug).await?;
    let because = SystemScope::because("an operator removes the second factor of a user");
    let cx = operators.enter(because, tenant).await;
    let cx = cx.map_err(|error| other(&error))?;
    let reset = mfa::reset_by_operator(operators, &cx, &email).await;
    let reset = reset.map_err(|error| not_reset(&error, slug, &email))?;
    let app = if reset.app { "the app and " } else { "" };
    console::say(&format!(
        "{} has no second factor any more: {app}{} were removed, and all sessions have ended",
        email.as_str(),
        counted(&reset.passkeys, "passkey")
    ));
    Ok(())
}

async fn correct_email(
    operators: &OperatorCx,
    slug: &str,
    (email, to): (&str, &str),
) -> Result<(), CommandError> {
    let email = Email::parse(email, "/email").map_err(|error| invalid(&error))?;
    let to = Email::parse(to, "/to").map_err(|error| invalid(&error))?;
    let tenant = find(operators.app(), slug).await?;
    let because = SystemScope::because("an operator corrects the address of a user");
    let cx = operators.enter(because, tenant).await;
    let cx = cx.map_err(|error| other(&error))?;
    let corrected = address_correction::correct(operators, &cx, &email, &to).await;
    let user = corrected.map_err(|error| match error {
        CorrectionError::Invalid(error) => invalid(&error),
        CorrectionError::NoSuchUser => no_such_user(slug, &email),
        error => other(&error),
    })?;
    console::say(&format!(
        "{} is the address of the account now, and a link to choose a password is mailed to it",
        user.email.as_str()
    ));
    Ok(())
}

fn no_such_user(slug: &str, email: &Email) -> CommandError {
    let email = email.as_str();
    CommandError::Other(format!(
        "the tenant '{slug}' has no user {email}: check the address"
    ))
}

fn not_reset(error: &MfaError, slug: &str, email: &Email) -> CommandError {
    match error {
        MfaError::NoSuchUser => no_such_user(slug, email),
        error => other(error),
    }
}

/// A line of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    email: String,
    full_name: String,
    role: Role,
    #[serde(default)]
    custom_role: Option<String>,
    #[serde(default)]
    password_hash: Option<String>,
}

/// The longest line, in bytes.
const LONGEST_LINE: u64 = 65_536;
/// After how many lines the progress is shown.
const PROGRESS: u64 = 1_000;

async fn import(
    booted: &Booted,
    operators: &OperatorCx,
    (slug, file): (&str, &Path),
    verified: bool,
) -> Result<(), CommandError> {
    booted.plans.preview().await.map_err(|error| other(&error))?;
    let tenant = find(&booted.app, slug).await?;
    let mut reader = open(file).map_err(|error| at_file(file, &error))?;
    let cx = user_import::begin(operators, tenant, verified).await;
    let cx = cx.map_err(|error| other(&error))?;
    let mut counts = ImportCounts::default();
    let done = import_lines(&cx, (file, &mut reader), verified, &mut counts).await;
    say(&counts);
    let error = done.as_ref().err().map(ToString::to_string);
    let recorded = user_import::end(operators, tenant, counts, error.as_deref()).await;
    done.and(recorded.map_err(|error| other(&error)))?;
    if counts.failed > 0 {
        let what = format!(
            "{} not imported: correct the file and import it again",
            counted(&counts.failed, "line")
        );
        return Err(CommandError::Other(what));
    }
    Ok(())
}

async fn import_lines(
    cx: &Cx,
    (file, reader): (&Path, &mut impl BufRead),
    verified: bool,
    counts: &mut ImportCounts,
) -> Result<(), CommandError> {
    let mut number = 0;
    while let Some(line) = next_line(reader).map_err(|error| at_file(file, &error))? {
        number += 1;
        match import_line(cx, &line, verified).await {
            Ok(None) => {}
            Ok(Some(Imported::Created)) => counts.created += 1,
            Ok(Some(Imported::Present)) => counts.present += 1,
            Err(Fault::Line(problem)) => {
                counts.failed += 1;
                console::error(&format!("line {number}: {problem}"));
            }
            Err(Fault::Rest(problem)) => {
                let what =
                    format!("line {number}: {problem}; this line and those after it were not imported");
                return Err(CommandError::Other(what));
            }
        }
        if number % PROGRESS == 0 {
            console::progress(&format!("{number} lines read"));
        }
    }
    Ok(())
}

fn say(counts: &ImportCounts) {
    let ImportCounts {
        created,
        present,
        failed,
    } = counts;
    console::say(&format!(
        "{created} created, {present} already there, {failed} failed"
    ));
}

/// Why a line was not imported.
enum Fault {
    /// Something is wrong with the line.
    Line(String),
    /// The lines after it would fail as well.
    Rest(String),
}

/// Imports one line; `None` for an empty one.
async fn import_line(cx: &Cx, line: &[u8], verified: bool) -> Result<Option<Imported>, Fault> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    if line.len() as u64 > LONGEST_LINE {
        return Err(Fault::Line(format!("is longer than {LONGEST_LINE} bytes")));
    }
    let read = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(line));
    let Line {
        email,
        full_name,
        role,
        custom_role,
        password_hash,
    } = read.map_err(|error| Fault::Line(at_field(&error)))?;
    let user = ImportUser {
        email,
        full_name,
        role,
        custom_role,
        password_hash,
        email_verified: verified,
    };
    match user_import::import(cx, user).await {
        Ok(imported) => Ok(Some(imported)),
        Err(UserError::Invalid(errors)) => Err(Fault::Line(invalid(&errors).to_string())),
        Err(error) => Err(Fault::Rest(error.to_string())),
    }
}

fn at_field(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let path = error.path().to_string();
    let inner = error.inner().to_string();
    if let Some((field, _)) = inner
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split_once('`'))
    {
        return format!("/{field}: is missing");
    }
    if path == "." {
        return inner;
    }
    let field = Invalid::one(format!("/{path}"), "invalid", inner);
    invalid(&field).to_string()
}

fn open(file: &Path) -> std::io::Result<Box<dyn BufRead>> {
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    Ok(Box::new(BufReader::new(File::open(file)?)))
}

/// Reads a line. Of one that is too long no more is kept than shows that.
fn next_line<R: BufRead>(reader: &mut R) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader
        .by_ref()
        .take(LONGEST_LINE + 2)
        .read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') && line.len() as u64 > LONGEST_LINE {
        skip_line(reader)?;
    }
    Ok(Some(line))
}

fn skip_line<R: BufRead>(reader: &mut R) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let (used, done) = match end {
            Some(end) => (end + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        reader.consume(used);
        if done {
            return Ok(());
        }
    }
}

fn at_file(file: &Path, error: &std::io::Error) -> CommandError {
    CommandError::Other(format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_is_read() {
        let long = "x".repeat(200_000);
        let text = format!("one\n{long}\n\ntwo");
        let mut reader = BufReader::new(text.as_bytes());
        let mut lengths = Vec::new();
        while let Some(line) = next_line(&mut reader).unwrap() {
            lengths.push(line.trim_ascii().len());
        }
        assert_eq!(lengths, [3, 65_538, 0, 3]);
    }

    #[test]
    fn a_fault_of_a_line_names_its_field() {
        let read = |text: &str| {
            let mut json = serde_json::Deserializer::from_str(text);
            let read: Result<Line, _> = serde_path_to_error::deserialize(&mut json);
            read.map(|_| ()).map_err(|error| at_field(&error)).unwrap_err()
        };
        let wrong = read(r#"{"email":1,"full_name":"A","role":"member"}"#);
        assert!(wrong.starts_with("/email: invalid type"), "{wrong}");
        let wrong = read(r#"{"email":"a@b.example","full_name":"A","role":"owner"}"#);
        assert!(wrong.starts_with("/role: must be one of"), "{wrong}");
        let wrong = read(r#"{"email":"a@b.example","role":"member"}"#);
        assert_eq!(wrong, "/full_name: is missing");
        let wrong = read(r#"{"email":"a@b.example","full_name":"A","role":"member","admin":true}"#);
        assert!(wrong.contains("unknown field `admin`"), "{wrong}");
        assert!(read("nonsense").contains("expected"));
    }
}
