//! Chat: the process that holds the hub. It waits for packets of the other processes only.

use std::sync::Arc;

use nix::sys::signal::Signal;
use protocol::{ConnId, Hub, Line, Mail, Parcel};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use std::sync::atomic::Ordering::SeqCst;

use crate::frame::{self, Packets};
use crate::{Pool, TURN, signal};

impl Pool {
    /// Chat: the life of the hub: hear what the processes say, and tell them what comes of it.
    pub(crate) fn hub(&self) -> ! {
        let mut hub = Hub::new(Arc::clone(&self.launch.settings), 1);
        let mut outgoing = Outgoing {
            mail: Vec::new(),
            answered: Vec::new(),
            desks: self.links.iter().map(|_| Desk::default()).collect(),
        };
        let mut buffer = vec![0; frame::PACKET];
        loop {
            let mut flags = RecvFlags::empty();
            for _ in 0..TURN {
                let received = rustix::net::recv(&self.inbox.hub, &mut buffer[..], flags);
                let Ok((len, _)) = received else { break };
                self.hear(&mut hub, &mut outgoing, &buffer[..len]);
                flags = RecvFlags::DONTWAIT; // Lines that have gathered leave together.
            }
            self.deliver(&mut hub, &mut outgoing);
        }
    }

    /// Chat, the hub: sends its mail, one bundle for each receiver.
    fn deliver(&self, hub: &mut Hub, outgoing: &mut Outgoing) {
        let Outgoing { mail, answered, desks } = outgoing;
        hub.take(0, mail);
        // No session waits for what the hub resumes: when it has no room, this process sends.
        let told = mail.drain(..).filter(|mail| !matches!(mail.parcel, Parcel::Resume));
        let resumed = answered.drain(..).map(|to| Mail { to, parcel: Parcel::Resume });
        let mut dirty = Vec::new();
        for Mail { to, parcel } in told.chain(resumed) {
            let Some(desk) = desks.get_mut(to.slot()) else { continue };
            if let Some(former) = desk.bundle.take_if(|bundle| bundle.id() != to) {
                self.post(&former);
            }
            if let Parcel::Text(text) = &parcel {
                desk.account(to).sent += text.len();
            }
            if desk.bundle.is_none() {
                dirty.push(to.slot());
            }
            desk.bundle.get_or_insert_with(|| Packets::new(to)).push_parcel(&parcel);
        }
        for slot in dirty {
            if let Some(bundle) = desks[slot].bundle.take() {
                self.post(&bundle);
            }
        }
    }

    /// Chat, the hub: sends mail to the process of its receiver, unless that has gone.
    fn post(&self, mail: &Packets) {
        let slot = mail.id().slot();
        for packet in mail.iter() {
            let seat = &self.seats[slot];
            while seat.id.load(SeqCst) == mail.id().bits() {
                match rustix::net::send(&self.links[slot].hub, packet, SendFlags::NOSIGNAL) {
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => {
                        signal(seat.pid.load(SeqCst), Signal::SIGKILL);
                        break;
                    }
                    _ => break,
                }
            }
        }
    }

    /// Chat, the hub: does what a packet asks for.
    fn hear(&self, hub: &mut Hub, outgoing: &mut Outgoing, packet: &[u8]) {
        let now = self.launch.now();
        let (id, frames) = frame::open(packet);
        for (kind, payload) in frames {
            let text = str::from_utf8(payload).unwrap_or_default();
            let line = match kind {
                frame::LINE | frame::ASK => Some(Line::Whole(payload)),
                frame::TOO_LONG => Some(Line::TooLong),
                frame::END => Some(Line::End),
                _ => None,
            };
            match kind {
                frame::OPEN => hub.open(id, text, now),
                frame::PING => hub.ping(id),
                frame::CUT => hub.cut(id, text),
                frame::LEAVE => hub.leave(id, text),
                frame::STOP => hub.shut_down(),
                frame::WRITTEN => {
                    let written = payload.try_into().map_or(0, u32::from_le_bytes);
                    outgoing.note_written(id, written);
                }
                _ => {}
            }
            let Some(line) = line else { continue };
            hub.note_queue(id, outgoing.queued(id));
            let room = hub.line(id, line, now);
            if kind == frame::ASK {
                outgoing.answered.push(id);
            }
            if !room {
                // No room for more: the mail is sent first, and those who speak wait in `send`.
                self.deliver(hub, outgoing);
            }
        }
    }
}

/// Mail on its way to other processes. The lists keep their room.
struct Outgoing {
    mail: Vec<Mail>,
    /// Whose process waits until an answer has been sent ([`frame::ASK`]).
    answered: Vec<ConnId>,
    /// One for each process.
    desks: Vec<Desk>,
}

/// What the hub has for one process.
#[derive(Default)]
struct Desk {
    /// What this turn has brought.
    bundle: Option<Packets>,
    account: Account,
}

/// What has been sent to a member, and not written to its socket as far as is known here.
#[derive(Default)]
struct Account {
    /// The bits of the member's id.
    member: u64,
    /// Bytes of text sent.
    sent: usize,
    /// Bytes of text written.
    written: usize,
}

impl Desk {
    /// The account of `id`, which is empty if its process had another client.
    fn account(&mut self, id: ConnId) -> &mut Account {
        if self.account.member != id.bits() {
            self.account = Account { member: id.bits(), ..Account::default() };
        }
        &mut self.account
    }
}

impl Outgoing {
    /// The process of `id` has said that so much was written, modulo 2^32.
    fn note_written(&mut self, id: ConnId, written: u32) {
        let Some(desk) = self.desks.get_mut(id.slot()) else { return };
        let account = desk.account(id);
        account.written += written.wrapping_sub(account.written as u32) as usize;
    }

    /// What waits for `id`, on its way or until the member reads it.
    fn queued(&mut self, id: ConnId) -> usize {
        let Some(desk) = self.desks.get_mut(id.slot()) else { return 0 };
        let account = desk.account(id);
        account.sent.saturating_sub(account.written)
    }
}
