//! Asynchronous programming: each connection is a task that reads as if it blocked, on tokio.
//!
//! **Who waits where:** each task, in one `select!`, for its socket, its deadline and news for its
//! member; underneath, each thread of the runtime, for all of them, in an unseen `epoll_wait`.
//! **What wakes it:** the runtime, when the socket is ready (edge-triggered, registered once) or
//! the deadline has come; another task or the stop signal, through a `Notify`.
//!
//! A task is a state machine on the heap, and what it keeps across an `await` every idle connection
//! pays for: so no task holds a read buffer. It alone owns its socket, session and outbox. What
//! others have for its member comes through a bounded inbox, so nobody waits for a slow reader.
//!
//! Run: `cargo run --release -p serve-tokio -- --flavor multi-thread --workers 2 --mode chat`
//! Read next: `serve-epoll-level`, the loop hidden here, and `serve-threads`, which really blocks.

use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::mem::{self, MaybeUninit};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use launch::{Counters, Failure, Launch, Place, READ_SIZE};
use protocol::{ConnId, Due, Hub, Inbox, Mail, Mode, Next, Outbox, Session, Slots, Time};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, worker_index};
use tokio::sync::Notify;
use tokio::task::{coop, yield_now};
use tokio::time::{Instant, sleep, timeout};

/// The most slices in one vectored write.
const SLICES: usize = 64;
/// How long to leave the listener alone when there are no descriptors to be had.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// Why a connection ends, for those who shared a channel with it.
type Reason = &'static str;

#[derive(clap::Args)]
struct Extra {
    /// Who runs the tasks
    #[arg(long, value_enum, default_value = "current-thread")]
    flavor: Flavor,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Flavor {
    /// One thread
    CurrentThread,
    /// As many threads as --workers, which steal tasks from each other
    MultiThread,
    /// A single-threaded runtime on each of --workers threads, each with its own listener
    PerCore,
}

fn main() -> ExitCode {
    let about = "Echo or chat on tokio: a task for each connection";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch<Extra>) -> Result<(), Failure> {
    let flavor = launch.extra.flavor;
    if flavor == Flavor::CurrentThread && launch.workers > 1 {
        let hint = "for more --workers choose --flavor multi-thread or per-core";
        return Err(Failure::Usage(format!("--flavor current-thread is one thread: {hint}")));
    }
    let hub = Hub::new(Arc::clone(&launch.settings), 1);
    let room = Room { hub, members: Slots::new(0), mail: Vec::new() };
    let room: &'static Mutex<Room> = Box::leak(Box::new(Mutex::new(room)));
    let (chat, per_core) = (launch.settings.mode == Mode::Chat, flavor == Flavor::PerCore);
    let listeners = if per_core { launch.listen_each()? } else { vec![launch.listen()?] };
    let (mut workers, mut threads) = (Vec::new(), Vec::new());
    for (index, listener) in listeners.into_iter().enumerate() {
        let mut builder = match flavor {
            Flavor::MultiThread => Builder::new_multi_thread(),
            Flavor::CurrentThread | Flavor::PerCore => Builder::new_current_thread(),
        };
        // A single-threaded runtime ignores their number.
        builder.worker_threads(launch.workers).enable_io().enable_time();
        let runtime = builder.build().map_err(Failure::of("runtime"))?;
        listener.set_nonblocking(true).map_err(Failure::of("listener"))?;
        let register = async { TcpListener::from_std(listener) };
        let listener = runtime.block_on(register).map_err(Failure::of("listener"))?;
        let (open, freed, stop) = (AtomicUsize::new(0), Notify::new(), Notify::new());
        let worker = Worker { launch, chat, room, index, open, freed, stop };
        let worker: &'static Worker = Box::leak(Box::new(worker));
        // Spawned, so that in every flavour it runs where the connections do.
        let run = move || runtime.block_on(runtime.spawn(accept(worker, listener)));
        threads.push(thread::Builder::new().spawn(run).map_err(Failure::of("thread"))?);
        workers.push(worker);
    }
    launch.on_stop(move || stop(&workers))?;
    launch.announce();
    threads.into_iter().for_each(|thread| drop(thread.join()));
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
    news: Notify,
    /// Locked after the room, if both are.
    inbox: Mutex<Inbox>,
}

/// A listener and its connections.
struct Worker {
    launch: &'static Launch<Extra>,
    chat: bool,
    /// Its lock is never held across a system call or an `await`. In echo it is taken when a
    /// connection comes and when it goes.
    room: &'static Mutex<Room>,
    index: usize,
    /// How many connections there are.
    open: AtomicUsize,
    /// One of them has been closed. Only the task that accepts waits for it.
    freed: Notify,
    /// The server stops. The connections hear it from their members.
    stop: Notify,
}

async fn accept(worker: &'static Worker, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = worker.stop.notified() => break,
        };
        match accepted {
            Ok((socket, peer)) => admit(worker, socket, peer.ip()),
            Err(error) if launch::is_shortage(&error) => {
                worker.counters().shortages.add(1);
                let _ = timeout(SHORTAGE_PAUSE, worker.freed.notified()).await;
            }
            Err(_) => worker.counters().accept_errors.add(1),
        }
    }
    drop(listener);
    let drained = async {
        while worker.open.load(Ordering::Acquire) > 0 {
            worker.freed.notified().await;
        }
    };
    let _ = timeout(worker.launch.drain_timeout, drained).await;
}

