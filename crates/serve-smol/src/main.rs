//! Asynchronous programming: each connection is a task that reads as if it blocked, on smol.
//!
//! **Who waits where:** each task, in one `poll_fn`, for its socket, its deadline and news for its
//! member; underneath, one thread of those that run the tasks, for all of them, in an unseen
//! `epoll_wait`, while the others wait for tasks.
//! **What wakes it:** the process's one reactor, when the socket is ready (oneshot: armed again
//! for every wait) or the deadline has come; another task or the stop signal, through an `Event`.
//!
//! A task is a state machine on the heap, and what it keeps across an `await` every idle connection
//! pays for: so no task holds a read buffer. It alone owns its socket, session and outbox. What
//! others have for its member comes through a bounded inbox, so nobody waits for a slow reader.
//!
//! Run: `cargo run --release -p serve-smol -- --workers 2 --mode chat`
//! Read next: `serve-polling`, the oneshot readiness hidden here, and `serve-tokio`, armed once.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice, Write};
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use event_listener::Event;
use launch::{Counters, Failure, Launch, Place, READ_SIZE};
use protocol::{ConnId, Due, Hub, Inbox, Mail, Mode, Next, Outbox, Session, Slots, Time};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use smol::future::{self, pending, race, yield_now};
use smol::{Async, Executor, Timer, block_on};

/// The most slices in one vectored write.
const SLICES: usize = 64;
/// How long to leave the listener alone when there are no descriptors to be had.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// Who runs the tasks: as many threads as --workers, any of them any task.
static EXECUTOR: Executor<'static> = Executor::new();

thread_local! {
    /// Which of its threads this one is.
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// Why a connection ends, for those who shared a channel with it.
type Reason = &'static str;

fn main() -> ExitCode {
    let about = "Echo or chat on smol: a task for each connection";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let hub = Hub::new(Arc::clone(&launch.settings), 1);
    let room = Mutex::new(Room { hub, members: Slots::new(0), mail: Vec::new() });
    let (chat, listener) = (launch.settings.mode == Mode::Chat, launch.listen()?);
    let listener = Async::new(listener).map_err(Failure::of("listener"))?;
    let (open, freed, stop) = (AtomicUsize::new(0), Event::new(), Event::new());
    let worker: &'static Worker =
        Box::leak(Box::new(Worker { launch, chat, room, open, freed, stop }));
    let accepting = EXECUTOR.spawn(accept(worker, listener));
    for index in 0..launch.workers {
        let run = move || {
            INDEX.set(index);
            block_on(EXECUTOR.run(pending::<()>()))
        };
        thread::Builder::new().spawn(run).map_err(Failure::of("thread"))?;
    }
    launch.on_stop(move || self::stop(worker))?;
    launch.announce();
    // Not `smol::block_on`: this thread would take its turn in `epoll_wait`, only to wake others.
    future::block_on(accepting);
    Ok(())
}

/// Who is there, and in chat what they say to each other: what all connections share.
struct Room {
    hub: Hub,
    members: Slots<Arc<Member>>,
    /// On its way from the hub to the inboxes; empty when the lock is free.
    mail: Vec<Mail>,
}

/// The side of a connection that other tasks see.
#[derive(Default)]
struct Member {
    /// The inbox is no longer empty, or the server stops.
    news: Event,
    /// Locked after the room, if both are.
    inbox: Mutex<Inbox>,
}

/// A listener and its connections.
struct Worker {
    launch: &'static Launch,
    chat: bool,
    /// Its lock is never held across a system call or an `await`. In echo it is taken when a
    /// connection comes and when it goes.
    room: Mutex<Room>,
    /// How many connections there are.
    open: AtomicUsize,
    /// One of them has been closed. Only the task that accepts waits for it.
    freed: Event,
    /// The server stops. The connections hear it from their members.
    stop: Event,
}

async fn accept(worker: &'static Worker, listener: Async<TcpListener>) {
    let stop = worker.stop.listen();
    let accepting = async {
        // An event tells only those who wait for it already: so first wait, then look.
        while !worker.launch.stop.requested() {
            match listener.accept().await {
                Ok((socket, peer)) => admit(worker, socket, peer.ip()),
                Err(error) if launch::is_shortage(&error) => {
                    worker.counters().shortages.add(1);
                    timeout(SHORTAGE_PAUSE, worker.freed.listen()).await;
                }
                Err(_) => worker.counters().accept_errors.add(1),
            }
            yield_now().await; // The others first.
        }
    };
    race(accepting, stop).await;
    drop(listener);
    let drained = async {
        let mut freed = worker.freed.listen();
        while worker.open.load(Ordering::Acquire) > 0 {
            freed.await;
            freed = worker.freed.listen();
        }
    };
    timeout(worker.launch.drain_timeout, drained).await;
}

fn admit(worker: &'static Worker, socket: Async<TcpStream>, peer: IpAddr) {
    let (launch, now) = (worker.launch, worker.launch.now());
    let Some(_place) = launch.admit(&socket, peer, worker.counters()) else { return };
    let member = Arc::new(Member::default());
    let id = worker.tell(None, |room| {
        let id = room.members.insert(Arc::clone(&member)).0;
        if worker.chat {
            room.hub.open(id, &peer.to_string(), now);
        }
        id
    });
    let (session, outbox) = (Session::new(&launch.settings, now), Outbox::default());
    let mut conn = Connection { worker, id, member, session, outbox, more: false, _place, socket };
    worker.open.fetch_add(1, Ordering::Relaxed);
    let serving = async move {
        let reason = conn.run().await.err();
        conn.close(reason.unwrap_or("Connection closed"));
        worker.open.fetch_sub(1, Ordering::Release);
        worker.freed.notify(1);
    };
    EXECUTOR.spawn(serving).detach();
}

/// The server was told to stop. Whoever is accepted from now on finds out by itself.
fn stop(worker: &Worker) {
    let members: Vec<_> = worker.tell(None, |room| {
        room.hub.shut_down();
        room.members.ids().filter_map(|id| room.members.get(id).cloned()).collect()
    });
    members.iter().for_each(|member| _ = member.news.notify(1));
    worker.stop.notify(1);
}

impl Worker {
    /// A task that moves counts where it runs, on a cache line that no other thread writes to.
    fn counters(&self) -> &'static Counters {
        self.launch.counters(INDEX.get())
    }

    /// Calls the hub, and brings what it says to the inboxes under the same lock, so that every
    /// member gets it in the hub's order. Then wakes those whose inbox was empty, except `own`,
    /// who is awake and looks by itself.
    fn tell<R>(&self, own: Option<ConnId>, call: impl FnOnce(&mut Room) -> R) -> R {
        let mut woken = Vec::new();
        let mut room = lock(&self.room);
        let result = call(&mut room);
        let Room { hub, members, mail } = &mut *room;
        hub.take(0, mail);
        for Mail { to, parcel } in mail.drain(..) {
            let Some(member) = members.get(to) else { continue };
            let mut inbox = lock(&member.inbox);
            if inbox.is_empty() && own != Some(to) {
                woken.push(Arc::clone(member));
            }
            if inbox.push(parcel, &self.launch.settings.limits) {
                hub.press(to); // Its task has not come to it: whoever speaks waits.
            }
        }
        drop(room);
        // To wake a thread may be a system call.
        woken.iter().for_each(|member| _ = member.news.notify(1));
        result
    }
}

