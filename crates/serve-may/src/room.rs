//! Who is there, and how what one connection says reaches the others. Nothing here waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use may::io::WaitIoWaker;
use protocol::{ConnId, Deadlines, Hub, Inbox, Mail, Slots, Time};

use crate::{Shared, lock};

/// Who is there, and in chat what they say to each other.
pub(crate) struct Room {
    pub(crate) hub: Hub,
    pub(crate) members: Slots<Arc<Member>>,
    /// On its way from the hub to the inboxes; empty when the lock is free.
    pub(crate) mail: Vec<Mail>,
    pub(crate) deadlines: Deadlines,
    /// When the main thread looks at them next.
    pub(crate) alarm_at: Time,
}

/// The side of a connection that other coroutines see.
pub(crate) struct Member {
    pub(crate) waker: WaitIoWaker,
    /// Its deadline has come.
    pub(crate) rang: AtomicBool,
    /// The inbox is no longer empty, or the server stops.
    pub(crate) news: AtomicBool,
    /// Locked after the room, if both are.
    pub(crate) inbox: Mutex<Inbox>,
}

impl Member {
    pub(crate) fn wake(&self, why: &AtomicBool) {
        why.store(true, Ordering::Release);
        self.waker.wakeup();
    }
}

impl Shared {
    /// Calls the hub, and brings what it says to the inboxes under the same lock, so that every
    /// member gets it in the hub's order. Then wakes those whose inbox was empty, except `own`,
    /// who is awake and looks by itself. Not inlined: to wake somebody, may looks up the worker.
    #[inline(never)]
    pub(crate) fn tell<R>(&self, own: Option<ConnId>, call: impl FnOnce(&mut Room) -> R) -> R {
        let mut woken = Vec::new();
        let mut room = lock(&self.room);
        let result = call(&mut room);
        let Room { hub, members, mail, .. } = &mut *room;
        hub.take(0, mail);
        for Mail { to, parcel } in mail.drain(..) {
            let Some(member) = members.get(to) else { continue };
            let mut inbox = lock(&member.inbox);
            if inbox.is_empty() && own != Some(to) {
                woken.push(Arc::clone(member));
            }
            if inbox.push(parcel, &self.launch.settings.limits) {
                hub.press(to); // Its coroutine has not come to it: whoever speaks waits.
            }
        }
        drop(room);
        // From a thread that is not a worker it is a system call.
        woken.iter().for_each(|member| member.wake(&member.news));
        result
    }
}
