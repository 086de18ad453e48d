//! The cases of chat.

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};

use super::peer::{Peer, connect};
use super::{Case, Door, contract, must};

/// All of them, in the order in which they are tried.
pub(super) const CASES: [Case; 4] = [
    must("chat-register", "registration", chat_register),
    must("chat-message", "messages to a channel", chat_message),
    contract("chat-nick-in-use", "refusal of a nickname in use", chat_nick_in_use),
    contract("chat-quit", "a member's end told to its channel", chat_quit),
];

/// A chat member that waits for what it wants to see.
pub(super) struct Guest {
    peer: Peer,
    nick: String,
    buffer: Vec<u8>,
}

impl Guest {
    /// Connects and registers under a nickname that no other run of this gate is likely to use.
    pub(super) fn register(door: &Door, nick: &str) -> Result<Self> {
        let nick = format!("{nick}{}", std::process::id());
        let mut guest = Self { peer: connect(door.addr)?, nick: nick.clone(), buffer: Vec::new() };
        if let Some(password) = &door.password {
            guest.say(&format!("PASS :{password}"))?;
        }
        guest.say(&format!("NICK {nick}"))?;
        guest.say("USER gate 0 * :loadgen verify")?;
        guest.wait_for("the welcome, 001", |line| line.contains(" 001 "))?;
        Ok(guest)
    }

    fn join(&mut self, channel: &str) -> Result<()> {
        self.say(&format!("JOIN {channel}"))?;
        self.wait_for("the end of names, 366", |line| line.contains(" 366 ")).map(drop)
    }

    pub(super) fn say(&mut self, line: &str) -> Result<()> {
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
    pub(super) fn end(&mut self) -> Result<()> {
        while self.line().context("waiting for the end of the stream")?.is_some() {}
        Ok(())
    }
}

fn chat_register(door: &Door) -> Result<()> {
    let mut guest = Guest::register(door, "gateA")?;
    guest.say("PING :a token")?;
    guest.wait_for("the answer to PING", |line| line.ends_with("a token"))?;
    guest.say("QUIT")?;
    guest.end()
}

fn chat_nick_in_use(door: &Door) -> Result<()> {
    let holder = Guest::register(door, "gateB")?;
    let mut second = Guest { peer: connect(door.addr)?, nick: String::new(), buffer: Vec::new() };
    second.say(&format!("NICK {}", holder.nick))?;
    second.wait_for("433, the nickname is in use", |line| line.contains(" 433 ")).map(drop)
}

fn chat_message(door: &Door) -> Result<()> {
    let channel = format!("#gate{}", std::process::id());
    let (mut one, mut two) = (Guest::register(door, "gateC")?, Guest::register(door, "gateD")?);
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

fn chat_quit(door: &Door) -> Result<()> {
    let channel = format!("#quit{}", std::process::id());
    let (mut one, mut two) = (Guest::register(door, "gateE")?, Guest::register(door, "gateF")?);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::target::gate::peer::{ask, end, expect};
    use std::net::TcpListener;

    /// Whatever of the gate waits too long says that, and for how long.
    #[test]
    fn a_time_out_is_called_so() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = || {
            let peer = connect(silent.local_addr().unwrap()).unwrap();
            let short = Some(Duration::from_millis(20));
            peer.0.set_read_timeout(short).unwrap();
            peer.0.set_write_timeout(short).unwrap();
            peer
        };
        let guest = || Guest { peer: peer(), nick: "x".into(), buffer: Vec::new() };
        let much = vec![b'x'; 64 << 20];
        for waited in [
            expect(&mut peer(), b"hello\n"),
            end(&mut peer()),
            guest().wait_for("001", |_| false).map(drop),
            guest().end(),
            ask(&mut peer(), &much, b"x"),
            guest().say(&"x".repeat(64 << 20)),
        ] {
            let said = format!("{:#}", waited.unwrap_err());
            assert!(said.contains("time-out") && said.contains("for 20ms"), "{said}");
            assert!(!said.contains("os error"), "{said}");
        }
    }
}
