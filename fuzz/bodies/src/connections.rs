//! Several workers with their connections and one hub, as loops drive them, with the fuzzer for a
//! kernel.

use core::time::Duration;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use protocol::{ConnId, Connections, Hub, Mode, Next, Settings, Time};

use crate::chat;

const WORKERS: usize = 2;
const PEERS: usize = 6;
const STEPS: usize = 400;

/// A peer and its socket.
#[derive(Default)]
struct Peer {
    /// On the way to the server, and whether the stream ends behind it.
    unread: Vec<u8>,
    ended: bool,
    /// All that it has sent, and all that has come.
    said: Vec<u8>,
    heard: Vec<u8>,
    /// Bytes that the socket takes now.
    room: usize,
    shut: bool,
    closed: bool,
    /// A deadline or the stop may have ended it early.
    excused: bool,
}

struct Worker {
    conns: Connections<Io>,
}

struct Io {
    peer: usize,
    reading: bool,
}

struct Trial {
    settings: Arc<Settings>,
    hub: Option<Hub>,
    workers: Vec<Worker>,
    peers: Vec<Peer>,
    now: Time,
    stale: Vec<(usize, ConnId)>,
}

/// The bytes are the settings, and then what happens.
pub fn connections(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(settings) = settings(&mut input) else { return };
    let settings = Arc::new(settings);
    let worker = |at| Worker { conns: Connections::new(&settings, at) };
    let mut trial = Trial {
        hub: (settings.mode == Mode::Chat).then(|| Hub::new(Arc::clone(&settings), WORKERS)),
        workers: (0..WORKERS).map(worker).collect(),
        settings: Arc::clone(&settings),
        peers: Vec::new(),
        now: Time::ZERO,
        stale: Vec::new(),
    };
    for _ in 0..STEPS {
        if input.is_empty() || trial.step(&mut input).is_err() {
            break;
        }
    }
    trial.end();
}

fn settings(input: &mut Unstructured<'_>) -> Result<Settings> {
    let mode = if input.arbitrary()? { Mode::Chat } else { Mode::Echo };
    let mut settings = Settings { mode, ..Settings::default() };
    settings.limits.max_line = 48;
    settings.limits.sendq = *input.choose(&[2 << 10, 16 << 10])?;
    settings.limits.flood_control = input.arbitrary()?;
    if input.ratio(1_u8, 4_u8)? {
        settings.wait = Duration::from_millis(5);
    }
    if input.ratio(1_u8, 4_u8)? {
        settings.step_lines = input.int_in_range(1..=3)?;
    }
    Ok(settings)
}

