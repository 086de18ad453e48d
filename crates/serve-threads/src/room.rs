//! Who is there, and how what one connection says reaches the others. Nothing here waits.

use std::mem;
use std::sync::Arc;

use protocol::{Hub, Mail, Slots};

use crate::{Conn, Shared, lock};

/// Who is there. Echo locks it when a connection comes and when it goes, never in between.
pub(crate) struct Room {
    pub(crate) conns: Slots<Arc<Conn>>,
    /// In chat only.
    pub(crate) hub: Option<Hub>,
    pub(crate) mail: Vec<Mail>,
}

impl Shared {
    /// Chat: calls the hub. What comes of it waits for [`Shared::deliver`].
    pub(crate) fn ask<T>(&self, call: impl FnOnce(&mut Hub) -> T) -> Option<T> {
        lock(&self.room).hub.as_mut().map(call)
    }

    /// Chat: queues the hub's mail for its receivers, and wakes the writers that had nothing to
    /// do. Everyone gets it in the hub's order, because the hub stays locked until it is queued.
    pub(crate) fn deliver(&self) {
        let (now, mark) = (self.launch.now(), self.launch.settings.limits.high_water());
        let mut idle = Vec::new();
        let mut room = lock(&self.room);
        let Room { conns, hub: Some(hub), mail } = &mut *room else { return };
        while {
            hub.take(0, mail);
            !mail.is_empty()
        } {
            for Mail { to, parcel } in mail.drain(..) {
                let Some(conn) = conns.get(to) else { continue };
                let state = &mut *lock(&conn.state);
                if state.session.post(parcel, now, &mut state.outbox).is_err() {
                    conn.counters.slow_cut.add(1);
                    hub.cut(to, protocol::SENDQ_EXCEEDED);
                }
                if mem::take(&mut state.waits) {
                    idle.push(Arc::clone(conn));
                }
                if !state.stuck && state.outbox.len() > mark {
                    state.behind = true;
                    hub.press(to);
                }
            }
        }
        drop(room);
        idle.iter().for_each(|conn| conn.changed.notify_all());
    }
}
