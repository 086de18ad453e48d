//! One worker's io_uring, as far as the compiler cannot check it: the memory that the kernel reads
//! and writes on its own, and the descriptors that come as numbers.
//!
//! While a worker runs, only [`Ring::wait`] waits. `main.rs` decides which requests are made, and
//! when.

use std::alloc::{self, Layout};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use launch::{Failure, Launch, MOST_SLICES, READ_SIZE};
use protocol::{ConnId, Mode, Outbox};

/// Submissions that go to the kernel in one system call. A turn that has more makes another.
const SUBMISSIONS: u32 = 1024;
/// Headers of vectored sends that are kept for the next turn.
const HEADERS: usize = 64;
/// Bytes of all peers together that are handed out in one turn of a chat. The buffer that reaches
/// this number is still handed out whole. Each line can become a message to every member. The
/// shortest such line has about 16 bytes, so a turn makes about 1,024 messages for one member: as
/// many as one send carries. With more, queues would grow from turn to turn.
const CHAT_BUDGET: usize = 16 << 10;
/// The same in echo, where a line goes back to its own peer: as much as other loops read at once.
/// With less, a long line takes many turns and many small sends.
const ECHO_BUDGET: usize = READ_SIZE;
/// How long to wait when there is no memory for a message.
const MESSAGE_PAUSE: Duration = Duration::from_millis(10);
/// The one group of buffers.
const GROUP: u16 = 0;

/// How large a ring is.
#[derive(clap::Args)]
pub(crate) struct Sizes {
    /// Buffers of 4 KiB that each worker's sockets receive into; rounded up to a power of two
    #[arg(long, value_name = "N", default_value = "256")]
    #[arg(value_parser = launch::numbers::<u16>(1, 32_768))]
    buffers: u16,
    /// Completions that each worker's ring has room for; rounded up to a power of two
    #[arg(long, value_name = "N", default_value = "4096")]
    #[arg(value_parser = launch::numbers::<u32>(1, 65_536))]
    cq: u32,
}

/// What was asked for, as the top byte of `user_data`. A [`ConnId`] has 56 bits.
///
/// ```text
///  63      56 55                                                         0
/// +----------+------------------------------------------------------------+
/// |   kind   | a ConnId; a listener's or a worker's number; else zero     |
/// +----------+------------------------------------------------------------+
/// ```
const ACCEPT: u64 = 1 << 56;
const RECEIVE: u64 = 2 << 56;
const SEND: u64 = 3 << 56;
const CANCEL: u64 = 4 << 56;
const WAKE: u64 = 5 << 56;
/// Not asked for here: it arrives when another ring has sent a WAKE.
const WOKEN: u64 = 6 << 56;
const WATCH: u64 = 7 << 56;
const KIND: u64 = 0xff << 56;

/// Something that was submitted is done, or, while there is `more`, has come one step further.
pub(crate) enum Completion {
    Accepted {
        /// Its number.
        listener: usize,
        socket: io::Result<TcpStream>,
        more: bool,
    },
    Received {
        id: ConnId,
        received: Received,
        more: bool,
    },
    /// `len` is 0 if the send was cancelled.
    Sent {
        id: ConnId,
        len: io::Result<usize>,
    },
    /// The peer has ended its stream, or has reset the connection.
    Watched {
        id: ConnId,
        /// Reset, or ended by both sides.
        dead: bool,
        more: bool,
    },
    /// Another ring has sent a message.
    Woken,
    /// There was no memory for the message to another worker's ring.
    NotWoken {
        worker: usize,
    },
}

/// What a receive has brought.
pub(crate) enum Received {
    /// In a buffer that the kernel lends until [`Ring::give_back`].
    Bytes {
        len: usize,
        buffer: Buffer,
    },
    /// The peer has ended its stream.
    End,
    /// There was no free buffer.
    Starved,
    Cancelled,
    Failed,
}

/// The number of a buffer that the kernel has lent.
pub(crate) struct Buffer(u16);

/// What a connection has in flight: asked for, and not completed yet.
#[derive(Default)]
pub(crate) struct Flight {
    /// The kernel may be reading what the outbox has lent, so the outbox is neither advanced nor
    /// dropped. More can be queued: that goes into other memory.
    pub(crate) sending: bool,
    pub(crate) receiving: bool,
    pub(crate) watching: bool,
    /// The send is cancelled, to be made again.
    pub(crate) renewing: bool,
    /// When the server was told to stop, bytes of it had come and were left in the ring.
    pub(crate) unread: bool,
}

impl Flight {
    /// Whether the kernel will say nothing more of this connection.
    pub(crate) fn is_over(&self) -> bool {
        !(self.sending || self.receiving || self.watching)
    }
}

