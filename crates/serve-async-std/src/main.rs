//! Asynchronous programming: each connection is a task that reads as if it blocked, on async-std.
//! Its authors have discontinued it: shown for comparison, not for new servers.
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
//! Run: `cargo run --release -p serve-async-std -- --workers 2 --mode chat`
//! Read next: `serve-smol`, its successor, which can wait without reading.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::IoSlice;
use std::mem;
use std::net::{IpAddr, Shutdown};
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_global_executor::{GlobalExecutorConfig, init_with_config};
use async_std::future::timeout;
use async_std::io::{Read, Write};
use async_std::net::{TcpListener, TcpStream};
use async_std::task::{self, sleep, yield_now};
use event_listener::Event;
use futures_lite::future::{self, race};
use launch::{Counters, Failure, Launch, Place};
use protocol::{ConnId, Due, Hub, Inbox, Mail, Mode, Next, Outbox, Session, Slots, Time};

/// The most slices in one vectored write.
const SLICES: usize = 64;
/// How long to leave the listener alone when there are no descriptors to be had.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// How many threads have run a task.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Which of the threads that run tasks this one is.
    static INDEX: usize = THREADS.fetch_add(1, Ordering::Relaxed);
    /// What is being read: a task that waits holds no buffer.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Why a connection ends, for those who shared a channel with it.
type Reason = &'static str;

