//! loadgen as a program: how tests run it, and what it needs for that.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program.
pub(crate) const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

/// Short runs.
pub(crate) const SHORT: [&str; 4] = ["--duration", "100ms", "--warmup", "20ms"];

/// Runs it, and waits for its end.
pub(crate) fn loadgen(args: &[&str]) -> Output {
    Command::new(LOADGEN).args(args).output().unwrap()
}

/// It fails with this exit code, and its error, which is returned, says what is needed, in one line
/// or a few.
pub(crate) fn refused(args: &[&str], code: i32, says: &[&str]) -> String {
    let output = loadgen(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    for part in says {
        assert!(stderr.contains(part), "{args:?} should say {part:?}: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?}: nothing is published");
    stderr.into_owned()
}

/// An empty folder of this test's own.
pub(crate) fn folder(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// A models file with the null reference as servers of a user's own: two that pass, one that dies,
/// one that claims the contract and fails it, and one that says that it serves a single connection.
pub(crate) fn models(dir: &Path) -> String {
    let path = dir.join("models.toml");
    let entry = |name: &str, command: &str| {
        format!("[model.{name}]\ncommand = \"{command} {{addr}}\"\nmodes = [\"echo\"]\n")
    };
    // The null reference answers half lines and has no limit.
    let unsupported = |name: &str| {
        format!(
            "[model.{name}.unsupported]\nover-long-line = \"no limit\"\n\
             not-before-asked = \"no lines\"\n"
        )
    };
    let null = format!("{LOADGEN} null-server --listen");
    let text = [
        entry("one", &null),
        unsupported("one"),
        entry("two", &null),
        unsupported("two"),
        entry("dies", "false"),
        entry("strict", &null) + "contract = true\n",
        entry("alone", &null) + "most_connections = 1\n",
        unsupported("alone"),
    ];
    std::fs::write(&path, text.concat()).unwrap();
    path.display().to_string()
}

/// The command of a server that speaks echo, with what `--cmd` fills in.
pub(crate) fn null_server() -> String {
    format!("{LOADGEN} null-server --listen {{addr}}")
}