/// One connection, owned by its task.
struct Connection {
    worker: &'static Worker,
    id: ConnId,
    member: Arc<Member>,
    session: Session,
    outbox: Outbox,
    /// The last read filled the buffer: read again without waiting.
    more: bool,
    /// Before the socket: whoever sees the connection end finds the place free.
    _place: Place,
    socket: Async<TcpStream>,
}

impl Connection {
    /// Waits for whatever comes first, handles it, and asks the protocol what to wait for next.
    async fn run(&mut self) -> Result<(), Reason> {
        let member = Arc::clone(&self.member);
        let mut news = member.news.listen();
        // Set when it has rung or must ring earlier. That a line moves it later is a comparison.
        let mut alarm = Timer::never();
        let mut alarm_at = Time::NEVER;
        let mut turns = 0_u8;
        self.hear_news()?;
        loop {
            let read = match self.session.next(&self.outbox) {
                Next::Serve { read } => read,
                Next::Shut => {
                    // Fails if the peer has gone.
                    let _ = self.socket.get_ref().shutdown(Shutdown::Write);
                    true
                }
                Next::Close => return Ok(()),
            };
            let deadline = self.session.deadline(&self.outbox);
            if deadline < alarm_at {
                alarm_at = deadline;
                alarm.set_after(deadline.after(self.worker.launch.now()));
            }
            // Nothing is lost: what has come is handled in the same poll. The socket comes last and
            // does not starve: news come only while others run.
            let more = poll_fn(|cx| {
                if Pin::new(&mut alarm).poll(cx).is_ready() {
                    alarm_at = Time::NEVER;
                    return Poll::Ready(self.expire().map(|()| false));
                }
                if Pin::new(&mut news).poll(cx).is_ready() {
                    news = member.news.listen();
                    return Poll::Ready(self.hear_news().map(|()| false));
                }
                self.poll_socket(cx, read)
            });
            // Every 256th turn lets the others go first even if the task never has to wait.
            turns = turns.wrapping_add(1);
            if more.await? || turns == 0 {
                yield_now().await;
            }
            self.worker.counters().wakeups.add(1);
        }
    }

