//! Captures the system calls of the models bare: what each does to answer one line.
//!
//! The server runs under strace. A client sends a line and gets it back, twice: what ends in the
//! time after the second line is sent is kept, up to and with the call in which the server waits
//! for the next one.

mod trace;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::project;

/// What is kept begins when the line is sent, and lasts this long: a server that asks again and
/// again is seen doing so, and one that waits is back in its wait.
const WINDOW: Duration = Duration::from_millis(200);

/// A server that does not answer for this long is not waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Captures the calls of these models, or of all, into files that the chapters show.
///
/// # Errors
///
/// When strace is missing, or a server cannot be built, traced or reached.
pub fn keep(models: &[String], terminal: &mut impl Write) -> Result<()> {
    if !has_strace() {
        bail!("strace is missing: install it");
    }
    let all = project::MODELS.map(str::to_owned);
    let models = if models.is_empty() { &all[..] } else { models };
    for model in models {
        let calls = fresh(model)?;
        let path = project::calls(model);
        fs::write(project::root().join(&path), calls).with_context(|| path.clone())?;
        writeln!(terminal, "{path}")?;
    }
    Ok(())
}

/// Whether there is a strace that can trace here.
#[must_use]
pub fn has_strace() -> bool {
    let ran = Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).output();
    ran.is_ok_and(|output| output.status.success())
}

/// The calls of a model as they are today.
///
/// # Errors
///
/// When its server cannot be built, traced or reached.
pub fn fresh(model: &str) -> Result<String> {
    let program = build_bare(model)?;
    let folder = tempfile_folder(model)?;
    let file = folder.join("trace");
    let trace = trace_one_line(&program, &file);
    let text = fs::read_to_string(&file);
    fs::remove_dir_all(&folder)?;
    let (from, to) = trace.with_context(|| program.display().to_string())?;
    Ok(trace::calls(&text?, from, to))
}

fn tempfile_folder(model: &str) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("book-{}-{model}", std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Builds the model bare if it is missing or older than its source. Otherwise Cargo is not asked:
/// it would build all anew, with the features of one package, where tests of all were built before.
fn build_bare(model: &str) -> Result<PathBuf> {
    let root = project::root();
    let name = format!("bare-{model}");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let program = target.join("debug/examples").join(&name);
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    let built = changed(&program);
    let source = changed(&root.join(project::bare(model)));
    if built.is_some() && built >= source {
        return Ok(program);
    }
    let status = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .current_dir(&root)
        .args(["build", "--quiet", "--package", &format!("serve-{model}"), "--example", &name])
        .status()?;
    if !status.success() {
        bail!("{name} cannot be built");
    }
    Ok(program)
}

/// A server under strace, which is ended with all of its processes when this goes.
struct Traced {
    strace: Child,
}

impl Drop for Traced {
    fn drop(&mut self) {
        // strace heeds no signal while it writes to a file: it ends when the server does.
        let strace = self.strace.id();
        let servers = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children"));
        for server in servers.unwrap_or_default().split_whitespace() {
            let _ = Command::new("kill").arg(server).status();
        }
        let _ = self.strace.wait();
    }
}

/// Lets the server answer two lines. Gives when the second one was sent, and when it was over.
fn trace_one_line(program: &Path, file: &Path) -> Result<(f64, f64)> {
    let strace = Command::new("strace")
        .args(["-f", "-qq", "-ttt", "-T", "-yy", "-s", "32", "-o"])
        .arg(file)
        .arg(program)
        .arg("127.0.0.1:0")
        .env("ASYNC_STD_THREAD_COUNT", "1")
        .stdout(Stdio::piped())
        .spawn()
        .context("strace")?;
    let mut traced = Traced { strace };
    let output = traced.strace.stdout.take().context("its output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let address = line.trim().strip_prefix("listening on ").context("it does not listen")?;
    let mut client = TcpStream::connect(address)?;
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(PATIENCE))?;
    say(&mut client, "first\n")?;
    // Not to wait for an event: the server has time to get back into its wait, if it has one.
    thread::sleep(WINDOW);
    let from = now()?;
    say(&mut client, "hello\n")?;
    thread::sleep(WINDOW);
    Ok((from, now()?))
}

fn say(client: &mut TcpStream, line: &str) -> Result<()> {
    client.write_all(line.as_bytes())?;
    let mut answer = vec![0; line.len()];
    client.read_exact(&mut answer)?;
    if answer != line.as_bytes() {
        bail!("another line came back");
    }
    Ok(())
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// The names of the calls in a text that [`fresh`] gave.
#[must_use]
pub fn names(calls: &str) -> Vec<String> {
    let name = |line: &str| {
        let call = line
            .split_once(": ")
            .map_or(line, |(thread, rest)| if thread.contains('(') { line } else { rest });
        call.split_once('(').map(|(name, _)| name.trim().to_owned())
    };
    let mut names: Vec<String> = calls.lines().filter_map(name).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn calls_are_told_by_their_names() {
        let text = "read(client, \"a: b\\n\", 8) = 2\nthread 2: futex(…) = 0\nread(client) = 0\n\
                    … and this again, 3 more times\n";
        assert_eq!(names(text), ["futex", "read"]);
    }
}
