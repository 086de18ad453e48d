//! One connection as a blocking server drives it: it asks for the next step, and does it. The
//! input, the peer's pace and the time are the fuzzer's.

use core::time::Duration;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use protocol::{
    ConnId, Hub, Input, Mail, Mode, Outbox, SENDQ_EXCEEDED, Session, Settings, Step, Time,
};

use crate::chat;

/// Steps that may follow each other without the time, the peer or the socket having moved.
const WITHOUT_NEWS: usize = 10_000;
const ID: ConnId = ConnId::from_bits(1 << 24);

struct Trial {
    settings: Arc<Settings>,
    session: Session,
    outbox: Outbox,
    hub: Option<Hub>,
    now: Time,
    /// What has been received of the session, and what has been sent to it.
    received: Vec<u8>,
    sent: Vec<u8>,
    ended: bool,
    shut: bool,
    over: bool,
    stopped: bool,
    /// A deadline has passed that ends a connection.
    late: bool,
}

/// The bytes are the settings, and then what happens to the connection.
pub fn session(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(settings) = settings(&mut input) else { return };
    let settings = Arc::new(settings);
    let mut hub = (settings.mode == Mode::Chat).then(|| Hub::new(Arc::clone(&settings), 1));
    if let Some(hub) = &mut hub {
        hub.open(ID, "127.0.0.1", Time::ZERO);
    }
    let mut trial = Trial {
        session: Session::new(&settings, Time::ZERO),
        settings,
        outbox: Outbox::default(),
        hub,
        now: Time::ZERO,
        received: Vec::new(),
        sent: Vec::new(),
        ended: false,
        shut: false,
        over: false,
        stopped: false,
        late: false,
    };
    while !input.is_empty() && !trial.over {
        if trial.event(&mut input).is_err() {
            break;
        }
    }
    trial.end();
}

fn settings(input: &mut Unstructured<'_>) -> Result<Settings> {
    let mode = if input.arbitrary()? { Mode::Chat } else { Mode::Echo };
    let mut settings = Settings { mode, ..Settings::default() };
    let limits = &mut settings.limits;
    limits.max_line = input.int_in_range(1..=64)?;
    limits.sendq = *input.choose(&[2 << 10, 16 << 10])?;
    limits.flood_control = input.arbitrary()?;
    limits.flood_burst = 3;
    if input.ratio(1_u8, 4_u8)? {
        settings.wait = Duration::from_millis(20);
    }
    if input.ratio(1_u8, 4_u8)? {
        settings.step_lines = input.int_in_range(1..=3)?;
    }
    Ok(settings)
}

