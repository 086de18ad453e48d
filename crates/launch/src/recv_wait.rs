//! How a stop ends the waits in `recv` of a server that blocks.
//!
//! A thread that waits there sees nothing but its socket. So the thread that stops the server shuts
//! the socket's read side down: the wait ends as at the end of the stream. It must not do that to a
//! connection whose thread has seen the stop itself. That thread ends its own side and then reads
//! on, until the peer has ended the other; and to a socket that is shut down both ways the kernel
//! answers what still comes with a reset, which can destroy the last replies on their way.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::{Launch, Stop, is_busy};

/// How often a connection is looked at that has not taken its replies.
const LOOK: Duration = Duration::from_millis(100);

/// Whether the thread of one connection waits in `recv`, and the stop may end that.
///
/// No wait is missed. The thread first notes that it waits and then looks for the stop. The thread
/// that stops the server first says so and then looks for waits. All four are sequentially
/// consistent, so whichever of the two looks last finds what the other has done. With less, each
/// could look before what the other has done reaches it, and the thread would wait on.
///
/// And no wait is ended that must not be: the thread and the stop take the note back in one atomic
/// step, and only one of them succeeds. A thread that has heeded the stop makes none any more.
#[derive(Default)]
pub struct RecvWait(AtomicU8);

const AWAKE: u8 = 0;
const WAITING: u8 = 1;
const HEEDING: u8 = 2;

impl RecvWait {
    /// To be called before a `recv` that may wait. Says no if the server has just been told to
    /// stop: then do not wait, but ask [`RecvWait::end`].
    pub fn begin(&self, stop: &Stop) -> bool {
        // No other thread can change it meanwhile: it only ends waits.
        if self.0.load(SeqCst) == HEEDING {
            return true;
        }
        self.0.store(WAITING, SeqCst);
        // If the stop was quicker to take it back, it ends the wait.
        !(stop.requested() && self.take_back())
    }

    /// To be called after it; it does no harm if there was no wait. Says whether there is a stop to
    /// heed.
    pub fn end(&self, stop: &Stop) -> bool {
        self.take_back();
        let stopped = stop.requested();
        if stopped {
            self.0.store(HEEDING, SeqCst);
        }
        stopped
    }

    /// For the thread that stops the server: ends the wait, if there is one and the peer has taken
    /// its replies. If that was done before, and the peer sent something more, it would get a reset
    /// in their place. If something has come the wait ends by itself, and its thread heeds the
    /// stop. When it is `late` any wait is ended. Returns whether this is to be tried again.
    pub fn interrupt(&self, socket: &TcpStream, late: bool) -> bool {
        if self.0.load(SeqCst) != WAITING {
            return false; // The thread sees the stop by itself before it waits again.
        }
        if !late && is_busy(socket) {
            return true;
        }
        if self.take_back() {
            let _ = socket.shutdown(Shutdown::Read); // Fails if the peer has gone.
        }
        false
    }

    fn take_back(&self) -> bool {
        self.0.compare_exchange(WAITING, AWAKE, SeqCst, SeqCst).is_ok()
    }
}

impl<E> Launch<E> {
    /// Ends all waits, for the thread that stops the server. `interrupt` tries it for each
    /// connection, with the `late` that it is given, and returns how many are to be tried again.
    /// Peers have as long to take their replies as they have to end their streams. No lock is to be
    /// held here: between two tries it sleeps.
    pub fn interrupt_waits(&self, mut interrupt: impl FnMut(bool) -> usize) {
        let until = self.now() + self.settings.limits.linger.min(self.drain_timeout);
        while interrupt(self.now() >= until) > 0 {
            thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A connection: the server's end of it and the client's.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("there");
        (listener.accept().expect("a connection").0, client)
    }

    fn is_shut(mut socket: &TcpStream) -> bool {
        socket.set_nonblocking(true).expect("a setting");
        matches!(socket.read(&mut [0]), Ok(0))
    }

    #[test]
    fn a_wait_is_ended_once_and_only_while_it_lasts() {
        let ((socket, _client), stop, wait) = (pair(), Stop::default(), RecvWait::default());
        assert!(!wait.interrupt(&socket, true) && !is_shut(&socket), "it has not begun");
        assert!(wait.begin(&stop) && !wait.end(&stop));
        assert!(!wait.interrupt(&socket, true) && !is_shut(&socket), "it is over");
        assert!(wait.begin(&stop));
        assert!(!wait.interrupt(&socket, false) && is_shut(&socket), "it lasts");
        stop.request();
        assert!(wait.end(&stop));
    }

    #[test]
    fn a_thread_that_has_heeded_the_stop_is_left_alone() {
        let ((socket, _client), stop, wait) = (pair(), Stop::default(), RecvWait::default());
        stop.request();
        assert!(!wait.begin(&stop), "it is to heed the stop first");
        assert!(wait.end(&stop));
        assert!(wait.begin(&stop), "now it may wait for the client to end its stream");
        assert!(!wait.interrupt(&socket, true) && !is_shut(&socket));
    }

    #[test]
    fn a_client_that_talks_wakes_its_thread_itself() {
        let ((socket, mut client), stop, wait) = (pair(), Stop::default(), RecvWait::default());
        assert!(wait.begin(&stop));
        client.write_all(b"x").expect("sent");
        while !is_busy(&socket) {}
        assert!(wait.interrupt(&socket, false), "again, if it does not wake");
        assert!(matches!((&socket).read(&mut [0; 2]), Ok(1)));
        assert!(!is_shut(&socket));
    }

    #[test]
    fn a_client_may_take_its_replies_first_but_not_for_ever() {
        let ((mut socket, mut client), stop, wait) = (pair(), Stop::default(), RecvWait::default());
        socket.set_nonblocking(true).expect("a setting");
        let mut written = 0;
        while let Ok(len) = socket.write(&[b'x'; 4096]) {
            written += len;
        }
        assert!(wait.begin(&stop));
        assert!(wait.interrupt(&socket, false) && !is_shut(&socket));
        client.read_exact(&mut vec![0; written]).expect("the replies");
        while wait.interrupt(&socket, false) {}
        assert!(is_shut(&socket));

        let (mut socket, _client) = pair();
        socket.set_nonblocking(true).expect("a setting");
        while socket.write(&[b'x'; 4096]).is_ok() {}
        assert!(wait.begin(&stop));
        assert!(!wait.interrupt(&socket, true) && is_shut(&socket));
    }
}
