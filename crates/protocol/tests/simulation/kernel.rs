//! Sockets without a kernel: what a real one may do to a server, and nothing that it may not.

use std::collections::VecDeque;

use crate::random::Random;

/// Why a call on a socket has done nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    WouldBlock,
    /// The connection is dead.
    Reset,
}

/// One direction of a connection.
#[derive(Default)]
pub(crate) struct Pipe {
    pub(crate) bytes: VecDeque<u8>,
    /// The side that writes has ended the stream, behind `bytes`.
    pub(crate) ended: bool,
}

/// A connection, with its two ends.
pub(crate) struct Socket {
    pub(crate) to_server: Pipe,
    pub(crate) to_client: Pipe,
    /// Bytes that each direction holds.
    pub(crate) size: usize,
    /// The client has gone without a word.
    pub(crate) reset: bool,
    /// The server has closed its end.
    pub(crate) closed: bool,
}

impl Socket {
    pub(crate) fn new(size: usize) -> Socket {
        let (to_server, to_client) = (Pipe::default(), Pipe::default());
        Socket { to_server, to_client, size, reset: false, closed: false }
    }

    /// Whether a read would not block.
    pub(crate) fn readable(&self) -> bool {
        self.reset || self.to_server.ended || !self.to_server.bytes.is_empty()
    }

    /// Whether a write would not block.
    pub(crate) fn writable(&self) -> bool {
        self.reset || self.room() > 0
    }

    /// Bytes that the server can write.
    pub(crate) fn room(&self) -> usize {
        self.size - self.to_client.bytes.len()
    }

    /// What the server reads: at least one byte, none at the end of the stream. A reset shows when
    /// all that came before it has been read. `faults`: perhaps not everything, and perhaps nothing
    /// although it was said to be readable.
    pub(crate) fn read(
        &mut self,
        buffer: &mut Vec<u8>,
        most: usize,
        faults: Option<&mut Random>,
    ) -> Result<(), Fault> {
        assert!(!self.closed, "a closed socket is read");
        buffer.clear();
        if self.reset && self.to_server.bytes.is_empty() {
            return Err(Fault::Reset);
        }
        let mut len = self.to_server.bytes.len().min(most);
        if let Some(random) = faults {
            if random.once_in(16) {
                return Err(Fault::WouldBlock);
            }
            len = len.min(1 + random.below(most));
        }
        if len == 0 && !self.to_server.ended {
            return Err(Fault::WouldBlock);
        }
        buffer.extend(self.to_server.bytes.drain(..len));
        Ok(())
    }

    /// Writes as much of `bytes` as there is room for. `faults`: perhaps less, and perhaps nothing.
    pub(crate) fn write<'a>(
        &mut self,
        slices: impl Iterator<Item = &'a [u8]>,
        faults: Option<&mut Random>,
    ) -> Result<usize, Fault> {
        assert!(!self.closed, "a closed socket is written to");
        assert!(!self.to_client.ended, "bytes after the end of the stream");
        if self.reset {
            return Err(Fault::Reset);
        }
        let mut room = self.room();
        if let Some(random) = faults {
            if random.once_in(16) {
                return Err(Fault::WouldBlock);
            }
            room = room.min(1 + random.below(self.size));
        }
        if room == 0 {
            return Err(Fault::WouldBlock);
        }
        let mut written = 0;
        for slice in slices {
            let len = slice.len().min(room - written);
            self.to_client.bytes.extend(&slice[..len]);
            written += len;
        }
        Ok(written)
    }
}