/// A ring, which belongs to one thread once that has called [`Ring::enable`].
pub(crate) struct Ring {
    uring: IoUring,
    buffers: Buffers,
    /// What has come and has not been handed out.
    received: VecDeque<Completion>,
    /// How much of it may be handed out in a turn, and still in this one.
    turn_budget: usize,
    budget: usize,
    /// A message has come and has not been handed out.
    woken: bool,
    /// What the vectored sends that are not submitted yet point to; the first `headers_used`.
    /// Boxed, because a request points to its header, and there may come more of them.
    #[expect(clippy::vec_box, reason = "a header must not move when there are more of them")]
    headers: Vec<Box<Header>>,
    headers_used: usize,
}

// SAFETY: a ring moves to its thread before its first request, and until then the pointers in it
// lead only to memory that it owns.
unsafe impl Send for Ring {}

impl Ring {
    /// A ring that is still off.
    pub(crate) fn new(launch: &Launch<Sizes>) -> Result<Ring, Failure> {
        let sizes = &launch.extra;
        let uring: IoUring = IoUring::builder()
            // One thread submits and waits, and the kernel completes requests only inside that
            // thread's system calls: it does not interrupt the thread, and no thread of the kernel
            // touches a buffer meanwhile.
            .setup_single_issuer()
            .setup_defer_taskrun()
            // One submission that fails holds up no other.
            .setup_submit_all()
            // Newer than all else that is used here (Linux 6.6): a kernel that has it has the rest.
            .setup_no_sqarray()
            .setup_cqsize(sizes.cq)
            .setup_clamp()
            // The thread that will own it does not exist yet.
            .setup_r_disabled()
            .build(SUBMISSIONS.min(sizes.cq))
            .map_err(|error| unavailable(&error))?;
        // A kernel that has NO_SQARRAY has both. Still, both are asked for: memory safety depends
        // on SUBMIT_STABLE.
        if !(uring.params().is_feature_nodrop() && uring.params().is_feature_submit_stable()) {
            return Err(unavailable(&io::Error::from_raw_os_error(libc::EINVAL)));
        }
        let buffers = Buffers::new(sizes.buffers.next_power_of_two());
        let buffers = buffers.ok_or_else(|| {
            let advice = "use fewer --buffers or fewer --workers";
            Failure::Failed(format!("there is no memory for so many buffers: {advice}"))
        })?;
        let (address, count) = (buffers.entries.as_ptr() as u64, buffers.mask + 1);
        // SAFETY: `Buffers` is page-aligned and begins with that many entries. `Ring::drop` takes
        // it from the kernel before it is freed; to close the descriptor would not do so, because
        // `Ring::fd` has made others of it.
        unsafe { uring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0) }
            .map_err(|error| unavailable(&error))?;
        let turn_budget = match launch.settings.mode {
            Mode::Echo => ECHO_BUDGET,
            Mode::Chat => CHAT_BUDGET,
        };
        Ok(Ring {
            uring,
            buffers,
            received: VecDeque::new(),
            turn_budget,
            budget: 0,
            woken: false,
            headers: Vec::new(),
            headers_used: 0,
        })
    }

    /// What other threads need to send this ring a message.
    pub(crate) fn fd(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring's descriptor is open, for it is not dropped meanwhile.
        unsafe { BorrowedFd::borrow_raw(self.uring.as_raw_fd()) }.try_clone_to_owned()
    }

    /// From now on the ring belongs to this thread.
    pub(crate) fn enable(&self) -> io::Result<()> {
        self.uring.submitter().register_enable_rings()
    }

    /// Submits all that was asked for, and waits for a completion or until the time is over. In
    /// most turns this is the only call of io_uring: [`Ring::push`] makes another when the queue of
    /// submissions is full. Says whether there are more completions than their queue holds: the
    /// kernel keeps those until the next call.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.budget = self.turn_budget;
        let timeout = if self.received.is_empty() { timeout } else { Some(Duration::ZERO) };
        let result = match timeout.map(Timespec::from) {
            None => self.uring.submit_and_wait(1),
            Some(time) => {
                let args = SubmitArgs::new().timespec(&time);
                self.uring.submitter().submit_with_args(1, &args)
            }
        };
        if self.uring.submission().is_empty() {
            // What it needs to know of a header, the kernel has copied (SUBMIT_STABLE).
            self.headers_used = 0;
            self.headers.truncate(HEADERS);
        }
        match result {
            Err(error) if !is_passing(&error) => Err(error),
            _ => Ok(self.has_overflowed()),
        }
    }

    /// Whether the kernel keeps completions for which their queue had no room.
    pub(crate) fn has_overflowed(&mut self) -> bool {
        self.uring.submission().cq_overflow()
    }

    /// The next completion of this turn. What has come from peers is handed out late, and no more
    /// of it in a turn than its budget. The rest waits in its buffers. Last of all is a message:
    /// if it means that the server stops, what has come with it has been answered.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        while let Some(entry) = self.uring.completion().next() {
            match decode(&entry) {
                Some(received @ Completion::Received { .. }) => self.received.push_back(received),
                Some(Completion::Woken) => self.woken = true,
                Some(other) => return Some(other),
                None => {}
            }
        }
        let next = if self.budget > 0 { self.received.pop_front() } else { None };
        if next.is_none() && mem::take(&mut self.woken) {
            return Some(Completion::Woken);
        }
        if let Some(Completion::Received { received: Received::Bytes { len, .. }, .. }) = &next {
            self.budget = self.budget.saturating_sub(*len);
        }
        next
    }

    /// Whose bytes are left for later turns, when [`Ring::next`] has given all of this one.
    pub(crate) fn left(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.received.iter().filter_map(|completion| match completion {
            Completion::Received { id, received: Received::Bytes { .. }, .. } => Some(*id),
            _ => None,
        })
    }

    /// Accepts connections from a listener, until that is cancelled. Its number comes back with
    /// each.
    pub(crate) fn accept(&mut self, listener: &TcpListener, number: usize) {
        let fd = Fd(listener.as_raw_fd());
        let accept = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC);
        // SAFETY: it reads and writes no memory of ours.
        unsafe { self.push(&accept.build().user_data(ACCEPT | number as u64)) }
    }

    /// Receives into the ring's buffers, until it is cancelled or no buffer is free.
    pub(crate) fn receive(&mut self, socket: &TcpStream, id: ConnId) {
        let receive = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP);
        // SAFETY: it writes to the registered buffers and to nothing else.
        unsafe { self.push(&receive.build().user_data(RECEIVE | id.bits())) }
    }

    /// Watches whether the connection dies. It is for one that has nothing else in flight, since
    /// any other request fails then.
    ///
    /// It is multishot: the kernel adds to what is asked for that the peer has ended its stream.
    /// Such a connection may still be reset. A request for once would have been spent on the end,
    /// and made again it would complete with that again.
    pub(crate) fn watch(&mut self, socket: &TcpStream, id: ConnId) {
        let nothing_more = 0; // The kernel adds errors and hang-ups to it.
        let watch = opcode::PollAdd::new(Fd(socket.as_raw_fd()), nothing_more).multi(true);
        // SAFETY: it reads and writes no memory of ours.
        unsafe { self.push(&watch.build().user_data(WATCH | id.bits())) }
    }

    /// Sends as much as goes of what is queued.
    ///
    /// # Safety
    /// Until it completes, the outbox must be neither advanced nor dropped. It may be moved, and
    /// more may be queued: what [`Outbox::lend`] has lent stays at its address all the same.
    pub(crate) unsafe fn send(&mut self, socket: &TcpStream, outbox: &mut Outbox, id: ConnId) {
        let fd = Fd(socket.as_raw_fd());
        let mut slices = outbox.lend(MOST_SLICES);
        let entry = match (slices.next(), slices.next()) {
            (Some(only), None) => {
                let len = only.len().try_into().unwrap_or(u32::MAX);
                opcode::Send::new(fd, only.as_ptr(), len).flags(libc::MSG_NOSIGNAL).build()
            }
            _ => {
                drop(slices);
                let header = self.header(outbox);
                opcode::SendMsg::new(fd, header).flags(libc::MSG_NOSIGNAL as u32).build()
            }
        };
        // SAFETY: the caller sees to the bytes; the header stays until it is submitted.
        unsafe { self.push(&entry.user_data(SEND | id.bits())) }
    }

    /// Stops accepting from the listener with this number.
    pub(crate) fn cancel_accept(&mut self, number: usize) {
        self.cancel_one(ACCEPT | number as u64);
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
        if flight.watching {
            self.cancel_one(WATCH | id.bits());
        }
    }

    /// Wakes the worker that owns the ring `fd`. It completes only if it fails.
    pub(crate) fn wake(&mut self, fd: &OwnedFd, worker: usize) {
        let message = message(fd).flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: it reads and writes no memory of ours.
        unsafe { self.push(&message.user_data(WAKE | worker as u64)) }
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

    /// The request to cancel completes only if there was nothing left to cancel.
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

    /// The header of a vectored send, in memory that is used again once it has been submitted.
    fn header(&mut self, outbox: &Outbox) -> *const libc::msghdr {
        if self.headers_used == self.headers.len() {
            // SAFETY: all of a header may be zero: numbers and pointers.
            let header = unsafe { mem::zeroed() };
            self.headers.push(Box::new(Header { header, slices: Vec::new() }));
        }
        let vectored = &mut *self.headers[self.headers_used];
        self.headers_used += 1;
        vectored.slices.clear();
        vectored.slices.extend(
            outbox.slices().take(MOST_SLICES).map(|bytes| libc::iovec {
                iov_base: bytes.as_ptr() as *mut _,
                iov_len: bytes.len(),
            }),
        );
        vectored.header.msg_iovlen = vectored.slices.len() as _;
        vectored.header.msg_iov = vectored.slices.as_mut_ptr();
        &raw const vectored.header
    }
}

