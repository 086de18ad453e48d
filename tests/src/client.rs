//! Clients: non-blocking sockets that one thread drives, a single one or a thousand.
//!
//! Everything waits for events, through [`pump`]; a deadline only ends a wait that is in vain.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::ops::Deref;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Socket, Type};

use crate::server::timespec;
use crate::watchdog::Watch;

/// The largest segment that a client with small buffers accepts, in bytes.
const SLOW_SEGMENT: u32 = 1400;

/// The error of a connection that is on its way.
const INPROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

/// How the stream from the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The server closed it.
    Closed,
    /// The connection was reset.
    Reset,
}

/// How to connect.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dial {
    /// The size of the kernel's buffers, asked for before connecting; the kernel has a minimum.
    pub(crate) buffers: Option<usize>,
    /// The local address.
    pub(crate) from: Option<IpAddr>,
}

/// Bytes that have come and have not been looked at. What is taken from the front is not moved each
/// time: a member may have thousands of lines waiting here.
#[derive(Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    taken: usize,
}

impl Inbox {
    /// Takes bytes from the front.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let taken = self[..count].to_vec();
        self.taken += count;
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        taken
    }

    /// Throws all of it away, and says how much it was.
    pub(crate) fn discard(&mut self) -> usize {
        self.take(self.len()).len()
    }
}

impl Deref for Inbox {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }
}

/// One connection to the server under test.
pub(crate) struct Client {
    socket: Socket,
    watch: Arc<Watch>,
    /// What has come and has not been looked at.
    pub(crate) incoming: Inbox,
    /// What is to be sent, and how much of it has gone.
    outgoing: Vec<u8>,
    sent: usize,
    end: Option<End>,
    /// The server has gone and sending is in vain; there may still be something to read.
    deaf: bool,
    /// Whether [`pump`] reads; a client that does not is a slow one.
    pub(crate) reading: bool,
}

impl AsMut<Client> for Client {
    fn as_mut(&mut self) -> &mut Client {
        self
    }
}

impl Client {
    /// Connects and waits until the connection stands.
    #[track_caller]
    pub(crate) fn connect(watch: &Arc<Watch>, addr: SocketAddr, dial: Dial) -> Self {
        let addr = watch.door(addr);
        let socket = open(addr, dial).expect("open a socket");
        let left = watch.awaiting("a connection");
        if let Err(error) = socket.connect_timeout(&addr.into(), left) {
            panic!("cannot connect to {addr}: {error}");
        }
        socket.set_nonblocking(true).expect("make a socket non-blocking");
        Self::new(socket, watch)
    }

    /// Begins to connect and does not wait: for servers whose backlog is full.
    #[track_caller]
    pub(crate) fn dial(watch: &Arc<Watch>, addr: SocketAddr) -> Self {
        let socket = open(addr, Dial::default()).expect("open a socket");
        socket.set_nonblocking(true).expect("make a socket non-blocking");
        let client = Self::new(socket, watch);
        client.dial_from_here(watch.door(addr));
        client
    }

    /// Has an address on this side and is not yet connected.
    #[track_caller]
    pub(crate) fn poised(watch: &Arc<Watch>) -> Self {
        let from = Some(Ipv4Addr::LOCALHOST.into());
        let socket = open((Ipv4Addr::LOCALHOST, 0).into(), Dial { buffers: None, from });
        let socket = socket.expect("open a socket");
        socket.set_nonblocking(true).expect("make a socket non-blocking");
        Self::new(socket, watch)
    }

    /// Begins to connect from that address.
    #[track_caller]
    pub(crate) fn dial_from_here(&self, addr: SocketAddr) {
        match self.socket.connect(&addr.into()) {
            Err(error) if error.raw_os_error() != Some(INPROGRESS) => {
                panic!("cannot connect to {addr}: {error}")
            }
            _ => {}
        }
    }

    fn new(socket: Socket, watch: &Arc<Watch>) -> Self {
        Self {
            socket,
            watch: Arc::clone(watch),
            incoming: Inbox::default(),
            outgoing: Vec::new(),
            sent: 0,
            end: None,
            deaf: false,
            reading: true,
        }
    }

    /// This side's address.
    #[track_caller]
    pub(crate) fn addr(&self) -> SocketAddr {
        let addr = self.socket.local_addr().expect("the address of a socket");
        addr.as_socket().expect("an internet address")
    }

    /// How the stream ended, if it has.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// Bytes that are queued here and have not been handed to the kernel.
    pub(crate) fn unsent(&self) -> usize {
        self.outgoing.len() - self.sent
    }

    /// Whether the connection has refused what was to be sent: it has been reset, or is closed.
    pub(crate) fn is_refused(&self) -> bool {
        self.deaf
    }

