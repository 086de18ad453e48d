//! The short gate: what a server must get right before it is worth a number.
//!
//! The conformance suite in `tests/` is the long one. This gate needs no knowledge of the server
//! but its address, takes well under a second, and speaks plain blocking sockets with deadlines.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use schemars::JsonSchema;
use serde::Serialize;

use crate::check::show;
use crate::drive::Shortage;
use crate::workload::Mode;

/// How long any one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The protocol's default limit on an echo line, its end included, in bytes.
const MAX_LINE: usize = 64 * 1024;

type Case = (&'static str, fn(SocketAddr) -> Result<()>);

const ECHO: [Case; 7] = [
    ("split-lines", split_lines),
    ("pipelined-lines", pipelined_lines),
    ("any-bytes", any_bytes),
    ("half-close", half_close),
    ("over-long-line", over_long_line),
    ("no-crossing", no_crossing),
    ("not-before-asked", not_before_asked),
];

const CHAT: [Case; 4] = [
    ("chat-register", chat_register),
    ("chat-nick-in-use", chat_nick_in_use),
    ("chat-message", chat_message),
    ("chat-quit", chat_quit),
];

/// The cases that need two clients at the same time.
pub(crate) const NEED_TWO: [&str; 5] =
    ["no-crossing", "not-before-asked", "chat-nick-in-use", "chat-message", "chat-quit"];

/// What became of one case.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Finding {
    /// The case.
    pub case: &'static str,
    /// What happened.
    #[serde(flatten)]
    pub result: Outcome,
}

/// The verdict on one case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "result", content = "reason")]
pub enum Outcome {
    /// As the protocol says.
    Pass,
    /// Not so, and how.
    Fail(String),
    /// Declared in `models.toml`, with this reason.
    Unsupported(String),
}

/// Runs every case of a mode against `addr`.
pub fn verify(
    addr: SocketAddr,
    mode: Mode,
    unsupported: &BTreeMap<String, String>,
) -> Vec<Finding> {
    let cases: &[Case] = match mode {
        Mode::Echo => &ECHO,
        Mode::Chat => &CHAT,
    };
    let judge = |case: &Case| match unsupported.get(case.0) {
        Some(reason) => Outcome::Unsupported(reason.clone()),
        None => match case.1(addr) {
            Ok(()) => Outcome::Pass,
            Err(e) => Outcome::Fail(format!("{e:#}")),
        },
    };
    cases.iter().map(|case| Finding { case: case.0, result: judge(case) }).collect()
}

/// One line back and forth, or one registration: the server is there and speaks this mode.
pub fn first_contact(addr: SocketAddr, mode: Mode, patience: Duration) -> Result<()> {
    match mode {
        Mode::Echo => {
            let mut peer = connect(addr)?;
            peer.set_read_timeout(Some(patience))?;
            ask(&mut peer, b"hello\n", b"hello\n")
        }
        Mode::Chat => {
            let mut guest = Guest::register(addr, "prime")?;
            guest.say("QUIT")?;
            guest.end()
        }
    }
}

fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let peer = match TcpStream::connect_timeout(&addr, PATIENCE) {
        Err(e) if e.kind() == ErrorKind::AddrNotAvailable => bail!(Shortage::of_ports()),
        other => other
            .with_context(|| format!("cannot connect to {addr}; is a server listening there?"))?,
    };
    peer.set_nodelay(true)?;
    peer.set_read_timeout(Some(PATIENCE))?;
    peer.set_write_timeout(Some(PATIENCE))?;
    Ok(peer)
}

/// Reads exactly what is expected, and says where it differs.
fn expect(peer: &mut TcpStream, expected: &[u8]) -> Result<()> {
    let mut got = vec![0; expected.len()];
    let mut have = 0;
    while have < got.len() {
        match peer.read(&mut got[have..]) {
            Ok(0) => bail!(
                "the stream ended after {have} of {} bytes: {}",
                expected.len(),
                show(&got[..have])
            ),
            Ok(n) => have += n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => bail!(
                "{have} of {} bytes came, then nothing for {}: {}",
                expected.len(),
                humantime::format_duration(peer.read_timeout()?.unwrap_or_default()),
                show(&got[..have])
            ),
            Err(e) => return Err(e).context(format!("after {have} of {} bytes", expected.len())),
        }
    }
    if got != expected {
        let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
        bail!("byte {at} differs: {} came, not {}", show(&got[at..]), show(&expected[at..]));
    }
    Ok(())
}

