//! One worker's io_uring, as far as the compiler cannot check it: the memory that the kernel reads
//! and writes on its own, and the descriptors that come as numbers.
//!
//! Nothing here waits but [`Ring::wait`]: what is asked for and when stands in `main.rs`.

use std::alloc::{self, Layout};
use std::collections::VecDeque;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use launch::{Failure, Launch};
use protocol::{ConnId, Outbox};

/// Submissions that go to the kernel in one system call. A turn that has more makes another.
const SUBMISSIONS: u32 = 1024;
/// The most slices in one vectored send (UIO_MAXIOV).
const SLICES: usize = 1024;
/// Vectors that are kept for the next turn.
const VECTORS: usize = 64;
/// Bytes of all peers together that are handed out in one turn. In chat each may be for everybody,
/// in messages that one send must be able to carry away, or queues would grow from turn to turn.
/// Less where a read is to be smaller.
const BUDGET: usize = 16 << 10;
/// The one group of buffers.
const GROUP: u16 = 0;

/// How large a ring is.
#[derive(clap::Args)]
pub(crate) struct Sizes {
    /// Buffers of 4 KiB that each worker's sockets receive into; rounded up to a power of two
    #[arg(long, value_name = "N", default_value = "256")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=32768))]
    buffers: u16,
    /// Completions that each worker's ring has room for; rounded up to a power of two
    #[arg(long, value_name = "N", default_value = "4096")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65536))]
    cq: u32,
}

/// What is submitted, as the top byte of `user_data`:
///
/// ```text
///  63      56 55                                                          0
/// +----------+-------------------------------------------------------------+
/// |   kind   | the ConnId of a receive or send; a tell's worker; else zero |
/// +----------+-------------------------------------------------------------+
/// ```
const ACCEPT: u64 = 1 << 56;
const RECEIVE: u64 = 2 << 56;
const SEND: u64 = 3 << 56;
const CANCEL: u64 = 4 << 56;
const TELL: u64 = 5 << 56;
/// What another ring's tell arrives as.
const WOKEN: u64 = 6 << 56;
const KIND: u64 = 0xff << 56;

/// Something that was submitted is done, or, while there is `more`, has come one step further.
pub(crate) enum Completion {
    Accepted {
        socket: io::Result<TcpStream>,
        more: bool,
    },
    Received {
        id: ConnId,
        received: Received,
        more: bool,
    },
    /// None of it when it was cancelled.
    Sent {
        id: ConnId,
        len: io::Result<usize>,
    },
    /// Another ring has told this one to look around.
    Woken,
    /// There was no memory to tell another worker's.
    Untold {
        worker: usize,
    },
}

/// What a receive has brought.
pub(crate) enum Received {
    /// In a buffer that the kernel has left to us until [`Ring::give_back`].
    Bytes {
        len: usize,
        buffer: Buffer,
    },
    /// The peer has ended its stream.
    End,
    /// There was no buffer to be had.
    Starved,
    Cancelled,
    Failed,
}

/// The number of a buffer that is ours for now.
pub(crate) struct Buffer(u16);

/// What a connection has in flight: asked for, and not completed yet.
#[derive(Default)]
pub(crate) struct Flight {
    /// The kernel may be reading the outbox, so it is only added to.
    pub(crate) sending: bool,
    pub(crate) receiving: bool,
}

/// A ring, which belongs to one thread once that has called [`Ring::enable`].
pub(crate) struct Ring {
    uring: IoUring,
    buffers: Buffers,
    /// What has come and has not been handed out.
    received: VecDeque<Completion>,
    /// How much of it may be handed out in one turn, and how much still in this one.
    turn: usize,
    budget: usize,
    /// What the vectored sends that are not submitted yet point to; the first `vectors_used`.
    #[expect(clippy::vec_box, reason = "a vector must not move when there are more of them")]
    vectors: Vec<Box<Vector>>,
    vectors_used: usize,
}

// SAFETY: the pointers in it lead to memory that it owns.
unsafe impl Send for Ring {}