    /// Writes once the socket takes it again, or else reads once. Says if more is likely there.
    fn poll_socket(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<Result<bool, Reason>> {
        if !self.outbox.is_empty() && self.socket.poll_writable(cx).is_ready() {
            return Poll::Ready(self.write().map(|()| false));
        }
        if !read {
            return Poll::Pending;
        }
        // On the stack for this one poll: a task that waits holds no buffer.
        let mut buffer = [const { MaybeUninit::uninit() }; READ_SIZE];
        let buffer = &mut buffer[..self.worker.launch.read_size()];
        let input = loop {
            if !mem::take(&mut self.more) && ready!(self.socket.poll_readable(cx)).is_err() {
                return Poll::Ready(Err("Out of memory"));
            }
            match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok(((input, _), _)) => break input,
                Err(Errno::AGAIN) => self.worker.counters().would_blocks.add(1),
                Err(_) => {
                    self.worker.counters().read_errors.add(1);
                    return Poll::Ready(Err("Connection reset"));
                }
            }
        };
        self.worker.counters().bytes_in.add(input.len() as u64);
        if input.is_empty() {
            self.session.end();
        }
        self.more = input.len() == self.worker.launch.read_size();
        Poll::Ready(self.handle(input).map(|()| self.more))
    }

    /// Gives `input` to the protocol, and writes what comes back.
    fn handle(&mut self, input: &[u8]) -> Result<(), Reason> {
        let (worker, id, now) = (self.worker, self.id, self.worker.launch.now());
        let lines = match worker.chat {
            false => self.session.echo(input, now, &mut self.outbox),
            true => worker.tell(Some(id), |room| {
                self.session.chat(input, now, |line| room.hub.line(id, line, now))
            }),
        };
        worker.counters().lines.add(lines);
        worker.launch.burn(lines);
        if worker.chat { self.deliver() } else { self.write() }
    }

    fn write(&mut self) -> Result<(), Reason> {
        while !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = slices.iter_mut().zip(self.outbox.slices());
            let count = filled.map(|(slice, bytes)| *slice = IoSlice::new(bytes)).count();
            match self.socket.get_ref().write_vectored(&slices[..count]) {
                Ok(len) => {
                    self.worker.counters().bytes_out.add(len as u64);
                    self.outbox.advance(len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.worker.counters().would_blocks.add(1);
                    break;
                }
                Err(_) => {
                    self.worker.counters().write_errors.add(1);
                    return Err("Connection reset");
                }
            }
        }
        Ok(())
    }

    /// There is mail, or the server stops.
    fn hear_news(&mut self) -> Result<(), Reason> {
        if self.worker.launch.stop.requested() && !self.worker.chat {
            self.session.stop(launch::has_unread(&self.socket), &self.outbox);
            return self.handle(&[]);
        }
        self.deliver()
    }

    /// Queues all that is in the inbox, and writes it at once.
    fn deliver(&mut self) -> Result<(), Reason> {
        let (worker, now) = (self.worker, self.worker.launch.now());
        let inbox = mem::take(&mut *lock(&self.member.inbox));
        if inbox.is_pressed(&worker.launch.settings.limits) {
            worker.tell(None, |room| room.hub.relieve(self.id));
        }
        let mut full = false;
        for parcel in inbox {
            full |= self.session.post(parcel, now, &mut self.outbox).is_err();
        }
        if full {
            worker.counters().slow_cut.add(1);
            worker.tell(None, |room| room.hub.cut(self.id, protocol::SENDQ_EXCEEDED));
        }
        self.write()
    }

    fn expire(&mut self) -> Result<(), Reason> {
        let (worker, own) = (self.worker, Some(self.id));
        let due = self.session.expire(worker.launch.now(), &self.outbox);
        match worker.counters().expired(due) {
            Due::Later => return Ok(()),
            Due::Resume => return self.handle(&[]),
            Due::Ping => worker.tell(own, |room| room.hub.ping(self.id)),
            Due::Cut(reason) => worker.tell(own, |room| room.hub.cut(self.id, reason)),
            Due::Close => return Err("Timed out"),
        }
        self.deliver()
    }

    /// Leaves the chat before the socket is closed: whoever sees it closed finds the name free.
    fn close(self, reason: Reason) {
        self.worker.tell(None, |room| {
            room.members.remove(self.id);
            room.hub.leave(self.id, reason);
        });
    }
}

async fn timeout(longest: Duration, what: impl Future<Output = ()>) {
    let timer = async { _ = Timer::after(longest).await };
    race(what, timer).await;
}

/// A panic ends the process, so no lock is found poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