/// Ends all that is in flight and takes the buffers from the kernel, before they are freed. Also,
/// the kernel would end requests only a moment after the process has ended, and until then the
/// listener would keep its address. Where a call fails here, the process is about to end: the
/// server's threads return only then.
impl Drop for Ring {
    fn drop(&mut self) {
        let _ = self.wait(Some(Duration::ZERO));
        let _ = self.uring.submitter().register_sync_cancel(None, CancelBuilder::any());
        // What was cancelled is let go of when its completion is fetched.
        while self.wait(Some(Duration::ZERO)).is_ok() && !self.uring.completion().is_empty() {
            for entry in self.uring.completion() {
                drop(decode(&entry)); // A socket that was accepted is closed.
            }
        }
        let _ = self.uring.submitter().unregister_buf_ring(GROUP);
    }
}

/// What a completion means. `None`: there was nothing left to cancel, or the worker to wake has
/// ended.
fn decode(entry: &cqueue::Entry) -> Option<Completion> {
    let (kind, number) = (entry.user_data() & KIND, (entry.user_data() & !KIND) as usize);
    let id = ConnId::from_bits(entry.user_data());
    let more = cqueue::more(entry.flags());
    let result = match entry.result() {
        error @ ..0 => Err(io::Error::from_raw_os_error(-error)),
        value => Ok(value),
    };
    Some(match kind {
        ACCEPT => {
            // SAFETY: an accept's result is a new descriptor that nothing else owns.
            let socket = result.map(|fd| unsafe { TcpStream::from_raw_fd(fd) });
            Completion::Accepted { listener: number, socket, more }
        }
        RECEIVE => {
            let buffer = cqueue::buffer_select(entry.flags()).map(Buffer);
            // Without bytes there is no buffer: the kernel has kept it.
            let received = match (entry.result(), buffer) {
                (len @ 1.., Some(buffer)) => Received::Bytes { len: len as usize, buffer },
                (0, _) => Received::End,
                (error, _) if error == -libc::ENOBUFS => Received::Starved,
                (error, _) if is_retry(error) => Received::Cancelled,
                _ => Received::Failed,
            };
            Completion::Received { id, received, more }
        }
        SEND if is_retry(entry.result()) => Completion::Sent { id, len: Ok(0) },
        SEND => Completion::Sent { id, len: result.map(|len| len as usize) },
        WATCH => {
            let died = libc::POLLERR | libc::POLLHUP;
            let dead = result.is_ok_and(|events| events & i32::from(died) != 0);
            Completion::Watched { id, dead, more }
        }
        WAKE if entry.result() == -libc::ENOMEM => Completion::NotWoken { worker: number },
        WOKEN => Completion::Woken,
        _ => return None,
    })
}