impl Ring {
    /// A ring that is still off.
    pub(crate) fn new(launch: &Launch<Sizes>) -> Result<Ring, Failure> {
        let sizes = &launch.extra;
        let uring: IoUring = IoUring::builder()
            // One thread submits and waits, and what completes is worked off when it waits: no
            // interrupts, no locks. No other thread, so none that touches a buffer on its own.
            .setup_single_issuer()
            .setup_defer_taskrun()
            // One submission that fails holds up no other.
            .setup_submit_all()
            // Newer than all else that is used here (Linux 6.6), so it is the probe for all.
            .setup_no_sqarray()
            .setup_cqsize(sizes.cq)
            .setup_clamp()
            // The thread that will own it does not exist yet.
            .setup_r_disabled()
            .build(SUBMISSIONS.min(sizes.cq))
            .map_err(|error| unavailable(&error))?;
        if !(uring.params().is_feature_nodrop() && uring.params().is_feature_submit_stable()) {
            return Err(unavailable(&io::Error::from_raw_os_error(libc::EINVAL)));
        }
        let buffers = Buffers::new(sizes.buffers.next_power_of_two(), launch.read_size());
        let (address, count) = (buffers.ring.as_ptr() as u64, buffers.mask + 1);
        // SAFETY: `Buffers` is page-aligned, begins with that many entries, and lives as long as
        // the ring, which is dropped first.
        unsafe { uring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0) }
            .map_err(Failure::of("io_uring: registering the buffers"))?;
        Ok(Ring {
            uring,
            buffers,
            received: VecDeque::new(),
            turn: BUDGET.min(launch.read_size()),
            budget: 0,
            vectors: Vec::new(),
            vectors_used: 0,
        })
    }

    /// What others need to wake this ring up.
    pub(crate) fn door(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring's descriptor is open, for it is not dropped meanwhile.
        unsafe { BorrowedFd::borrow_raw(self.uring.as_raw_fd()) }.try_clone_to_owned()
    }

    /// From now on the ring belongs to this thread.
    pub(crate) fn enable(&self) -> io::Result<()> {
        self.uring.submitter().register_enable_rings()
    }

    /// Submits all that was asked for, and waits for a completion or until the time is over: the
    /// one system call of a turn. Says whether there are more completions than their queue holds:
    /// the kernel keeps those until the next call.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.budget = self.turn;
        let timeout = if self.received.is_empty() { timeout } else { Some(Duration::ZERO) };
        let result = match timeout.map(Timespec::from) {
            None => self.uring.submit_and_wait(1),
            Some(time) => {
                let args = SubmitArgs::new().timespec(&time);
                self.uring.submitter().submit_with_args(1, &args)
            }
        };
        let submissions = self.uring.submission();
        let overflowed = submissions.cq_overflow();
        if submissions.is_empty() {
            // What it needs to know of a vector, the kernel has copied (SUBMIT_STABLE).
            self.vectors_used = 0;
            self.vectors.truncate(VECTORS);
        }
        match result.as_ref().map_err(io::Error::raw_os_error) {
            // The time is over, a signal came, or (BUSY, AGAIN) the completions must be looked
            // at before there is room for more. What was not submitted still stands there.
            Ok(_) | Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
                Ok(overflowed)
            }
            Err(_) => result.map(|_| overflowed),
        }
    }

    /// The next completion of this turn. What has come from peers is handed out last, and no more
    /// of it in a turn than its budget. The rest waits in its buffers.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        while let Some(entry) = self.uring.completion().next() {
            match decode(&entry) {
                Some(received @ Completion::Received { .. }) => self.received.push_back(received),
                Some(other) => return Some(other),
                None => {}
            }
        }
        let next = if self.budget > 0 { self.received.pop_front() } else { None };
        if let Some(Completion::Received { received: Received::Bytes { len, .. }, .. }) = &next {
            self.budget = self.budget.saturating_sub(*len);
        }
        next
    }

    /// Accepts connections until told otherwise.
    pub(crate) fn accept(&mut self, listener: &TcpListener) {
        let fd = Fd(listener.as_raw_fd());
        let accept = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC);
        // SAFETY: it reads and writes no memory of ours.
        unsafe { self.push(&accept.build().user_data(ACCEPT)) }
    }

    /// Receives into the ring's buffers until told otherwise, or until there is none left.
    pub(crate) fn receive(&mut self, socket: &TcpStream, id: ConnId) {
        let receive = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP);
        // SAFETY: it writes to the registered buffers and to nothing else.
        unsafe { self.push(&receive.build().user_data(RECEIVE | id.bits())) }
    }

    /// Sends as much as goes of what is queued.
    ///
    /// # Safety
    /// Until it completes, the outbox that lends the bytes must be neither advanced nor dropped.
    pub(crate) unsafe fn send(&mut self, socket: &TcpStream, outbox: &mut Outbox, id: ConnId) {
        let fd = Fd(socket.as_raw_fd());
        let mut slices = outbox.lend(SLICES);
        let entry = match (slices.next(), slices.next()) {
            (Some(only), None) => {
                let len = only.len().try_into().unwrap_or(u32::MAX);
                opcode::Send::new(fd, only.as_ptr(), len).flags(libc::MSG_NOSIGNAL).build()
            }
            _ => {
                drop(slices);
                let header = self.vector(outbox);
                opcode::SendMsg::new(fd, header).flags(libc::MSG_NOSIGNAL as u32).build()
            }
        };
        // SAFETY: the caller sees to the bytes; the vector stays until it is submitted.
        unsafe { self.push(&entry.user_data(SEND | id.bits())) }
    }

    /// Stops accepting.
    pub(crate) fn cancel_accept(&mut self) {
        self.cancel_one(ACCEPT);
    }

    /// Stops receiving. What has come by then still completes.
    pub(crate) fn cancel_receive(&mut self, id: ConnId) {
        self.cancel_one(RECEIVE | id.bits());
    }

    /// Stops a send. It completes with what has gone by then.
    pub(crate) fn cancel_send(&mut self, id: ConnId) {
        self.cancel_one(SEND | id.bits());
    }

    /// Stops all that a connection has in flight.
    pub(crate) fn cancel(&mut self, id: ConnId, flight: &Flight) {
        if flight.receiving {
            self.cancel_receive(id);
        }
        if flight.sending {
            self.cancel_send(id);
        }
    }

    /// Wakes the worker behind `door`. Nothing is heard of it unless it fails.
    pub(crate) fn tell(&mut self, door: &OwnedFd, worker: usize) {
        let message = message(door).flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: it reads and writes no memory of ours.
        unsafe { self.push(&message.user_data(TELL | worker as u64)) }
    }

    /// The bytes that have come.
    pub(crate) fn bytes(&self, received: &Received) -> &[u8] {
        let Received::Bytes { len, buffer } = received else { return &[] };
        let start = self.buffers.address(buffer.0);
        // SAFETY: the kernel has initialised that much of the buffer, and leaves it alone until it
        // is given back, for which this borrow must be over.
        unsafe { slice::from_raw_parts(start, (*len).min(Buffers::SIZE)) }
    }

    /// Returns the buffer to the kernel.
    pub(crate) fn give_back(&mut self, received: Received) {
        if let Received::Bytes { buffer, .. } = received {
            self.buffers.provide(buffer.0);
        }
    }

    /// Nothing is heard of the cancelling itself unless there was nothing left to cancel.
    fn cancel_one(&mut self, user_data: u64) {
        let cancel = opcode::AsyncCancel::new(user_data).build();
        // SAFETY: it reads and writes no memory of ours.
        unsafe { self.push(&cancel.flags(squeue::Flags::SKIP_SUCCESS).user_data(CANCEL)) }
    }

    /// # Safety
    /// What `entry` points to must be valid for as long as the kernel may use it.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: as promised by the caller.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            // The queue is full. When this fails, nothing is lost, and it is tried again.
            let _ = self.uring.submit();
        }
    }

    /// A vector of what is lent, in memory that is used again once it has been submitted.
    fn vector(&mut self, outbox: &Outbox) -> *const libc::msghdr {
        if self.vectors_used == self.vectors.len() {
            // SAFETY: all of a header may be zero: numbers and pointers.
            let header = unsafe { std::mem::zeroed() };
            self.vectors.push(Box::new(Vector { header, slices: Vec::new() }));
        }
        let vector = &mut *self.vectors[self.vectors_used];
        self.vectors_used += 1;
        vector.slices.clear();
        vector.slices.extend(
            outbox.slices().take(SLICES).map(|bytes| libc::iovec {
                iov_base: bytes.as_ptr() as *mut _,
                iov_len: bytes.len(),
            }),
        );
        vector.header.msg_iovlen = vector.slices.len() as _;
        vector.header.msg_iov = vector.slices.as_mut_ptr();
        &raw const vector.header
    }
}

