//! The short gate: what a server must get right before it is worth a number.
//!
//! It has two tiers. What every server *must* do is to give lines back: on several connections at
//! once, of several sizes, in any split, whole, in order, to the client that sent them, and nothing
//! else. A server that fails there is not ranked. The rest of the protocol is the *contract*, which
//! the workspace's servers and the peers keep. Of any other server it is tried, and what it lacks
//! is shown beside its numbers.
//!
//! The conformance suite in `tests/` is the long one. This gate needs no knowledge of the server
//! but its address, takes well under a second where all is right, and speaks plain blocking sockets
//! with deadlines.

mod chat;
mod echo;
mod finding;
mod peer;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Result;

use crate::workload::Mode;
use chat::Guest;
use peer::{ask, connect};

pub use finding::{CaseResult, Finding, Lack, Tier};

/// Where a server is to be had, and what opens it.
#[derive(Clone, Debug)]
pub struct Door {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What PASS is to say before a registration, if it is to be sent.
    pub password: Option<String>,
}

/// One thing that is tried.
struct Case {
    name: &'static str,
    tier: Tier,
    /// What a server lacks that fails it, in words.
    what: &'static str,
    run: fn(&Door) -> Result<()>,
}

const fn must(name: &'static str, what: &'static str, run: fn(&Door) -> Result<()>) -> Case {
    Case { name, tier: Tier::Must, what, run }
}

const fn contract(name: &'static str, what: &'static str, run: fn(&Door) -> Result<()>) -> Case {
    Case { name, tier: Tier::Contract, what, run }
}

/// The cases that need two clients at the same time.
pub(crate) const NEED_TWO: [&str; 6] = [
    "no-crossing",
    "nothing-else",
    "not-before-asked",
    "chat-nick-in-use",
    "chat-message",
    "chat-quit",
];

/// What the gate has to say about a server that stopped like this, if anything.
pub fn stopped(complaint: Option<String>, held: bool) -> Option<Finding> {
    let result = CaseResult::failed(Tier::Contract, held, complaint?);
    Some(Finding { case: "stop", tier: Tier::Contract, what: "clean stop", result })
}

/// What a server lacks of the contract, of all that was found in `mode`.
pub fn lacks(findings: &[Finding], mode: Mode) -> Vec<Lack> {
    let lack = |finding: &Finding| match &finding.result {
        CaseResult::Lacks(why) => Some(Lack {
            mode,
            what: finding.what.to_owned(),
            case: finding.case.to_owned(),
            why: why.clone(),
        }),
        _ => None,
    };
    findings.iter().filter_map(lack).collect()
}

/// Runs every case of a mode against `door`, a server that is `held` to the contract or is not. If
/// it is not, and fails what every server must do, the contract is not tried. When `interrupted`,
/// it ends, with what was found until then.
pub fn verify(
    door: &Door,
    mode: Mode,
    unsupported: &BTreeMap<String, String>,
    held: bool,
    interrupted: &AtomicBool,
) -> Vec<Finding> {
    let cases: &[Case] = match mode {
        Mode::Echo => &echo::CASES,
        Mode::Chat => &chat::CASES,
    };
    let mut findings: Vec<Finding> = Vec::new();
    let mut refused = false;
    for case in cases {
        if interrupted.load(Relaxed) || refused && case.tier == Tier::Contract && !held {
            break;
        }
        // Otherwise it would seem to lack all that is tried from here on.
        if case.tier == Tier::Contract
            && !held
            && let Some(last) = findings.last_mut()
            && is_gone(door)
        {
            let why = "the server ended; what comes after this was not tried".to_owned();
            last.result = CaseResult::failed(last.tier, held, why);
            break;
        }
        let result = match unsupported.get(case.name) {
            Some(reason) => CaseResult::Unsupported(reason.clone()),
            None => match (case.run)(door) {
                Ok(()) => CaseResult::Pass,
                Err(e) => CaseResult::failed(case.tier, held, format!("{e:#}")),
            },
        };
        refused |= matches!(result, CaseResult::Fail(_));
        findings.push(Finding { case: case.name, tier: case.tier, what: case.what, result });
    }
    findings
}

/// Whether nothing listens there any more.
fn is_gone(door: &Door) -> bool {
    let met = TcpStream::connect_timeout(&door.addr, Duration::from_secs(1));
    met.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// One line back and forth, or one registration: the server is there and speaks this mode.
pub fn first_contact(door: &Door, mode: Mode, patience: Duration) -> Result<()> {
    match mode {
        Mode::Echo => {
            let mut peer = connect(door.addr)?;
            peer.0.set_read_timeout(Some(patience))?;
            ask(&mut peer, b"hello\n", b"hello\n")
        }
        Mode::Chat => {
            let mut guest = Guest::register(door, "prime")?;
            guest.say("QUIT")?;
            guest.end()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};
    use std::sync::Arc;
    use std::thread;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    /// An echo that ends when a client resets its connection, as a server does that SIGPIPE kills.
    fn frail_echo() -> SocketAddr {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let listener = Arc::clone(&listener);
                thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    loop {
                        let echoed = match stream.read(&mut bytes) {
                            Ok(0) => return,
                            Ok(len) => stream.write_all(&bytes[..len]),
                            Err(error) => Err(error),
                        };
                        if echoed.is_err() {
                            let _ = socket2::SockRef::from(&*listener).shutdown(Shutdown::Both);
                            return;
                        }
                    }
                });
            }
        });
        addr
    }

    /// An echo that closes when the client has ended its stream, as a loop does that looks for
    /// EPOLLRDHUP first.
    fn hasty_echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    loop {
                        let wanted = PollFlags::IN | PollFlags::RDHUP;
                        let mut fds = [PollFd::new(&stream, wanted)];
                        poll(&mut fds, None).unwrap();
                        let has_ended = fds[0].revents().contains(PollFlags::RDHUP);
                        let len = stream.read(&mut bytes).unwrap_or(0);
                        if has_ended || len == 0 || stream.write_all(&bytes[..len]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        addr
    }

    #[test]
    fn a_server_that_closes_at_the_end_of_a_stream_lacks_the_half_close_each_time() {
        let door = Door { addr: hasty_echo(), password: None };
        let case = echo::CASES.iter().find(|case| case.name == echo::HALF_CLOSE).unwrap();
        for round in 0..100 {
            assert!((case.run)(&door).is_err(), "round {round}");
        }
    }

    /// In the case of the line that is too long, the client closes before it has read everything.
    #[test]
    fn a_server_that_ends_lacks_only_what_it_was_tried_with() {
        let door = Door { addr: frail_echo(), password: None };
        let never = AtomicBool::new(false);
        let findings = verify(&door, Mode::Echo, &BTreeMap::new(), false, &never);
        let last = findings.last().unwrap();
        assert!(["over-long-line", "not-before-asked"].contains(&last.case), "{findings:#?}");
        let CaseResult::Lacks(why) = &last.result else { panic!("{last:#?}") };
        assert!(why.contains("the server ended"), "{why}");
        assert!(lacks(&findings, Mode::Echo).iter().all(|lack| lack.case != "half-close"));
    }
}
