//! The chat driver: speakers talk in channels, and every member checks every delivery.
//!
//! Chat has no back-pressure toward a speaker, so an unbounded speaker would only measure how a
//! server cuts slow members. Here each speaker has a window of messages that have not yet been
//! delivered to all: the loop is closed by the slowest member of its channel.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use memchr::memchr;
use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::window::{Step, Window};
use super::{BATCH, Driver, NAP, Phase, PhaseResult, Poller, RECEIVE, Shared, connect};
use crate::check::{Fault, FaultyOpening, Payload, parse_header, parse_hex, show};

/// The longest line of the protocol, its end included, in bytes.
const MAX_LINE: usize = 512;
/// Length of a nickname: `u` and five hexadecimal digits, so that it names its connection.
const NICK: usize = 6;

/// How far a member is in getting into its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Registering,
    Welcomed,
    Joined,
}

/// One connection. Its first `speakers` fellows in a channel are speakers.
struct Member {
    fd: OwnedFd,
    id: u32,
    stage: Stage,
    /// Lines to write, and how much of them is written; its capacity holds a full window.
    out: Vec<u8>,
    written: usize,
    wants_out: bool,
    dead: bool,
    /// Length of the unfinished line that stands at the beginning of this member's tail.
    tail: usize,
}

/// What a speaker has said and who has heard it.
struct Speaker {
    /// What comes before the text in a delivery, learnt from the first one that was all right.
    prefix: Vec<u8>,
    sent: u32,
    /// Messages delivered to all; those from here to `sent` are in flight.
    completed: u32,
    /// Set while the speaker is in the list of those whose window has opened.
    listed: bool,
}

/// One message in flight.
#[derive(Clone, Copy, Default)]
struct Flight {
    sent_at: u64,
    heard: u32,
}

/// The measures of a fan-out workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Channels of this thread.
    pub(super) channels: u32,
    /// Members of each channel, speakers included; at least 2.
    pub(super) members: u32,
    /// Speakers in each channel.
    pub(super) speakers: u32,
    /// Messages that a speaker has in flight.
    pub(super) depth: u32,
}

/// The rules of one run: everything that stays as it is while messages fly.
struct Rules {
    shape: Shape,
    /// Number of this thread's first connection; a multiple of the members per channel.
    base: u32,
    payload: Payload,
    ring: usize,
}

/// Who has heard what.
struct Ledger {
    speakers: Vec<Speaker>,
    flights: Vec<Flight>,
    /// The next sequence number for each member and speaker of its channel.
    next: Vec<u32>,
    /// Speakers whose window has opened since the last batch of events.
    open: Vec<u32>,
    /// Messages that are not yet delivered to all.
    outstanding: u64,
}

/// One thread's channels.
pub(super) struct Fanout {
    addr: SocketAddr,
    rules: Rules,
    stall: Duration,
    poller: Poller,
    members: Vec<Member>,
    ledger: Ledger,
    /// Unfinished lines, one place of [`MAX_LINE`] bytes for each member.
    tails: Vec<u8>,
    /// Room for an unfinished line, then for what is received after it.
    inbox: Vec<u8>,
    /// The last complaint of the server, for the error message.
    complaint: String,
}

impl Fanout {
    /// Channels whose members are the connections from `base` on.
    pub(super) fn new(
        addr: SocketAddr,
        base: u32,
        shape: Shape,
        payload: Payload,
        stall: Duration,
    ) -> Result<Self> {
        let members = (shape.channels * shape.members) as usize;
        let speakers = (shape.channels * shape.speakers) as usize;
        let ring = shape.depth.next_power_of_two() as usize;
        let speaker = || Speaker { prefix: Vec::new(), sent: 0, completed: 0, listed: false };
        Ok(Self {
            addr,
            stall,
            poller: Poller::new()?,
            members: Vec::with_capacity(members),
            ledger: Ledger {
                speakers: (0..speakers).map(|_| speaker()).collect(),
                flights: vec![Flight::default(); speakers * ring],
                next: vec![0; members * shape.speakers as usize],
                open: Vec::with_capacity(speakers),
                outstanding: 0,
            },
            tails: vec![0; members * MAX_LINE],
            inbox: vec![0; MAX_LINE + RECEIVE],
            complaint: String::new(),
            rules: Rules { shape, base, payload, ring },
        })
    }

    fn drain(&mut self, window: &mut Window, shared: &Shared) -> Result<()> {
        loop {
            self.turn(window)?;
            match window.batch(self.ledger.outstanding, shared) {
                Step::Go => {}
                Step::StopSending => {}
                Step::Finish => return Ok(()),
            }
        }
    }