/// Ends all that is in flight: left alone, the kernel would do so a moment after the process has
/// ended, and until then the listener would keep its address.
impl Drop for Ring {
    fn drop(&mut self) {
        let _ = self.wait(Some(Duration::ZERO));
        let _ = self.uring.submitter().register_sync_cancel(None, CancelBuilder::any());
        // What was cancelled is let go of when its completion is fetched.
        while self.wait(Some(Duration::ZERO)).is_ok() && !self.uring.completion().is_empty() {
            self.uring.completion().for_each(drop);
        }
        let _ = self.uring.submitter().unregister_buf_ring(GROUP);
    }
}

/// What a completion means; nothing if it says no more than that there was nothing to cancel.
fn decode(entry: &cqueue::Entry) -> Option<Completion> {
    let (kind, id) = (entry.user_data() & KIND, ConnId::from_bits(entry.user_data()));
    let more = cqueue::more(entry.flags());
    let result = match entry.result() {
        error @ ..0 => Err(io::Error::from_raw_os_error(-error)),
        value => Ok(value),
    };
    Some(match kind {
        ACCEPT => {
            // SAFETY: an accept's result is a new descriptor that nobody else knows of.
            let socket = result.map(|fd| unsafe { TcpStream::from_raw_fd(fd) });
            Completion::Accepted { socket, more }
        }
        RECEIVE => {
            let buffer = cqueue::buffer_select(entry.flags()).map(Buffer);
            let received = match (entry.result(), buffer) {
                (len @ 1.., Some(buffer)) => Received::Bytes { len: len as usize, buffer },
                (0, _) => Received::End,
                (error, _) if error == -libc::ENOBUFS => Received::Starved,
                (error, _) if error == -libc::ECANCELED => Received::Cancelled,
                _ => Received::Failed,
            };
            Completion::Received { id, received, more }
        }
        SEND if entry.result() == -libc::ECANCELED => Completion::Sent { id, len: Ok(0) },
        SEND => Completion::Sent { id, len: result.map(|len| len as usize) },
        TELL if entry.result() == -libc::ENOMEM => {
            Completion::Untold { worker: id.bits() as usize }
        }
        WOKEN => Completion::Woken,
        _ => return None,
    })
}

