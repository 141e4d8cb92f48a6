//! `tenantry operator`: those who run the platform, from the command line of the server.

use std::io::BufRead as _;

use chrono::SecondsFormat;
use tenantry_domain::kernel::SystemScope;
use tenantry_domain::operations::{Operator, OperatorChanges, OperatorRole};
use tenantry_tenancy::admin::operator::{self, CreatedOperator, NewOperator, OperatorError};
use tenantry_tenancy::admin::operator_mfa;
use tenantry_tenancy::{OperatorCx, Precondition, Tenancy};

use crate::boot::boot;
use crate::config::Configuration;
use crate::reason::Reason;
use crate::tenant::other;
use crate::{CommandError, console};

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Add an operator; prints the generated password, once. The password expires after 7 days, unless the operator changes it.
    #[command(
        after_help = "Example: tenantry operator create --email olga@example.com --name 'Olga Operator' --role support\n         \
                      pass show tenantry | tenantry operator create --email olga@example.com --name Olga \
                      --role owner --password-stdin"
    )]
    Create {
        /// E-mail address of the operator.
        #[arg(long)]
        email: String,
        /// Name of the operator.
        #[arg(long)]
        name: String,
        /// What the operator may do: support, billing or owner.
        #[arg(long, value_parser = role)]
        role: OperatorRole,
        /// Take the password from the first line of standard input instead of generating one.
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        reason: Reason,
    },
    /// Replace an operator's password and end their tokens; prints the generated password, once. It expires after 7 days, unless the operator changes it.
    #[command(
        after_help = "Example: tenantry operator reset-password olga@example.com\n         \
                      pass show tenantry | tenantry operator reset-password olga@example.com --password-stdin"
    )]
    ResetPassword {
        /// E-mail address of the operator.
        email: String,
        /// Take the password from the first line of standard input instead of generating one.
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        reason: Reason,
    },
    /// Remove the second factor of an operator who has lost it, and end the operator's tokens.
    #[command(after_help = "Example: tenantry operator reset-mfa olga@example.com")]
    ResetMfa {
        /// E-mail address of the operator.
        email: String,
        #[command(flatten)]
        reason: Reason,
    },
    /// Change what an operator may do.
    #[command(after_help = "Example: tenantry operator set-role olga@example.com --role support")]
    SetRole {
        /// E-mail address of the operator.
        email: String,
        /// support, billing or owner.
        #[arg(long, value_parser = role)]
        role: OperatorRole,
        #[command(flatten)]
        reason: Reason,
    },
    /// List all operators: id, address, role, state, name.
    #[command(after_help = "Example: tenantry operator list")]
    List,
    /// Deactivate an operator and end their tokens.
    #[command(after_help = "Example: tenantry operator deactivate olga@example.com")]
    Deactivate {
        /// E-mail address of the operator.
        email: String,
        #[command(flatten)]
        reason: Reason,
    },
    /// Activate an operator who was deactivated; password and second factor are the former ones.
    #[command(after_help = "Example: tenantry operator activate olga@example.com")]
    Activate {
        /// E-mail address of the operator.
        email: String,
        #[command(flatten)]
        reason: Reason,
    },
}