impl Trial {
    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let event = input.int_in_range(0..=31_u8)?;
        if event <= 1 || self.peers.is_empty() {
            if self.peers.iter().filter(|peer| !peer.closed).count() < PEERS {
                self.connect(input.arbitrary::<bool>()?.into());
            }
            return Ok(());
        }
        let at = input.choose_index(self.peers.len())?;
        let peer = &mut self.peers[at];
        match event {
            2..=9 if !peer.ended => {
                let mut bytes = Vec::new();
                if self.settings.mode == Mode::Chat && input.ratio(7_u8, 8_u8)? {
                    bytes.extend(chat::line(input)?);
                    bytes.extend_from_slice(b"\r\n");
                } else {
                    bytes.extend_from_slice(input.arbitrary()?);
                    bytes.extend_from_slice(if input.arbitrary()? { b"\n" } else { b"" });
                }
                peer.unread.extend_from_slice(&bytes);
                peer.said.extend_from_slice(&bytes);
            }
            10..=12 => peer.room += usize::from(input.arbitrary::<u16>()?) % 4096,
            13 => peer.ended = true,
            14 => self.reset(at, input.arbitrary()?),
            15 => self.pass(Duration::from_millis(input.int_in_range(0..=50)?)),
            16 if input.ratio(1_u8, 4_u8)? => {
                self.pass(Duration::from_secs(input.int_in_range(0..=400)?));
            }
            17 if input.ratio(1_u8, 16_u8)? => self.stop(),
            _ => {
                let worker = input.arbitrary::<bool>()?.into();
                let most = 1 + usize::from(input.arbitrary::<u8>()?);
                self.turn(worker, most);
            }
        }
        Ok(())
    }

    fn connect(&mut self, worker: usize) {
        if self.workers[worker].conns.is_stopping() {
            return;
        }
        let peer = self.peers.len();
        self.peers.push(Peer::default());
        let io = Io { peer, reading: true };
        let host = "127.0.0.1";
        let id = self.workers[worker].conns.open(io, host, self.now, self.hub.as_mut());
        if self.settings.mode == Mode::Chat {
            let nick = format!("n{peer}");
            for line in chat::registration(&nick).iter().map(String::as_str).chain(["JOIN #a"]) {
                self.peers[peer].unread.extend_from_slice(line.as_bytes());
                self.peers[peer].unread.extend_from_slice(b"\r\n");
            }
        }
        self.workers[worker].conns.touch(id);
    }

    /// Time that may end connections.
    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        if time >= Duration::from_secs(1) {
            self.peers.iter_mut().for_each(|peer| peer.excused = true);
        }
    }

    fn stop(&mut self) {
        self.peers.iter_mut().for_each(|peer| peer.excused = true);
        let peers = &self.peers;
        for worker in &mut self.workers {
            let unread = |io: &Io| !peers[io.peer].unread.is_empty();
            worker.conns.stop(self.hub.as_mut(), unread);
        }
    }

    /// The peer is gone. `quietly`: no call has failed yet, and what it has sent may still be read.
    fn reset(&mut self, peer: usize, quietly: bool) {
        self.peers[peer].excused = true;
        for at in 0..WORKERS {
            let conns = &mut self.workers[at].conns;
            let id = conns.ids().find(|id| conns.get(*id).is_some_and(|it| it.io.peer == peer));
            let Some(id) = id else { continue };
            if !quietly {
                self.close(at, id, "Connection reset");
            } else if let Some(conn) = conns.get_mut(id) {
                conn.dead = true;
                conns.touch(id);
            }
        }
    }

    /// One turn of a loop, which reads `most` bytes of each socket.
    fn turn(&mut self, at: usize, most: usize) {
        for id in self.workers[at].conns.ids().collect::<Vec<_>>() {
            self.read(at, id, most);
            self.write(at, id);
            self.settle(at, id);
        }
        for &(worker, id) in &self.stale {
            assert!(self.workers[worker].conns.get(id).is_none(), "a stale id finds something");
        }
        let conns = &mut self.workers[at].conns;
        let _ = conns.turn(self.now, self.hub.as_mut());
        while let Some(woken) = conns.next_wake() {
            assert!(woken < WORKERS && woken != at, "a wake-up for no other worker");
        }
        conns.deliver(self.now);
        while let Some(id) = self.workers[at].conns.next_touched() {
            self.write(at, id);
            self.settle(at, id);
        }
    }

    fn read(&mut self, at: usize, id: ConnId, most: usize) {
        let conns = &mut self.workers[at].conns;
        let Some(conn) = conns.get(id).filter(|conn| conn.io.reading) else { return };
        let peer = &mut self.peers[conn.io.peer];
        if peer.unread.is_empty() && !peer.ended {
            return;
        }
        let bytes: Vec<_> = peer.unread.drain(..most.min(peer.unread.len())).collect();
        let done = conns.received(id, &bytes, self.now, self.hub.as_mut());
        assert_eq!((done.slow_cut, done.timed_out), (0, 0));
    }

    fn write(&mut self, at: usize, id: ConnId) {
        let Some(conn) = self.workers[at].conns.get_mut(id) else { return };
        let peer = &mut self.peers[conn.io.peer];
        let most = peer.room.min(conn.outbox.len());
        peer.heard.extend(conn.outbox.lend(usize::MAX).flatten().take(most));
        peer.room -= most;
        conn.outbox.advance(most);
    }

    fn settle(&mut self, at: usize, id: ConnId) {
        let Some((next, conn)) = self.workers[at].conns.settle(id, self.now) else { return };
        let peer = &mut self.peers[conn.io.peer];
        match next {
            Next::Serve { read } => conn.io.reading = read,
            Next::Shut => {
                assert!(
                    conn.outbox.is_empty() && !peer.shut,
                    "the stream ends too early, or twice"
                );
                peer.shut = true;
                conn.io.reading = true;
            }
            Next::Close(reason) => self.close(at, id, reason),
        }
    }

    fn close(&mut self, at: usize, id: ConnId, reason: &str) {
        let Some(conn) = self.workers[at].conns.close(id, reason, self.hub.as_mut()) else {
            return;
        };
        self.peers[conn.io.peer].closed = true;
        self.stale.push((at, id));
    }

    /// Every peer reads all, and ends its stream: each connection must end, with all that was due.
    /// Then the server stops, and must be finished.
    fn end(&mut self) {
        for peer in &mut self.peers {
            (peer.room, peer.ended) = (usize::MAX / 2, true);
        }
        self.until_quiet();
        for (at, peer) in self.peers.iter().enumerate() {
            assert!(peer.closed, "peer {at} is left alone");
            if self.settings.mode == Mode::Chat {
                if !peer.heard.is_empty() && !peer.excused {
                    chat::check_lines(&peer.heard);
                }
            } else {
                let all = crate::session::echoed(&peer.said, self.settings.limits.max_line);
                assert!(all.starts_with(&peer.heard), "peer {at} has heard something else");
                assert!(peer.excused || peer.heard == all, "peer {at} misses replies");
            }
        }
        self.stop();
        self.until_quiet();
        assert!(self.workers.iter().all(|worker| worker.conns.finished()), "it does not finish");
    }

    fn until_quiet(&mut self) {
        for _ in 0..20_000 {
            for at in 0..WORKERS {
                self.turn(at, usize::MAX);
            }
            if self.workers.iter().all(|worker| worker.conns.ids().next().is_none()) {
                return;
            }
            let next = self.workers.iter().map(|worker| worker.conns.next_deadline()).min();
            let next = next.unwrap_or(Time::NEVER).min(self.now + Duration::from_secs(1));
            self.now = self.now.max(next);
        }
        panic!("it never gets quiet");
    }
}