impl Trial {
    /// One thing happens, and the server does all that it can without another.
    fn event(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        let mut room = 0;
        match input.int_in_range(0..=15_u8)? {
            0..=4 => bytes.extend_from_slice(input.arbitrary()?),
            5..=8 if self.settings.mode == Mode::Chat => {
                bytes.extend(chat::line(input)?);
                bytes.extend_from_slice(b"\r\n");
            }
            5..=8 => {
                bytes.resize(input.int_in_range(0..=70)?, b'x');
                bytes.push(b'\n');
            }
            9 => {
                for line in chat::registration("a") {
                    bytes.extend_from_slice(line.as_bytes());
                    bytes.extend_from_slice(b"\r\n");
                }
            }
            10..=12 => room = input.arbitrary::<u16>()?.into(),
            13 => self.pass(Duration::from_millis(input.int_in_range(0..=1_000)?)),
            14 => self.pass(Duration::from_secs(input.int_in_range(0..=400)?)),
            _ if input.ratio(1_u8, 8_u8)? => {
                self.stopped = true;
                match &mut self.hub {
                    Some(hub) => hub.shut_down(),
                    None => self.session.stop(input.arbitrary()?, &self.outbox),
                }
            }
            _ => self.ended = true,
        }
        self.drive(&bytes, room);
        Ok(())
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// The server: until the session wants what has not come. What it does not want to read now
    /// counts as never sent.
    fn drive(&mut self, mut bytes: &[u8], mut room: usize) {
        let mut told_of_end = false;
        for _ in 0..WITHOUT_NEWS {
            self.fetch();
            let stuck = room == 0;
            match self.session.step(self.now, &self.outbox, stuck) {
                Step::Send if stuck => return,
                Step::Send => room = self.send(room),
                Step::Receive(_) | Step::ReceiveNow if !bytes.is_empty() => {
                    let now = core::mem::take(&mut bytes);
                    self.received.extend_from_slice(now);
                    self.handle(Input::Received(now));
                }
                Step::Receive(_) | Step::ReceiveNow if self.ended && !told_of_end => {
                    told_of_end = true;
                    self.handle(Input::Received(&[]));
                }
                Step::Receive(until) | Step::Pause(until) => {
                    assert!(until > self.now, "it waits for what has passed");
                    return;
                }
                Step::ReceiveNow => return,
                Step::Resume => self.handle(Input::Resume),
                Step::Ping => {
                    self.late = true;
                    self.hub.as_mut().expect("a ping in echo").ping(ID);
                }
                Step::Cut(reason) => {
                    self.late = true;
                    self.hub.as_mut().expect("a cut in echo").cut(ID, reason);
                }
                Step::Relieve => panic!("only a sender of two threads relieves"),
                Step::Shut => {
                    assert!(self.outbox.is_empty(), "the stream ends before its last byte");
                    assert!(!core::mem::replace(&mut self.shut, true), "it ends twice");
                }
                Step::Close(reason) => {
                    self.late |= reason == "Timed out";
                    self.over = true;
                    return;
                }
            }
        }
        panic!("it goes on and on without news");
    }

    fn handle(&mut self, input: Input<'_>) {
        match &mut self.hub {
            None => {
                self.session.echo(input, self.now, &mut self.outbox);
            }
            Some(hub) => {
                self.session.chat(input, self.now, &self.outbox, ID, hub);
            }
        }
    }

    /// The mail of the hub.
    fn fetch(&mut self) {
        let Some(hub) = &mut self.hub else { return };
        let mut mail = Vec::new();
        loop {
            hub.take(0, &mut mail);
            if mail.is_empty() {
                return;
            }
            for Mail { to, parcel } in mail.drain(..) {
                assert_eq!(to, ID);
                if self.session.post(parcel, self.now, &mut self.outbox).is_err() {
                    hub.cut(ID, SENDQ_EXCEEDED);
                }
            }
        }
    }

    fn send(&mut self, room: usize) -> usize {
        let most = room.min(self.outbox.len());
        self.sent.extend(self.outbox.slices().flatten().take(most));
        self.outbox.advance(most);
        room - most
    }

    /// The peer ends its stream and reads all, and time passes: the connection must end, and must
    /// have said what was due.
    fn end(&mut self) {
        self.ended = true;
        for _ in 0..100_000 {
            if self.over {
                break;
            }
            self.drive(&[], usize::MAX);
            let next = self.session.deadline(&self.outbox);
            self.now = self.now.max(next.min(self.now + Duration::from_secs(1)));
        }
        assert!(self.over, "it never ends");
        if self.settings.mode == Mode::Chat {
            // A peer that has not read until its deadline may have got half a line.
            let end = self.sent.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            assert!(self.late || end == self.sent.len(), "half a line, and no deadline has passed");
            if end > 0 {
                chat::check_lines(&self.sent[..end]);
            }
        } else if !self.late && !self.stopped {
            assert_eq!(self.sent, echoed(&self.received, self.settings.limits.max_line));
        }
    }
}

/// What an echo sends back.
pub(crate) fn echoed(received: &[u8], limit: usize) -> Vec<u8> {
    let mut echoed = Vec::new();
    for line in received.split_inclusive(|&byte| byte == b'\n') {
        if line.len() > limit {
            echoed.extend_from_slice(b"ERR line too long\r\n");
        } else if line.ends_with(b"\n") {
            echoed.extend_from_slice(line);
        }
    }
    echoed
}
