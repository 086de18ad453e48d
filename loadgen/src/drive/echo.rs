//! The echo driver, a closed loop: ping-pong is a window of one line per connection, pipelining
//! one of many, and an answer makes room for the next line.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::Result;

use super::line::{Lines, Notes};
use super::payload::Payload;
use super::window::{Step, Window};
use super::{Driver, NAP, Phase, PhaseResult, Shared};

/// When each line in flight was written: a ring of `ring` entries for each connection.
struct Stamps {
    at: Vec<u64>,
    ring: usize,
}

impl Stamps {
    fn place(&self, index: usize, seq: u32) -> usize {
        index * self.ring + (seq as usize & (self.ring - 1))
    }
}

impl Notes for Stamps {
    #[inline]
    fn written(&mut self, index: usize, seq: u32, now: u64) {
        let place = self.place(index, seq);
        self.at[place] = now;
    }

    #[inline]
    fn answered(&mut self, index: usize, seq: u32, now: u64, window: &mut Window) {
        if window.record {
            window.note(0, now - self.at[self.place(index, seq)]);
        }
    }
}

/// One thread's share of the connections, with `depth` lines in flight on each active one.
pub(super) struct Echo {
    lines: Lines<Stamps>,
    depth: u32,
    stall: Duration,
}

impl Echo {
    /// Connections `ids`, of which `active` talk with `depth` lines in flight each.
    pub(super) fn new(
        addr: SocketAddr,
        ids: Range<u32>,
        active: u32,
        depth: u32,
        payload: Payload,
        stall: Duration,
    ) -> Result<Self> {
        let ring = depth.next_power_of_two() as usize;
        let stamps = Stamps { at: vec![0; ring * ids.len()], ring };
        let lines = Lines::new(addr, ids, active, payload, stall, stamps)?;
        Ok(Self { lines, depth, stall })
    }
}

impl Driver for Echo {
    fn open(&mut self, shared: &Shared) -> Result<()> {
        self.lines.open(shared)
    }

    fn run(&mut self, phase: Phase, shared: &Shared) -> Result<PhaseResult> {
        let lines = &mut self.lines;
        lines.outstanding = 0;
        let mut window = Window::new(phase, self.stall, &["latency"]);
        for index in 0..lines.conns.len() {
            if window.sending && lines.conns[index].active {
                lines.ask(index, self.depth);
                lines.write(index, window.now(), &mut window)?;
            }
        }
        loop {
            for n in 0..lines.poller.wait(NAP)? {
                let Some(answers) = lines.event(n, &mut window)? else { continue };
                if window.sending {
                    lines.ask(answers.index, answers.lines);
                    lines.write(answers.index, answers.now, &mut window)?;
                }
            }
            match window.batch(lines.outstanding, shared) {
                Step::Go => {}
                Step::StopSending => lines.stop_sending(),
                Step::Finish => break,
            }
        }
        lines.settle(&mut window);
        Ok(window.finish())
    }
}
