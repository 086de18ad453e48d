//! The check of an echo without a server: what comes is given as bytes, whatever they are.

use std::fs::File;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use super::Phase;
use super::faults::FaultLog;
use super::line::{Conn, Lines, Notes};
use super::payload::Payload;
use super::window::Window;

/// One connection whose lines have been sent, and what the check says of the bytes that come back.
pub struct OfflineEcho {
    lines: Lines<Unnoted>,
    pub(super) window: Window,
}

/// No times are kept.
struct Unnoted;

impl Notes for Unnoted {
    fn written(&mut self, _: usize, _: u32, _: u64) {}

    fn answered(&mut self, _: usize, _: u32, _: u64, _: &mut Window) {}
}

impl OfflineEcho {
    /// The texts follow from `seed` and `sizes`, each with its weight. Nothing is sent yet.
    pub fn new(seed: u64, sizes: &[(usize, u32)]) -> Result<Self> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let payload = Payload::mixed(seed, sizes);
        let lines = Lines::new(nowhere, 0..0, 0, payload, Duration::MAX, Unnoted)?;
        let window = Window::new(Phase::Touch, Duration::MAX, &[]);
        Ok(Self { lines, window })
    }

    /// Begins again with connection `id`, which has sent `bytes` of its stream of lines.
    pub fn begin(&mut self, id: u32, bytes: usize) -> Result<()> {
        self.window = Window::new(Phase::Touch, Duration::MAX, &[]);
        self.lines.outstanding = 0;
        self.lines.conns.clear();
        self.lines.conns.push(Conn::new(File::open("/dev/null")?.into(), id, true));
        let conn = &mut self.lines.conns[0];
        self.window.sent += conn.wrote(bytes, &self.lines.payload);
        conn.goal = conn.sent.wrapping_add(u32::from(conn.sent_bytes > 0));
        Ok(())
    }

    /// Line `seq` of connection `id`, with its end: what is sent, and what must come back.
    #[must_use]
    pub fn line(&self, id: u32, seq: u32) -> Vec<u8> {
        let mut line = vec![b'\n'; self.lines.payload.text_len(id, seq) + 1];
        self.lines.payload.write(id, seq, &mut line);
        line
    }

    /// Checks what has come in one receive, at most as much as fits into the receive buffer.
    /// Returns how many lines are answered.
    pub fn check(&mut self, received: &[u8]) -> u32 {
        let received = &received[..received.len().min(self.lines.inbox.len())];
        self.lines.inbox[..received.len()].copy_from_slice(received);
        self.lines.check(0, received.len(), 0, &mut self.window)
    }

    /// Nothing more comes: what was wrong, and what is missing.
    pub fn settle(&mut self) -> &FaultLog {
        self.lines.settle(&mut self.window);
        &self.window.faults
    }
}