/// Whether the next wait does better: the time is over, a signal came, or (BUSY, AGAIN) completions
/// must be looked at before there is room for more. What was not submitted stays in its queue.
fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN];
    error.raw_os_error().is_some_and(|code| passing.contains(&code))
}

/// Whether the result of a request says that nothing was done, and the request may be made again:
/// it was cancelled, a signal came first, or the kernel could not wait.
fn is_retry(result: i32) -> bool {
    [-libc::ECANCELED, -libc::EINTR, -libc::EAGAIN].contains(&result)
}

/// What a vectored send points to.
struct Header {
    header: libc::msghdr,
    slices: Vec<libc::iovec>,
}

/// The buffers that the kernel receives into, and the ring through which it is given them: it
/// takes the oldest entry, and we put entries behind the newest and move the tail.
struct Buffers {
    /// One entry for each buffer, and behind them the buffers.
    entries: NonNull<BufRingEntry>,
    layout: Layout,
    /// The number of buffers, less one.
    mask: u16,
    tail: u16,
}

impl Buffers {
    /// Bytes in one buffer.
    const SIZE: usize = 4 << 10;
    /// The largest page of the systems that have io_uring: the kernel wants the entries aligned to
    /// its own.
    const PAGE: usize = 64 << 10;

    /// `None` if there is no memory.
    fn new(count: u16) -> Option<Buffers> {
        let size = Buffers::offset(count) + usize::from(count) * Buffers::SIZE;
        let layout = Layout::from_size_align(size, Buffers::PAGE).expect("about 128 MiB at most");
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc::alloc_zeroed(layout) };
        let entries = NonNull::new(memory.cast())?;
        let mut buffers = Buffers { entries, layout, mask: count - 1, tail: 0 };
        for buffer in 0..count {
            buffers.provide(buffer);
        }
        Some(buffers)
    }

    /// Where the buffers begin, behind the entries.
    fn offset(count: u16) -> usize {
        (usize::from(count) * size_of::<BufRingEntry>()).next_multiple_of(Buffers::SIZE)
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        let buffer = buffer & self.mask;
        let offset = Buffers::offset(self.mask + 1) + usize::from(buffer) * Buffers::SIZE;
        // SAFETY: there are `mask + 1` buffers from that offset on.
        unsafe { self.entries.as_ptr().cast::<u8>().add(offset) }
    }

    /// Gives a buffer to the kernel.
    fn provide(&mut self, buffer: u16) {
        let address = self.address(buffer) as u64;
        // SAFETY: the entry is one of ours, and the kernel reads none behind the tail.
        let entry = unsafe { &mut *self.entries.as_ptr().add(usize::from(self.tail & self.mask)) };
        entry.set_addr(address);
        entry.set_len(Buffers::SIZE as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // The kernel's layout has the tail in a field of the first entry that is not used
        // otherwise. SAFETY: it is called with the address of the first entry.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) }.cast_mut();
        // SAFETY: the kernel reads the tail atomically and never writes it.
        let tail = unsafe { AtomicU16::from_ptr(tail) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the kernel does not know it any more (`Ring::drop`).
        unsafe { alloc::dealloc(self.entries.as_ptr().cast(), self.layout) }
    }
}

/// A small ring of its own for a thread that serves no client and has only to wake those that do.
pub(crate) struct Waker(IoUring);

impl Waker {
    /// Tries the ring once, since a kernel can allow to make a ring and then forbid its use.
    pub(crate) fn new() -> Result<Waker, Failure> {
        let mut uring = IoUring::new(1).map_err(|error| unavailable(&error))?;
        // SAFETY: it reads and writes no memory of ours. There is room: the queue is empty.
        let _ = unsafe { uring.submission().push(&opcode::Nop::new().build()) };
        uring.submit_and_wait(1).map_err(|error| unavailable(&error))?;
        uring.completion().for_each(drop);
        Ok(Waker(uring))
    }

    /// Wakes the worker that owns the ring `fd`. If the ring is not enabled yet, or the worker has
    /// ended, it fails, and the worker need not be woken.
    pub(crate) fn wake(&mut self, fd: &OwnedFd) {
        while self.send(fd) == -libc::ENOMEM {
            thread::sleep(MESSAGE_PAUSE);
        }
    }

    /// Sends a message. Returns its result, as a system call of the kernel does.
    fn send(&mut self, fd: &OwnedFd) -> i32 {
        // SAFETY: it reads and writes no memory of ours.
        let _ = unsafe { self.0.submission().push(&message(fd)) };
        let _ = self.0.submit_and_wait(1);
        self.0.completion().last().map_or(0, |entry| entry.result())
    }
}

/// A completion in another ring.
fn message(fd: &OwnedFd) -> squeue::Entry {
    opcode::MsgRingData::new(Fd(fd.as_raw_fd()), 0, WOKEN, None).build()
}

/// Why there can be no ring here, and what to do.
fn unavailable(error: &io::Error) -> Failure {
    let reason = match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "there is no io_uring here: this kernel has none, or a seccomp filter (a container's?) \
             hides it"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is forbidden here, by a seccomp filter (a container's?) or by the sysctl \
             kernel.io_uring_disabled"
        }
        Some(libc::ENOMEM) => {
            return Failure::Unsupported(
                "the limit of locked memory is too low for io_uring's rings: raise it (`ulimit -l`) \
                 or use fewer --workers"
                    .to_owned(),
            );
        }
        Some(libc::EINVAL) => "this kernel's io_uring is too old: Linux 6.6 or newer is needed",
        _ => return Failure::Failed(format!("io_uring: {error}")),
    };
    Failure::Unsupported(format!("{reason}; choose another server"))
}
