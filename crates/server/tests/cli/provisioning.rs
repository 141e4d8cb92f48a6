//! A tenant whose import has not ended, and archives whose key is distrusted.

use super::lifecycle::Terminal;
use super::{Dev, Folder, output, stderr};

/// Commands that go through all tenants do not end at one that is not in use.
#[test]
fn commands_for_all_tenants_pass_over_one_that_is_provisioning() {
    let folder = Folder::new("provisioning");
    let _dev = Dev::start(&folder.0);
    let terminal = Terminal::new(&folder.0);
    let begin = "WITH begun AS (UPDATE tenants SET status = 'provisioning' WHERE slug = 'acme' RETURNING 1) SELECT count(*)::text FROM begun";
    assert_eq!(terminal.one(begin), "1");
    for command in [
        "keys check",
        "doctor --keys",
        "settings rotate-keys",
        "keys rotate --all-tenants",
        "jobs list",
        "quota reconcile",
        "events rewind --all-tenants --reason test",
        "audit verify",
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let done = output(&arguments, &terminal.config);
        assert!(done.status.success(), "{command}: {}", stderr(&done));
    }
    // Those behind it in the list were done, too.
    let rotated = terminal.run(&["keys", "rotate", "--all-tenants"]);
    assert!(rotated.contains("acme is provisioning"), "{rotated}");
    let sealed = rotated.lines().filter(|line| line.contains(" seals, ")).count();
    let in_use = "SELECT count(*)::text FROM tenants WHERE status = 'active'";
    assert_eq!(sealed.to_string(), terminal.one(in_use));
}

#[test]
fn archive_with_a_distrusted_key_is_refused() {
    let folder = Folder::new("distrusted");
    let _dev = Dev::start(&folder.0);
    let terminal = Terminal::new(&folder.0);
    let file = folder.0.join("acme.tar").to_str().unwrap().to_owned();
    terminal.run(&["tenant", "export", "acme", "--out", &file]);
    let keys = terminal.run(&["keys", "list"]);
    let kid = keys.split(' ').next().unwrap();
    let mut distrusting = terminal.config.to_vec();
    distrusting.push(("TENANTRY__ARCHIVE__DISTRUSTED_KEYS", format!("[\"{kid}\"]")));
    for arguments in [
        &["export", "verify", &file][..],
        &["tenant", "import", &file, "--restore", "--yes"],
        &["tenant", "import", &file, "--as-new", "copy"],
        &["tenant", "diff", &file],
    ] {
        let refused = output(arguments, &distrusting);
        let expected = format!("it is signed with the key {kid}, which the operator distrusts");
        assert!(
            !refused.status.success() && stderr(&refused).contains(&expected),
            "{arguments:?}: {}",
            stderr(&refused)
        );
    }
    terminal.run(&["export", "verify", &file]);
}

/// An import that fails after its tenant was created names the command that frees the slug.
#[test]
fn failed_import_says_how_to_free_its_slug() {
    let folder = Folder::new("failed-import");
    let _dev = Dev::start(&folder.0);
    let terminal = Terminal::new(&folder.0);
    let file = folder.0.join("acme.tar").to_str().unwrap().to_owned();
    terminal.run(&["tenant", "export", "acme", "--out", &file]);
    let refuse = "ALTER TABLE tasks ADD CONSTRAINT tasks_refused CHECK (title = '') NOT VALID; SELECT 'done'";
    assert_eq!(terminal.all(refuse), "done");
    let import = ["tenant", "import", &file, "--as-new", "copy"];
    let failed = output(&import, &terminal.config);
    let purge = ["tenant", "purge", "copy", "--confirm", "--reason", "a test"];
    let named = "the tenant copy is still provisioning: start its import again, or erase the tenant with \
                 `tenantry tenant purge copy --confirm --reason TEXT`";
    assert!(stderr(&failed).contains(named), "{}", stderr(&failed));
    terminal.all("ALTER TABLE tasks DROP CONSTRAINT tasks_refused; SELECT 'done'");
    terminal.run(&purge);
    terminal.run(&import);
    // A refusal before the tenant is created, and one because of another tenant, do not speak of it.
    let taken = output(
        &["tenant", "import", &file, "--as-new", "globex"],
        &terminal.config,
    );
    assert!(!stderr(&taken).contains("provisioning"), "{}", stderr(&taken));
}
