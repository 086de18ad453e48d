//! A service manager, as a server sees it: listening sockets that it hands over, and a socket on
//! which it is told how the server is.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use socket2::{Domain, Socket, Type};

use crate::server::{Outcome, Process, Server, timespec};
use crate::surroundings::{self, Surroundings};
use crate::watchdog::{Ctx, Watch};

/// The first descriptor that a service manager hands over.
const FIRST: i32 = 3;

/// The most sockets that are handed over here.
const MOST: usize = 8;

/// What a manager keeps for one service, also while no server of it runs.
pub(crate) struct Manager {
    watch: Arc<Watch>,
    sockets: Vec<TcpListener>,
    notified: UnixDatagram,
    /// In the abstract namespace.
    name: String,
    /// LISTEN_FDNAMES, if it says any.
    names: Option<&'static str>,
    /// WATCHDOG_USEC, if it asks for signs of life.
    watchdog: Option<u64>,
    /// CREDENTIALS_DIRECTORY, if it gives credentials.
    credentials: Option<PathBuf>,
    /// Lines of the messages that have come and were not asked for.
    told: VecDeque<String>,
}

impl Manager {
    /// Listens at these addresses.
    #[track_caller]
    pub(crate) fn new(ctx: &Ctx, addrs: &[&str]) -> Self {
        let listen = |addr: &&str| TcpListener::bind(addr).expect("listen");
        Self::with(ctx, addrs.iter().map(listen).collect())
    }

    /// Listens at this address, whose port is 0, with so many sockets (SO_REUSEPORT).
    #[track_caller]
    pub(crate) fn sharing(ctx: &Ctx, addr: &str, count: usize) -> Self {
        let mut at: SocketAddr = addr.parse().expect("an address");
        let mut sockets = Vec::new();
        for _ in 0..count {
            let socket =
                Socket::new(Domain::for_address(at), Type::STREAM, None).expect("a socket");
            socket.set_reuse_port(true).expect("share the port");
            socket.bind(&at.into()).expect("bind");
            socket.listen(128).expect("listen");
            let socket = TcpListener::from(socket);
            at = socket.local_addr().expect("the address of a socket");
            sockets.push(socket);
        }
        Self::with(ctx, sockets)
    }

    fn with(ctx: &Ctx, sockets: Vec<TcpListener>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("iomodels-conformance-{}-{count}", process::id());
        let addr = net::SocketAddr::from_abstract_name(&name).expect("an abstract name");
        Self {
            watch: Arc::clone(&ctx.watch),
            sockets,
            notified: UnixDatagram::bind_addr(&addr).expect("a socket to be told on"),
            name,
            names: None,
            watchdog: None,
            credentials: None,
            told: VecDeque::new(),
        }
    }

    /// Names the sockets that it hands over, with colons between.
    pub(crate) fn naming(mut self, names: &'static str) -> Self {
        self.names = Some(names);
        self
    }

    /// Asks for a sign of life every so many microseconds.
    pub(crate) fn watching(mut self, micros: u64) -> Self {
        self.watchdog = Some(micros);
        self
    }

    /// Gives the credentials in this directory.
    pub(crate) fn giving(mut self, credentials: &Path) -> Self {
        self.credentials = Some(credentials.to_owned());
        self
    }

    pub(crate) fn addr(&self, which: usize) -> SocketAddr {
        self.sockets[which].local_addr().expect("the address of a socket")
    }

    /// Starts the server, which is to serve on the sockets.
    #[track_caller]
    pub(crate) fn start(&self, ctx: &Ctx, args: &[&str]) -> Server {
        let all: Vec<String> =
            ctx.args().iter().cloned().chain(args.iter().map(|&arg| arg.to_owned())).collect();
        Server::start_by(&self.watch, self.command(ctx.program()), &all)
    }