    /// One batch of events, then the speakers whose windows it has opened.
    fn turn(&mut self, window: &mut Window) -> Result<()> {
        for n in 0..self.poller.wait(NAP)? {
            let (index, ready) = self.poller.event(n);
            if ready.contains(EventFlags::OUT) {
                self.write(index, window)?;
            }
            if ready.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(index, window)?;
            }
        }
        // After the batch, and not at once: what one batch of events has made room for leaves in
        // one write for each speaker. The wait is in no latency, which begins with the write.
        for n in 0..self.ledger.open.len() {
            let speaker = self.ledger.open[n];
            self.ledger.speakers[speaker as usize].listed = false;
            if window.sending {
                self.speak(speaker, window)?;
            }
        }
        self.ledger.open.clear();
        Ok(())
    }

    /// Fills a speaker's window.
    fn speak(&mut self, speaker: u32, window: &mut Window) -> Result<()> {
        let Rules { shape, ref payload, ring, .. } = self.rules;
        let channel = speaker / shape.speakers;
        let index = (channel * shape.members + speaker % shape.speakers) as usize;
        let member = &mut self.members[index];
        if member.dead {
            return Ok(());
        }
        let state = &mut self.ledger.speakers[speaker as usize];
        let now = window.now();
        while state.sent.wrapping_sub(state.completed) < shape.depth {
            let name = self.rules.channel(channel);
            member.out.extend_from_slice(b"PRIVMSG ");
            member.out.extend_from_slice(&name);
            member.out.extend_from_slice(b" :");
            let at = member.out.len();
            member.out.resize(at + payload.text_len(), 0);
            payload.write(member.id, state.sent, &mut member.out[at..]);
            member.out.extend_from_slice(b"\r\n");
            let slot = speaker as usize * ring + (state.sent as usize & (ring - 1));
            self.ledger.flights[slot] = Flight { sent_at: now, heard: 0 };
            state.sent = state.sent.wrapping_add(1);
            self.ledger.outstanding += 1;
            window.sent += 1;
        }
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
            if let Some(length) =
                self.rules.expected(index, member.stage, data, &mut self.ledger, now, window)
            {
                at += length;
                continue;
            }
            let Some(length) = memchr(b'\n', data) else { break };
            let line = data[..length].strip_suffix(b"\r").unwrap_or(&data[..length]);
            if let Some(complaint) =
                self.rules.other(index, member, line, &mut self.ledger, now, window)
            {
                self.complaint = complaint;
            }
            at += length + 1;
        }
        member.tail = end - at;
        if member.tail > MAX_LINE - 1 {
            let line = &self.inbox[at..end];
            window.faults.add(Fault::Altered, 1, || format!("a line without end: {}", show(line)));
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
                bail!(
                    "{behind} of {} chat members did not get as far as {stage:?}; \
                     the server's last complaint: {:?}",
                    members.len(),
                    self.complaint
                );
            }
            self.turn(&mut window)?;
        }
    }

    /// Messages that not everybody has heard are faults of their own.
    fn settle(&mut self, window: &mut Window) {
        let Rules { shape, ring, base, .. } = self.rules;
        for (n, speaker) in self.ledger.speakers.iter_mut().enumerate() {
            while speaker.completed != speaker.sent {
                let flight =
                    self.ledger.flights[n * ring + (speaker.completed as usize & (ring - 1))];
                let id =
                    base + n as u32 / shape.speakers * shape.members + n as u32 % shape.speakers;
                let missing = u64::from(shape.members - 1 - flight.heard.min(shape.members - 1));
                let seq = speaker.completed;
                window.faults.add(Fault::Unanswered, missing, || {
                    format!("message {seq} of speaker {id} did not reach {missing} members")
                });
                speaker.completed = seq.wrapping_add(1);
            }
        }
        // Should they come after all, they belong to no phase; the run is INVALID already.
        self.ledger.outstanding = 0;
    }
}