fn main() -> ExitCode {
    let about = "Echo or chat on async-std (discontinued upstream): a task for each connection";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    let hub = Hub::new(Arc::clone(&launch.settings), 1);
    let room = Mutex::new(Room { hub, members: Slots::new(0), mail: Vec::new() });
    let (chat, listener) = (launch.settings.mode == Mode::Chat, launch.listen()?);
    listener.set_nonblocking(true).map_err(Failure::of("listener"))?;
    // The threads that async-std is going to use. By itself it starts one for each core.
    let threads = GlobalExecutorConfig::default().with_min_threads(launch.workers);
    init_with_config(threads.with_max_threads(launch.workers));
    let (open, freed, stop) = (AtomicUsize::new(0), Event::new(), Event::new());
    let worker: &'static Worker =
        Box::leak(Box::new(Worker { launch, chat, room, open, freed, stop }));
    let accepting = task::spawn(accept(worker, TcpListener::from(listener)));
    launch.on_stop(move || self::stop(worker))?;
    launch.announce();
    // Not `task::block_on`: this thread would take its turn in `epoll_wait`, only to wake others.
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

async fn accept(worker: &'static Worker, listener: TcpListener) {
    let stop = worker.stop.listen();
    let accepting = async {
        // An event tells only those who wait for it already: so first wait, then look.
        while !worker.launch.stop.requested() {
            match listener.accept().await {
                Ok((socket, peer)) => admit(worker, socket, peer.ip()),
                Err(error) if launch::is_shortage(&error) => {
                    worker.counters().shortages.add(1);
                    let _ = timeout(SHORTAGE_PAUSE, worker.freed.listen()).await;
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
    task::spawn(async move {
        let reason = conn.run().await.err();
        conn.close(reason.unwrap_or("Connection closed"));
        worker.open.fetch_sub(1, Ordering::Release);
        worker.freed.notify(1);
    });
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
        self.launch.counters(INDEX.with(|index| *index))
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
    /// Before the socket: whoever sees the connection end finds the place free.
    _place: Place,
    socket: TcpStream,
}

impl Connection {
    /// Waits for whatever comes first, handles it, and asks the protocol what to wait for next.
    async fn run(&mut self) -> Result<(), Reason> {
        let member = Arc::clone(&self.member);
        let mut news = member.news.listen();
        // Set when it has rung or must ring earlier. That a line moves it later is a comparison.
        let mut alarm = pin!(sleep(Duration::ZERO));
        let mut alarm_at = Time::NEVER;
        let mut turns = 0_u8;
        poll_fn(|cx| Poll::Ready(self.hear_news(cx))).await?;
        loop {
            let read = match self.session.next(&self.outbox) {
                Next::Serve { read } => read,
                Next::Shut => {
                    let _ = self.socket.shutdown(Shutdown::Write); // Fails if the peer has gone.
                    true
                }
                Next::Close => return Ok(()),
            };
            let deadline = self.session.deadline(&self.outbox);
            if deadline < alarm_at {
                alarm_at = deadline;
                alarm.set(sleep(deadline.after(self.worker.launch.now())));
            }
            // Nothing is lost: what has come is handled in the same poll. The socket comes last and
            // does not starve: news come only while others run.
            let more = poll_fn(|cx| {
                if alarm_at < Time::NEVER && alarm.as_mut().poll(cx).is_ready() {
                    alarm_at = Time::NEVER;
                    return Poll::Ready(self.expire(cx).map(|()| false));
                }
                if Pin::new(&mut news).poll(cx).is_ready() {
                    news = member.news.listen();
                    return Poll::Ready(self.hear_news(cx).map(|()| false));
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

    /// Writes what the socket takes again, or else reads once, and says whether it has: a read is
    /// tried before it is waited for, and may succeed again and again while the others wait.
    fn poll_socket(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<Result<bool, Reason>> {
        let queued = self.outbox.len();
        self.write(cx)?;
        if self.outbox.len() < queued {
            return Poll::Ready(Ok(false));
        }
        if !read {
            return Poll::Pending;
        }
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(self.worker.launch.read_size(), 0);
            let Ok(len) = ready!(Pin::new(&mut self.socket).poll_read(cx, buffer)) else {
                self.worker.counters().read_errors.add(1);
                return Poll::Ready(Err("Connection reset"));
            };
            self.worker.counters().bytes_in.add(len as u64);
            if len == 0 {
                self.session.end();
            }
            Poll::Ready(self.handle(cx, &buffer[..len]).map(|()| true))
        })
    }

    /// Gives `input` to the protocol, and writes what comes back.
    fn handle(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Result<(), Reason> {
        let (worker, id, now) = (self.worker, self.id, self.worker.launch.now());
        let lines = match worker.chat {
            false => self.session.echo(input, now, &mut self.outbox),
            true => worker.tell(Some(id), |room| {
                self.session.chat(input, now, |line| room.hub.line(id, line, now))
            }),
        };
        worker.counters().lines.add(lines);
        worker.launch.burn(lines);
        if worker.chat { self.deliver(cx) } else { self.write(cx) }
    }

    /// Writes what the socket takes. What it does not take yet wakes the task once it does.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Reason> {
        while !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = slices.iter_mut().zip(self.outbox.slices());
            let count = filled.map(|(slice, bytes)| *slice = IoSlice::new(bytes)).count();
            match Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..count]) {
                Poll::Ready(Ok(len)) => {
                    self.worker.counters().bytes_out.add(len as u64);
                    self.outbox.advance(len);
                }
                Poll::Pending => {
                    self.worker.counters().would_blocks.add(1);
                    break;
                }
                Poll::Ready(Err(_)) => {
                    self.worker.counters().write_errors.add(1);
                    return Err("Connection reset");
                }
            }
        }
        Ok(())
    }

    /// There is mail, or the server stops.
    fn hear_news(&mut self, cx: &mut Context<'_>) -> Result<(), Reason> {
        if self.worker.launch.stop.requested() && !self.worker.chat {
            self.session.stop(launch::has_unread(&self.socket), &self.outbox);
            return self.handle(cx, &[]);
        }
        self.deliver(cx)
    }

    /// Queues all that is in the inbox, and writes it at once.
    fn deliver(&mut self, cx: &mut Context<'_>) -> Result<(), Reason> {
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
        self.write(cx)
    }

    fn expire(&mut self, cx: &mut Context<'_>) -> Result<(), Reason> {
        let (worker, own) = (self.worker, Some(self.id));
        let due = self.session.expire(worker.launch.now(), &self.outbox);
        match worker.counters().expired(due) {
            Due::Later => return Ok(()),
            Due::Resume => return self.handle(cx, &[]),
            Due::Ping => worker.tell(own, |room| room.hub.ping(self.id)),
            Due::Cut(reason) => worker.tell(own, |room| room.hub.cut(self.id, reason)),
            Due::Close => return Err("Timed out"),
        }
        self.deliver(cx)
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
