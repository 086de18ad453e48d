//! What a vectored write takes.

use std::io::IoSlice;
use std::ops::Deref;

/// The most slices in one vectored write. More would save few calls: where so many wait, the
/// socket takes only a part of them.
pub const MOST_SLICES: usize = 64;

/// Pieces of a queue, oldest first, for one `write` or `writev`: as many as one call takes.
pub struct IoSlices<'a> {
    slices: [IoSlice<'a>; MOST_SLICES],
    len: usize,
}

impl<'a> IoSlices<'a> {
    /// The first of `pieces`, such as [`protocol::Outbox::slices`].
    pub fn new(pieces: impl Iterator<Item = &'a [u8]>) -> IoSlices<'a> {
        let mut filled = IoSlices { slices: [IoSlice::new(&[]); MOST_SLICES], len: 0 };
        filled.len = fill_slices(&mut filled.slices, pieces).len();
        filled
    }
}

impl<'a> Deref for IoSlices<'a> {
    type Target = [IoSlice<'a>];

    fn deref(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.len]
    }
}

/// As [`IoSlices`], in an array of the caller's. This is for threads and coroutines, whose stacks
/// are small: the compiler moves an [`IoSlices`], so that there are two or three of its kilobyte.
pub fn fill_slices<'s, 'a>(
    room: &'s mut [IoSlice<'a>],
    pieces: impl Iterator<Item = &'a [u8]>,
) -> &'s [IoSlice<'a>] {
    let mut len = 0;
    for (slice, piece) in room.iter_mut().zip(pieces) {
        *slice = IoSlice::new(piece);
        len += 1;
    }
    &room[..len]
}
