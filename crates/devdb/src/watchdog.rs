use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::server::Server;
use crate::{DevDbError, Durability};

/// Spawns the processes that wait for the end of this one.
///
/// The first runs as the server's user, waits for its standard input to end and stops the server; the
/// second runs as this process's user, waits for the first and removes what this process made. The first
/// one's input is a pipe whose other end only this process holds: the system closes it whether the process
/// returns, panics or is killed.
pub(crate) fn arm(server: &Server, fresh: bool) -> Result<(), DevDbError> {
    let remove = fresh && server.durability == Durability::Throwaway;
    let (input, stopped) = spawn_stopper(server, remove)?;
    if let Some(stopped) = stopped {
        spawn_remover(server, stopped)?;
    }
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push(input);
    Ok(())
}

/// Never emptied, because dropping an end of a pipe is the signal.
static HELD: Mutex<Vec<ChildStdin>> = Mutex::new(Vec::new());

/// Signals of a terminal or of a test runner are not the end of the process that is watched.
const STOP: &str =
    "trap '' HUP INT TERM; cat >/dev/null; exec \"$1\" stop --silent --mode=\"$2\" --pgdata \"$3\"";
const REMOVE: &str = "trap '' HUP INT TERM; cat >/dev/null; rm -rf -- \"$@\"";
/// The folder itself goes only when it was made by us, and by `rmdir`, so that nobody else's file goes.
const REMOVE_WITH_FOLDER: &str =
    "folder=$1; shift; trap '' HUP INT TERM; cat >/dev/null; rm -rf -- \"$@\"; rmdir -- \"$folder\"";

fn spawn_stopper(server: &Server, piped: bool) -> Result<(ChildStdin, Option<ChildStdout>), DevDbError> {
    let mode = match server.durability {
        Durability::Durable | Durability::Tuned => "fast",
        Durability::Throwaway => "immediate",
    };
    let mut command = server.folder.account.command("sh");
    command
        .args(["-c", STOP, "sh"])
        .arg(server.binaries.join("pg_ctl"))
        .arg(mode);
    command.arg(server.folder.cluster());
    command.stdin(Stdio::piped()).stderr(Stdio::null());
    command.stdout(if piped { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().map_err(no_shell)?;
    let input = child
        .stdin
        .take()
        .ok_or_else(|| no_shell(std::io::ErrorKind::BrokenPipe.into()))?;
    Ok((input, child.stdout.take()))
}

fn spawn_remover(server: &Server, stopped: ChildStdout) -> Result<(), DevDbError> {
    let folder = &server.folder;
    let mut command = Command::new("sh");
    command
        .current_dir("/")
        .process_group(0)
        .stdin(stopped)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if folder.created {
        command.args(["-c", REMOVE_WITH_FOLDER, "sh"]).arg(&folder.root);
    } else {
        command.args(["-c", REMOVE, "sh"]);
    }
    command.args(folder.contents());
    command.spawn().map(drop).map_err(no_shell)
}

fn no_shell(source: std::io::Error) -> DevDbError {
    DevDbError::Program {
        program: "sh".to_owned(),
        source,
    }
}
