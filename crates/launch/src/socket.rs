//! The listening sockets.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::sockopt::GetStruct;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Failure, Launch};

/// How often and how long apart an address that is in use is asked for again.
///
/// When a server on io_uring is killed, the kernel takes its rings apart on a thread of its own,
/// some milliseconds after the process is gone, and only then closes the listener that was in one.
/// No event tells when. What the former server was, the next cannot know: so all are patient.
const ATTEMPTS: u32 = 40;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(5);

/// How often a port is picked anew that turns out to be in use at another of several addresses.
const PORTS: u32 = 16;

/// Where to listen.
pub(crate) struct Wanted {
    /// For each `--listen` its addresses, canonical, and none twice. None where sockets were handed
    /// over.
    pub(crate) addrs: Vec<Vec<SocketAddr>>,
    pub(crate) backlog: i32,
    /// Sockets that were handed over, until they are asked for.
    passed: Mutex<Vec<TcpListener>>,
    /// An eventfd, where sockets were handed over.
    ended: Option<OwnedFd>,
    /// Whether no two workers have the same socket.
    apart: AtomicBool,
}

impl Wanted {
    /// # Errors
    /// When no descriptor can be had.
    pub(crate) fn new(
        addrs: Vec<Vec<SocketAddr>>,
        backlog: i32,
        passed: Vec<TcpListener>,
    ) -> Result<Wanted, Failure> {
        let mut ended = None;
        if !passed.is_empty() {
            let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
            ended = Some(fd.map_err(Failure::of("eventfd"))?);
        }
        let apart = AtomicBool::new(false);
        Ok(Wanted { addrs, backlog, passed: Mutex::new(passed), ended, apart })
    }

    pub(crate) fn each_has_its_own(&self) -> bool {
        self.apart.load(Ordering::Relaxed)
    }
}

/// Listening sockets at several addresses.
struct Bound {
    /// For each worker one at each address.
    listeners: Vec<Vec<TcpListener>>,
    addrs: Vec<SocketAddr>,
    /// Addresses that this machine does not have.
    missing: Vec<SocketAddr>,
}

/// Where something could not listen, and why.
type Refused = (SocketAddr, io::Error);

impl<E> Launch<E> {
    /// One listening socket for each address that `--listen` stands for: a name may have several,
    /// such as 127.0.0.1 and ::1 for `localhost`. There is at least one. Where sockets were handed
    /// over it is those, and they are non-blocking.
    ///
    /// # Errors
    /// When an address is in use or may not be had. An address that this machine does not have is
    /// left out with a warning, as long as its name has another.
    pub fn listeners(&self) -> Result<Vec<TcpListener>, Failure> {
        Ok(self.listen(1)?.into_iter().flatten().collect())
    }

    /// For each worker the listening sockets of [`Launch::listeners`], in the same order: at each
    /// address the kernel spreads the connections over the workers by a hash of their addresses
    /// (SO_REUSEPORT). Sockets that were handed over are shared out: each worker has one of each
    /// address, and each socket has a worker. Where there are fewer than workers, several workers
    /// have the same.
    ///
    /// # Errors
    /// As [`Launch::listeners`].
    pub fn listeners_each(&self) -> Result<Vec<Vec<TcpListener>>, Failure> {
        self.listen(self.workers)
    }