impl Rules {
    /// `#c` and five digits: the channel's number among all threads.
    fn channel(&self, channel: u32) -> [u8; 7] {
        let number = self.base / self.shape.members + channel;
        let mut name = *b"#c00000";
        let mut rest = number;
        for digit in name[2..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        name
    }

    /// The speaker whose nickname this is, if it speaks in the channel of member `index`:
    /// its place in the channel, and its number.
    fn speaker(&self, index: usize, nick: &[u8]) -> Option<(u32, u32)> {
        let id = parse_hex(nick.strip_prefix(b"u")?)?;
        let channel = index as u32 / self.shape.members;
        let place = id.wrapping_sub(self.base + channel * self.shape.members);
        (place < self.shape.speakers).then_some((place, channel * self.shape.speakers + place))
    }

    /// The fast path: a whole delivery that is exactly the one due from its speaker. Returns its
    /// length, or `None` for anything else, which is then looked at more closely.
    #[inline]
    fn expected(
        &self,
        index: usize,
        stage: Stage,
        data: &[u8],
        ledger: &mut Ledger,
        now: u64,
        window: &mut Window,
    ) -> Option<usize> {
        let nick = data.get(1..1 + NICK)?;
        let (place, speaker) = self.speaker(index, nick)?;
        let prefix = &ledger.speakers[speaker as usize].prefix;
        let text = prefix.len();
        let end = text + self.payload.text_len();
        if text == 0 || data.len() < end + 2 || stage != Stage::Joined {
            return None;
        }
        let next = index * self.shape.speakers as usize + place as usize;
        let seq = ledger.next[next];
        let id = self.base + index as u32 / self.shape.members * self.shape.members + place;
        let right = data[..text] == prefix[..]
            && self.payload.is(id, seq, &data[text..end])
            && data[end..end + 2] == *b"\r\n"
            && seq != ledger.speakers[speaker as usize].sent
            && index as u32 % self.shape.members != place;
        if !right {
            return None;
        }
        ledger.next[next] = seq.wrapping_add(1);
        self.heard(speaker, seq, ledger, now, window);
        Some(end + 2)
    }

    /// Books one delivery: its message's first, median or last may be this one.
    #[inline]
    fn heard(&self, speaker: u32, seq: u32, ledger: &mut Ledger, now: u64, window: &mut Window) {
        let receivers = self.shape.members - 1;
        let slot = speaker as usize * self.ring + (seq as usize & (self.ring - 1));
        let flight = &mut ledger.flights[slot];
        flight.heard += 1;
        window.total += 1;
        let age = now.saturating_sub(flight.sent_at);
        let heard = flight.heard;
        if window.record {
            if heard == 1 {
                window.histograms[1].1.saturating_record(age);
            }
            if heard == receivers.div_ceil(2) {
                window.histograms[2].1.saturating_record(age);
            }
            if heard == receivers {
                window.histograms[0].1.saturating_record(age);
            }
        }
        if heard == receivers {
            let state = &mut ledger.speakers[speaker as usize];
            state.completed = state.completed.wrapping_add(1);
            ledger.outstanding = ledger.outstanding.saturating_sub(1);
            if !state.listed {
                state.listed = true;
                ledger.open.push(speaker);
            }
        }
    }

    /// Any other line, without its end: registration, the server's talk, or something wrong.
    /// Returns what the server complained about.
    #[cold]
    fn other(
        &self,
        index: usize,
        member: &mut Member,
        line: &[u8],
        ledger: &mut Ledger,
        now: u64,
        window: &mut Window,
    ) -> Option<String> {
        let (source, rest) = match line.strip_prefix(b":") {
            Some(line) => split(line),
            None => (&b""[..], line),
        };
        let (command, rest) = split(rest);
        match command {
            b"PING" => {
                member.out.extend_from_slice(b"PONG ");
                member.out.extend_from_slice(rest);
                member.out.extend_from_slice(b"\r\n");
            }
            b"001" => member.stage = member.stage.max(Stage::Welcomed),
            b"366" => member.stage = Stage::Joined,
            b"PRIVMSG" => {
                let text = memchr(b':', rest).map_or(rest.len(), |colon| colon + 1);
                let prefix = &line[..line.len() - rest.len() + text];
                let delivery =
                    Delivery { source, target: split(rest).0, prefix, text: &rest[text..] };
                self.delivery(index, member.id, &delivery, ledger, now, window);
            }
            b"ERROR" => return Some(String::from_utf8_lossy(line).into_owned()),
            [b'4' | b'5', _, _] if command != b"422" => {
                let complaint = String::from_utf8_lossy(line).into_owned();
                if member.stage == Stage::Joined {
                    window.faults.add(Fault::Lost, 1, || format!("refused: {complaint}"));
                }
                return Some(complaint);
            }
            // Joins, names, topics, notices: true, and nobody's measure.
            _ => {}
        }
        None
    }

    /// A delivery that was not the expected one at first sight.
    fn delivery(
        &self,
        index: usize,
        own: u32,
        delivery: &Delivery<'_>,
        ledger: &mut Ledger,
        now: u64,
        window: &mut Window,
    ) {
        let text = delivery.text;
        let describe = || format!("member {own}: came {} {}", show(delivery.prefix), show(text));
        let nick =
            &delivery.source[..memchr(b'!', delivery.source).unwrap_or(delivery.source.len())];
        let channel = self.channel(index as u32 / self.shape.members);
        let Some((place, speaker)) =
            self.speaker(index, nick).filter(|_| delivery.target == channel)
        else {
            return window.faults.add(Fault::Crossed, 1, describe);
        };
        let id = self.base + index as u32 / self.shape.members * self.shape.members + place;
        if id == own {
            return window.faults.add(Fault::ToSpeaker, 1, describe);
        }
        let slot = index * self.shape.speakers as usize + place as usize;
        let next = ledger.next[slot];
        let sent = ledger.speakers[speaker as usize].sent;
        let waiting = sent.wrapping_sub(next);
        let seq = match parse_header(text) {
            Some((from, seq)) if from == id && self.payload.is(id, seq, text) => seq,
            // In the place of what was due, whatever it is.
            wrong => {
                let crossed = wrong.is_some_and(|(from, seq)| self.payload.is(from, seq, text));
                let fault = match () {
                    () if crossed => Fault::Crossed,
                    () if self.payload.is_prefix(id, next, text) => Fault::Truncated,
                    () => Fault::Altered,
                };
                window.faults.add(fault, 1, describe);
                next
            }
        };
        let ahead = seq.wrapping_sub(next);
        let stream = u64::from(own) << 32 | u64::from(id);
        if ahead > u32::MAX / 2 {
            return window.faults.behind(stream, seq, describe);
        }
        if ahead >= waiting {
            return window.faults.add(Fault::Early, 1, describe);
        }
        window.faults.gap(stream, next, seq, describe);
        ledger.next[slot] = seq.wrapping_add(1);
        let state = &mut ledger.speakers[speaker as usize];
        if state.prefix != delivery.prefix {
            state.prefix.clear();
            state.prefix.extend_from_slice(delivery.prefix);
        }
        self.heard(speaker, seq, ledger, now, window);
    }
}

/// The parts of a PRIVMSG as it came.
struct Delivery<'a> {
    source: &'a [u8],
    target: &'a [u8],
    /// Everything before the text.
    prefix: &'a [u8],
    text: &'a [u8],
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
        let all = self.rules.shape.channels * self.rules.shape.members;
        for first in (0..all).step_by(BATCH) {
            let part = first..all.min(first + BATCH as u32);
            let ids = self.rules.base + part.start..self.rules.base + part.end;
            let sockets = connect::batch(self.addr, ids.clone(), self.stall, shared)?;
            for (fd, id) in sockets.into_iter().zip(ids) {
                let index = self.members.len();
                self.poller.add(&fd, index)?;
                let window = self.rules.shape.depth as usize * (self.rules.payload.text_len() + 32);
                let speaks = index as u32 % self.rules.shape.members < self.rules.shape.speakers;
                let mut out = Vec::with_capacity(MAX_LINE + if speaks { window } else { 0 });
                let hello = format!("NICK u{id:05x}\r\nUSER u{id:05x} 0 * :loadgen\r\n");
                out.extend_from_slice(hello.as_bytes());
                self.members.push(Member {
                    fd,
                    id,
                    stage: Stage::Registering,
                    out,
                    written: 0,
                    wants_out: false,
                    dead: false,
                    tail: 0,
                });
            }
            self.say_all(part.start as usize..part.end as usize)?;
            self.reach(part.start as usize..part.end as usize, Stage::Welcomed, shared)?;
        }
        for index in 0..all as usize {
            let name = self.rules.channel(index as u32 / self.rules.shape.members);
            let out = &mut self.members[index].out;
            out.extend_from_slice(b"JOIN ");
            out.extend_from_slice(&name);
            out.extend_from_slice(b"\r\n");
        }
        self.say_all(0..all as usize)?;
        self.reach(0..all as usize, Stage::Joined, shared)
    }

    fn run(&mut self, phase: Phase, shared: &Shared) -> Result<PhaseResult> {
        let mut window = Window::new(phase, self.stall, &["last", "first", "median"]);
        if window.sending {
            for speaker in 0..self.ledger.speakers.len() {
                self.speak(speaker as u32, &mut window)?;
            }
        }
        self.drain(&mut window, shared)?;
        self.settle(&mut window);
        Ok(window.finish())
    }
}

impl Fanout {
    /// Writes what is queued for each of `members`; a fault here shows up when they are awaited.
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