fn admit(worker: &'static Worker, socket: TcpStream, peer: IpAddr) {
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
    let mut conn = Connection { worker, id, member, session, outbox, _place, socket };
    worker.open.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(async move {
        let reason = conn.run().await.err();
        conn.close(reason.unwrap_or("Connection closed"));
        worker.open.fetch_sub(1, Ordering::Release);
        worker.freed.notify_one();
    });
}

/// The server was told to stop. Whoever is accepted from now on finds out by itself.
fn stop(workers: &[&'static Worker]) {
    let members: Vec<_> = workers[0].tell(None, |room| {
        room.hub.shut_down();
        room.members.ids().filter_map(|id| room.members.get(id).cloned()).collect()
    });
    members.iter().for_each(|member| member.news.notify_one());
    workers.iter().for_each(|worker| worker.stop.notify_one());
}

impl Worker {
    /// A task that moves counts where it runs, on a cache line that no other thread writes to.
    fn counters(&self) -> &'static Counters {
        self.launch.counters(self.index + worker_index().unwrap_or_default())
    }

    /// Calls the hub, and brings what it says to the inboxes under the same lock, so that every
    /// member gets it in the hub's order. Then wakes those whose inbox was empty, except `own`,
    /// who is awake and looks by itself.
    fn tell<R>(&self, own: Option<ConnId>, call: impl FnOnce(&mut Room) -> R) -> R {
        let mut woken = Vec::new();
        let mut room = lock(self.room);
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
        woken.iter().for_each(|member| member.news.notify_one());
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
    /// Before the socket: whoever sees the connection end finds the place free.
    _place: Place,
    socket: TcpStream,
}

impl Connection {
    /// Waits for whatever comes first, handles it, and asks the protocol what to wait for next.
    async fn run(&mut self) -> Result<(), Reason> {
        let member = Arc::clone(&self.member);
        let mut news = pin!(member.news.notified());
        // Set when it has rung or must ring earlier. That a line moves it later is a comparison.
        let mut alarm = pin!(sleep(Duration::ZERO));
        let mut alarm_at = Time::NEVER;
        self.hear_news()?;
        loop {
            let read = match self.session.next(&self.outbox) {
                Next::Serve { read } => read,
                Next::Shut => {
                    // Fails if the peer has gone.
                    let _ = poll_fn(|cx| Pin::new(&mut self.socket).poll_shutdown(cx)).await;
                    true
                }
                Next::Close => return Ok(()),
            };
            let deadline = self.session.deadline(&self.outbox);
            if deadline < alarm_at {
                alarm_at = deadline;
                alarm.as_mut().reset(Instant::now() + deadline.after(self.worker.launch.now()));
            }
            coop::consume_budget().await;
            // Nothing is lost with those who lose: what was read has been handled in the same poll,
            // and a notification is kept. None is preferred, so none starves.
            tokio::select! {
                () = &mut news => {
                    news.set(member.news.notified());
                    self.hear_news()?;
                }
                more = poll_fn(|cx| self.poll_socket(cx, read)) => if more? {
                    yield_now().await; // The others first.
                },
                () = &mut alarm, if alarm_at < Time::NEVER => {
                    alarm_at = Time::NEVER;
                    self.expire()?;
                }
            }
            self.worker.counters().wakeups.add(1);
        }
    }

    /// Writes once the socket takes it again, or else reads once. Says if more is likely there.
    fn poll_socket(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<Result<bool, Reason>> {
        if !self.outbox.is_empty() && self.socket.poll_write_ready(cx).is_ready() {
            return Poll::Ready(self.write().map(|()| false));
        }
        if !read {
            return Poll::Pending;
        }
        // On the stack for this one poll: a task that waits holds no buffer.
        let mut buffer = [const { MaybeUninit::uninit() }; READ_SIZE];
        let mut buffer = ReadBuf::uninit(&mut buffer[..self.worker.launch.read_size()]);
        if ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer)).is_err() {
            self.worker.counters().read_errors.add(1);
            return Poll::Ready(Err("Connection reset"));
        }
        self.worker.counters().bytes_in.add(buffer.filled().len() as u64);
        if buffer.filled().is_empty() {
            self.session.end();
        }
        Poll::Ready(self.handle(buffer.filled()).map(|()| buffer.remaining() == 0))
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
            match self.socket.try_write_vectored(&slices[..count]) {
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

/// A panic ends the process, so no lock is found poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