    /// Something to wait for beside the listening sockets, where those were handed over: it becomes
    /// readable with [`Launch::end_accept`], and stays so. Otherwise there is nothing.
    #[must_use]
    pub fn accept_end(&self) -> Option<BorrowedFd<'_>> {
        self.socket.ended.as_ref().map(AsFd::as_fd)
    }

    /// Ends all waiting in `accept` for a connection to this socket, for good. To shut a socket
    /// down throws its backlog away, in all processes that have it: so one that was handed over
    /// stays as it is, and [`Launch::accept_end`] ends the waiting.
    pub fn end_accept(&self, listener: &TcpListener) {
        if let Some(ended) = &self.socket.ended {
            // It fails only when the counter is full, and then the descriptor is readable.
            let _ = rustix::io::write(ended, &1_u64.to_ne_bytes());
        } else {
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
        }
    }

    /// Says on standard output where the server listens, a line for each address. Call it when it
    /// accepts, not before.
    pub fn announce(&self) {
        crate::ANNOUNCED.store(true, Ordering::Relaxed);
        let lines = self.bound.get().into_iter().flatten();
        let lines: String = lines.map(|addr| format!("listening on {addr}\n")).collect();
        let mut out = io::stdout();
        // A standard output that is closed is no reason not to serve.
        let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
        self.manager.tell("READY=1");
    }

    fn listen(&self, workers: usize) -> Result<Vec<Vec<TcpListener>>, Failure> {
        let passed = self.socket.passed.lock().unwrap_or_else(PoisonError::into_inner).split_off(0);
        if !passed.is_empty() {
            return self.share_out(passed, workers).map_err(Failure::of("sockets handed over"));
        }
        let mut listeners: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        self.socket.apart.store(workers == self.workers, Ordering::Relaxed);
        let mut bound = Vec::new();
        for addrs in &self.socket.addrs {
            let more = self.listen_on(addrs, workers)?;
            bound.extend(more.addrs);
            for (worker, more) in listeners.iter_mut().zip(more.listeners) {
                worker.extend(more);
            }
        }
        self.bound.get_or_init(|| bound);
        Ok(listeners)
    }

    /// Shares sockets out among the workers, those of each address by themselves.
    fn share_out(
        &self,
        passed: Vec<TcpListener>,
        workers: usize,
    ) -> io::Result<Vec<Vec<TcpListener>>> {
        let mut groups: Vec<(SocketAddr, Vec<TcpListener>)> = Vec::new();
        for socket in passed {
            let addr = socket.local_addr()?;
            match groups.iter_mut().find(|(other, _)| *other == addr) {
                Some((_, sockets)) => sockets.push(socket),
                None => groups.push((addr, vec![socket])),
            }
        }
        let mut listeners: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        let enough = groups.iter().all(|(_, sockets)| sockets.len() >= workers);
        self.socket.apart.store(enough && workers == self.workers, Ordering::Relaxed);
        for (_, sockets) in &groups {
            for turn in 0..workers.max(sockets.len()) {
                let socket = sockets[turn % sockets.len()].try_clone()?;
                listeners[turn % workers].push(socket);
            }
        }
        self.bound.get_or_init(|| groups.iter().map(|(addr, _)| *addr).collect());
        Ok(listeners)
    }

    /// Listens at the addresses of one `--listen`.
    fn listen_on(&self, addrs: &[SocketAddr], workers: usize) -> Result<Bound, Failure> {
        let picks = addrs.len() > 1 && addrs[0].port() == 0;
        let attempts = if picks { PORTS } else { 1 };
        let mut result = self.bind_all(addrs, workers);
        for _ in 1..attempts {
            // The port that was picked at the first address is in use at another.
            if result.as_ref().is_err_and(|(_, error)| is_in_use(error)) {
                result = self.bind_all(addrs, workers);
            }
        }
        let bound = result.map_err(|(addr, error)| cannot_listen(addr, &error))?;
        for addr in &bound.missing {
            self.log.warn(&format!("does not listen on {addr}: this machine has no such address"));
        }
        Ok(bound)
    }

    fn bind_all(&self, addrs: &[SocketAddr], workers: usize) -> Result<Bound, Refused> {
        let listeners = (0..workers).map(|_| Vec::new()).collect();
        let mut bound = Bound { listeners, addrs: Vec::new(), missing: Vec::new() };
        for addr in addrs {
            let mut addr = *addr;
            if let (0, Some(first)) = (addr.port(), bound.addrs.first()) {
                addr.set_port(first.port());
            }
            match self.bind_each(addr, workers) {
                Ok((at, listeners)) => {
                    bound.addrs.push(at);
                    for (worker, listener) in bound.listeners.iter_mut().zip(listeners) {
                        worker.push(listener);
                    }
                }
                Err(error) if is_missing(&error) && addrs.len() > 1 => bound.missing.push(addr),
                Err(error) => return Err((addr, error)),
            }
        }
        match bound.missing.first() {
            Some(addr) if bound.addrs.is_empty() => {
                Err((*addr, io::ErrorKind::AddrNotAvailable.into()))
            }
            _ => Ok(bound),
        }
    }

    /// A listening socket for each worker at one address, and what address that is.
    fn bind_each(
        &self,
        addr: SocketAddr,
        workers: usize,
    ) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
        let share = workers > 1;
        if share && addr.port() != 0 {
            // With SO_REUSEPORT a second server of the same user would quietly get half of our
            // connections, so first see whether the address is free without it.
            drop(self.bind(addr, false)?);
        }
        let (mut at, mut listeners) = (addr, Vec::with_capacity(workers));
        for _ in 0..workers {
            let socket = self.bind(at, share)?;
            socket.listen(self.socket.backlog)?;
            let listener = TcpListener::from(socket);
            // The others get the port that the first was given.
            at = listener.local_addr()?;
            listeners.push(listener);
        }
        Ok((at, listeners))
    }

    fn bind(&self, addr: SocketAddr, share: bool) -> io::Result<Socket> {
        let open = || {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
            if addr.is_ipv6() {
                // Alone, `[::]` is for IPv4 as well, whatever the sysctl net.ipv6.bindv6only says.
                // Beside an IPv4 address it would be in its way.
                socket.set_only_v6(self.socket.addrs.iter().flatten().nth(1).is_some())?;
            }
            // Old connections of a former server that are in TIME_WAIT do not matter.
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(share)?;
            // Accepted sockets inherit it: no system call for each of them.
            socket.set_tcp_nodelay(true)?;
            socket.bind(&addr.into())?;
            Ok(socket)
        };
        let mut result = open();
        for _ in 1..ATTEMPTS {
            if result.as_ref().is_err_and(is_in_use) {
                thread::sleep(ATTEMPT_PAUSE);
                result = open();
            }
        }
        result
    }
}

