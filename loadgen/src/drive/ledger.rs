//! Which speaker has said what in which channel, and which members have heard it: the check of the
//! chat driver.
//!
//! Connections of a thread are numbered from 0 here (`index`), channel by channel; the first
//! `speakers` of each channel's members speak. A speaker's nickname names its connection among
//! all threads (`id`), so a delivery says by itself who must have sent it.

#[cfg(test)]
mod tests;

use memchr::memchr;

use super::faults::Fault;
use super::payload::{Payload, parse_header, parse_hex};
use super::window::Window;
use crate::base::text::quoted;

/// Length of a nickname: `u` and five hexadecimal digits.
const NICK: usize = 6;

/// The histograms of a phase, and their places in it; only an open loop has the last one.
pub(super) const HISTOGRAMS: [&str; 4] = ["last", "first", "median", "lateness"];
const LAST: usize = 0;
const FIRST: usize = 1;
const MEDIAN: usize = 2;
pub(super) const LATENESS: usize = 3;

/// The measures of a thread's share of a fan-out workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Number of the first connection; a multiple of `members`.
    pub(super) base: u32,
    /// Channels.
    pub(super) channels: u32,
    /// Members of each channel, speakers included; at least 2.
    pub(super) members: u32,
    /// Speakers in each channel.
    pub(super) speakers: u32,
    /// Messages that a speaker has in flight.
    pub(super) depth: u32,
}

/// What a speaker has said, and which members have heard it.
#[derive(Clone, Default)]
struct Speaker {
    /// What comes before the text in a delivery, learnt from the first one that was all right.
    prefix: Vec<u8>,
    sent: u32,
    /// Messages delivered to all; those from here to `sent` are in flight.
    completed: u32,
    /// Messages delivered to all since the speaker was taken from the list of those whose window
    /// has opened; it is in that list if there are any.
    freed: u32,
}

/// One message in flight.
#[derive(Clone, Copy, Default)]
struct Flight {
    /// When it was sent, or in an open loop when it was to be sent.
    since: u64,
    heard: u32,
}

/// A PRIVMSG as it came, without its end.
pub(super) struct Delivery<'a> {
    /// Nickname, user and host.
    pub(super) source: &'a [u8],
    /// The channel.
    pub(super) target: &'a [u8],
    /// Everything before the text.
    pub(super) prefix: &'a [u8],
    /// What was said.
    pub(super) text: &'a [u8],
}

/// The state of all channels of a thread.
pub(super) struct Ledger {
    pub(super) shape: Shape,
    payload: Payload,
    speakers: Vec<Speaker>,
    /// For each speaker a ring of `ring` messages in flight.
    flights: Vec<Flight>,
    ring: usize,
    /// The next sequence number for each member and each speaker of its channel.
    next: Vec<u32>,
    /// Speakers whose window has opened since they were last taken.
    open: Vec<u32>,
    /// Messages that are not yet delivered to all.
    pub(super) outstanding: u64,
}

impl Ledger {
    pub(super) fn new(shape: Shape, payload: Payload) -> Self {
        let members = (shape.channels * shape.members) as usize;
        let speakers = (shape.channels * shape.speakers) as usize;
        let ring = shape.depth.next_power_of_two() as usize;
        Self {
            speakers: vec![Speaker::default(); speakers],
            flights: vec![Flight::default(); speakers * ring],
            next: vec![0; members * shape.speakers as usize],
            open: Vec::with_capacity(speakers),
            outstanding: 0,
            shape,
            payload,
            ring,
        }
    }

    /// All speakers, by number.
    pub(super) fn speakers(&self) -> std::ops::Range<u32> {
        0..self.speakers.len() as u32
    }

    /// Takes a speaker whose window has opened, and by how many messages.
    pub(super) fn take_open(&mut self) -> Option<(u32, u32)> {
        let speaker = self.open.pop()?;
        Some((speaker, std::mem::take(&mut self.speakers[speaker as usize].freed)))
    }

    /// Messages of a speaker that are not yet delivered to all.
    pub(super) fn in_flight(&self, speaker: u32) -> u32 {
        let Speaker { sent, completed, .. } = self.speakers[speaker as usize];
        sent.wrapping_sub(completed)
    }

