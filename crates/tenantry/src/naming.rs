//! The name of the program in its help: a service that embeds the backend has the commands of the stock one under a name of its own.

use clap::builder::StyledStr;
use clap::error::ErrorKind;
use clap::{Command, Error};

/// The name that the texts of this crate have in front of commands.
const STOCK: &str = "tenantry";

/// The command line with the program's name in all of its help.
pub fn named(command: Command, name: &'static str) -> Command {
    texts_named(command.name(name), name)
}

/// An error about missing arguments, whose usage shows nothing else as mandatory: clap adds the options that the environment sets.
pub fn with_usage(command: &Command, error: Error) -> Error {
    let kind = error.kind();
    if kind != ErrorKind::MissingRequiredArgument {
        return error;
    }
    let given = command
        .clone()
        .mut_args(|argument| argument.env(None::<&'static str>));
    let plain = given.try_get_matches().err();
    plain.filter(|plain| plain.kind() == kind).unwrap_or(error)
}

fn texts_named(mut command: Command, name: &str) -> Command {
    if let Some(text) = command.get_about().map(|text| of_program(text, name)) {
        command = command.about(text);
    }
    if let Some(text) = command.get_long_about().map(|text| of_program(text, name)) {
        command = command.long_about(text);
    }
    if let Some(text) = command.get_after_help().map(|text| of_program(text, name)) {
        command = command.after_help(text);
    }
    command
        .mut_args(|mut argument| {
            if let Some(text) = argument.get_help().map(|text| of_program(text, name)) {
                argument = argument.help(text);
            }
            match argument.get_long_help().map(|text| of_program(text, name)) {
                Some(text) => argument.long_help(text),
                None => argument,
            }
        })
        .mut_subcommands(|command| texts_named(command, name))
}

fn of_program(text: &StyledStr, name: &str) -> String {
    replaced(&text.to_string(), name)
}

/// The text with this name in the place of `tenantry` where a command follows it: not in names of roles, databases, files.
fn replaced(text: &str, name: &str) -> String {
    let is_of_name = |c: char| c.is_alphanumeric() || "_-./:@".contains(c);
    let (mut rest, mut renamed) = (text, String::new());
    while let Some(start) = rest.find(STOCK) {
        let (before, after) = (&rest[..start], &rest[start + STOCK.len()..]);
        let alone = !before.ends_with(is_of_name) && after.starts_with([' ', '`']);
        renamed.push_str(before);
        renamed.push_str(if alone { name } else { STOCK });
        rest = after;
    }
    renamed + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_renamed_and_other_names_are_not() {
        for (text, renamed) in [
            (
                "Example: tenantry dev    (a demo)",
                "Example: notes dev    (a demo)",
            ),
            (
                "DATABASE_URL=postgres://tenantry_owner:…@db/tenantry tenantry migrate up",
                "DATABASE_URL=postgres://tenantry_owner:…@db/tenantry notes migrate up",
            ),
            ("for `tenantry migrate` only", "for `notes migrate` only"),
            (
                "postgres://me@db/tenantry \\\n  tenantry serve",
                "postgres://me@db/tenantry \\\n  notes serve",
            ),
            ("as tenantry_app, tenantry.toml", "as tenantry_app, tenantry.toml"),
        ] {
            assert_eq!(replaced(text, "notes"), renamed);
        }
    }
}