    /// Starts the server, to see it end.
    #[track_caller]
    pub(crate) fn outcome(&self, ctx: &Ctx, args: &[&str]) -> Outcome {
        let all: Vec<String> =
            ctx.args().iter().cloned().chain(args.iter().map(|&arg| arg.to_owned())).collect();
        let command = self.command(ctx.program());
        Process::spawn(&self.watch, command, &all, Stdio::piped()).outcome()
    }

    /// The command that becomes the server, with all that it is handed over.
    #[track_caller]
    fn command(&self, program: &str) -> Command {
        let surroundings =
            if self.sockets.is_empty() { Surroundings::Usual } else { Surroundings::Passed };
        let mut command = surroundings::command(surroundings, program);
        if !self.sockets.is_empty() {
            command.stdin(Stdio::from(send(&self.sockets).expect("hand the sockets over")));
        }
        command.env("NOTIFY_SOCKET", format!("@{}", self.name));
        if let Some(names) = self.names {
            command.env("LISTEN_FDNAMES", names);
        }
        if let Some(directory) = &self.credentials {
            command.env("CREDENTIALS_DIRECTORY", directory);
        }
        if let Some(micros) = self.watchdog {
            command.env("WATCHDOG_USEC", micros.to_string());
        }
        command
    }

    /// Waits until it is told this line, and forgets those before.
    #[track_caller]
    pub(crate) fn is_told(&mut self, line: &str) {
        while self.next_told(line) != line {}
    }

    /// Does something, waits until it is told this line, and gives the next.
    #[track_caller]
    pub(crate) fn is_told_after(&mut self, line: &str, act: impl FnOnce()) -> String {
        act();
        self.is_told(line);
        self.next_told("another line")
    }

    /// How often it has been told this line since it was last asked, without waiting.
    #[track_caller]
    pub(crate) fn has_been_told(&mut self, line: &str) -> usize {
        while self.hears_within(Duration::ZERO) {}
        self.told.drain(..).filter(|told| told == line).count()
    }

    /// The next line that it is told.
    #[track_caller]
    pub(crate) fn next_told(&mut self, awaited: &str) -> String {
        loop {
            if let Some(line) = self.told.pop_front() {
                return line;
            }
            let left = self.watch.awaiting(&format!("the manager to be told {awaited}"));
            self.hears_within(left);
        }
    }

    /// Takes a message, if one comes within this time.
    #[track_caller]
    fn hears_within(&mut self, patience: Duration) -> bool {
        let mut fds = [PollFd::new(&self.notified, PollFlags::IN)];
        if poll(&mut fds, Some(&timespec(patience))).expect("poll a socket") == 0 {
            return false;
        }
        let mut message = [0; 4096];
        let len = self.notified.recv(&mut message).expect("what the manager is told");
        let text = String::from_utf8_lossy(&message[..len]);
        self.told.extend(text.lines().map(str::to_owned));
        true
    }
}

/// Puts sockets on their way: the process that has the answer as its standard input takes them.
fn send(sockets: &[TcpListener]) -> io::Result<OwnedFd> {
    let kind = (AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC);
    let (ours, theirs) = socketpair(kind.0, kind.1, kind.2, None)?;
    let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)), "so many are not handed over");
    sendmsg(&ours, &[IoSlice::new(b"\n")], &mut control, SendFlags::empty())?;
    Ok(theirs)
}

/// Takes the sockets that were put on their way to this process, which has opened nothing yet, and
/// keeps them for the program that it becomes: how many there are.
pub(crate) fn receive() -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let stdin = io::stdin();
    let mut byte = [0];
    recvmsg(&stdin, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())?;
    let mut count = 0;
    for message in control.drain() {
        let RecvAncillaryMessage::ScmRights(fds) = message else { continue };
        for fd in fds {
            if fd.as_raw_fd() != FIRST + count {
                return Err(io::Error::other("descriptor 3 was taken before"));
            }
            fcntl_setfd(&fd, FdFlags::empty())?;
            // It is the program's from now on.
            std::mem::forget(fd);
            count += 1;
        }
    }
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(count.unsigned_abs() as usize)
}
