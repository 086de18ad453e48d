//! What tests share: loadgen as a program, Ctrl-C, and servers in threads of the test, an echo and
//! a chat that do one thing wrong.
//!
//! They are right until line number [`AT`], and only that line is wrong: one in a hundred thousand.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

pub(crate) mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// Runs loadgen, presses Ctrl-C once it says a line that begins with `when`, and waits for its end.
/// Returns it with what it has written to standard output.
pub(crate) fn interrupted(command: &mut Command, when: &str) -> (Child, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line.starts_with(when)), "it never says {when:?}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    lines.for_each(drop);
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    (child, text)
}

/// The number of the line that goes wrong.
pub(crate) const AT: u64 = 100_000;
/// The same for the messages of a chat, each of which is delivered to five members.
pub(crate) const CHAT_AT: u64 = AT / 5;

/// What goes wrong with that line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Nothing.
    Nothing,
    /// It is not answered or delivered.
    Drop,
    /// Its sender gets the next line of another connection, which gets this one.
    Swap,
    /// Half of it comes, and a line end.
    Truncate,
    /// Half of it comes, and nothing more on this connection.
    Stop,
    /// It comes twice.
    Repeat,
    /// It comes after the next one.
    Reorder,
    /// One byte of it is changed.
    Alter,
    /// A constant of the right length comes instead.
    Constant,
    /// A constant comes along with it, without having been asked for.
    Early,
    /// Nothing is answered from here on.
    Silence,
    /// The connection is closed.
    Close,
    /// It comes to its own speaker too (chat).
    ToSpeaker,
    /// It comes under the name of another channel (chat).
    OtherChannel,
    /// It comes without its time, though the members have asked for it (chat).
    Untimed,
}

/// How far a server has come.
#[derive(Debug, Default)]
pub(crate) struct Count {
    lines: AtomicU64,
    wrong: AtomicBool,
}

impl Count {
    /// Counts a line. Whether it is the one to get wrong: the first from number `at` on that is
    /// `fit` for it.
    fn is_due(&self, at: u64, fit: bool) -> bool {
        self.lines.fetch_add(1, Relaxed) >= at && fit && !self.wrong.swap(true, Relaxed)
    }

    /// The lines so far.
    pub(crate) fn lines(&self) -> u64 {
        self.lines.load(Relaxed)
    }

    /// Whether the one line has been got wrong.
    pub(crate) fn was_wrong(&self) -> bool {
        self.wrong.load(Relaxed)
    }
}

/// An address that refuses connections as long as the socket is there: no other process can be
/// given its port, and none listens.
pub(crate) fn refusing() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

/// Serves a wrong echo on a free port until the test's process ends.
pub(crate) fn echo(wrong: Wrong) -> SocketAddr {
    counting_echo(wrong).0
}

/// The same, with the count of its lines.
pub(crate) fn counting_echo(wrong: Wrong) -> (SocketAddr, Arc<Count>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let count = Arc::new(Count::default());
    let state = (count.clone(), Arc::new(Mutex::new(None)));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let state = state.clone();
            // The generator closing its side ends the connection; that is no failure here.
            std::thread::spawn(move || drop(echo_one(stream, wrong, &state.0, &state.1)));
        }
    });
    (addr, count)
}

type Parked = Mutex<Option<(Vec<u8>, TcpStream)>>;

