//! What is counted and not measured: in the sources of a server, in its captured system calls, and
//! in a bare loop of this program's own that reads once for each event. Nothing of it is noise.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventFlags};
use rustix::io::ioctl_fionread;
use rustix::time::Timespec;

use crate::results::{ClaimPoint, workspace};
use crate::workload::{Experiment, Quantity};

/// Words of a source by which threads or tasks share what is theirs or hand it over.
const SHARING: [&str; 10] = [
    "Mutex", "RwLock", "Condvar", "Atomic", "OnceLock", "Arc::", "Rc::", "RefCell", "mpsc",
    "channel(",
];
/// System calls that move bytes between a socket and a process.
const TRANSFERS: [&str; 4] = ["recvfrom(", "recvmsg(", "read(", "readv("];
/// What a capture says of a call that does not return.
const WAITS: &str = "… waits";

/// Bytes that are written at once to the loop that reads once for each event.
const SENT: usize = 4096;
/// And what that loop reads at once.
const READ: usize = 1024;
/// How long bytes may be on their way over loopback.
const PATIENCE: Duration = Duration::from_secs(5);

/// The one point of an experiment that counts.
pub(super) fn point(experiment: &Experiment) -> Result<ClaimPoint> {
    let of = |server: &str| count(experiment.quantity, server);
    let to = match (&experiment.to, experiment.limit) {
        (Some(to), _) => of(to)?,
        (None, limit) => limit.context("a count is held against another one or a limit")?,
    };
    Ok(ClaimPoint { server: vec![of(&experiment.server)?], to: vec![to], ..ClaimPoint::default() })
}

fn count(quantity: Quantity, server: &str) -> Result<f64> {
    let number = match quantity {
        Quantity::Sharing => sharing(&sources(server)?),
        Quantity::Lines => code(&sources(server)?).count(),
        Quantity::Unsafe => code(&sources(server)?).filter(|l| l.contains("unsafe {")).count(),
        Quantity::WaitsInTransfer => usize::from(waits_in_transfer(&capture(server)?)),
        Quantity::CopiesItself => usize::from(copies_itself(&capture(server)?)),
        Quantity::Unanswered => match server {
            "epoll-edge" => unanswered(EventFlags::IN | EventFlags::ET)?,
            "epoll-level" => unanswered(EventFlags::IN)?,
            _ => bail!("no loop that reads once for each event is like {server}"),
        },
        _ => bail!("it is measured, and not counted"),
    };
    Ok(number as f64)
}

fn file(path: &str) -> Result<PathBuf> {
    let workspace =
        workspace().context("the sources are not here: run loadgen in its workspace")?;
    Ok(workspace.join(path))
}

/// All sources of a server, its tests not among them.
fn sources(server: &str) -> Result<String> {
    let folder = file(&format!("crates/serve-{server}/src"))?;
    let mut text = String::new();
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let whole = read(&path)?;
            text += whole.split("#[cfg(test)]").next().unwrap_or_default();
        }
    }
    Ok(text)
}

/// The system calls of a server for one line, as the book shows them.
fn capture(server: &str) -> Result<String> {
    read(&file(&format!("docs/book/calls/{server}.txt"))?)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Lines that are neither empty nor a comment.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"))
}

/// Lines that name something shared; imports say only where it comes from.
fn sharing(text: &str) -> usize {
    let names = |line: &&str| SHARING.iter().any(|word| line.contains(word));
    code(text).filter(|line| !line.starts_with("use ")).filter(names).count()
}

/// Whether a server waits in the call that brings the bytes.
fn waits_in_transfer(capture: &str) -> bool {
    let transfer = |line: &str| TRANSFERS.iter().any(|call| line.starts_with(call));
    capture.lines().any(|line| line.contains(WAITS) && transfer(line))
}

/// Whether a server fetches the bytes by a call of its own that returns with them.
fn copies_itself(capture: &str) -> bool {
    let fetched = |line: &str| {
        let count = line.rsplit_once(" = ").and_then(|(_, count)| count.trim().parse::<i64>().ok());
        count.is_some_and(|count| count > 0)
    };
    let transfer = |line: &str| TRANSFERS.iter().any(|call| line.starts_with(call));
    capture.lines().any(|line| transfer(line) && fetched(line))
}

/// Bytes that a loop never reads which reads once for each event, until the kernel has no more
/// events for it.
fn unanswered(flags: EventFlags) -> Result<usize> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    client.write_all(&[b'x'; SENT])?;
    await_all(&server)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &server, epoll::EventData::new_u64(0), flags)?;
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut events = Vec::with_capacity(1);
    let mut buffer = [0; READ];
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&at_once))?;
        if events.is_empty() {
            return Ok(ioctl_fionread(&server)? as usize);
        }
        rustix::io::read(&server, &mut buffer)?;
    }
}

/// Waits until all bytes have come, so that they come with one event.
fn await_all(server: &TcpStream) -> Result<()> {
    server.set_read_timeout(Some(PATIENCE))?;
    let mut seen = [0; SENT];
    while server.peek(&mut seen).context("bytes are lost on loopback")? < SENT {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_reads_once_for_each_edge_leaves_bytes_unanswered_and_one_for_levels_does_not() {
        let count = |server| count(Quantity::Unanswered, server).unwrap();
        assert_eq!(count("epoll-edge"), (SENT - READ) as f64);
        assert_eq!(count("epoll-level"), 0.0);
        assert!(super::count(Quantity::Unanswered, "threads").is_err());
    }

    #[test]
    fn who_waits_where_and_who_copies_is_read_from_captures() {
        for (server, waits, copies) in [
            ("threads", true, true),
            ("epoll-level", false, true),
            ("nonblocking", false, true),
            ("uring", false, false),
        ] {
            let capture = capture(server).unwrap();
            assert_eq!(waits_in_transfer(&capture), waits, "{server}");
            assert_eq!(copies_itself(&capture), copies, "{server}");
        }
        assert!(!copies_itself("recvfrom(client, …, 65536, 0, NULL, NULL) = -1 EAGAIN (…)"));
    }

    #[test]
    fn comments_imports_and_tests_share_nothing() {
        let text = "use std::sync::Mutex;\n// A Mutex.\nlet a = Mutex::new(1);\nlet b = 2;\n\n";
        assert_eq!(sharing(text), 1);
        assert_eq!(code(text).count(), 3);
        assert!(count(Quantity::Lines, "threads").unwrap() > 50.0);
        assert!(count(Quantity::Lines, "no-such").is_err());
        assert!(count(Quantity::Cpu, "threads").is_err());
    }
}
