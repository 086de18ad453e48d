//! Waiting for many sockets at once.

use std::time::Duration;

use anyhow::Result;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use rustix::time::Timespec;

/// Events taken in one go.
const EVENTS: usize = 1024;
/// The index of a timer's events.
pub(super) const TIMER: usize = usize::MAX;

/// An epoll instance and room for its events.
pub(super) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(super) fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS) })
    }

    /// Registers a descriptor for reading; level-triggered, once and for all.
    pub(super) fn add(&self, fd: impl AsFd, index: usize) -> Result<()> {
        self.ctl(fd, index, epoll::EventFlags::IN, true)
    }

    /// Registers a timer, whose expiry wakes the next wait once and needs no read.
    pub(super) fn add_timer(&self, fd: impl AsFd) -> Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        self.ctl(fd, TIMER, flags, true)
    }

    /// Asks for writability as well, or no longer; only a full socket buffer leads here.
    pub(super) fn want_out(&self, fd: impl AsFd, index: usize, wanted: bool) -> Result<()> {
        let flags = if wanted {
            epoll::EventFlags::IN | epoll::EventFlags::OUT
        } else {
            epoll::EventFlags::IN
        };
        self.ctl(fd, index, flags, false)
    }

    pub(super) fn ctl(
        &self,
        fd: impl AsFd,
        index: usize,
        flags: epoll::EventFlags,
        add: bool,
    ) -> Result<()> {
        let data = epoll::EventData::new_u64(index as u64);
        let done = if add {
            epoll::add(&self.epoll, fd, data, flags)
        } else {
            epoll::modify(&self.epoll, fd, data, flags)
        };
        Ok(done?)
    }

    /// No more events of this descriptor, which stays open.
    pub(super) fn delete(&self, fd: impl AsFd) -> Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits for events, `timeout` at most. Interrupted or timed out, there are none.
    pub(super) fn wait(&mut self, timeout: Duration) -> Result<usize> {
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(n) => Ok(n),
            Err(rustix::io::Errno::INTR) => Ok(0),
            Err(e) => Err(e.into()),
        }
    }

    /// The index and the readiness of the `n`th event of the last wait.
    pub(super) fn event(&self, n: usize) -> (usize, epoll::EventFlags) {
        let event = self.events[n];
        (event.data.u64() as usize, event.flags)
    }
}