fn echo_one(
    stream: TcpStream,
    wrong: Wrong,
    count: &Count,
    parked: &Parked,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.len() < 64 {
            // The greeting, before the run.
            out.write_all(&line)?;
            continue;
        }
        let was_wrong = count.was_wrong();
        if wrong == Wrong::Silence && was_wrong {
            continue;
        }
        if wrong == Wrong::Swap && was_wrong {
            let own = out.peer_addr()?;
            let mut parked = parked.lock().unwrap();
            let other = parked.take_if(|(_, other)| other.peer_addr().is_ok_and(|a| a != own));
            if let Some((other_line, mut other)) = other {
                other.write_all(&line)?;
                out.write_all(&other_line)?;
                continue;
            }
        }
        // The next line can only be sent first if it has come.
        let fit = wrong != Wrong::Reorder || reader.buffer().contains(&b'\n');
        if count.is_due(AT, fit) {
            match wrong {
                Wrong::Drop | Wrong::Silence => continue,
                Wrong::Swap => {
                    *parked.lock().unwrap() = Some((line.clone(), out.try_clone()?));
                    continue;
                }
                Wrong::Stop => {
                    out.write_all(&line[..line.len() / 2])?;
                    return std::io::copy(&mut reader, &mut std::io::sink()).map(drop);
                }
                Wrong::Truncate => {
                    line.truncate(line.len() / 2);
                    line.push(b'\n');
                }
                Wrong::Repeat => out.write_all(&line)?,
                Wrong::Reorder => {
                    let mut next = Vec::new();
                    reader.read_until(b'\n', &mut next)?;
                    out.write_all(&next)?;
                }
                Wrong::Alter => line[40] ^= 1,
                Wrong::Constant => line[..63].fill(b'x'),
                // In one write, so that it cannot arrive after the next line was asked for.
                Wrong::Early => line.extend_from_slice(&[&[b'x'; 63][..], b"\n"].concat()),
                Wrong::Close => return Ok(()),
                _ => {}
            }
        }
        out.write_all(&line)?;
    }
}

struct Member {
    conn: usize,
    channel: Vec<u8>,
    timed: bool,
    prefix: Vec<u8>,
    out: TcpStream,
}

#[derive(Default)]
struct Room {
    /// What PASS must say before a registration.
    password: Option<&'static str>,
    /// The tag of all messages to those who ask for it, if there is one.
    time: Option<&'static str>,
    members: Vec<Member>,
    /// Where messages are put together, so that relaying allocates nothing.
    message: Vec<u8>,
    held: Vec<u8>,
}

/// Serves a wrong chat on a free port until the test's process ends.
pub(crate) fn chat(wrong: Wrong) -> SocketAddr {
    counting_chat(wrong).0
}

/// Serves a right chat that asks for a password.
pub(crate) fn closed_chat(password: &'static str) -> SocketAddr {
    let room = Room { password: Some(password), ..Room::default() };
    chat_in(room, Wrong::Nothing).0
}

/// Serves a wrong chat that tells the time of each message.
pub(crate) fn counting_chat_with_times(wrong: Wrong) -> (SocketAddr, Arc<Count>) {
    let time = Some("@time=2026-11-27T12:00:00.000Z ");
    chat_in(Room { time, ..Room::default() }, wrong)
}

/// A wrong chat, with the count of its messages.
pub(crate) fn counting_chat(wrong: Wrong) -> (SocketAddr, Arc<Count>) {
    chat_in(Room::default(), wrong)
}

fn chat_in(room: Room, wrong: Wrong) -> (SocketAddr, Arc<Count>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let count = Arc::new(Count::default());
    let state = (count.clone(), Arc::new(Mutex::new(room)));
    std::thread::spawn(move || {
        for (conn, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let state = state.clone();
            std::thread::spawn(move || {
                let _ = chat_one(stream, conn, wrong, &state.0, &state.1);
                let mut room = state.1.lock().unwrap_or_else(|e| e.into_inner());
                room.members.retain(|member| member.conn != conn);
            });
        }
    });
    (addr, count)
}