fn ask(peer: &mut TcpStream, question: &[u8], answer: &[u8]) -> Result<()> {
    peer.write_all(question).context("cannot write")?;
    expect(peer, answer)
}

fn split_lines(addr: SocketAddr) -> Result<()> {
    let mut peer = connect(addr)?;
    for line in [&b"a line to be split\n"[..], b"and one with CRLF\r\n", b"\n", b"\r\n"] {
        for at in 0..line.len() {
            peer.write_all(&line[..at])?;
            ask(&mut peer, &line[at..], line).with_context(|| format!("split at byte {at}"))?;
        }
    }
    Ok(())
}

fn pipelined_lines(addr: SocketAddr) -> Result<()> {
    let mut peer = connect(addr)?;
    let lines: String = (0..500).map(|n| format!("pipelined line number {n}\r\n")).collect();
    ask(&mut peer, lines.as_bytes(), lines.as_bytes())
}

fn any_bytes(addr: SocketAddr) -> Result<()> {
    let mut peer = connect(addr)?;
    let mut line: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    line.push(b'\n');
    ask(&mut peer, &line, &line)
}

fn half_close(addr: SocketAddr) -> Result<()> {
    let mut peer = connect(addr)?;
    let lines = "said before the end\n".repeat(200);
    peer.write_all(lines.as_bytes())?;
    peer.shutdown(Shutdown::Write)?;
    expect(&mut peer, lines.as_bytes())?;
    end(&mut peer)
}

/// Nothing more comes but the end of the stream.
fn end(peer: &mut TcpStream) -> Result<()> {
    let mut more = [0; 64];
    let n = peer.read(&mut more).context("the stream should have ended")?;
    ensure!(n == 0, "the stream should have ended; {} came", show(&more[..n]));
    Ok(())
}

fn over_long_line(addr: SocketAddr) -> Result<()> {
    let mut peer = connect(addr)?;
    let mut line = vec![b'x'; MAX_LINE + 100];
    line.push(b'\n');
    ask(&mut peer, &line, b"ERR line too long\r\n")?;
    ask(&mut peer, b"still there\n", b"still there\n")
}

fn no_crossing(addr: SocketAddr) -> Result<()> {
    let (mut one, mut two) = (connect(addr)?, connect(addr)?);
    for n in 0..50 {
        let (a, b) = (format!("for one {n}\n"), format!("for two {n}\n"));
        one.write_all(a.as_bytes())?;
        two.write_all(b.as_bytes())?;
        expect(&mut one, a.as_bytes())?;
        expect(&mut two, b.as_bytes())?;
    }
    Ok(())
}

/// A server that answers whenever it is written to, and not when a line is whole, is caught here.
fn not_before_asked(addr: SocketAddr) -> Result<()> {
    let (mut half, mut other) = (connect(addr)?, connect(addr)?);
    half.write_all(b"half a li")?;
    // By the time that these are answered, the server has had its turn with the half line.
    for _ in 0..20 {
        ask(&mut other, b"a whole line\n", b"a whole line\n")?;
    }
    half.set_nonblocking(true)?;
    let mut early = [0; 64];
    match half.read(&mut early) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
        Ok(n) => bail!("{} came before the line was whole", show(&early[..n])),
        Err(e) => return Err(e.into()),
    }
    half.set_nonblocking(false)?;
    ask(&mut half, b"ne\n", b"half a line\n")
}

/// A chat member that waits for what it wants to see.
struct Guest {
    peer: TcpStream,
    nick: String,
    buffer: Vec<u8>,
}

