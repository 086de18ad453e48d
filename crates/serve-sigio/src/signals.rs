//! Signals as a thing to wait for: what nix and rustix do not wrap, or not for real-time signals,
//! so that the model itself needs no unsafe code. What a signal is good for, `main.rs` decides.

#![expect(unsafe_code)]

use std::io;
use std::mem::offset_of;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::OnceLock;

use nix::libc::{self, signalfd_siginfo};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use protocol::Time;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::thread::{Pid, gettid};

/// Signals fetched in one call.
const SIGNALS: usize = 256;

/// Bytes that one of them takes.
const SIZE: usize = size_of::<signalfd_siginfo>();

/// What a signal says.
pub(crate) enum Event {
    /// Something happened to this descriptor: reading (IN), writing (OUT) or both are worth trying,
    /// and if it is not to be read, asking whether it has failed (ERR).
    Socket(RawFd, PollFlags),
    /// Another thread has something for this one.
    Wake,
    /// Signals are missing: there was no room in the queue.
    Overflow,
}

/// Blocks SIGIO and all real-time signals, for this thread and those that it starts: they
/// are to be fetched, and would end the process otherwise.
pub(crate) fn block() -> nix::Result<()> {
    set().thread_block()
}

fn set() -> SigSet {
    let mut signals = SigSet::all();
    Signal::iterator().for_each(|signal| signals.remove(signal));
    signals.add(Signal::SIGIO);
    signals
}

/// The signals that are queued for the thread that asks, the lowest first: those that [`block`] has
/// blocked.
pub(crate) struct Signals {
    set: SigSet,
    queue: SignalFd,
    buffer: Vec<u8>,
    /// The part of `buffer` that has been fetched and not been given out.
    fetched: Range<usize>,
    /// The one that has ended the sleep.
    first: Option<Event>,
}

impl Signals {
    pub(crate) fn new() -> nix::Result<Signals> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let (set, buffer) = (set(), vec![0; SIGNALS * SIZE]);
        Ok(Signals {
            set,
            queue: SignalFd::with_flags(&set, flags)?,
            buffer,
            fetched: 0..0,
            first: None,
        })
    }

    /// Fetches as many signals as there are, in one call. If there is none, sleeps until one comes,
    /// or until `until`.
    pub(crate) fn wait(&mut self, until: Time, now: Time) -> io::Result<()> {
        self.fetched = match rustix::io::read(&self.queue, &mut self.buffer) {
            Err(Errno::AGAIN | Errno::INTR) => 0..0,
            result => 0..result?,
        };
        if self.fetched.is_empty() && now < until {
            self.first = self.sleep(until, now)?;
        }
        Ok(())
    }

    fn sleep(&self, until: Time, now: Time) -> io::Result<Option<Event>> {
        /// Where the kernel puts what siginfo_t(3type) says, which the `libc` crate does not show:
        /// after three ints there is a union, which for POLL_IN and its like begins with these two.
        const BAND: usize = (3 * size_of::<libc::c_int>()).next_multiple_of(align_of::<usize>());
        const FD: usize = BAND + size_of::<libc::c_long>();

        #[repr(C, align(16))]
        struct Info([u8; size_of::<libc::siginfo_t>()]);

        let mut info = Info([0; size_of::<libc::siginfo_t>()]);
        let timeout = Timespec::try_from(until.after(now)).ok().filter(|_| until < Time::NEVER);
        let timeout = timeout.map(|it| libc::timespec { tv_sec: it.tv_sec, tv_nsec: it.tv_nsec });
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        let (set, place) = (self.set.as_ref(), (&raw mut info).cast());
        // SAFETY: `place` is `info`, with the size and no less than the alignment of a `siginfo_t`,
        // and bytes whatever is put there; `timeout` is null or lives on this stack.
        let signal = unsafe { libc::sigtimedwait(set, place, timeout) };
        let band = info.0[BAND..].first_chunk().map_or(0, |long| isize::from_ne_bytes(*long));
        match (signal, io::Error::last_os_error()) {
            (1.., _) => Ok(Some(event(signal, field(&info.0, FD), band as u32))),
            (_, error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(None),
            (_, error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            (_, error) => Err(error),
        }
    }

    /// What the next of those that were fetched says.
    pub(crate) fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.first.take() {
            return Some(event);
        }
        let at = self.fetched.next()?;
        self.fetched.start = at + SIZE;
        let field = |offset| field(&self.buffer[at..at + SIZE], offset);
        let signal = field(offset_of!(signalfd_siginfo, ssi_signo)).cast_signed();
        let fd = field(offset_of!(signalfd_siginfo, ssi_fd));
        Some(event(signal, fd, field(offset_of!(signalfd_siginfo, ssi_band))))
    }

    /// Throws away what was fetched and what is queued.
    pub(crate) fn discard(&mut self) {
        while rustix::io::read(&self.queue, &mut self.buffer).is_ok() {}
        self.fetched = 0..0;
    }
}

