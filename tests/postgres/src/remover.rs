use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// The process that removes a container when its standard input ends.
pub fn remover(id: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", REMOVE, "sh", id]).process_group(0);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Signals of a terminal or of a test runner are not the end of the process that is watched.
const REMOVE: &str =
    "trap '' HUP INT TERM; cat >/dev/null; exec docker rm --force --volumes \"$1\" >/dev/null 2>&1";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A `docker` that writes down its arguments stands in for the engine, which test machines may lack.
    #[test]
    fn container_is_removed_when_its_process_ends_and_by_no_signal() {
        let folder = std::env::temp_dir().join(format!("tenantry-remover-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (docker, called) = (folder.join("docker"), folder.join("called"));
        std::fs::write(
            &docker,
            format!("#!/bin/sh\necho \"$@\" > '{}'\n", called.display()),
        )
        .unwrap();
        std::fs::set_permissions(&docker, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let mut process = remover("c0ffee").env("PATH", path).spawn().unwrap();

        // A byte that goes through shows that the shell has set its traps: `cat` runs after them.
        let mut input = process.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, &[b'x'; 1 << 18]).unwrap();
        let group = format!("-{}", process.id());
        for signal in ["-INT", "-TERM", "-HUP"] {
            assert!(
                Command::new("kill")
                    .args([signal, "--", &group])
                    .status()
                    .unwrap()
                    .success()
            );
        }
        assert!(process.try_wait().unwrap().is_none() && !called.exists());

        drop(input);
        process.wait().unwrap();
        assert_eq!(
            std::fs::read_to_string(&called).unwrap(),
            "rm --force --volumes c0ffee\n"
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