fn is_in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// Whether an error of bind says that this machine does not have the address, or nothing of its
/// kind.
fn is_missing(error: &io::Error) -> bool {
    let family = libc::EAFNOSUPPORT;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(family)
}

fn cannot_listen(addr: SocketAddr, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "; another server is there: choose another --listen",
        io::ErrorKind::PermissionDenied => "; choose a --listen port above 1023",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    };
    Failure::Failed(format!("cannot listen on {addr}: {error}{hint}"))
}

/// Whether an error of accept says that descriptors or memory have run out: stop accepting until
/// a connection closes or a moment has passed. Any other error concerns the one connection that
/// was to be accepted.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let shortages = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    error.raw_os_error().is_some_and(|code| shortages.contains(&Errno::from_raw(code)))
}

/// The next connection in the backlog of a non-blocking listener, itself non-blocking: one
/// `accept4`.
///
/// # Errors
/// As `accept4`: `WouldBlock` when the backlog is empty.
pub fn accept_nonblocking(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.ok_or(Errno::CONNABORTED)?;
    Ok((TcpStream::from(socket), SocketAddr::try_from(peer)?))
}

/// Whether bytes are on their way between this server and the peer: some have come and have not
/// been read, or some have been written and the peer's kernel has not taken them. Closed now, the
/// connection could be reset (RFC 2525, 2.17), and what was written would be thrown away.
#[must_use]
pub fn is_busy(socket: impl AsFd) -> bool {
    has_unread(&socket) || has_untaken(&socket)
}

fn has_unread(socket: impl AsFd) -> bool {
    rustix::io::ioctl_fionread(socket).is_ok_and(|bytes| bytes > 0)
}

fn has_untaken(socket: impl AsFd) -> bool {
    const WRITTEN: usize = libc::SK_MEMINFO_WMEM_QUEUED as usize;
    nix::sys::socket::getsockopt(&socket, Memory).is_ok_and(|memory| memory[WRITTEN] > 0)
}

/// What the kernel keeps for a socket, by its kind, in bytes (`SO_MEMINFO`). How much has been
/// written and not taken is what SIOCOUTQ would say in one number; that has no safe wrapper.
#[derive(Clone, Copy)]
struct Memory;