/// The int at this place.
fn field(bytes: &[u8], offset: usize) -> u32 {
    bytes[offset..].first_chunk().map_or(0, |int| u32::from_ne_bytes(*int))
}

fn event(signal: libc::c_int, fd: u32, band: u32) -> Event {
    match signal {
        libc::SIGIO => Event::Overflow,
        signal if signal == wake_signal() => Event::Wake,
        _ => Event::Socket(fd.cast_signed(), worth(PollFlags::from_bits_truncate(band as u16))),
    }
}

/// What is worth trying. What went wrong (ERR), a call will say.
fn worth(flags: PollFlags) -> PollFlags {
    let gone = flags.intersects(PollFlags::ERR | PollFlags::HUP);
    let mut worth = PollFlags::empty();
    worth.set(PollFlags::IN, gone || flags.intersects(PollFlags::IN | PollFlags::PRI));
    worth.set(PollFlags::OUT, gone || flags.contains(PollFlags::OUT));
    worth.set(PollFlags::ERR, gone);
    worth
}

/// Whether the connection is gone for good. The socket says so only once.
pub(crate) fn has_failed(socket: &TcpStream) -> bool {
    socket.take_error().map_or(true, |error| error.is_some())
}

/// What is worth trying for each of `sockets` now, whatever signals say. PRI says that there may be
/// more than one thing to read.
pub(crate) fn poll<'a>(
    sockets: impl Iterator<Item = &'a TcpStream>,
) -> rustix::io::Result<Vec<PollFlags>> {
    let all = PollFlags::IN | PollFlags::PRI | PollFlags::OUT;
    let mut fds: Vec<_> = sockets.map(|socket| PollFd::new(socket, all)).collect();
    rustix::event::poll(&mut fds, Some(&Timespec::default()))?;
    let more = |flags: PollFlags| match flags.contains(PollFlags::IN) {
        true => flags | PollFlags::PRI,
        false => flags,
    };
    Ok(fds.iter().map(|fd| more(worth(fd.revents()))).collect())
}

/// From now on the calling thread gets a signal for all that happens to the socket, and calls on
/// the socket do not wait.
pub(crate) fn arm(socket: &impl AsRawFd) -> io::Result<()> {
    /// `struct f_owner_ex` of fcntl(2), and what goes with it: the `libc` crate has none of it.
    #[repr(C)]
    struct Owner {
        kind: libc::c_int,
        id: libc::pid_t,
    }
    const F_SETSIG: libc::c_int = 10;
    const F_SETOWN_EX: libc::c_int = 15;
    const F_OWNER_TID: libc::c_int = 0;

    let owner = Owner { kind: F_OWNER_TID, id: gettid().as_raw_nonzero().get() };
    let (fd, flags) = (socket.as_raw_fd(), libc::O_RDWR | libc::O_ASYNC | libc::O_NONBLOCK);
    // SAFETY: F_SETOWN_EX reads one `struct f_owner_ex`, which `owner` is, and keeps no pointer to
    // it; F_SETSIG and F_SETFL take an int and touch no memory of ours. The signals that follow
    // are blocked in every thread (`block`), so they interrupt nothing.
    let armed = unsafe {
        libc::fcntl(fd, F_SETOWN_EX, &raw const owner) == 0
            && libc::fcntl(fd, F_SETSIG, socket_signal()) == 0
            && libc::fcntl(fd, libc::F_SETFL, flags) == 0
    };
    if armed { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends [`Event::Wake`] to a thread of this process, once it has started. If there is no room in
/// the queue, the thread is to believe that it has missed something: for [`Event::Overflow`] there
/// always is room, because an ordinary signal is pending or it is not.
pub(crate) fn wake(thread: &OnceLock<Pid>) {
    let thread = *thread.wait();
    let _ = send(thread, wake_signal()) || send(thread, libc::SIGIO);
}

fn send(thread: Pid, signal: libc::c_int) -> bool {
    let process = std::process::id().cast_signed();
    // SAFETY: tgkill takes three ints and touches no memory of ours; a thread that has ended, or an
    // id that another process has now, is refused; the signal is blocked in every thread (`block`).
    unsafe { libc::tgkill(process, thread.as_raw_nonzero().get(), signal) == 0 }
}

/// Below that of the sockets: the lowest is fetched first, and a stop is not to wait for them.
fn wake_signal() -> libc::c_int {
    libc::SIGRTMIN()
}

fn socket_signal() -> libc::c_int {
    libc::SIGRTMIN() + 1
}