    /// The member that a speaker is.
    pub(super) fn index_of(&self, speaker: u32) -> usize {
        let (channel, place) = (speaker / self.shape.speakers, speaker % self.shape.speakers);
        (channel * self.shape.members + place) as usize
    }

    /// Bytes that a full window of one speaker takes, more or less.
    pub(super) fn window_bytes(&self) -> usize {
        self.shape.depth as usize * (self.payload.longest() + 32)
    }

    /// `#c` and five digits: the channel of member `index`, numbered among all threads.
    pub(super) fn channel(&self, index: usize) -> [u8; 7] {
        let mut name = *b"#c00000";
        let mut number = (self.shape.base + index as u32) / self.shape.members;
        for digit in name[2..].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        name
    }

    /// Number of the first connection in the channel of member `index`.
    fn first_id(&self, index: usize) -> u32 {
        self.shape.base + index as u32 / self.shape.members * self.shape.members
    }

    /// The speaker whose nickname this is, if it speaks in the channel of member `index`:
    /// its place in the channel, and its number.
    #[inline]
    fn speaker(&self, index: usize, nick: &[u8]) -> Option<(u32, u32)> {
        let id = parse_hex(nick.strip_prefix(b"u")?)?;
        let place = id.wrapping_sub(self.first_id(index));
        let channel = index as u32 / self.shape.members;
        (place < self.shape.speakers).then_some((place, channel * self.shape.speakers + place))
    }

    fn flight(&mut self, speaker: u32, seq: u32) -> &mut Flight {
        &mut self.flights[speaker as usize * self.ring + (seq as usize & (self.ring - 1))]
    }

    /// Fills a speaker's window with messages, written to `out`.
    pub(super) fn speak(&mut self, speaker: u32, out: &mut Vec<u8>, window: &mut Window) {
        let now = window.now();
        while self.in_flight(speaker) < self.shape.depth {
            self.say(speaker, now, out, window);
        }
    }

    /// Writes one message to `out`; its deliveries are timed from `since`.
    pub(super) fn say(&mut self, speaker: u32, since: u64, out: &mut Vec<u8>, window: &mut Window) {
        let index = self.index_of(speaker);
        let (channel, id) = (self.channel(index), self.shape.base + index as u32);
        let sent = self.speakers[speaker as usize].sent;
        out.extend_from_slice(b"PRIVMSG ");
        out.extend_from_slice(&channel);
        out.extend_from_slice(b" :");
        let at = out.len();
        out.resize(at + self.payload.longest(), 0);
        self.payload.write(id, sent, &mut out[at..]);
        out.extend_from_slice(b"\r\n");
        *self.flight(speaker, sent) = Flight { since, heard: 0 };
        self.speakers[speaker as usize].sent = sent.wrapping_add(1);
        self.outstanding += 1;
        window.sent += 1;
    }

    /// The fast path: `data` begins with a whole delivery that is exactly the one due from its
    /// speaker to member `index`. Returns its length, or `None` for anything else, which is then
    /// to be looked at more closely.
    #[inline]
    pub(super) fn expected(
        &mut self,
        index: usize,
        data: &[u8],
        now: u64,
        window: &mut Window,
    ) -> Option<usize> {
        let (place, speaker) = self.speaker(index, data.get(1..1 + NICK)?)?;
        let state = &self.speakers[speaker as usize];
        let text = state.prefix.len();
        let end = text + self.payload.longest();
        if text == 0 || data.len() < end + 2 {
            return None;
        }
        let next = index * self.shape.speakers as usize + place as usize;
        let seq = self.next[next];
        let right = data[..text] == state.prefix[..]
            && self.payload.is(self.first_id(index) + place, seq, &data[text..end])
            && data[end..end + 2] == *b"\r\n"
            && seq != state.sent
            && index as u32 % self.shape.members != place;
        if !right {
            return None;
        }
        self.next[next] = seq.wrapping_add(1);
        self.heard(speaker, seq, now, window);
        Some(end + 2)
    }

