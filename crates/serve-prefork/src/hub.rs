//! Chat: the process that the hub is. It waits for what the others tell it, and nothing else.

use std::sync::Arc;

use nix::sys::signal::Signal;
use protocol::{Hub, Line, Mail};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use std::sync::atomic::Ordering::SeqCst;

use crate::frame::{self, Packets};
use crate::{Pool, TURN, signal};

impl Pool {
    /// Chat: the life of the hub: hear what the processes say, and tell them what comes of it.
    pub(crate) fn hub(&self) -> ! {
        let mut hub = Hub::new(Arc::clone(&self.launch.settings), 1);
        let mut outgoing =
            Outgoing { mail: Vec::new(), bundles: self.links.iter().map(|_| None).collect() };
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
        let Outgoing { mail, bundles } = outgoing;
        hub.take(0, mail);
        let mut dirty = Vec::new();
        for Mail { to, parcel } in mail.drain(..) {
            let Some(bundle) = bundles.get_mut(to.slot()) else { continue };
            if bundle.as_ref().is_some_and(|bundle| bundle.id() != to) {
                bundle.take().inspect(|former| self.post(former));
            }
            dirty.extend(bundle.is_none().then_some(to.slot()));
            bundle.get_or_insert_with(|| Packets::new(to)).push_parcel(&parcel);
        }
        for slot in dirty {
            bundles[slot].take().inspect(|bundle| self.post(bundle));
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
                frame::LINE => Line::Whole(payload),
                frame::TOO_LONG => Line::TooLong,
                frame::END => Line::End,
                _ => Line::Room,
            };
            match kind {
                frame::OPEN => hub.open(id, text, now),
                frame::PING => hub.ping(id),
                frame::CUT => hub.cut(id, text),
                frame::LEAVE => hub.leave(id, text),
                frame::STOP => hub.shut_down(),
                // Whoever speaks waits in `send` while the mail of others is sent.
                _ if hub.line(id, line, now) => {}
                _ => self.deliver(hub, outgoing),
            }
        }
    }
}

/// Mail on its way to other processes. Both keep their room.
struct Outgoing {
    mail: Vec<Mail>,
    bundles: Vec<Option<Packets>>,
}