/// Runs the command.
pub async fn run(config: &Configuration, args: &Args) -> Result<(), CommandError> {
    let booted = boot(config)?;
    let app = &booted.app;
    match &args.action {
        Action::Create {
            email,
            name,
            role,
            password_stdin,
            reason,
        } => {
            let cx = reason.context(app, BECAUSE)?;
            let new = NewOperator {
                email: email.clone(),
                full_name: name.clone(),
                role: *role,
                password: given(*password_stdin)?,
                is_own_password: false,
            };
            say_with_password(&operator::create(&cx, new).await.map_err(told)?);
        }
        Action::SetRole { email, role, reason } => {
            set_role(&reason.context(app, BECAUSE)?, email, *role).await?;
        }
        Action::ResetPassword {
            email,
            password_stdin,
            reason,
        } => {
            let cx = reason.context(app, BECAUSE)?;
            let password = given(*password_stdin)?;
            let id = operator::id_of(&cx, email).await.map_err(told)?;
            say_with_password(&operator::reset_password(&cx, id, password).await.map_err(told)?);
        }
        Action::ResetMfa { email, reason } => {
            let cx = reason.context(app, BECAUSE)?;
            let id = operator::id_of(&cx, email).await.map_err(told)?;
            say(&operator_mfa::reset(&cx, id).await.map_err(told)?);
        }
        Action::List => list(app).await?,
        Action::Deactivate { email, reason } => {
            let cx = reason.context(app, BECAUSE)?;
            say(&operator::deactivate(&cx, email).await.map_err(told)?);
        }
        Action::Activate { email, reason } => {
            let cx = reason.context(app, BECAUSE)?;
            say(&operator::activate(&cx, email).await.map_err(told)?);
        }
    }
    booted.finish().await;
    Ok(())
}

const BECAUSE: SystemScope = SystemScope::because("operators are administered from the command line");

async fn set_role(cx: &OperatorCx, email: &str, role: OperatorRole) -> Result<(), CommandError> {
    let changes = OperatorChanges {
        role: Some(role),
        ..OperatorChanges::default()
    };
    let id = operator::id_of(cx, email).await.map_err(told)?;
    let changed = operator::change(cx, id, &Precondition::None, &changes).await;
    say(&changed.map_err(told)?);
    Ok(())
}

async fn list(app: &Tenancy) -> Result<(), CommandError> {
    let because = SystemScope::because("operators are listed from the command line");
    let operators = app.ports.operators.list(because).await;
    operators.map_err(|error| other(&error))?.iter().for_each(say);
    Ok(())
}

fn role(text: &str) -> Result<OperatorRole, String> {
    let names = OperatorRole::ALL.map(OperatorRole::as_str);
    OperatorRole::parse(text).ok_or_else(|| format!("must be one of {}", names.join(", ")))
}

/// The password from standard input, where that is asked for.
fn given(password_stdin: bool) -> Result<Option<String>, CommandError> {
    password_stdin.then(first_line).transpose()
}

fn first_line() -> Result<String, CommandError> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| CommandError::Other(format!("--password-stdin: {error}")))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn say_with_password(created: &CreatedOperator) {
    say(&created.operator);
    if let Some(expires_at) = created.operator.password_expires_at {
        let expires_at = expires_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        console::say(&format!(
            "the password expires at {expires_at}; change it before with POST /api/v1/admin/change-password"
        ));
    }
    if let Some(password) = &created.generated_password {
        console::say(&format!("password {}", password.reveal()));
    }
}

fn say(operator: &Operator) {
    let state = if operator.is_active {
        "active"
    } else {
        "deactivated"
    };
    console::say(&format!(
        "{} {} {} {state} {}",
        operator.id,
        operator.email.as_str(),
        operator.role.as_str(),
        operator.full_name
    ));
}

fn told(error: OperatorError) -> CommandError {
    match error {
        OperatorError::Invalid(invalid) => crate::tenant::invalid(&invalid),
        OperatorError::NotFound => CommandError::Other(format!(
            "there is no operator with this address: see {} operator list",
            console::program()
        )),
        error @ (OperatorError::InvalidCredentials
        | OperatorError::FactorRequired(_)
        | OperatorError::InvalidToken
        | OperatorError::WrongCode
        | OperatorError::WrongPassword
        | OperatorError::Locked(_)
        | OperatorError::AlreadyEnabled
        | OperatorError::FactorNeeded
        | OperatorError::NotEnrolled
        | OperatorError::Refused(_)
        | OperatorError::Stale(_)
        | OperatorError::OwnFactor
        | OperatorError::LastOwner
        | OperatorError::EmailTaken
        | OperatorError::Password(_)
        | OperatorError::Store(_)) => other(&error),
    }
}
