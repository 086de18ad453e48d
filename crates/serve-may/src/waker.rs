//! What wakes a coroutine, and how one lets others run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use may::coroutine;
use may::io::WaitIoWaker;

/// What wakes the coroutine of a connection.
pub(crate) struct Waker {
    pub(crate) waker: WaitIoWaker,
    /// Chat: the inbox is no longer empty. Echo: the server stops.
    pub(crate) notified: AtomicBool,
}

impl Waker {
    pub(crate) fn notify(&self) {
        self.notified.store(true, Ordering::Release);
        self.waker.wakeup();
    }
}

/// Lets other coroutines run. may's `yield_now` alone would come back before its worker has asked
/// epoll. A sleeper is woken by a thread that is no worker: `yield_now` then sends it to
/// one.
pub(crate) fn yield_for(pause: Duration) {
    coroutine::sleep(pause);
    coroutine::yield_now();
}
