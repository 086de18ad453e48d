//! The chat driver: speakers talk in channels, and every member checks every delivery.
//!
//! Chat has no back-pressure toward a speaker, so an unbounded speaker would only measure how a
//! server cuts slow members. Here each speaker has a window of messages that have not yet been
//! delivered to all: the loop is closed by the slowest member of its channel. With a rate the
//! loop is open: a message leaves when its time has come, by a speaker whose window has room, and
//! its deliveries are timed from then.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use memchr::memchr;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::faults::{Fault, FaultyOpening};
use super::ledger::{Delivery, HISTOGRAMS, LATENESS, Ledger, Shape};
use super::member::{Hello, MAX_LINE, Member, Stage};
use super::pacer::{BURST, Due, Pace, Pacer};
use super::payload::Payload;
use super::poller::TIMER;
use super::window::{Step, Window};
use super::{BATCH, Driver, NAP, Phase, PhaseResult, Poller, RECEIVE, Shared, connect};
use crate::base::text::quoted;

/// One thread's channels.
pub(super) struct Fanout {
    addr: SocketAddr,
    stall: Duration,
    poller: Poller,
    members: Vec<Member>,
    ledger: Ledger,
    hello: Hello,
    /// In an open loop, when speakers speak.
    pacer: Option<Pacer>,
    /// Unfinished lines, one place of [`MAX_LINE`] bytes for each member.
    tails: Vec<u8>,
    /// Room for an unfinished line, then for what is received after it.
    inbox: Vec<u8>,
    /// The last complaint of the server, for the error message.
    complaint: String,
}

impl Fanout {
    /// The channels of `shape`; with a `pace`, an open loop.
    pub(super) fn new(
        addr: SocketAddr,
        shape: Shape,
        pace: Option<Pace>,
        payload: Payload,
        stall: Duration,
        hello: Hello,
    ) -> Result<Self> {
        let members = (shape.channels * shape.members) as usize;
        let poller = Poller::new()?;
        Ok(Self {
            addr,
            stall,
            pacer: pace.map(|pace| Pacer::new(pace, &poller)).transpose()?,
            poller,
            members: Vec::with_capacity(members),
            ledger: Ledger::new(shape, payload),
            hello,
            tails: vec![0; members * MAX_LINE],
            inbox: vec![0; MAX_LINE + RECEIVE],
            complaint: String::new(),
        })
    }

    fn drain(&mut self, window: &mut Window, shared: &Shared) -> Result<()> {
        loop {
            self.serve(window)?;
            match window.batch(self.ledger.outstanding, shared) {
                Step::Go => {}
                // What was due by now is still sent, if a speaker has room.
                Step::StopSending => {
                    if let Some(pacer) = self.pacer.as_mut().filter(|_| window.cut) {
                        pacer.cut(window.now());
                    }
                    self.send_due(u32::MAX, window)?;
                }
                Step::Finish => return Ok(()),
            }
        }
    }

