//! The queue of a connection against one long string, and what is lent stays where it is.

use core::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use protocol::{Limits, Outbox, Time};

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Copy(&'a [u8]),
    /// The same byte so many times: queues that are longer than the input.
    CopyMany(u8, u16),
    Share(&'a [u8]),
    ShareMany(u8, u16),
    Lend(u8),
    Discard,
    /// Writes that many of 255 parts of what is queued.
    Advance(u8),
    /// Takes all, as a writer does that must not hold a lock, and writes it.
    Take,
    /// Milliseconds.
    Pass(u8),
}

/// What must be in the queue, and where it lies.
struct Trial {
    limits: Limits,
    outbox: Outbox,
    queued: Vec<u8>,
    /// Address and length of the slices that are lent.
    lent: Vec<(*const u8, usize)>,
    now: Time,
    /// Since when the queue has been over the soft limit.
    over_since: Option<Time>,
    /// Something was queued that has no limit: echo does that, and echo knows no grace time.
    copied: bool,
}

/// The bytes are a list of steps.
pub fn outbox(data: &[u8]) {
    let grace = Duration::from_millis(100);
    let mut trial = Trial {
        limits: Limits { sendq: 40_000, sendq_grace: grace, ..Limits::default() },
        outbox: Outbox::default(),
        queued: Vec::new(),
        lent: Vec::new(),
        now: Time::ZERO,
        over_since: None,
        copied: false,
    };
    let mut input = Unstructured::new(data);
    while !input.is_empty() {
        let Ok(step) = input.arbitrary() else { return };
        trial.step(step);
        trial.check();
    }
}

impl Trial {
    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Copy(bytes) => self.copy(bytes),
            Step::CopyMany(byte, count) => self.copy(&vec![byte; usize::from(count) % 12_000]),
            Step::Share(bytes) => self.share(bytes),
            Step::ShareMany(byte, count) => self.share(&vec![byte; usize::from(count) % 12_000]),
            Step::Lend(most) => {
                let most = usize::from(most % 8);
                self.lent = self.outbox.lend(most).map(|it| (it.as_ptr(), it.len())).collect();
            }
            Step::Discard => {
                let lent: usize = self.lent.iter().map(|(_, len)| len).sum();
                self.outbox.discard();
                assert!(self.outbox.len() <= self.queued.len(), "discarding added bytes");
                assert!(self.outbox.len() >= lent, "what is lent was discarded");
                self.queued.truncate(self.outbox.len());
            }
            Step::Advance(parts) => {
                let written = self.queued.len() * usize::from(parts) / 255;
                self.lent.clear();
                self.outbox.advance(written);
                self.queued.drain(..written);
            }
            Step::Take => self.take(),
            Step::Pass(millis) => self.now = self.now + Duration::from_millis(millis.into()),
        }
        let over = self.outbox.len() > self.limits.high_water();
        self.over_since = over.then(|| self.over_since.unwrap_or(self.now));
    }

    fn copy(&mut self, bytes: &[u8]) {
        self.copied = true;
        self.outbox.copy(bytes);
        self.queued.extend_from_slice(bytes);
    }

    fn share(&mut self, bytes: &[u8]) {
        let grace = self.limits.sendq_grace;
        let deadline = self.outbox.deadline(&self.limits);
        let expected = self.over_since.map_or(Time::NEVER, |since| since + grace);
        assert!(self.copied || deadline == expected, "{deadline:?} and not {expected:?}");
        let late = self.now >= deadline;
        let full = late || self.outbox.len() + bytes.len() > self.limits.sendq;
        let shared = self.outbox.share(bytes.into(), &self.limits, self.now);
        assert_eq!(shared.is_err(), full);
        if !full {
            self.queued.extend_from_slice(bytes);
        }
    }

    fn take(&mut self) {
        // What is lent belongs to a write of this queue: it is over before all is taken.
        self.lent.clear();
        self.outbox.advance(0);
        let before = self.outbox.len();
        let mut batch = self.outbox.take();
        assert_eq!(content(&batch), self.queued);
        assert_eq!(self.outbox.len(), before, "what was taken still counts");
        batch.advance(batch.len());
        assert!(batch.is_empty());
        assert!(self.outbox.take().is_empty(), "it was taken twice");
        assert!(self.outbox.is_empty());
        self.queued.clear();
    }

    fn check(&self) {
        assert_eq!(self.outbox.len(), self.queued.len());
        assert_eq!(content(&self.outbox), self.queued);
        let mut slices = self.outbox.slices();
        for &(address, len) in &self.lent {
            let slice = slices.next().expect("what is lent is queued");
            assert!(slice.as_ptr() == address && slice.len() >= len, "what is lent has moved");
        }
    }
}

fn content(outbox: &Outbox) -> Vec<u8> {
    assert!(outbox.slices().all(|slice| !slice.is_empty()), "a slice is empty");
    outbox.slices().flatten().copied().collect()
}
