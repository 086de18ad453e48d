//! What no record, no document and no log may have: passwords, tokens, and what is in files of
//! credentials.

use std::path::Path;

use libtest_mimic::Failed;

use crate::cluster::{Nats, call, folder, logged};
use crate::common::{self, Wrong};
use crate::{SHORT, beside};

/// The password of NATS in this test.
const SECRET: &str = "xyzzy-plugh";

pub(crate) fn secrets_are_kept_nowhere() -> Result<(), Failed> {
    let nats = Nats::start(&["--user", "me", "--pass", SECRET]);
    let dir = folder("secrets");
    std::fs::create_dir_all(&dir)?;
    let addr = common::echo(Wrong::Nothing).to_string();
    let (url, own) = (nats.url_as("me", SECRET), std::process::id().to_string());
    let log = |name: &str| dir.join(format!("{name}.log"));
    let named = |name| ["agent", "--nats", &url, "--name", name];
    let a = logged(&named("a"), &log("a"), "agent a is there");
    let file = beside::models("secrets");
    let stands = [&named("s")[..], &["--serve", "127.0.0.1", "--models-file", &file]].concat();
    let s = logged(&stands, &log("s"), "agent s is there");
    let out = dir.join("record").display().to_string();
    let args = ["run", "--agents", "1", "--addr", &addr, "--pid", &own, "--server-agent", "s"];
    let mut run = call(None, &url, &[&args[..], &["--json", "--out", &out], &SHORT].concat());
    let output = run.output()?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    drop((a, s));
    std::fs::write(dir.join("stdout"), &output.stdout)?;
    std::fs::write(dir.join("stderr"), &output.stderr)?;
    let mut seen = 0;
    search(&dir, &mut seen)?;
    assert!(seen > 8, "{seen} files were looked through");
    // But a reader sees that there was one.
    let host = std::fs::read_to_string(dir.join("record/host.json"))?;
    assert!(host.contains("nats://***@127.77."), "{host}");
    Ok(())
}

pub(crate) fn a_file_of_credentials_is_not_repeated() -> Result<(), Failed> {
    let dir = folder("creds");
    std::fs::create_dir_all(&dir)?;
    let nats = Nats::start(&[]);
    let file = dir.join("creds");
    for text in [SECRET.to_owned(), creds(SECRET)] {
        std::fs::write(&file, text)?;
        let args = ["agent", "--nats-creds", &file.display().to_string()].map(str::to_owned);
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = call(None, &nats.url(), &words).output()?;
        let said = format!("{output:?}");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains(SECRET) && said.contains("creds"), "{said}");
    }
    Ok(())
}

/// A file of credentials whose parts are none.
fn creds(text: &str) -> String {
    let part = |name: &str| format!("-----BEGIN {name}-----\n{text}\n------END {name}------\n");
    part("NATS USER JWT") + &part("USER NKEY SEED")
}

/// Fails if a file of the folder has the secret.
fn search(dir: &Path, seen: &mut u32) -> Result<(), Failed> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            search(&path, seen)?;
            continue;
        }
        *seen += 1;
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        assert!(!text.contains(SECRET), "{}: {text}", path.display());
    }
    Ok(())
}