    /// Books one delivery: its message's first, median or last may be this one.
    #[inline]
    fn heard(&mut self, speaker: u32, seq: u32, now: u64, window: &mut Window) {
        let receivers = self.shape.members - 1;
        let flight = self.flight(speaker, seq);
        flight.heard += 1;
        let (heard, age) = (flight.heard, now.saturating_sub(flight.since));
        window.total += 1;
        if window.record {
            if heard == 1 {
                window.note(FIRST, age);
            }
            if heard == receivers.div_ceil(2) {
                window.note(MEDIAN, age);
            }
            if heard == receivers {
                window.note(LAST, age);
            }
        }
        if heard == receivers {
            self.outstanding = self.outstanding.saturating_sub(1);
            let state = &mut self.speakers[speaker as usize];
            state.completed = state.completed.wrapping_add(1);
            state.freed += 1;
            if state.freed == 1 {
                self.open.push(speaker);
            }
        }
    }

    /// A delivery to member `index` that was not the expected one at first sight: the first of
    /// its speaker, or a wrong one.
    #[cold]
    pub(super) fn examine(
        &mut self,
        index: usize,
        delivery: &Delivery<'_>,
        now: u64,
        window: &mut Window,
    ) {
        let own = self.shape.base + index as u32;
        let (source, text) = (delivery.source, delivery.text);
        let describe =
            || format!("member {own}: came {} {}", quoted(delivery.prefix), quoted(text));
        let nick = &source[..memchr(b'!', source).unwrap_or(source.len())];
        let here = delivery.target == self.channel(index);
        let Some((place, speaker)) = self.speaker(index, nick).filter(|_| here) else {
            return window.faults.add(Fault::Crossed, 1, describe);
        };
        let id = self.first_id(index) + place;
        if id == own {
            return window.faults.add(Fault::ToSpeaker, 1, describe);
        }
        let slot = index * self.shape.speakers as usize + place as usize;
        let next = self.next[slot];
        let seq = match parse_header(text) {
            Some((from, seq)) if from == id && self.payload.is(id, seq, text) => seq,
            // It came in the place of the one that was due.
            claimed => {
                window.faults.add(self.wrong_text(id, next, claimed, text), 1, describe);
                next
            }
        };
        let stream = u64::from(own) << 32 | u64::from(id);
        let ahead = seq.wrapping_sub(next);
        if ahead > u32::MAX / 2 {
            return window.faults.behind(stream, seq, describe);
        }
        if ahead >= self.speakers[speaker as usize].sent.wrapping_sub(next) {
            return window.faults.add(Fault::Early, 1, describe);
        }
        window.faults.gap(stream, next, seq, describe);
        self.next[slot] = seq.wrapping_add(1);
        let prefix = &mut self.speakers[speaker as usize].prefix;
        if prefix != delivery.prefix {
            prefix.clear();
            prefix.extend_from_slice(delivery.prefix);
        }
        self.heard(speaker, seq, now, window);
    }

    /// What is wrong with a text that is not the one it claims to be.
    fn wrong_text(&self, id: u32, next: u32, claimed: Option<(u32, u32)>, text: &[u8]) -> Fault {
        if claimed.is_some_and(|(from, seq)| self.payload.is(from, seq, text)) {
            Fault::Crossed
        } else if self.payload.is_prefix(id, next, text) {
            Fault::Truncated
        } else {
            Fault::Altered
        }
    }

    /// Messages that not everybody has heard at the end of a phase are faults of their own.
    pub(super) fn settle(&mut self, window: &mut Window) {
        if window.cut {
            return;
        }
        for speaker in self.speakers() {
            let id = self.shape.base + self.index_of(speaker) as u32;
            let Speaker { sent, mut completed, .. } = self.speakers[speaker as usize];
            while completed != sent {
                let heard = self.flight(speaker, completed).heard;
                let missing = (self.shape.members - 1).saturating_sub(heard);
                window.faults.add(Fault::Unanswered, u64::from(missing), || {
                    format!("message {completed} of speaker {id} did not reach {missing} members")
                });
                completed = completed.wrapping_add(1);
            }
            self.speakers[speaker as usize].completed = sent;
        }
        // Should they come after all, they belong to no phase; the run is INVALID already.
        self.outstanding = 0;
    }
}
