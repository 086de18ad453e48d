//! What cannot be said in safe Rust: `fork`, memory that processes share, what a signal does.

#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::ptr;

use launch::Counters;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::{ForkResult, Pid};

use crate::Seat;

/// Forks. Returns the child's id, and none in the child.
///
/// # Errors
///
/// When the system has no more processes; EBUSY when this process has a second thread.
pub(crate) fn fork() -> Result<Option<Pid>, Errno> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return Err(Errno::EBUSY);
    }
    // SAFETY: the child of a process with one thread may do all that its parent may: no other
    // thread can have held a lock or left something half done. That there is one was just seen, and
    // only this thread could start another.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Sets what SIGCHLD does to the default, whatever was inherited: where it is ignored, the kernel
/// tells nothing of the end of a child.
pub(crate) fn heed_children() {
    // SAFETY: no handler comes with the default, and this program has set none that it could take
    // away. It fails only for a signal that does not exist.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

/// What consists of atomics alone, so that it means the same in each process that shares it.
pub(crate) trait Plain: Default + Sync {}

impl Plain for Counters {}
impl Plain for Seat {}

/// Memory for `count` of them that this process shares with all that it forks, for good.
///
/// # Errors
///
/// When there is no memory.
pub(crate) fn shared<T: Plain>(count: usize) -> Result<&'static [T], Errno> {
    let length = NonZeroUsize::new(count * size_of::<T>()).ok_or(Errno::EINVAL)?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let start = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_SHARED) }?;
    let start: *mut T = start.as_ptr().cast();
    assert!(start.is_aligned(), "a mapping begins with a page");
    for index in 0..count {
        // SAFETY: `index` is below `count`, so it is within the mapping, which is writable,
        // aligned, and no other owner's yet.
        unsafe { ptr::write(start.add(index), T::default()) };
    }
    // SAFETY: all `count` of them have just been written, the mapping is never removed, and from
    // here on there are only shared references to it, in this process and in its children; T is
    // Sync by way of atomics, which do not care in which process a thread runs.
    Ok(unsafe { std::slice::from_raw_parts(start, count) })
}
