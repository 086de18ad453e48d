//! The hub under any calls in any order: what it mails is well formed, bounded, complete, and for
//! connections that are there.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use protocol::{ConnId, Hub, Limits, Line, Mail, Mode, Parcel, Settings, Slots, Time};

use crate::chat;

const WORKERS: usize = 2;
const CONNECTIONS: usize = 6;
/// The most steps of one input: a longer one finds nothing more, and takes longer.
const STEPS: usize = 400;

/// What is known of a connection that is open.
#[derive(Default)]
struct Seat {
    /// [`Parcel::Close`] has come.
    closed: bool,
    /// It was told that there is no room, and not yet that there is.
    waiting: bool,
}

struct Trial {
    settings: Arc<Settings>,
    hub: Hub,
    slots: [Slots<()>; WORKERS],
    seats: BTreeMap<ConnId, Seat>,
    pressed: Vec<ConnId>,
    now: Time,
    stopped: bool,
}

/// The bytes are a list of calls.
pub fn hub(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let small = input.arbitrary().unwrap_or(false);
    let limits = Limits {
        sendq: if small { 2 << 10 } else { 64 << 10 },
        max_channels: 3,
        ..Limits::default()
    };
    let settings = Arc::new(Settings { mode: Mode::Chat, limits, ..Settings::default() });
    let mut trial = Trial {
        hub: Hub::new(Arc::clone(&settings), WORKERS),
        settings,
        slots: [0, 1].map(Slots::new),
        seats: BTreeMap::new(),
        pressed: Vec::new(),
        now: Time::ZERO,
        stopped: false,
    };
    for nick in ["a", "b", "c"] {
        trial.member(nick);
    }
    for _ in 0..STEPS {
        if input.is_empty() || trial.step(&mut input).is_err() {
            break;
        }
    }
    trial.end();
}

impl Trial {
    fn open(&mut self, worker: usize) -> ConnId {
        let id = self.slots[worker].insert(()).0;
        self.hub.open(id, "127.0.0.1", self.now);
        self.seats.insert(id, Seat::default());
        id
    }

    /// A registered member of #a.
    fn member(&mut self, nick: &str) {
        let id = self.open(self.seats.len() % WORKERS);
        for line in chat::registration(nick) {
            self.say(id, Line::Whole(line.as_bytes()));
        }
        self.say(id, Line::Whole(b"JOIN #a"));
    }

    fn say(&mut self, id: ConnId, line: Line<'_>) {
        let room = self.hub.line(id, line, self.now);
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.waiting |= !room;
        }
    }

    fn any(&self, input: &mut Unstructured<'_>) -> Result<ConnId> {
        let ids: Vec<_> = self.seats.keys().copied().collect();
        // Sometimes one that never was, which the hub must not mind.
        if ids.is_empty() || input.ratio(1_u8, 32_u8)? {
            return Ok(ConnId::from_bits(input.arbitrary::<u64>()? & !(1 << 49)));
        }
        Ok(*input.choose(&ids)?)
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let id = self.any(input)?;
        match input.int_in_range(0..=31_u8)? {
            0..=15 => self.say(id, Line::Whole(&chat::line(input)?)),
            16 => self.say(id, Line::TooLong),
            17 => self.say(id, Line::Refused("This is not a web server")),
            18 => self.say(id, Line::End),
            19..=21 => self.take(usize::from(input.arbitrary::<bool>()?)),
            22 => self.hub.ping(id),
            23 => self.hub.cut(id, "Ping timeout"),
            24 => self.leave(id),
            25 if self.seats.len() < CONNECTIONS => {
                self.open(usize::from(input.arbitrary::<bool>()?));
            }
            26 => self.hub.note_queue(id, input.arbitrary::<u16>()?.into()),
            27 if self.seats.contains_key(&id) => {
                self.hub.press(id);
                self.pressed.push(id);
            }
            28 => {
                self.hub.relieve(id);
                self.pressed.retain(|pressed| *pressed != id);
            }
            29 => self.now = self.now + Duration::from_millis(input.arbitrary::<u32>()?.into()),
            30 if input.ratio(1_u8, 16_u8)? => {
                self.hub.shut_down();
                self.stopped = true;
            }
            _ => {
                let room = self.hub.has_room(id);
                if let Some(seat) = self.seats.get_mut(&id) {
                    seat.waiting |= !room;
                }
            }
        }
        Ok(())
    }

    fn leave(&mut self, id: ConnId) {
        if self.seats.remove(&id).is_none() {
            return;
        }
        self.hub.leave(id, "Connection reset");
        self.pressed.retain(|pressed| *pressed != id);
        // What was mailed before is still on its way; the worker no longer knows the id.
        self.slots[id.worker()].remove(id);
    }

    fn take(&mut self, worker: usize) {
        let mut mail = Vec::new();
        self.hub.take(worker, &mut mail);
        let mut bytes: BTreeMap<ConnId, usize> = BTreeMap::new();
        for Mail { to, parcel } in mail {
            assert_eq!(to.worker(), worker, "mail for another worker");
            let Some(seat) = self.seats.get_mut(&to) else { continue };
            match parcel {
                Parcel::Resume => seat.waiting = false,
                _ => assert!(!seat.closed, "mail after the last"),
            }
            match parcel {
                Parcel::Text(text) => {
                    chat::check_lines(&text);
                    let sum = bytes.entry(to).or_default();
                    *sum += text.len();
                    assert!(*sum <= self.settings.limits.sendq, "more than the queue may have");
                }
                Parcel::Close(last) => {
                    if !last.is_empty() {
                        chat::check_lines(&last);
                    }
                    seat.closed = true;
                }
                Parcel::Welcome | Parcel::Resume | Parcel::Overrun => {}
            }
        }
    }

    /// Once all mail is taken, none of those who wait may be left waiting; and a server that stops
    /// leaves no connection without a last word.
    fn end(&mut self) {
        for id in core::mem::take(&mut self.pressed) {
            self.hub.relieve(id);
        }
        for worker in [0, 1, 0, 1] {
            self.take(worker);
        }
        for (id, seat) in &self.seats {
            assert!(!seat.waiting, "{id:?} waits for ever");
            assert!(seat.closed || !self.stopped, "{id:?} was not told of the end");
        }
        self.hub.shut_down();
        for worker in [0, 1] {
            self.take(worker);
        }
        for (id, seat) in &self.seats {
            assert!(seat.closed, "{id:?} was not told of the end");
        }
    }
}