    /// One batch of events, then the speakers whose windows it has opened.
    fn serve(&mut self, window: &mut Window) -> Result<()> {
        let events = match &mut self.pacer {
            Some(pacer) => pacer.wait(&mut self.poller, window)?,
            None => self.poller.wait(NAP)?,
        };
        for n in 0..events {
            let (index, ready) = self.poller.event(n);
            if index == TIMER {
                continue;
            }
            if ready.contains(EventFlags::OUT) {
                self.write(index, window)?;
            }
            if ready.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(index, window)?;
            }
            let due = |pacer: &Pacer| window.sending && pacer.due(window.now()).is_some();
            if self.pacer.as_ref().is_some_and(due) {
                self.send_due(BURST, window)?;
            }
        }
        if self.pacer.is_some() {
            return if window.sending { self.send_due(BURST, window) } else { Ok(()) };
        }
        // After the batch, and not at once: what one batch of events has made room for leaves in
        // one write for each speaker. The wait is in no latency, which begins with the write.
        while let Some((speaker, _)) = self.ledger.take_open() {
            if window.sending {
                self.speak(speaker, window)?;
            }
        }
        Ok(())
    }

    /// In an open loop: sends what is due, `most` messages at a time.
    fn send_due(&mut self, most: u32, window: &mut Window) -> Result<()> {
        let Some(pacer) = &mut self.pacer else { return Ok(()) };
        while let Some((speaker, freed)) = self.ledger.take_open() {
            let left = self.ledger.in_flight(speaker);
            pacer.answered(speaker, left + freed, left);
        }
        for _ in 0..most {
            let (Some(pacer), now) = (&mut self.pacer, window.now()) else { break };
            let Some(intended) = pacer.due(now) else { break };
            let (members, ledger) = (&self.members, &self.ledger);
            let in_flight = |speaker| {
                let dead = members[ledger.index_of(speaker)].dead;
                (!dead).then(|| ledger.in_flight(speaker))
            };
            let speaker = match pacer.take(intended, now, 0, in_flight) {
                Due::Send(speaker) => speaker,
                Due::Dropped => continue,
                Due::Wait => break,
            };
            if window.record {
                window.note(LATENESS, now - intended);
            }
            let index = self.ledger.index_of(speaker);
            self.ledger.say(speaker, intended, &mut self.members[index].out, window);
            self.write(index, window)?;
        }
        Ok(())
    }

    /// Fills a speaker's window.
    fn speak(&mut self, speaker: u32, window: &mut Window) -> Result<()> {
        let index = self.ledger.index_of(speaker);
        let member = &mut self.members[index];
        if member.dead {
            return Ok(());
        }
        self.ledger.speak(speaker, &mut member.out, window);
        self.write(index, window)
    }

    fn write(&mut self, index: usize, window: &mut Window) -> Result<()> {
        let member = &mut self.members[index];
        while member.written < member.out.len() && !member.dead {
            match send(&member.fd, &member.out[member.written..], SendFlags::NOSIGNAL) {
                Ok(n) => member.written += n,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(e) => return self.closed(index, &e.to_string(), window),
            }
        }
        let wants_out = member.written < member.out.len();
        if !wants_out {
            member.out.clear();
            member.written = 0;
        }
        if wants_out != member.wants_out {
            member.wants_out = wants_out;
            self.poller.want_out(&member.fd, index, wants_out)?;
        }
        Ok(())
    }

    /// One receive and the check of every line in it.
    #[inline]
    fn read(&mut self, index: usize, window: &mut Window) -> Result<()> {
        let member = &mut self.members[index];
        if member.dead {
            return Ok(());
        }
        // The unfinished line goes right before what is received, so that lines never wrap.
        let begin = MAX_LINE - member.tail;
        let place = index * MAX_LINE;
        self.inbox[begin..MAX_LINE].copy_from_slice(&self.tails[place..place + member.tail]);
        let end = match recv(&member.fd, &mut self.inbox[MAX_LINE..], RecvFlags::empty()) {
            Ok((0, _)) => return self.closed(index, "closed by the server", window),
            Ok((n, _)) => MAX_LINE + n,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(e) => return self.closed(index, &e.to_string(), window),
        };
        // All lines of one receive had arrived by now; they share its time.
        let now = window.now();
        let mut at = begin;
        while at < end {
            let data = &self.inbox[at..end];
            let tag = if self.hello.server_time { time_tag(data) } else { 0 };
            if member.stage == Stage::Joined
                && (tag > 0 || !self.hello.server_time)
                && let Some(length) = self.ledger.expected(index, &data[tag..], now, window)
            {
                at += tag + length;
                continue;
            }
            let Some(length) = memchr(b'\n', data) else { break };
            let line = data[..length].strip_suffix(b"\r").unwrap_or(&data[..length]);
            match Line::parse(&line[tag.min(line.len())..]) {
                Line::Delivery(_) if tag == 0 && self.hello.server_time => {
                    window.faults.add(Fault::Altered, 1, || {
                        format!("no time before {}, which was asked for", quoted(line))
                    });
                }
                Line::Delivery(delivery) => self.ledger.examine(index, &delivery, now, window),
                Line::Talk { command, rest } => {
                    if let Some(complaint) = member.talk(command, rest, line, window) {
                        self.complaint = complaint;
                    }
                }
            }
            at += length + 1;
        }
        member.tail = end - at;
        if member.tail > MAX_LINE - 1 {
            let line = &self.inbox[at..end];
            window
                .faults
                .add(Fault::Altered, 1, || format!("a line without end: {}", quoted(line)));
            member.tail = 0;
        }
        self.tails[place..place + member.tail].copy_from_slice(&self.inbox[at..at + member.tail]);
        if member.out.is_empty() { Ok(()) } else { self.write(index, window) }
    }

    fn closed(&mut self, index: usize, why: &str, window: &mut Window) -> Result<()> {
        let member = &mut self.members[index];
        window.faults.add(Fault::Closed, 1, || {
            format!("member {}: {why}; the server had said: {:?}", member.id, self.complaint)
        });
        member.dead = true;
        self.poller.delete(&member.fd)
    }

    /// Serves events until all of `members` have come to a stage.
    fn reach(&mut self, members: Range<usize>, stage: Stage, shared: &Shared) -> Result<()> {
        let mut window = Window::new(Phase::Touch, self.stall, &[]);
        let (mut waiting, mut since) = (usize::MAX, Instant::now());
        loop {
            let behind = self.members[members.clone()].iter().filter(|m| m.stage < stage).count();
            if behind == 0 {
                return Ok(());
            }
            if behind < waiting {
                (waiting, since) = (behind, Instant::now());
            }
            if !window.faults.is_empty() {
                return Err(FaultyOpening(window.faults).into());
            }
            if since.elapsed() > self.stall || shared.stop.load(Relaxed) {
                let complaint = match self.complaint.as_str() {
                    "" => "it said nothing to them: is its backlog too small, does it limit \
                           connections from one address, or has it a flood control?"
                        .to_owned(),
                    said => format!("its last complaint: {said:?}"),
                };
                bail!(
                    "{behind} of the {} chat members that came at once {} by the server within {:?}; \
                     {complaint}",
                    members.len(),
                    stage.missed(),
                    self.stall
                );
            }
            self.serve(&mut window)?;
        }
    }

    /// Writes what is queued for each of `members`; a fault here makes the run INVALID.
    fn say_all(&mut self, members: Range<usize>) -> Result<()> {
        let mut window = Window::new(Phase::Touch, self.stall, &[]);
        for index in members {
            self.write(index, &mut window)?;
        }
        if window.faults.is_empty() {
            return Ok(());
        }
        Err(FaultyOpening(window.faults).into())
    }
}