fn chat_one(
    stream: TcpStream,
    conn: usize,
    wrong: Wrong,
    count: &Count,
    room: &Mutex<Room>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    let Room { password, time, .. } = *room.lock().unwrap();
    let mut timed = false;
    let (mut nick, mut passed) = (String::new(), password.is_none());
    let mut line = Vec::with_capacity(512);
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 || line.starts_with(b"QUIT") {
            return Ok(());
        }
        let text = line.trim_ascii_end();
        if let Some(name) = text.strip_prefix(b"NICK ") {
            nick = String::from_utf8_lossy(name).into_owned();
        } else if let Some(said) = text.strip_prefix(b"PASS :") {
            passed = password.is_none_or(|password| said == password.as_bytes());
        } else if text.starts_with(b"CAP REQ ") {
            timed = time.is_some();
            write!(out, ":test CAP * {} :server-time\r\n", if timed { "ACK" } else { "NAK" })?;
        } else if text.starts_with(b"USER ") && !passed {
            write!(out, ":test 464 {nick} :Password incorrect\r\nERROR :bad password\r\n")?;
            return Ok(());
        } else if text.starts_with(b"USER ") {
            write!(out, ":test 001 {nick} :Welcome\r\n")?;
        } else if let Some(channel) = text.strip_prefix(b"JOIN ") {
            let channel = channel.to_vec();
            let prefix = format!(":{nick}!{nick}@test PRIVMSG ").into_bytes();
            let member = Member { conn, channel, timed, prefix, out: out.try_clone()? };
            room.lock().unwrap().members.push(member);
            write!(out, ":test 366 {nick} #x :End of /NAMES list.\r\n")?;
        } else if let Some(rest) = text.strip_prefix(b"PRIVMSG ") {
            let wrong = if count.is_due(CHAT_AT, true) { wrong } else { Wrong::Nothing };
            room.lock().unwrap().relay(conn, rest, wrong);
        }
    }
}

impl Room {
    /// Delivers `rest`, which is `CHANNEL :TEXT`, wrongly to one member and rightly to all others.
    fn relay(&mut self, from: usize, rest: &[u8], wrong: Wrong) {
        let Some(speaker) = self.members.iter().position(|m| m.conn == from) else { return };
        self.message.clear();
        self.message.extend_from_slice(&self.members[speaker].prefix);
        self.message.extend_from_slice(rest);
        self.message.extend_from_slice(b"\r\n");
        let channel = std::mem::take(&mut self.members[speaker].channel);
        let victim = self.members.iter().rposition(|m| m.channel == channel);
        for n in 0..self.members.len() {
            let member = &mut self.members[n];
            // The speaker's own channel is taken away for the moment.
            let hears =
                if n == speaker { wrong == Wrong::ToSpeaker } else { member.channel == channel };
            if !hears {
                continue;
            }
            let victim = Some(n) == victim;
            let untimed = victim && wrong == Wrong::Untimed;
            if let Some(time) = self.time.filter(|_| member.timed && !untimed) {
                let _ = member.out.write_all(time.as_bytes());
            }
            // One that has left meanwhile is no concern of the speaker's.
            let _ = deliver(member, &mut self.message, &mut self.held, wrong, victim);
        }
        self.members[speaker].channel = channel;
    }
}

/// Writes `message` to one member, wrongly if it is the victim.
fn deliver(
    member: &mut Member,
    message: &mut [u8],
    held: &mut Vec<u8>,
    wrong: Wrong,
    victim: bool,
) -> std::io::Result<()> {
    // What is held back waits for its own speaker: between speakers there is no order.
    let waits = !held.is_empty() && held[..8] != message[..8];
    if !victim || waits {
        return member.out.write_all(message);
    }
    held.extend_from_slice(message);
    let half = message.len() - 30;
    match wrong {
        Wrong::Drop => {}
        // Held back, and sent behind the next one.
        Wrong::Reorder => return Ok(()),
        Wrong::Truncate => {
            member.out.write_all(&message[..half])?;
            member.out.write_all(b"\r\n")?;
        }
        Wrong::Repeat => {
            member.out.write_all(held)?;
            member.out.write_all(message)?;
        }
        Wrong::Alter => {
            message[half] ^= 1;
            member.out.write_all(message)?;
        }
        Wrong::OtherChannel => {
            let text = String::from_utf8_lossy(message).replace("#c", "#d");
            member.out.write_all(text.as_bytes())?;
        }
        Wrong::Close => member.out.shutdown(std::net::Shutdown::Both)?,
        _ if held.len() > message.len() => {
            let behind = held.len() - message.len();
            member.out.write_all(&held[behind..])?;
            member.out.write_all(&held[..behind])?;
        }
        _ => member.out.write_all(message)?,
    }
    held.clear();
    Ok(())
}