struct Vector {
    header: libc::msghdr,
    slices: Vec<libc::iovec>,
}

/// The buffers that the kernel receives into, and the ring through which it is given them: it
/// takes the oldest entry, and we put entries behind the newest and move the tail.
struct Buffers {
    /// One entry for each buffer, and behind them the buffers.
    ring: NonNull<BufRingEntry>,
    layout: Layout,
    /// Bytes of a buffer that are used.
    len: u32,
    /// The number of buffers, less one.
    mask: u16,
    tail: u16,
}

impl Buffers {
    /// Bytes in one buffer.
    const SIZE: usize = 4 << 10;
    const PAGE: usize = 4 << 10;

    fn new(count: u16, len: usize) -> Buffers {
        let size = Buffers::offset(count) + usize::from(count) * Buffers::SIZE;
        let layout = Layout::from_size_align(size, Buffers::PAGE).expect("at most 128 MiB");
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc::alloc_zeroed(layout) };
        let len = len.min(Buffers::SIZE) as u32;
        let ring = NonNull::new(memory.cast()).unwrap_or_else(|| alloc::handle_alloc_error(layout));
        let mut buffers = Buffers { ring, layout, len, mask: count - 1, tail: 0 };
        (0..count).for_each(|buffer| buffers.provide(buffer));
        buffers
    }

    /// Where the buffers begin: on the first page after the entries.
    fn offset(count: u16) -> usize {
        (usize::from(count) * size_of::<BufRingEntry>()).next_multiple_of(Buffers::PAGE)
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        let buffer = buffer & self.mask;
        let offset = Buffers::offset(self.mask + 1) + usize::from(buffer) * Buffers::SIZE;
        // SAFETY: there are `mask + 1` buffers from that offset on.
        unsafe { self.ring.as_ptr().cast::<u8>().add(offset) }
    }

    /// Leaves a buffer to the kernel.
    fn provide(&mut self, buffer: u16) {
        let address = self.address(buffer) as u64;
        // SAFETY: the entry is one of ours, and the kernel reads none behind the tail.
        let entry = unsafe { &mut *self.ring.as_ptr().add(usize::from(self.tail & self.mask)) };
        entry.set_addr(address);
        entry.set_len(self.len);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: it is called with the address of the first entry.
        let tail = unsafe { BufRingEntry::tail(self.ring.as_ptr()) }.cast_mut();
        // SAFETY: the kernel reads the tail atomically and never writes it.
        let tail = unsafe { AtomicU16::from_ptr(tail) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the kernel does not know it any more (`Ring::drop`).
        unsafe { alloc::dealloc(self.ring.as_ptr().cast(), self.layout) }
    }
}

/// A small ring of its own for a thread that serves nobody and has only to wake those that do.
pub(crate) struct Bell(IoUring);

impl Bell {
    pub(crate) fn new() -> Result<Bell, Failure> {
        IoUring::new(1).map(Bell).map_err(|error| unavailable(&error))
    }

    /// Wakes the worker behind `door`. It fails only when that is not up yet or already gone.
    pub(crate) fn ring(&mut self, door: &OwnedFd) {
        // SAFETY: it reads and writes no memory of ours.
        let _ = unsafe { self.0.submission().push(&message(door)) };
        let _ = self.0.submit_and_wait(1);
        self.0.completion().for_each(drop);
    }
}

/// A completion in another ring.
fn message(door: &OwnedFd) -> squeue::Entry {
    opcode::MsgRingData::new(Fd(door.as_raw_fd()), 0, WOKEN, None).build()
}

/// Why there is no ring to be had, and what to do.
fn unavailable(error: &io::Error) -> Failure {
    let reason = match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no io_uring",
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is forbidden here, by a seccomp filter (a container's?) or by the sysctl \
             kernel.io_uring_disabled"
        }
        Some(libc::EINVAL) => "this kernel's io_uring is too old: Linux 6.6 or newer is needed",
        _ => return Failure::Failed(format!("io_uring: {error}")),
    };
    Failure::Unsupported(format!("{reason}; choose another server"))
}
