//! Async/await over completions: each connection is a task that moves its buffers, on compio.
//!
//! **Who waits where:** each task, in one `poll_fn`, for what the kernel does for it, its deadline
//! and news for its member; underneath, each worker's thread, for all of them, in an unseen
//! `io_uring_enter`.
//! **What wakes it:** the worker's own ring, when a receive or a send is done or the deadline has
//! come; another task of the worker, or of another for the one that brings the mail, through an
//! `Event`.
//!
//! The kernel works in a task's buffers while the task waits, so a task gives them away and gets
//! them back: to send, all that is queued at once. To receive, it gives none: the kernel picks one
//! of a ring of them when there are bytes, so an idle connection holds no buffer.
//!
//! Run: `cargo run --release -p serve-compio -- --workers 2 --mode chat`
//! Read next: `serve-uring`, the rings hidden here, and `serve-smol`, told of readiness instead.

mod ring;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::mem;
use std::net::{self, IpAddr};
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, ready};
use std::thread;
use std::time::Duration;

use compio::BufResult;
use compio::driver::BufferRef;
use compio::io::{AsyncReadManaged, AsyncWrite};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::spawn;
use compio::time::{sleep, timeout};
use event_listener::Event;
use futures_lite::StreamExt;
use futures_lite::future::{race, yield_now};
use launch::{Counters, Failure, Launch, Place};
use protocol::{ConnId, Due, Hub, Inbox, Mail, Mode, Next, Outbox, Session, Slots, Time};

use crate::ring::{Batch, Pace, runtime, send};

/// How long to leave the listener alone when there are no descriptors to be had.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// One that is over at once would not let the kernel say before what it has done.
const SHORTEST_SLEEP: Duration = Duration::from_micros(100);

/// Why a connection ends, for those who shared a channel with it.
type Reason = &'static str;

fn main() -> ExitCode {
    let about = "Echo or chat on compio: a task for each connection, and completions from io_uring";
    launch::main(env!("CARGO_PKG_NAME"), about, serve)
}

