//! The program of a model bare, `examples/bare.rs` of a server's package, and how it is built.
//!
//! Cargo builds examples before it runs all tests of a package, but not before those that a filter
//! or `--test` selects. So the first case that needs the program has Cargo build it, if it is
//! missing or older than its source.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::models;

/// Where the source of a package's model bare is, if it has one.
pub(crate) fn source(package: &str) -> PathBuf {
    models::root().join("crates").join(package).join("examples/bare.rs")
}

/// Builds `program`, an example named `bare-MODEL` of the package `serve-MODEL`, if need be.
///
/// # Panics
///
/// When it cannot be built, with what Cargo says.
#[track_caller]
pub(crate) fn build(program: &str) {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build_once(Path::new(program)));
    if let Err(reason) = built {
        panic!("{program} cannot be built: {reason}");
    }
}

fn build_once(program: &Path) -> Result<(), String> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let package = name.replacen("bare-", "serve-", 1);
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    let built = changed(program);
    if built.is_some() && built >= changed(&source(&package)) {
        return Ok(());
    }
    // TARGET/PROFILE/examples/NAME, where the profile `dev` has a directory of another name.
    let mut above = program.ancestors().skip(2);
    let (Some(directory), Some(target)) = (above.next(), above.next()) else {
        return Err("it is not in a target directory".to_owned());
    };
    let profile = directory.file_name().unwrap_or_default().to_string_lossy();
    let profile = if profile == "debug" { "dev" } else { &profile };
    let output = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()))
        .current_dir(models::root())
        .args(["build", "--quiet", "--package", &package, "--example", &name])
        .args(["--profile", profile, "--target-dir"])
        .arg(target)
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