nix::getsockopt_impl!(Memory, libc::SOL_SOCKET, libc::SO_MEMINFO, [u32; 9], GetStruct<[u32; 9]>);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::NoExtra;
    use crate::counters::Tally;
    use crate::gate::Gate;
    use crate::log::{Format, Level, Log};

    /// A server of so many workers that is to listen at these addresses.
    fn launch(addrs: &[&str], workers: usize) -> Launch {
        let addrs = addrs.iter().map(|addr| addr.parse().expect("an address")).collect();
        launch_for(Wanted::new(vec![addrs], 9, Vec::new()).expect("nothing is asked for"), workers)
    }

    fn launch_for(socket: Wanted, workers: usize) -> Launch {
        let log = Log::new("test", Format::Text, Level::Info);
        Launch {
            settings: Arc::default(),
            workers,
            drain_timeout: Duration::ZERO,
            log,
            stop: crate::Stop::default(),
            extra: NoExtra {},
            gate: Gate::new(protocol::Mode::Echo, 9, 9, log),
            connections_asked_for: None,
            socket,
            manager: crate::manager::Manager::from_env(),
            bound: std::sync::OnceLock::new(),
            metrics: None,
            watchdog: None,
            texts: None,
            tally: Arc::new(Tally::new(1)),
            work: Duration::ZERO,
            started: Instant::now(),
        }
    }

    fn addr(listener: &TcpListener) -> SocketAddr {
        listener.local_addr().expect("a bound address")
    }

    #[test]
    fn several_addresses_get_one_port() {
        let launch = launch(&["127.0.0.1:0", "127.0.0.2:0"], 1);
        let listeners = launch.listeners().expect("two listeners");
        let addrs: Vec<_> = listeners.iter().map(addr).collect();
        assert_eq!(
            addrs.iter().map(|addr| addr.ip().to_string()).collect::<Vec<_>>(),
            ["127.0.0.1", "127.0.0.2"]
        );
        assert_eq!(addrs[0].port(), addrs[1].port());
        assert_eq!(launch.bound.get(), Some(&addrs));
    }

    #[test]
    fn each_worker_gets_each_address() {
        let launch = launch(&["127.0.0.1:0", "127.0.0.2:0"], 3);
        let listeners = launch.listeners_each().expect("six listeners");
        let addrs: Vec<Vec<_>> =
            listeners.iter().map(|worker| worker.iter().map(addr).collect()).collect();
        assert_eq!(addrs.len(), 3);
        assert!(addrs.iter().all(|worker| Some(worker) == launch.bound.get()));
    }

    #[test]
    fn an_address_that_this_machine_lacks_is_left_out_unless_it_is_the_only_one() {
        // 240.0.0.0/4 is reserved (RFC 1112, 4): no machine has an address of it.
        let both = launch(&["240.0.0.1:0", "127.0.0.1:0"], 1);
        let listeners = both.listeners().expect("one of them");
        assert_eq!(
            listeners.iter().map(addr).collect::<Vec<_>>(),
            both.bound.get().cloned().unwrap_or_default()
        );
        assert_eq!(listeners.len(), 1);
        assert!(launch(&["240.0.0.1:0"], 1).listeners().is_err());
        assert!(launch(&["240.0.0.1:0", "240.0.0.2:0"], 2).listeners_each().is_err());
    }

    #[test]
    fn an_address_that_is_taken_is_an_error() {
        let taken = TcpListener::bind("127.0.0.2:0").expect("a port");
        let addrs = [format!("127.0.0.1:{}", addr(&taken).port()), addr(&taken).to_string()];
        let addrs = addrs.each_ref().map(String::as_str);
        let error = launch(&addrs, 1).listeners().expect_err("taken");
        assert!(matches!(error, Failure::Failed(text) if text.contains(addrs[1])));
        assert!(launch(&addrs, 2).listeners_each().is_err());
    }

    #[test]
    fn each_listen_has_a_port_of_its_own() {
        let addrs = ["127.0.0.1:0", "127.0.0.1:0"].map(|addr| vec![addr.parse().expect("one")]);
        let launch = launch_for(Wanted::new(addrs.into(), 9, Vec::new()).expect("nothing"), 2);
        let listeners = launch.listeners_each().expect("four listeners");
        let addrs: Vec<Vec<_>> =
            listeners.iter().map(|worker| worker.iter().map(addr).collect()).collect();
        assert_ne!(addrs[0][0].port(), addrs[0][1].port());
        assert_eq!(addrs[0], addrs[1]);
        assert_eq!(launch.bound.get(), Some(&addrs[0]));
    }

    #[test]
    fn each_socket_that_was_handed_over_has_a_worker_and_the_other_way_round() {
        for workers in 1..=5 {
            let at = |ip: &str| TcpListener::bind(ip).expect("a port");
            let (one, other) = (at("127.0.0.1:0"), at("127.0.0.2:0"));
            let addrs = [addr(&one), addr(&other)];
            let mut passed = vec![one];
            passed.extend((0..2).map(|_| other.try_clone().expect("another descriptor")));
            let launch = launch_for(Wanted::new(Vec::new(), 9, passed).expect("eventfd"), workers);
            let listeners = launch.listeners_each().expect("shared out");
            assert_eq!(listeners.len(), workers);
            assert_eq!(launch.bound.get(), Some(&addrs.to_vec()));
            for worker in &listeners {
                let has: Vec<_> = worker.iter().map(addr).collect();
                assert!(addrs.iter().all(|addr| has.contains(addr)), "{workers}: {has:?}");
            }
            let all = listeners.iter().flatten().filter(|socket| addr(socket) == addrs[1]).count();
            assert_eq!(all, workers.max(2));
        }
    }
}
