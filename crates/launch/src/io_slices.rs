//! What a vectored write takes.

use std::io::IoSlice;
use std::ops::Deref;

use smallvec::SmallVec;

/// The most slices in one vectored write: as many as the kernel takes (UIO_MAXIOV).
pub const MOST_SLICES: usize = 1024;
/// As many slices need no memory of the heap. Few writes have more.
const INLINE: usize = 32;

/// Pieces of a queue, oldest first, for one `write` or `writev`: as many as one call takes.
pub struct IoSlices<'a>(SmallVec<[IoSlice<'a>; INLINE]>);

impl<'a> IoSlices<'a> {
    /// The first of `pieces`, such as [`protocol::Outbox::slices`].
    pub fn new(pieces: impl Iterator<Item = &'a [u8]>) -> IoSlices<'a> {
        IoSlices(pieces.take(MOST_SLICES).map(IoSlice::new).collect())
    }
}

impl<'a> Deref for IoSlices<'a> {
    type Target = [IoSlice<'a>];

    fn deref(&self) -> &[IoSlice<'a>] {
        &self.0
    }
}
