//! A blocking client of the gate, with deadlines.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::base::limits::Shortage;
use crate::base::text::quoted;

/// How long any one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A blocking connection whose time-outs are called so: to the system a receive that has waited
/// long enough is a "resource temporarily unavailable".
pub(super) struct Peer(pub(super) TcpStream);

impl Peer {
    fn timed_out(error: std::io::Error, patience: Option<Duration>, what: &str) -> std::io::Error {
        match patience.filter(|_| error.kind() == ErrorKind::WouldBlock) {
            Some(patience) => {
                let patience = humantime::format_duration(patience);
                std::io::Error::new(ErrorKind::TimedOut, format!("time-out: {what} for {patience}"))
            }
            None => error,
        }
    }
}

impl Read for Peer {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let patience = self.0.read_timeout()?;
        loop {
            match self.0.read(buffer) {
                // A signal, or a stop from a terminal, ends a receive that has a time-out. What it
                // means is looked at later.
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Self::timed_out(e, patience, "nothing came")),
                Ok(n) => return Ok(n),
            }
        }
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let patience = self.0.write_timeout()?;
        self.0.write(bytes).map_err(|e| Self::timed_out(e, patience, "the server took nothing"))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

pub(super) fn connect(addr: SocketAddr) -> Result<Peer> {
    let peer = match TcpStream::connect_timeout(&addr, PATIENCE) {
        Err(e) if e.kind() == ErrorKind::AddrNotAvailable => bail!(Shortage::of_ports()),
        other => other
            .with_context(|| format!("cannot connect to {addr}; is a server listening there?"))?,
    };
    peer.set_nodelay(true)?;
    peer.set_read_timeout(Some(PATIENCE))?;
    peer.set_write_timeout(Some(PATIENCE))?;
    Ok(Peer(peer))
}

/// Reads exactly what is expected, and says where it differs.
pub(super) fn expect(peer: &mut Peer, expected: &[u8]) -> Result<()> {
    let mut got = vec![0; expected.len()];
    let mut have = 0;
    while have < got.len() {
        match peer.read(&mut got[have..]) {
            Ok(0) => bail!(
                "the stream ended after {have} of {} bytes: {}",
                expected.len(),
                quoted(&got[..have])
            ),
            Ok(n) => have += n,
            Err(e) if e.kind() == ErrorKind::TimedOut => {
                bail!("{have} of {} bytes came, then {e}: {}", expected.len(), quoted(&got[..have]))
            }
            Err(e) => return Err(e).context(format!("after {have} of {} bytes", expected.len())),
        }
    }
    if got != expected {
        let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
        bail!("byte {at} differs: {} came, not {}", quoted(&got[at..]), quoted(&expected[at..]));
    }
    Ok(())
}

pub(super) fn ask(peer: &mut Peer, question: &[u8], answer: &[u8]) -> Result<()> {
    peer.write_all(question).context("cannot write")?;
    expect(peer, answer)
}

/// Nothing has come that was not read.
pub(super) fn nothing_came(peer: &mut Peer) -> Result<()> {
    peer.0.set_nonblocking(true)?;
    let mut early = [0; 64];
    match peer.0.read(&mut early) {
        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
        Ok(0) => bail!("the stream has ended"),
        Ok(n) => bail!("{} came", quoted(&early[..n])),
        Err(e) => return Err(e.into()),
    }
    Ok(peer.0.set_nonblocking(false)?)
}

/// Nothing more comes but the end of the stream.
pub(super) fn end(peer: &mut Peer) -> Result<()> {
    let mut more = [0; 64];
    let n = peer.read(&mut more).context("the stream should have ended")?;
    ensure!(n == 0, "the stream should have ended; {} came", quoted(&more[..n]));
    Ok(())
}