    /// Queues bytes; [`pump`] sends them.
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
    }

    /// Sends bytes and waits until the kernel has taken them.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.queue(bytes.as_ref());
        self.until("the server to take what is sent", |client| client.unsent() == 0);
    }

    /// Drives this client alone until `done`.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Client) -> bool) {
        pump(what, slice::from_mut(self), |clients| done(&mut clients[0]));
    }

    /// Waits for exactly these bytes, and looks no further. The first wrong byte ends the wait.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let what = format!("{} bytes: {}", expected.len(), excerpt(expected, 0));
        let (mut right, mut wrong) = (0, false);
        self.until(&what, |client| {
            let got = client.incoming.len().min(expected.len());
            wrong = client.incoming[right..got] != expected[right..got];
            right = if wrong { right } else { got };
            wrong || right == expected.len() || client.end.is_some()
        });
        if right < expected.len() {
            let got = &self.incoming[..expected.len().min(self.incoming.len())];
            let at = difference(got, expected).unwrap_or(right);
            panic!(
                "at byte {at} of {}: expected {}, got {} (stream ended: {:?})",
                expected.len(),
                excerpt(expected, at),
                excerpt(got, at),
                self.end,
            );
        }
        self.incoming.take(expected.len());
    }

    /// Sends and expects, both at once, so that neither side's buffers stop the other.
    #[track_caller]
    pub(crate) fn exchange(&mut self, bytes: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
        self.queue(bytes.as_ref());
        self.expect(expected);
    }

    /// Sends a line and expects it back.
    #[track_caller]
    pub(crate) fn round_trip(&mut self, text: &str) {
        let line = format!("{text}\n");
        self.exchange(&line, &line);
    }

    /// Waits for one line, and takes off its LF or CRLF.
    #[track_caller]
    pub(crate) fn line(&mut self) -> Vec<u8> {
        let mut searched = 0;
        let mut found = None;
        self.until("a line", |client| {
            found = client.incoming[searched..].iter().position(|&byte| byte == b'\n');
            found = found.map(|at| at + searched);
            searched = client.incoming.len();
            found.is_some() || client.end.is_some()
        });
        let Some(at) = found else {
            panic!(
                "the stream ended ({:?}) before a line, with {}",
                self.end,
                excerpt(&self.incoming, 0)
            );
        };
        let mut line = self.incoming.take(at + 1);
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        line
    }

    /// Waits for the end of the stream, however it comes, and gives what came before it.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        self.until("the end of the stream", |client| client.end.is_some());
        self.incoming.take(self.incoming.len())
    }

    /// Waits for the orderly end of the stream, with nothing before it.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "expected the end of the stream, got {}", excerpt(&rest, 0));
        assert_eq!(self.end, Some(End::Closed), "how the stream ended");
    }

    /// Says that nothing more will be sent; what the server sends can still be read.
    pub(crate) fn half_close(&self) {
        // A connection that is gone already has nothing left to shut down.
        drop(self.socket.shutdown(Shutdown::Write));
    }

    /// Ends the connection with a reset instead of an orderly close.
    #[track_caller]
    pub(crate) fn reset(self) {
        self.socket.set_linger(Some(Duration::ZERO)).expect("set the linger time");
    }

    /// Sends one byte out of band.
    #[track_caller]
    pub(crate) fn send_urgent(&mut self, byte: u8) {
        let sent = self.socket.send_out_of_band(&[byte]).expect("send urgent data");
        assert_eq!(sent, 1, "urgent bytes sent");
    }

    /// Sends what goes without waiting.
    fn write(&mut self) {
        while self.sent < self.outgoing.len() && !self.deaf {
            match (&self.socket).write(&self.outgoing[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.deaf = true,
            }
        }
        // Also when deaf: what will not be taken is no reason to wait.
        self.outgoing.clear();
        self.sent = 0;
    }

    /// Reads once.
    fn read(&mut self) {
        let mut buffer = [0; 64 * 1024];
        match (&self.socket).read(&mut buffer) {
            Ok(0) => self.end = Some(End::Closed),
            Ok(count) => self.incoming.bytes.extend_from_slice(&buffer[..count]),
            Err(error) if is_retry(&error) => {}
            Err(_) => self.end = Some(End::Reset),
        }
    }

    fn interest(&self) -> PollFlags {
        let mut interest = PollFlags::empty();
        if self.reading && self.end.is_none() {
            interest |= PollFlags::IN;
        }
        if self.unsent() > 0 {
            interest |= PollFlags::OUT;
        }
        interest
    }
}

