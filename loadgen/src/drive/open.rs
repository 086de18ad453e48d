//! The open-loop echo driver: a line leaves when its time has come, whether the server is ready or
//! not, and its response time counts from then.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::Result;

use super::line::{Lines, Notes};
use super::pacer::{BURST, Due, Pace, Pacer};
use super::payload::Payload;
use super::poller::TIMER;
use super::window::{Step, Window};
use super::{Driver, Phase, PhaseResult, Shared};
use crate::workload::WhenBusy;

/// Where lines are pipelined without regard to depth: the most in flight on all connections of a
/// thread together, and on one. Beyond that they queue.
const PIPELINED: [usize; 2] = [1 << 22, 1 << 16];
/// The histograms of a phase, and their places in it.
const HISTOGRAMS: [&str; 3] = ["response", "service", "lateness"];
const RESPONSE: usize = 0;
const SERVICE: usize = 1;
const LATENESS: usize = 2;

/// The times of each line in flight, in rings of `ring` entries for each connection: when it was
/// to be written, and when it was.
struct Flights {
    times: Vec<(u64, u64)>,
    ring: usize,
}

impl Flights {
    fn at(&mut self, index: usize, seq: u32) -> &mut (u64, u64) {
        &mut self.times[index * self.ring + (seq as usize & (self.ring - 1))]
    }
}

impl Notes for Flights {
    #[inline]
    fn written(&mut self, index: usize, seq: u32, now: u64) {
        self.at(index, seq).1 = now;
    }

    #[inline]
    fn answered(&mut self, index: usize, seq: u32, now: u64, window: &mut Window) {
        if window.record {
            let (intended, written) = *self.at(index, seq);
            window.note(RESPONSE, now - intended);
            window.note(SERVICE, now - written);
            window.note(LATENESS, written - intended);
        }
    }
}

/// One thread's connections.
pub(super) struct Open {
    lines: Lines<Flights>,
    pacer: Pacer,
    stall: Duration,
}

impl Open {
    /// Connections `ids`, of which `active` talk.
    pub(super) fn new(
        addr: SocketAddr,
        ids: Range<u32>,
        active: u32,
        pace: Pace,
        payload: Payload,
        stall: Duration,
    ) -> Result<Self> {
        let depth = pace.depth as usize;
        let ring = match pace.when_busy {
            WhenBusy::Pipeline => (PIPELINED[0] / ids.len()).min(PIPELINED[1]).max(depth),
            WhenBusy::Queue | WhenBusy::Drop => depth,
        };
        let ring = ring.next_power_of_two();
        let flights = Flights { times: vec![(0, 0); ring * ids.len()], ring };
        let lines = Lines::new(addr, ids, active, payload, stall, flights)?;
        Ok(Self { pacer: Pacer::new(pace, &lines.poller)?, lines, stall })
    }

    /// Sends what is due, but not more than a burst.
    #[inline]
    fn send_due(&mut self, window: &mut Window) -> Result<()> {
        for _ in 0..BURST {
            let now = window.now();
            let Some(intended) = self.pacer.due(now) else { break };
            if !self.send(intended, now, window)? {
                break;
            }
        }
        Ok(())
    }

    /// Sends, or drops, the next message. `false` if it has to wait for a connection.
    fn send(&mut self, intended: u64, now: u64, window: &mut Window) -> Result<bool> {
        let conns = &self.lines.conns;
        let in_flight = |index: u32| {
            let conn = &conns[index as usize];
            (!conn.dead).then(|| conn.in_flight())
        };
        let most = self.lines.notes.ring as u32;
        let index = match self.pacer.take(intended, now, most, in_flight) {
            Due::Send(index) => index as usize,
            Due::Dropped => return Ok(true),
            Due::Wait => return Ok(false),
        };
        let seq = self.lines.ask(index, 1);
        self.lines.notes.at(index, seq).0 = intended;
        self.lines.write(index, now, window)?;
        Ok(true)
    }

    /// One batch of events. What comes due meanwhile is sent between two of them.
    fn turn(&mut self, window: &mut Window) -> Result<()> {
        for n in 0..self.pacer.wait(&mut self.lines.poller, window)? {
            if self.lines.poller.event(n).0 == TIMER {
                continue;
            }
            let Some(answers) = self.lines.event(n, window)? else { continue };
            let left = self.lines.conns[answers.index].in_flight();
            self.pacer.answered(answers.index as u32, left + answers.lines, left);
            if window.sending && self.pacer.due(answers.now).is_some() {
                self.send_due(window)?;
            }
        }
        Ok(())
    }

    /// The window is over: what was due by then is still sent, if it finds room.
    fn close(&mut self, window: &mut Window) -> Result<()> {
        let ended = window.now();
        if window.cut {
            self.pacer.cut(ended);
        }
        while let Some(intended) = self.pacer.due(ended) {
            if !self.send(intended, window.now(), window)? {
                break;
            }
        }
        Ok(())
    }
}

impl Driver for Open {
    fn open(&mut self, shared: &Shared) -> Result<()> {
        self.lines.open(shared)?;
        let conns = self.lines.conns.iter().enumerate();
        self.pacer.takers(conns.filter(|(_, conn)| conn.active).map(|(index, _)| index as u32));
        Ok(())
    }

    fn run(&mut self, phase: Phase, shared: &Shared) -> Result<PhaseResult> {
        self.lines.outstanding = 0;
        self.pacer.begin(phase);
        let mut window = Window::new(phase, self.stall, &HISTOGRAMS);
        loop {
            if window.sending {
                self.send_due(&mut window)?;
            }
            self.turn(&mut window)?;
            match window.batch(self.lines.outstanding, shared) {
                Step::Go => {}
                Step::StopSending => self.close(&mut window)?,
                Step::Finish => break,
            }
        }
        self.lines.settle(&mut window);
        let mut result = window.finish();
        result.open_loop = Some(self.pacer.counts());
        Ok(result)
    }
}
