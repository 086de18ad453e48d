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
        let (mut buffer, mut mail) = (vec![0; frame::PACKET], Vec::new());
        let mut bundles: Vec<Option<Packets>> = self.links.iter().map(|_| None).collect();
        loop {
            let mut flags = RecvFlags::empty();
            for _ in 0..TURN {
                let received = rustix::net::recv(&self.inbox.hub, &mut buffer[..], flags);
                let Ok((len, _)) = received else { break };
                self.hear(&mut hub, &buffer[..len]);
                flags = RecvFlags::DONTWAIT; // Lines that have gathered leave together.
            }
            hub.take(0, &mut mail);
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
    fn hear(&self, hub: &mut Hub, packet: &[u8]) {
        let now = self.launch.now();
        let (id, frames) = frame::open(packet);
        for (kind, payload) in frames {
            let text = str::from_utf8(payload).unwrap_or_default();
            match kind {
                frame::OPEN => hub.open(id, text, now),
                frame::LINE => hub.line(id, Line::Whole(payload), now),
                frame::TOO_LONG => hub.line(id, Line::TooLong, now),
                frame::END => hub.line(id, Line::End, now),
                frame::PING => hub.ping(id),
                frame::CUT => hub.cut(id, text),
                frame::LEAVE => hub.leave(id, text),
                _ => hub.shut_down(),
            }
        }
    }
}