/// Sends and receives for all clients, as their sockets get ready, until `done`.
///
/// `done` is asked first and after each round; it may take what has come and queue more.
#[track_caller]
pub(crate) fn pump<C: AsMut<Client>>(
    what: &str,
    clients: &mut [C],
    mut done: impl FnMut(&mut [C]) -> bool,
) {
    while !done(clients) {
        let ready = wait(what, clients, None);
        serve(clients, &ready);
    }
}

/// Sends and receives what goes, waiting at most `patience` for the first event. For clients whose
/// own slowness is the point of the case; the wait paces them, it decides nothing.
#[track_caller]
pub(crate) fn pump_for<C: AsMut<Client>>(what: &str, clients: &mut [C], patience: Duration) {
    let ready = wait(what, clients, Some(patience));
    serve(clients, &ready);
}

#[track_caller]
fn wait<C: AsMut<Client>>(
    what: &str,
    clients: &mut [C],
    patience: Option<Duration>,
) -> Vec<(usize, PollFlags)> {
    let mut left = Duration::ZERO;
    let mut indices = Vec::with_capacity(clients.len());
    let mut fds = Vec::with_capacity(clients.len());
    for (index, client) in clients.iter_mut().enumerate() {
        let client: &Client = client.as_mut();
        if index == 0 {
            left = client.watch.awaiting(what);
        }
        let interest = client.interest();
        if !interest.is_empty() {
            indices.push(index);
            fds.push(PollFd::new(&client.socket, interest));
        }
    }
    assert!(patience.is_some() || !fds.is_empty(), "everybody is gone while waiting for {what}");
    match poll(&mut fds, Some(&timespec(patience.unwrap_or(left).min(left)))) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => panic!("poll: {error}"),
    }
    let ready = indices.into_iter().zip(fds.iter().map(PollFd::revents));
    ready.filter(|(_, events)| !events.is_empty()).collect()
}

fn serve<C: AsMut<Client>>(clients: &mut [C], ready: &[(usize, PollFlags)]) {
    for &(index, events) in ready {
        let client = clients[index].as_mut();
        let broken = events.intersects(PollFlags::ERR | PollFlags::HUP);
        if client.unsent() > 0 && (broken || events.contains(PollFlags::OUT)) {
            client.write();
        }
        if client.reading && client.end.is_none() && (broken || events.contains(PollFlags::IN)) {
            client.read();
        }
    }
}

fn open(addr: SocketAddr, dial: Dial) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if let Some(bytes) = dial.buffers {
        socket.set_send_buffer_size(bytes)?;
        socket.set_recv_buffer_size(bytes)?;
        // The server's kernel sizes its send buffer by the segments that we accept; with those of
        // the loopback it takes megabytes before the server feels that we are slow.
        socket.set_tcp_mss(SLOW_SEGMENT)?;
    }
    if let Some(from) = dial.from {
        socket.bind(&SocketAddr::from((from, 0)).into())?;
    }
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Where two byte strings first differ; the end of the shorter one is a difference.
pub(crate) fn difference(a: &[u8], b: &[u8]) -> Option<usize> {
    // Equality first: it is a memcmp, and tens of megabytes pass through here.
    if a == b {
        return None;
    }
    let common = a.iter().zip(b).position(|(x, y)| x != y);
    Some(common.unwrap_or(a.len().min(b.len())))
}

/// A few readable bytes from around `at`.
pub(crate) fn excerpt(bytes: &[u8], at: usize) -> String {
    let from = at.saturating_sub(20);
    let to = (at + 60).min(bytes.len());
    let dots = if to < bytes.len() { "…" } else { "" };
    format!("\"{}\"{dots}", bytes[from..to].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_found_where_it_is() {
        assert_eq!(difference(b"abc", b"abc"), None);
        assert_eq!(difference(b"abc", b"abd"), Some(2));
        assert_eq!(difference(b"ab", b"abd"), Some(2));
        assert_eq!(difference(b"", b"a"), Some(0));
    }

    #[test]
    fn an_inbox_gives_what_came_in_order() {
        let mut inbox = Inbox { bytes: b"abcdefgh".to_vec(), taken: 0 };
        assert_eq!(inbox.take(3), b"abc");
        assert_eq!(inbox.take(3), b"def");
        inbox.bytes.extend_from_slice(b"ij");
        assert_eq!(*inbox, *b"ghij");
        assert_eq!(inbox.discard(), 4);
        assert!(inbox.is_empty());
    }

    #[test]
    fn an_excerpt_is_short_and_readable() {
        assert_eq!(excerpt(b"a\r\n\xff", 0), r#""a\r\n\xff""#);
        assert!(excerpt(&[b'x'; 1000], 500).len() < 100);
    }
}