impl Guest {
    /// Connects and registers under a nickname that no other run of this gate is likely to use.
    fn register(addr: SocketAddr, nick: &str) -> Result<Self> {
        let nick = format!("{nick}{}", std::process::id());
        let mut guest = Self { peer: connect(addr)?, nick: nick.clone(), buffer: Vec::new() };
        guest.say(&format!("NICK {nick}"))?;
        guest.say("USER gate 0 * :loadgen verify")?;
        guest.wait_for("the welcome, 001", |line| line.contains(" 001 "))?;
        Ok(guest)
    }

    fn join(&mut self, channel: &str) -> Result<()> {
        self.say(&format!("JOIN {channel}"))?;
        self.wait_for("the end of names, 366", |line| line.contains(" 366 ")).map(drop)
    }

    fn say(&mut self, line: &str) -> Result<()> {
        self.peer.write_all(format!("{line}\r\n").as_bytes()).context("cannot write")
    }

    /// The next line without its end; `None` at the end of the stream.
    fn line(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            let mut part = [0; 4096];
            match self.peer.read(&mut part)? {
                0 => return Ok(None),
                n => self.buffer.extend_from_slice(&part[..n]),
            }
        }
    }

    /// Reads on until a line is as wanted, answering the server's pings.
    fn wait_for(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let mut last = String::from("nothing");
        loop {
            let line = self
                .line()
                .with_context(|| format!("waiting for {what}; last came {last:?}"))?
                .with_context(|| format!("the stream ended before {what}; last came {last:?}"))?;
            if let Some(token) = line.strip_prefix("PING ") {
                self.say(&format!("PONG {token}"))?;
            }
            if wanted(&line) {
                return Ok(line);
            }
            last = line;
        }
    }

    /// Reads on to the end of the stream.
    fn end(&mut self) -> Result<()> {
        while self.line().context("waiting for the end of the stream")?.is_some() {}
        Ok(())
    }
}

fn chat_register(addr: SocketAddr) -> Result<()> {
    let mut guest = Guest::register(addr, "gateA")?;
    guest.say("PING :a token")?;
    guest.wait_for("the answer to PING", |line| line.ends_with("a token"))?;
    guest.say("QUIT")?;
    guest.end()
}

fn chat_nick_in_use(addr: SocketAddr) -> Result<()> {
    let holder = Guest::register(addr, "gateB")?;
    let mut second = Guest { peer: connect(addr)?, nick: String::new(), buffer: Vec::new() };
    second.say(&format!("NICK {}", holder.nick))?;
    second.wait_for("433, the nickname is in use", |line| line.contains(" 433 ")).map(drop)
}

fn chat_message(addr: SocketAddr) -> Result<()> {
    let channel = format!("#gate{}", std::process::id());
    let (mut one, mut two) = (Guest::register(addr, "gateC")?, Guest::register(addr, "gateD")?);
    one.join(&channel)?;
    two.join(&channel)?;
    for n in 0..20 {
        one.say(&format!("PRIVMSG {channel} :message {n}"))?;
    }
    for n in 0..20 {
        let line = two.wait_for("a message", |line| line.contains(" PRIVMSG "))?;
        let right = line.starts_with(&format!(":{}!", one.nick))
            && line.ends_with(&format!(" PRIVMSG {channel} :message {n}"));
        ensure!(right, "message {n} of {} is due, came {line:?}", one.nick);
    }
    // The speaker hears its own PING next, and none of what it has said.
    one.say("PING :after")?;
    let line = one.wait_for("the answer to PING", |line| {
        line.contains(" PRIVMSG ") || line.ends_with("after")
    })?;
    ensure!(!line.contains(" PRIVMSG "), "the speaker was sent its own message: {line:?}");
    Ok(())
}

fn chat_quit(addr: SocketAddr) -> Result<()> {
    let channel = format!("#quit{}", std::process::id());
    let (mut one, mut two) = (Guest::register(addr, "gateE")?, Guest::register(addr, "gateF")?);
    one.join(&channel)?;
    two.join(&channel)?;
    one.say("QUIT :done")?;
    one.end()?;
    let source = format!(":{}!", one.nick);
    two.wait_for("the QUIT of the other", |line| {
        line.starts_with(&source) && line.contains(" QUIT")
    })
    .map(drop)
}
