//! A world: a server, its clients, and what happens to them.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use protocol::{Hub, Mode, Settings, Time};

use crate::client::Client;
use crate::kernel::Socket;
use crate::random::Random;
use crate::worker::{Around, Worker};

/// Clients that a world has at once.
const CLIENTS: usize = 6;
/// A send queue that is large enough for a member that reads at once, whatever the others do.
const ENOUGH: usize = 16 << 10;
/// Rounds after which a world that is left alone must be quiet.
const ROUNDS: usize = 20_000;

pub(crate) struct World {
    seed: u64,
    settings: Arc<Settings>,
    /// A worker whose turns come late: the others are far ahead of it.
    slow: Option<usize>,
    /// Whether time passes so slowly that no deadline ends a connection.
    patient: bool,
    completions: bool,
    hub: Option<Hub>,
    workers: Vec<Worker>,
    sockets: Vec<Socket>,
    clients: Vec<Client>,
    uids: u64,
    now: Time,
    stop: bool,
    calls: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let random = &mut Random::of_step(seed, u64::MAX);
        let mode = if random.once_in(3) { Mode::Echo } else { Mode::Chat };
        let patient = !random.once_in(4);
        let mut settings = Settings { mode, ..Settings::default() };
        let limits = &mut settings.limits;
        limits.max_line = 64;
        limits.sendq = *random.pick(&[2 << 10, 4 << 10, ENOUGH, 64 << 10]);
        limits.flood_control = random.once_in(3);
        limits.flood_interval = Duration::from_millis(1);
        limits.flood_grace = Duration::from_secs(3_600);
        limits.max_recvq = 64 << 10;
        if !patient {
            limits.idle_timeout = Duration::from_millis(400);
            limits.ping_timeout = Duration::from_millis(100);
            limits.registration_timeout = Duration::from_millis(200);
            limits.sendq_grace = Duration::from_millis(50);
            limits.linger = Duration::from_millis(30);
        }
        if random.once_in(4) {
            settings.wait = Duration::from_millis(2);
        }
        if random.once_in(4) {
            settings.step_lines = 1 + random.below(3) as u64;
        }
        let settings = Arc::new(settings);
        let (count, completions) = (1 + random.below(3), random.once_in(2));
        World {
            seed,
            hub: (mode == Mode::Chat).then(|| Hub::new(settings.clone(), count)),
            workers: (0..count).map(|at| Worker::new(&settings, at, completions)).collect(),
            settings,
            slow: random.once_in(3).then(|| random.below(count)),
            patient,
            completions,
            sockets: Vec::new(),
            clients: Vec::new(),
            uids: 0,
            now: Time::ZERO,
            stop: false,
            calls: 0,
        }
    }

    pub(crate) fn describe(&self) -> String {
        let (mode, workers) = (self.settings.mode, self.workers.len());
        let model = if self.completions { "completions" } else { "readiness" };
        let time = if self.patient { "patient" } else { "hasty" };
        let (wait, lines) = (self.settings.wait, self.settings.step_lines);
        let slow = self.slow.map_or(String::new(), |at| format!(", worker {at} slow"));
        format!(
            "{mode:?}, {model}, {workers} workers{slow}, {time}, waits {wait:?}, {lines} lines in a \
             turn, {:?}",
            self.settings.limits
        )
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls
    }

    /// One step. It depends on the seed and its number, and on what is there.
    pub(crate) fn step(&mut self, step: u64, mut course: Option<&mut String>) {
        let mut random = Random::of_step(self.seed, step);
        let random = &mut random;
        if let Some(course) = &mut course {
            let _ = write!(course, "  {step}: ");
        }
        let said = match random.below(100) {
            0..=49 => {
                let mut at = random.below(self.workers.len());
                if self.slow == Some(at) && !random.once_in(8) {
                    at = (at + 1) % self.workers.len();
                }
                self.turn(at, random, true);
                format!("worker {at} turns")
            }
            50..=54 => {
                let millis = if self.patient { 1 } else { random.below(60) as u64 };
                self.now = self.now + Duration::from_millis(millis);
                format!("{millis} ms pass")
            }
            55..=57 if self.clients.len() < CLIENTS => {
                self.connect(random);
                format!("client {} connects", self.uids)
            }
            58 if random.once_in(3) => {
                self.quieten(step);
                "all is left alone".to_owned()
            }
            _ if self.clients.is_empty() => "nothing".to_owned(),
            _ => {
                let at = random.below(self.clients.len());
                let what = self.act(at, random);
                let uid = self.clients[at].uid;
                self.clients.retain(|client| !client.over);
                format!("client {uid} {what}")
            }
        };
        if let Some(course) = course {
            let _ = writeln!(course, "{said}");
        }
    }

    fn connect(&mut self, random: &mut Random) {
        self.uids += 1;
        let eager = random.once_in(2);
        let size = if eager { usize::MAX } else { 64 + random.below(4_000) };
        self.sockets.push(Socket::new(size));
        let socket = self.sockets.len() - 1;
        let at = random.below(self.workers.len());
        self.workers[at].backlog.push(socket);
        let mut client = Client::new(self.uids, socket, eager, &self.settings);
        client.register(random);
        self.clients.push(client);
    }

    fn act(&mut self, at: usize, random: &mut Random) -> &'static str {
        let client = &mut self.clients[at];
        let socket = &mut self.sockets[client.socket];
        match random.below(80) {
            0..=29 => {
                client.compose(random);
                client.flush(socket, usize::MAX);
                "sends"
            }
            30..=44 => {
                client.flush(socket, 1 + random.below(100));
                "sends a part"
            }
            45..=76 => {
                client.receive(socket, 1 + random.below(2_000));
                self.check_end(at);
                "receives"
            }
            77..=78 => {
                client.ending = true;
                client.flush(socket, usize::MAX);
                "ends its stream"
            }
            _ => {
                client.reset(socket);
                "is gone"
            }
        }
    }

    /// A turn of one worker, and the wake-ups that it asks for.
    fn turn(&mut self, at: usize, random: &mut Random, faults: bool) {
        let mut around = Around {
            sockets: &mut self.sockets,
            hub: self.hub.as_mut(),
            now: self.now,
            stop: self.stop,
            random,
            faults,
            calls: &mut self.calls,
        };
        for woken in self.workers[at].turn(&mut around) {
            self.workers[woken].woken = true;
        }
    }

    /// Lets all peers send and read all they can, and each worker run when it has a reason to, and
    /// lets time pass only to deadlines that are near. Then nothing may be missing.
    fn quieten(&mut self, step: u64) {
        self.settle_down(step);
        for client in &mut self.clients {
            client.speak();
        }
        self.settle_down(step);
        for client in &self.clients {
            if client.over {
                continue;
            }
            let unread = self.sockets[client.socket].to_server.bytes.len();
            let all = client.has_sent_all() && unread == 0;
            assert!(all, "client {} is not read: {unread} bytes", client.uid);
            assert!(client.is_answered(), "client {} misses replies", client.uid);
            assert!(!client.ending, "client {} has ended, and the server has not", client.uid);
            for speaker in self.clients.iter().filter(|it| it.uid != client.uid && !it.over) {
                if let Some(missing) = client.misses(speaker) {
                    panic!("{missing}");
                }
            }
        }
        self.clients.retain(|client| !client.over);
    }

    /// The order of all that happens depends on the seed and the step.
    fn settle_down(&mut self, step: u64) {
        let random = &mut Random::of_step(self.seed, !step);
        for _ in 0..ROUNDS {
            let mut progress = false;
            let first = random.below(1 + self.clients.len());
            for at in (0..self.clients.len()).map(|at| at + first) {
                let at = at % self.clients.len();
                if random.once_in(4) {
                    progress = true;
                    continue;
                }
                let client = &mut self.clients[at];
                let socket = &mut self.sockets[client.socket];
                progress |= client.receive(socket, usize::MAX);
                progress |= client.flush(socket, usize::MAX);
                self.check_end(at);
            }
            let first = random.below(self.workers.len());
            for at in (0..self.workers.len()).map(|at| at + first) {
                let at = at % self.workers.len();
                if self.workers[at].is_due(&self.sockets, self.now) {
                    progress = true;
                    if !random.once_in(4) {
                        self.turn(at, random, false);
                    }
                }
            }
            if !progress && !self.pass() {
                return;
            }
        }
        panic!("it never gets quiet");
    }

    /// Lets time pass to the next deadline, if that is near: a line that is held back is due then.
    fn pass(&mut self) -> bool {
        let near = self.now + Duration::from_millis(20);
        let next = self.workers.iter().map(Worker::next_deadline).min();
        let Some(next) = next.filter(|next| *next <= near) else { return false };
        self.now = self.now.max(next);
        true
    }

    /// No stream ends too early, and no member is cut that has done nothing to deserve it.
    fn check_end(&self, at: usize) {
        let client = &self.clients[at];
        // Where a deadline can pass, a connection may be closed before its last byte.
        let whole = !client.over || self.sockets[client.socket].reset || !self.patient;
        assert!(whole || !client.has_half_a_line(), "the stream of {} ends in a line", client.uid);
        let socket = &self.sockets[client.socket];
        let asked = client.ending || client.offends || client.cut.is_some();
        let asked = asked || socket.reset || self.stop;
        assert!(!client.over || asked || !self.patient, "the server has left {}", client.uid);
        let served = socket.reset || self.stop || !self.patient || client.is_answered();
        assert!(!client.over || served, "client {} misses replies", client.uid);
        let Some(reason) = client.cut.as_ref().filter(|_| !client.offends) else { return };
        if self.stop && reason.ends_with("Server shutting down") {
            return;
        }
        let slow = reason.ends_with("SendQ exceeded");
        let quick = client.eager && self.settings.limits.sendq >= ENOUGH;
        assert!(!(slow && quick), "client {} reads all at once: {reason}", client.uid);
        assert!(slow || !self.patient, "client {} was cut: {reason}", client.uid);
    }

    /// Stops the server, in the quiet or amid all that goes on, and waits until it has ended.
    pub(crate) fn end(&mut self, course: Option<&mut String>) {
        let random = &mut Random::of_step(self.seed, u64::MAX - 1);
        let amid = random.once_in(2);
        if let Some(course) = course {
            let when = if amid { "amid all that" } else { "after all is left alone" };
            let _ = writeln!(course, "  the server stops, {when}");
        }
        if !amid {
            self.quieten(0);
        }
        self.stop = true;
        for worker in &mut self.workers {
            worker.woken = true;
        }
        for _ in 0..if amid { random.below(60) } else { 0 } {
            if random.once_in(2) || self.clients.is_empty() {
                self.turn(random.below(self.workers.len()), random, true);
            } else {
                self.act(random.below(self.clients.len()), random);
            }
            self.clients.retain(|client| !client.over);
        }
        self.settle_down(1);
        for client in &mut self.clients {
            client.ending = true;
        }
        self.settle_down(2);
        self.now = self.now + self.settings.limits.linger;
        self.settle_down(3);
        for (at, worker) in self.workers.iter().enumerate() {
            assert!(worker.finished(), "worker {at} has not finished");
        }
    }
}