/// A line from the server, without its end.
enum Line<'a> {
    Delivery(Delivery<'a>),
    Talk { command: &'a [u8], rest: &'a [u8] },
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Self {
        let (source, rest) = match line.strip_prefix(b":") {
            Some(line) => split(line),
            None => (&b""[..], line),
        };
        let (command, rest) = split(rest);
        if command != b"PRIVMSG" {
            return Self::Talk { command, rest };
        }
        let text = memchr(b':', rest).map_or(rest.len(), |colon| colon + 1);
        let prefix = &line[..line.len() - rest.len() + text];
        Self::Delivery(Delivery { source, target: split(rest).0, prefix, text: &rest[text..] })
    }
}

/// Length of the tag with which a line begins, and of the space behind it; 0 if there is no time in
/// it, or not all of it has come.
#[inline]
fn time_tag(data: &[u8]) -> usize {
    if !data.starts_with(b"@") {
        return 0;
    }
    let Some(space) = memchr(b' ', data) else { return 0 };
    let timed = data[1..space].split(|&byte| byte == b';').any(|tag| tag.starts_with(b"time="));
    if timed { space + 1 } else { 0 }
}

/// The first word, and what follows the space after it.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b' ', line) {
        Some(space) => (&line[..space], &line[space + 1..]),
        None => (line, &[]),
    }
}

impl Driver for Fanout {
    fn open(&mut self, shared: &Shared) -> Result<()> {
        let shape = self.ledger.shape;
        let all = shape.channels * shape.members;
        for first in (0..all).step_by(BATCH) {
            let part = first..all.min(first + BATCH as u32);
            let ids = shape.base + part.start..shape.base + part.end;
            let sockets = connect::batch(self.addr, ids.clone(), self.stall, shared)?;
            for (fd, id) in sockets.into_iter().zip(ids) {
                self.poller.add(&fd, self.members.len())?;
                let speaks = self.members.len() as u32 % shape.members < shape.speakers;
                let capacity = if speaks { self.ledger.window_bytes() } else { 0 };
                self.members.push(Member::new(fd, id, &self.hello, capacity));
            }
            self.say_all(part.start as usize..part.end as usize)?;
            self.reach(part.start as usize..part.end as usize, Stage::Welcomed, shared)?;
        }
        for index in 0..all as usize {
            let out = &mut self.members[index].out;
            out.extend_from_slice(b"JOIN ");
            out.extend_from_slice(&self.ledger.channel(index));
            out.extend_from_slice(b"\r\n");
        }
        self.say_all(0..all as usize)?;
        self.reach(0..all as usize, Stage::Joined, shared)?;
        if let Some(pacer) = &mut self.pacer {
            pacer.takers(self.ledger.speakers());
        }
        Ok(())
    }

    fn run(&mut self, phase: Phase, shared: &Shared) -> Result<PhaseResult> {
        let names = if self.pacer.is_some() { &HISTOGRAMS[..] } else { &HISTOGRAMS[..LATENESS] };
        let mut window = Window::new(phase, self.stall, names);
        if let Some(pacer) = &mut self.pacer {
            pacer.begin(phase);
        } else if window.sending {
            for speaker in self.ledger.speakers() {
                self.speak(speaker, &mut window)?;
            }
        }
        self.drain(&mut window, shared)?;
        self.ledger.settle(&mut window);
        let mut result = window.finish();
        result.open_loop = self.pacer.as_ref().map(Pacer::counts);
        Ok(result)
    }
}