fn serve(launch: &'static Launch) -> Result<(), Failure> {
    drop(runtime(launch)?); // Says now if it cannot be had.
    let hub = Mutex::new(Hub::new(Arc::clone(&launch.settings), launch.workers));
    let chat = launch.settings.mode == Mode::Chat;
    let wakes = (0..launch.workers).map(|_| Event::new()).collect();
    let shared: &'static Shared = Box::leak(Box::new(Shared { launch, chat, hub, wakes }));
    let mut threads = Vec::new();
    for (index, listener) in launch.listen_each()?.into_iter().enumerate() {
        // A ring belongs to the thread that makes it.
        let run = move || {
            let runtime = runtime(launch).unwrap_or_else(|failure| launch.abort(&failure));
            let worker: &'static Worker = Box::leak(Box::new(Worker::new(index, shared)));
            runtime.block_on(accept(worker, listener));
        };
        threads.push(thread::Builder::new().spawn(run).map_err(Failure::of("thread"))?);
    }
    launch.on_stop(|| shared.wakes.iter().for_each(|wake| _ = wake.notify(1)))?;
    launch.announce();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

/// What all workers share.
struct Shared {
    launch: &'static Launch,
    chat: bool,
    /// Used in chat only. Its lock is never held across a system call or an `await`.
    hub: Mutex<Hub>,
    /// Each worker has one: there is mail for its members, or the server stops.
    wakes: Vec<Event>,
}

/// The side of a connection that other tasks of its worker see.
#[derive(Default)]
struct Member {
    /// The inbox is no longer empty, or the server stops.
    news: Event,
    inbox: RefCell<Inbox>,
}

/// A listener and its connections, all on one thread.
struct Worker {
    index: usize,
    shared: &'static Shared,
    launch: &'static Launch,
    counters: &'static Counters,
    members: RefCell<Slots<Rc<Member>>>,
    /// On its way from the hub to the inboxes.
    mail: RefCell<Vec<Mail>>,
    /// How many connections there are.
    open: Cell<usize>,
    /// One of them has been closed. Only the task that accepts waits for it.
    freed: Event,
    /// The server stops. The connections hear it from their members.
    stop: Event,
}

async fn accept(worker: &'static Worker, listener: net::TcpListener) {
    let listener = TcpListener::from_std(listener).map_err(Failure::of("listener"));
    let listener = listener.unwrap_or_else(|failure| worker.launch.abort(&failure));
    let stop = worker.stop.listen();
    spawn(woken(worker)).detach();
    let accepting = async {
        // One request for all connections to come: it ends with an error, and is made anew.
        let mut incoming = listener.incoming();
        while let Some(accepted) = incoming.next().await {
            match accepted.and_then(|socket| Ok((socket.peer_addr()?, socket))) {
                Ok((peer, socket)) => admit(worker, socket, peer.ip()),
                Err(error) if launch::is_shortage(&error) => {
                    worker.counters.shortages.add(1);
                    let _ = timeout(SHORTAGE_PAUSE, worker.freed.listen()).await;
                }
                Err(_) => worker.counters.accept_errors.add(1),
            }
            yield_now().await; // The others first.
        }
    };
    race(accepting, stop).await;
    let drained = async {
        // The port is free once the kernel has given up accepting.
        let _ = listener.close().await;
        while worker.open.get() > 0 {
            worker.freed.listen().await;
        }
    };
    let _ = timeout(worker.launch.drain_timeout, drained).await;
}

fn admit(worker: &'static Worker, socket: TcpStream, peer: IpAddr) {
    let (launch, now) = (worker.launch, worker.launch.now());
    let Some(_place) = launch.admit(&socket, peer, worker.counters) else { return };
    let member = Rc::new(Member::default());
    let id = worker.members.borrow_mut().insert(Rc::clone(&member)).0;
    if worker.shared.chat {
        worker.tell(None, |hub| hub.open(id, &peer.to_string(), now));
    }
    let (session, outbox) = (Session::new(&launch.settings, now), Outbox::default());
    let mut conn =
        Connection { worker, id, member, session, outbox, pace: Pace::default(), _place };
    worker.open.set(worker.open.get() + 1);
    let serve = async move {
        let reason = conn.run(&socket).await.err();
        conn.close(reason.unwrap_or("Connection closed"));
        drop(socket);
        worker.open.set(worker.open.get() - 1);
        worker.freed.notify(1);
    };
    spawn(serve).detach();
}

/// Brings other workers' mail, and the news that the server stops; who comes later sees by itself.
async fn woken(worker: &'static Worker) {
    let mut stopped = false;
    loop {
        // An event tells only those who wait for it already: so first wait, then look.
        let wake = worker.shared.wakes[worker.index].listen();
        if worker.launch.stop.requested() && !mem::replace(&mut stopped, true) {
            worker.tell(None, Hub::shut_down);
            let members = worker.members.borrow();
            let members = members.ids().filter_map(|id| members.get(id));
            members.for_each(|member| _ = member.news.notify(1));
            worker.stop.notify(1);
        } else if worker.shared.chat {
            worker.tell(None, |_| ());
        }
        wake.await;
    }
}

impl Worker {
    fn new(index: usize, shared: &'static Shared) -> Worker {
        let (members, mail) = (RefCell::new(Slots::new(index)), RefCell::default());
        let (open, freed, stop) = (Cell::new(0), Event::new(), Event::new());
        let (launch, counters) = (shared.launch, shared.launch.counters(index));
        Worker { index, shared, launch, counters, members, mail, open, freed, stop }
    }

    /// Calls the hub, and brings what it says to this worker's inboxes, in the hub's order, and
    /// word of the rest to the other workers. Then wakes those whose inbox was empty, except
    /// `own`, who is awake and looks by itself.
    fn tell<R>(&self, own: Option<ConnId>, call: impl FnOnce(&mut Hub) -> R) -> R {
        let mut mail = self.mail.borrow_mut();
        let mut hub = lock(&self.shared.hub);
        let result = call(&mut hub);
        hub.take(self.index, &mut mail);
        let others = hub.wakes(self.index);
        drop(hub);
        others.for_each(|worker| _ = self.shared.wakes[worker].notify(1));
        let (members, mut behind) = (self.members.borrow(), Vec::new());
        for Mail { to, parcel } in mail.drain(..) {
            let Some(member) = members.get(to) else { continue };
            let mut inbox = member.inbox.borrow_mut();
            if inbox.is_empty() && own != Some(to) {
                member.news.notify(1);
            }
            if inbox.push(parcel, &self.launch.settings.limits) {
                behind.push(to);
            }
        }
        // Their tasks have not come to it: whoever speaks waits.
        behind.into_iter().for_each(|id| lock(&self.shared.hub).press(id));
        result
    }
}

/// One connection, owned by its task.
struct Connection {
    worker: &'static Worker,
    id: ConnId,
    member: Rc<Member>,
    session: Session,
    outbox: Outbox,
    pace: Pace,
    /// Dropped before the socket: whoever sees the connection end finds the place free.
    _place: Place,
}

impl Connection {
    /// Waits for whatever comes first, handles it, and asks the protocol what to wait for next.
    async fn run(&mut self, mut socket: &TcpStream) -> Result<(), Reason> {
        let member = Rc::clone(&self.member);
        let mut news = member.news.listen();
        // Set when it has rung or must ring earlier. That a line moves it later is a comparison.
        let mut alarm = pin!(sleep(Duration::ZERO));
        let mut alarm_at = Time::NEVER;
        // At most one of each, or bytes would change their order. Neither is given up: what has
        // been received would be lost. The second, large and seldom there, is not in the task.
        let (mut receive, mut transmit) = (pin!(None), None);
        self.hear_news(socket);
        loop {
            let read = match self.session.next(&self.outbox) {
                Next::Serve { read } => read,
                Next::Shut => {
                    let _ = socket.shutdown().await; // Fails if the peer has gone.
                    true
                }
                Next::Close => return Ok(()),
            };
            if read && receive.is_none() {
                // The kernel picks a buffer when there are bytes.
                receive.set(Some(async move { { socket }.read_managed(0).await }));
            }
            if transmit.is_none() && !self.outbox.is_empty() {
                transmit = Some(Box::pin(send(socket, self.outbox.take())));
            }
            let deadline = self.pace.deadline(self.session.deadline(&self.outbox));
            if deadline < alarm_at {
                alarm_at = deadline;
                alarm.set(sleep(deadline.after(self.worker.launch.now()).max(SHORTEST_SLEEP)));
            }
            let more = poll_fn(|cx| {
                if let Some(sending) = &mut transmit
                    && let Poll::Ready(BufResult(sent, batch)) = sending.as_mut().poll(cx)
                {
                    let rest = self.write(sent, batch)?;
                    transmit = (!rest.is_empty()).then(|| Box::pin(send(socket, rest)));
                    return Poll::Ready(Ok(false));
                }
                if alarm_at < Time::NEVER && alarm.as_mut().poll(cx).is_ready() {
                    alarm_at = Time::NEVER;
                    return Poll::Ready(self.expire().map(|()| false));
                }
                if Pin::new(&mut news).poll(cx).is_ready() {
                    news = member.news.listen();
                    self.hear_news(socket);
                    return Poll::Ready(Ok(false));
                }
                let Some(receiving) = receive.as_mut().as_pin_mut() else { return Poll::Pending };
                let received = ready!(receiving.poll(cx));
                receive.set(None);
                Poll::Ready(self.read(received))
            });
            if more.await? {
                yield_now().await;
            }
            self.worker.counters.wakeups.add(1);
        }
    }

    /// Something has been received. Says whether to let the others go first: no buffer was free.
    fn read(&mut self, received: io::Result<Option<BufferRef>>) -> Result<bool, Reason> {
        if let Err(error) = &received {
            if error.kind() == ErrorKind::ResourceBusy {
                self.worker.counters.would_blocks.add(1);
                return Ok(true);
            }
            self.worker.counters.read_errors.add(1);
            return Err("Connection reset");
        }
        let received = received.ok().flatten();
        let input = received.as_deref().unwrap_or_default();
        self.worker.counters.bytes_in.add(input.len() as u64);
        if input.is_empty() {
            self.session.end();
        }
        self.handle(input);
        Ok(false)
    }

    /// Gives `input` to the protocol, and queues what comes back.
    fn handle(&mut self, input: &[u8]) {
        let (worker, id, now) = (self.worker, self.id, self.worker.launch.now());
        let lines = match worker.shared.chat {
            false => self.session.echo(input, now, &mut self.outbox),
            true => worker.tell(Some(id), |hub| {
                self.session.chat(input, now, |line| hub.line(id, line, now))
            }),
        };
        worker.counters.lines.add(lines);
        worker.launch.burn(lines);
        self.deliver();
    }

    /// Some of a batch has been sent. Gives what is next: its rest, or what was queued meanwhile.
    fn write(&mut self, sent: io::Result<usize>, batch: Batch) -> Result<Outbox, Reason> {
        let (Ok(len), Batch(mut batch)) = (sent, batch) else {
            self.worker.counters.write_errors.add(1);
            return Err("Connection reset");
        };
        self.worker.counters.bytes_out.add(len as u64);
        self.pace.has_sent();
        batch.advance(len);
        Ok(if batch.is_empty() { self.outbox.take() } else { batch })
    }

    /// There is mail, or the server stops.
    fn hear_news(&mut self, socket: &TcpStream) {
        if self.worker.launch.stop.requested() && !self.worker.shared.chat {
            self.session.stop(launch::has_unread(socket), &self.outbox);
            return self.handle(&[]);
        }
        self.deliver();
    }

    /// Queues all that is in the inbox, to be sent at once.
    fn deliver(&mut self) {
        let (worker, now) = (self.worker, self.worker.launch.now());
        let (limits, inbox) = (&worker.launch.settings.limits, self.member.inbox.take());
        let (mut full, mut late) = (false, inbox.is_pressed(limits));
        for parcel in inbox {
            full |= self.session.post(parcel, now, &mut self.outbox).is_err();
        }
        late |= self.outbox.len() > limits.high_water() && !self.pace.stuck;
        if late && self.pace.press() {
            worker.tell(None, |hub| hub.press(self.id));
        }
        if full {
            worker.counters.slow_cut.add(1);
            worker.tell(None, |hub| hub.cut(self.id, protocol::SENDQ_EXCEEDED));
        }
    }

    fn expire(&mut self) -> Result<(), Reason> {
        let (worker, own) = (self.worker, Some(self.id));
        if self.pace.relieve(&self.outbox) {
            worker.tell(None, |hub| hub.relieve(self.id));
        }
        let due = self.session.expire(worker.launch.now(), &self.outbox);
        match worker.counters.expired(due) {
            Due::Later => {}
            Due::Resume => self.handle(&[]),
            Due::Ping => worker.tell(own, |hub| hub.ping(self.id)),
            Due::Cut(reason) => worker.tell(own, |hub| hub.cut(self.id, reason)),
            Due::Close => return Err("Timed out"),
        }
        self.deliver();
        Ok(())
    }

    /// Leaves the chat before the socket is closed: whoever sees it closed finds the name free.
    fn close(self, reason: Reason) {
        self.worker.members.borrow_mut().remove(self.id);
        if self.worker.shared.chat {
            self.worker.tell(None, |hub| hub.leave(self.id, reason));
        }
    }
}

/// A panic ends the process, so no lock is found poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
