//! The rings of a process that is traced: the requests that it is about to submit.
//!
//! The layout is the kernel's (`include/uapi/linux/io_uring.h`).

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::tracee::memory;

/// Where in `struct io_uring_params` it says where in the ring these are.
const FLAGS: u64 = 8;
const HEAD: u64 = 40;
const TAIL: u64 = 44;
const MASK: u64 = 48;
const ARRAY: u64 = 64;

/// Of [`FLAGS`]: the entries of the ring are the requests themselves.
const NO_SQARRAY: u32 = 1 << 16;

/// The offset at which the requests are mapped; the ring's is 0.
const REQUESTS: u64 = 0x1000_0000;

/// In a request: its size, what it is, its flags and its descriptor; what it is given back with.
const SIZE: usize = 64;
const OPCODE: usize = 0;
const REQUEST_FLAGS: usize = 1;
const DESCRIPTOR: std::ops::Range<usize> = 4..8;
const LENGTH: std::ops::Range<usize> = 24..28;
const OPERATION_FLAGS: std::ops::Range<usize> = 28..32;
const USER_DATA: std::ops::Range<usize> = 32..40;

/// Of [`REQUEST_FLAGS`]: the descriptor is the number of a registered file; the kernel picks
/// a buffer.
const FIXED_FILE: u8 = 1;
const BUFFER_SELECT: u8 = 1 << 5;

/// A request that does nothing, and completes with its length as the result.
const NOP: u8 = 0;
const NOP_INJECT_RESULT: u32 = 1;

/// All rings of a server.
#[derive(Default)]
pub(crate) struct Rings {
    rings: BTreeMap<i32, Ring>,
}

#[derive(Default)]
struct Ring {
    /// Each request is where its number says, not where the ring's array says.
    direct: bool,
    /// Where in the ring these are.
    head: u64,
    tail: u64,
    mask: u64,
    array: u64,
    /// Where the ring and the requests are in the server's memory.
    base: u64,
    requests: u64,
}

/// A request that is about to be submitted.
pub(crate) struct Request {
    address: u64,
    bytes: [u8; SIZE],
    /// `None` where it is a registered file.
    pub(crate) descriptor: Option<i32>,
}

impl Rings {
    /// A ring was set up. It is told apart by its descriptor.
    pub(crate) fn set_up(&mut self, pid: Pid, ring: i32, params: u64) {
        if ring < 0 {
            return;
        }
        let field = |offset| read_u32(pid, params + offset);
        let layout = || -> io::Result<Ring> {
            Ok(Ring {
                direct: field(FLAGS)? & NO_SQARRAY != 0,
                head: field(HEAD)?.into(),
                tail: field(TAIL)?.into(),
                mask: field(MASK)?.into(),
                array: field(ARRAY)?.into(),
                ..Ring::default()
            })
        };
        if let Ok(layout) = layout() {
            self.rings.insert(ring, layout);
        }
    }

    /// Part of a ring was mapped.
    pub(crate) fn mapped(&mut self, ring: i32, offset: u64, address: u64) {
        let Some(ring) = self.rings.get_mut(&ring) else { return };
        match offset {
            0 => ring.base = address,
            REQUESTS => ring.requests = address,
            _ => {}
        }
    }

    /// The requests that are about to be submitted to a ring, at most so many.
    pub(crate) fn pending(&self, pid: Pid, ring: i32, most: u32) -> Vec<Request> {
        // A ring that is registered has another number than its descriptor.
        let ring = self.rings.get(&ring).or_else(|| self.rings.values().next());
        ring.and_then(|ring| ring.pending(pid, most).ok()).unwrap_or_default()
    }
}

impl Ring {
    fn pending(&self, pid: Pid, most: u32) -> io::Result<Vec<Request>> {
        let number = |offset| read_u32(pid, self.base + offset);
        let (head, tail, mask) = (number(self.head)?, number(self.tail)?, number(self.mask)?);
        let count = tail.wrapping_sub(head).min(most);
        let request = |nth: u32| {
            let entry = head.wrapping_add(nth) & mask;
            let entry =
                if self.direct { entry } else { number(self.array + u64::from(entry) * 4)? };
            let address = self.requests + u64::from(entry) * SIZE as u64;
            let mut bytes = [0; SIZE];
            memory(pid)?.read_exact_at(&mut bytes, address)?;
            let mut descriptor = [0; 4];
            descriptor.copy_from_slice(&bytes[DESCRIPTOR]);
            let is_fixed = bytes[REQUEST_FLAGS] & FIXED_FILE != 0;
            let descriptor = (!is_fixed).then_some(i32::from_ne_bytes(descriptor));
            Ok(Request { address, bytes, descriptor })
        };
        (0..count).map(request).collect()
    }
}

impl Request {
    /// What it asks for.
    pub(crate) fn name(&self) -> String {
        let name = match self.bytes[OPCODE] {
            1 => "readv",
            2 => "writev",
            6 => "poll_add",
            9 => "sendmsg",
            10 => "recvmsg",
            11 => "timeout",
            13 => "accept",
            14 => "async_cancel",
            19 => "close",
            22 => "read",
            23 => "write",
            26 => "send",
            27 => "recv",
            34 => "shutdown",
            40 => "msg_ring",
            other => return format!("ring:{other}"),
        };
        format!("ring:{name}")
    }

    /// Replaces it by one that completes with an error.
    pub(crate) fn fail(&self, pid: Pid, errno: Errno) {
        let mut bytes = [0; SIZE];
        bytes[OPCODE] = NOP;
        bytes[REQUEST_FLAGS] = self.bytes[REQUEST_FLAGS] & !(FIXED_FILE | BUFFER_SELECT);
        bytes[LENGTH].copy_from_slice(&(-(errno as i32)).to_ne_bytes());
        bytes[OPERATION_FLAGS].copy_from_slice(&NOP_INJECT_RESULT.to_ne_bytes());
        bytes[USER_DATA].copy_from_slice(&self.bytes[USER_DATA]);
        let written = memory(pid).and_then(|memory| memory.write_all_at(&bytes, self.address));
        written.expect("the memory of a process that stands");
    }
}

fn read_u32(pid: Pid, address: u64) -> io::Result<u32> {
    let mut bytes = [0; 4];
    memory(pid)?.read_exact_at(&mut bytes, address)?;
    Ok(u32::from_ne_bytes(bytes))
}
