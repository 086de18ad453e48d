//! The bytes that wait for one connection.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Limits, Time};

/// Bytes for one or many connections: one or more whole lines.
pub type Message = Arc<[u8]>;

/// A queue was over a limit, and what was meant for it was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// An empty buffer of at most this capacity is kept for the next reply; a larger one is freed, so
/// that an idle connection costs next to nothing and a small exchange does not allocate.
const KEPT_WHEN_EMPTY: usize = 256;

enum Chunk {
    Own(Vec<u8>),
    Shared(Message),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Own(bytes) => bytes,
            Chunk::Shared(message) => message,
        }
    }
}

/// What is queued for one connection, in order.
///
/// Bytes that [`Outbox::lend`] has handed out stay at their address until the next
/// [`Outbox::advance`], whatever is queued or discarded in the meantime: a kernel that completes a
/// write later may still read them. For that, no buffer that holds bytes ever grows.
pub struct Outbox {
    /// The oldest bytes, when they were copied here. Empty: the first of `rest` is the oldest.
    first: Vec<u8>,
    rest: VecDeque<Chunk>,
    /// Bytes of the oldest chunk that are gone.
    gone: usize,
    /// Chunks lent since the last `advance`, `first` included.
    lent: usize,
    /// Bytes queued, and those that [`Outbox::take`] took and of which it is not known yet that
    /// they have been written.
    len: usize,
    taken: usize,
    /// Since when it has been over the soft limit; [`Time::NEVER`] when it is not. (An `Option`
    /// would be 8 bytes more for each connection.)
    over_since: Time,
}

impl Default for Outbox {
    fn default() -> Outbox {
        Outbox {
            first: Vec::new(),
            rest: VecDeque::new(),
            gone: 0,
            lent: 0,
            len: 0,
            taken: 0,
            over_since: Time::NEVER,
        }
    }
}

impl Outbox {
    /// Bytes queued, and those that [`Outbox::take`] took last and [`Outbox::note_left`] left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len + self.taken
    }

    /// Whether nothing is queued, and nothing that [`Outbox::take`] took may still be unwritten.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Queues a copy of `bytes`. It has no limit of its own: in echo the server stops reading
    /// above the high-water mark, so that one read at most comes on top of it.
    pub fn copy(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.len += bytes.len();
        if self.rest.is_empty() {
            // Nothing has been handed out of an empty buffer, so it may move.
            if self.first.is_empty() || self.first.capacity() - self.first.len() >= bytes.len() {
                self.first.extend_from_slice(bytes);
                return;
            }
        } else if let Some(Chunk::Own(last)) = self.rest.back_mut()
            && last.capacity() - last.len() >= bytes.len()
        {
            last.extend_from_slice(bytes);
            return;
        }
        let mut chunk = Vec::with_capacity(bytes.len().max(self.len.min(16 << 10)));
        chunk.extend_from_slice(bytes);
        self.rest.push_back(Chunk::Own(chunk));
    }

    /// Queues `message` without copying it.
    ///
    /// # Errors
    /// [`Full`], and nothing queued, when the hard limit would be passed or the soft limit has
    /// been passed for longer than the grace time.
    pub fn share(&mut self, message: Message, limits: &Limits, now: Time) -> Result<(), Full> {
        let len = self.len() + message.len();
        if len > limits.sendq || now >= self.deadline(limits) {
            return Err(Full);
        }
        if self.len() <= limits.high_water() {
            self.over_since = Time::NEVER; // It has read since it was over it.
        }
        if len > limits.high_water() {
            self.over_since = self.over_since.min(now);
        }
        if !message.is_empty() {
            self.len += message.len();
            self.rest.push_back(Chunk::Shared(message));
        }
        Ok(())
    }

    /// When a connection that stays over the soft limit must be cut; [`Time::NEVER`] when it is
    /// not over it.
    #[must_use]
    pub fn deadline(&self, limits: &Limits) -> Time {
        if self.len() > limits.high_water() {
            self.over_since + limits.sendq_grace
        } else {
            Time::NEVER
        }
    }

    /// What is queued, as slices for a vectored write, oldest first. None is empty.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let first = (!self.first.is_empty()).then_some(&self.first[..]);
        let all = first.into_iter().chain(self.rest.iter().map(Chunk::bytes));
        all.enumerate().map(|(n, bytes)| if n == 0 { &bytes[self.gone..] } else { bytes })
    }

    /// The first `most` of [`Outbox::slices`], for a write that is still to be done when this
    /// returns: until [`Outbox::advance`] ends it, they are neither moved nor freed.
    pub fn lend(&mut self, most: usize) -> impl Iterator<Item = &[u8]> {
        self.lent = most.min(usize::from(!self.first.is_empty()) + self.rest.len());
        self.slices().take(most)
    }

    /// A write is over, and the first `written` of the queued bytes are on their way: lets go of
    /// them, and takes back what was lent.
    ///
    /// # Panics
    /// When that is more than is queued.
    pub fn advance(&mut self, written: usize) {
        assert!(written <= self.len, "wrote more than was queued");
        self.lent = 0;
        self.len -= written;
        self.gone += written;
        if !self.first.is_empty() {
            if self.gone < self.first.len() {
                return;
            }
            self.gone -= self.first.len();
            self.first.clear();
            if self.first.capacity() > KEPT_WHEN_EMPTY {
                self.first = Vec::new();
            }
        }
        while let Some(oldest) = self.rest.front() {
            if self.gone < oldest.bytes().len() {
                return;
            }
            self.gone -= oldest.bytes().len();
            self.rest.pop_front();
        }
        self.over_since = Time::NEVER;
        if self.rest.capacity() > KEPT_WHEN_EMPTY / size_of::<Chunk>() {
            self.rest = VecDeque::new();
        }
    }

    /// Takes everything at a stroke, for a writer that must not hold a lock while it writes. What
    /// was taken counts here until the next call, or less of it after [`Outbox::note_left`]: take
    /// again only when it has all been written.
    #[must_use]
    pub fn take(&mut self) -> Outbox {
        if self.len == 0 {
            self.over_since = Time::NEVER;
        }
        let batch = Outbox {
            first: core::mem::take(&mut self.first),
            rest: core::mem::take(&mut self.rest),
            gone: core::mem::take(&mut self.gone),
            len: core::mem::take(&mut self.len),
            ..Outbox::default()
        };
        self.taken = batch.len;
        batch
    }

    /// Takes note that of what [`Outbox::take`] took last so much is left to be written: a reader
    /// that takes a large batch bit by bit is not one that takes nothing.
    pub fn note_left(&mut self, left: usize) {
        self.taken = left;
    }

    /// Forgets what is queued, except what is lent and the rest of a message that has been written
    /// in part: the way to say a last word to a reader that is too slow for all the others.
    pub fn discard(&mut self) {
        let kept = self.lent.max(usize::from(self.gone > 0));
        self.rest.truncate(kept.saturating_sub(usize::from(!self.first.is_empty())));
        self.len = self.slices().map(<[u8]>::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn message(text: &[u8]) -> Message {
        Arc::from(text)
    }

    fn content(outbox: &Outbox) -> Vec<u8> {
        assert!(outbox.slices().all(|slice| !slice.is_empty()));
        outbox.slices().flatten().copied().collect()
    }

    #[test]
    fn small_replies_reuse_one_buffer_and_large_ones_leave_none() {
        let mut outbox = Outbox::default();
        outbox.copy(&[b'x'; 64]);
        outbox.advance(64);
        let kept = outbox.first.capacity();
        assert!((64..=KEPT_WHEN_EMPTY).contains(&kept));
        outbox.copy(&[b'x'; 64]);
        assert_eq!(outbox.first.capacity(), kept);
        outbox.copy(&[b'x'; 100_000]);
        outbox.advance(100_064);
        assert!(outbox.is_empty() && outbox.first.capacity() <= KEPT_WHEN_EMPTY);
        outbox.copy(&[b'x'; 100_000]);
        outbox.advance(100_000);
        assert!(outbox.is_empty() && outbox.first.capacity() <= KEPT_WHEN_EMPTY);
        assert!(outbox.rest.capacity() * size_of::<Chunk>() <= KEPT_WHEN_EMPTY);
    }

    #[test]
    fn the_hard_limit_refuses_and_the_soft_limit_waits() {
        let limits =
            Limits { sendq: 4000, sendq_grace: Duration::from_millis(10), ..Limits::default() };
        let mut outbox = Outbox::default();
        let big = message(&[b'x'; 1500]);
        let start = Time::from_millis(100);
        assert_eq!(outbox.share(Arc::clone(&big), &limits, start), Ok(()));
        assert_eq!(outbox.deadline(&limits), Time::from_millis(110));
        assert_eq!(outbox.share(Arc::clone(&big), &limits, Time::from_millis(109)), Ok(()));
        assert_eq!(outbox.share(Arc::clone(&big), &limits, Time::from_millis(109)), Err(Full));
        assert_eq!(outbox.share(message(b"x"), &limits, Time::from_millis(110)), Err(Full));
        outbox.advance(2500);
        assert_eq!(outbox.deadline(&limits), Time::NEVER);
        assert_eq!(outbox.share(message(b"x"), &limits, Time::from_millis(200)), Ok(()));
        assert_eq!(outbox.len(), 501);
    }

    #[test]
    fn a_queue_of_few_messages_keeps_its_room_and_one_of_many_does_not() {
        for (count, kept) in [(2, true), (12, false), (100, false)] {
            let mut outbox = Outbox::default();
            for _ in 0..count {
                let shared = outbox.share(message(b"x"), &Limits::default(), Time::ZERO);
                assert_eq!(shared, Ok(()));
            }
            outbox.advance(count);
            let bytes = outbox.rest.capacity() * size_of::<Chunk>();
            assert_eq!(bytes > 0, kept, "{count}: {bytes}");
            assert!(bytes <= KEPT_WHEN_EMPTY, "{count}: {bytes}");
        }
    }

    #[test]
    fn a_buffer_that_holds_bytes_does_not_grow() {
        let mut outbox = Outbox::default();
        outbox.copy(b"1");
        let room = outbox.first.capacity();
        outbox.copy(&vec![b'2'; room]);
        assert_eq!((outbox.first.len(), outbox.first.capacity()), (1, room));

        let mut outbox = Outbox::default();
        outbox.first.reserve_exact(8);
        outbox.copy(b"12345678");
        let filled = outbox.first.capacity() - 8;
        outbox.copy(&vec![b'x'; filled]);
        outbox.copy(b"9");
        let own = |outbox: &Outbox| match outbox.rest.back() {
            Some(Chunk::Own(bytes)) => (bytes.len(), bytes.capacity()),
            _ => panic!("a buffer of its own"),
        };
        let (_, room) = own(&outbox);
        outbox.copy(&vec![b'x'; room]);
        assert_eq!(outbox.rest.len(), 2, "it is full, so the rest is in another");
        assert_eq!(outbox.len(), 9 + filled + room);
    }

    #[test]
    fn at_the_soft_limit_no_time_runs() {
        let limits =
            Limits { sendq: 4000, sendq_grace: Duration::from_millis(10), ..Limits::default() };
        let mut outbox = Outbox::default();
        let start = Time::from_millis(100);
        assert_eq!(outbox.share(message(&[b'x'; 1500]), &limits, start), Ok(()));
        outbox.advance(500);
        assert_eq!(outbox.len(), limits.high_water());
        assert_eq!(outbox.deadline(&limits), Time::NEVER);
    }

    #[test]
    fn what_is_taken_is_all_that_was_left() {
        let mut outbox = Outbox::default();
        outbox.copy(b"copied\n");
        let shared = outbox.share(message(b"shared\n"), &Limits::default(), Time::ZERO);
        assert_eq!(shared, Ok(()));
        outbox.advance(2);
        let batch = outbox.take();
        assert_eq!((content(&batch), batch.len()), (b"pied\nshared\n".to_vec(), 12));
        assert_eq!(content(&outbox), b"");

        let shared = outbox.share(message(b"shared\n"), &Limits::default(), Time::ZERO);
        assert_eq!(shared, Ok(()));
        outbox.advance(2);
        assert_eq!(content(&outbox.take()), b"ared\n");
    }

    #[test]
    fn a_taking_does_not_give_the_grace_time_again() {
        let limits =
            Limits { sendq: 4000, sendq_grace: Duration::from_millis(10), ..Limits::default() };
        let mut outbox = Outbox::default();
        let big = message(&[b'x'; 1500]);
        assert_eq!(outbox.share(big, &limits, Time::from_millis(100)), Ok(()));
        assert_eq!(outbox.take().len(), 1500);
        assert_eq!(outbox.share(message(b"x"), &limits, Time::from_millis(105)), Ok(()));
        assert_eq!(outbox.deadline(&limits), Time::from_millis(110));
    }

    #[test]
    fn what_was_taken_counts_until_the_next_taking() {
        let limits = Limits { sendq: 10, ..Limits::default() };
        let mut outbox = Outbox::default();
        assert_eq!(outbox.share(message(b"1234567"), &limits, Time::ZERO), Ok(()));
        let batch = outbox.take();
        assert_eq!((content(&batch), outbox.len()), (b"1234567".to_vec(), 7));
        assert_eq!(outbox.share(message(b"1234"), &limits, Time::ZERO), Err(Full));
        assert!(outbox.take().is_empty());
        assert_eq!(outbox.share(message(b"1234"), &limits, Time::ZERO), Ok(()));
    }

    #[test]
    fn what_has_been_written_of_what_was_taken_counts_no_more() {
        let limits =
            Limits { sendq: 4000, sendq_grace: Duration::from_millis(10), ..Limits::default() };
        let mut outbox = Outbox::default();
        let big = message(&[b'x'; 1500]);
        assert_eq!(outbox.share(Arc::clone(&big), &limits, Time::from_millis(100)), Ok(()));
        assert_eq!(outbox.share(Arc::clone(&big), &limits, Time::from_millis(100)), Ok(()));
        let mut batch = outbox.take();
        batch.advance(1999);
        outbox.note_left(batch.len());
        assert_eq!(outbox.deadline(&limits), Time::from_millis(110), "it is over it by a byte");
        batch.advance(1);
        outbox.note_left(batch.len());
        assert_eq!((outbox.len(), outbox.deadline(&limits)), (1000, Time::NEVER));
        // Neither limit has been reached, and who passes the soft one has the whole time again.
        assert_eq!(outbox.share(Arc::clone(&big), &limits, Time::from_millis(200)), Ok(()));
        assert_eq!(outbox.deadline(&limits), Time::from_millis(210));
        assert_eq!(outbox.share(big, &limits, Time::from_millis(209)), Ok(()));
        assert_eq!(outbox.len(), 4000);
    }

    #[test]
    fn discarding_leaves_the_rest_of_a_message_begun() {
        let mut outbox = Outbox::default();
        for text in [b"first\r\n", b"secnd\r\n", b"third\r\n"] {
            let shared = outbox.share(message(text), &Limits::default(), Time::ZERO);
            assert_eq!(shared, Ok(()));
        }
        outbox.advance(9);
        outbox.discard();
        outbox.copy(b"bye\r\n");
        assert_eq!(content(&outbox), b"cnd\r\nbye\r\n");
        assert_eq!(outbox.len(), 10);
        outbox.advance(5);
        outbox.discard();
        assert!(outbox.is_empty());
    }

    #[test]
    fn discarding_leaves_what_is_lent_and_no_more() {
        let mut outbox = Outbox::default();
        for text in [b"first\r\n", b"secnd\r\n", b"third\r\n"] {
            let shared = outbox.share(message(text), &Limits::default(), Time::ZERO);
            assert_eq!(shared, Ok(()));
        }
        assert_eq!(outbox.lend(2).count(), 2);
        outbox.discard();
        outbox.copy(b"bye\r\n");
        assert_eq!(content(&outbox), b"first\r\nsecnd\r\nbye\r\n");
        outbox.advance(1);
        outbox.discard();
        assert_eq!(content(&outbox), b"irst\r\n");
        assert_eq!(outbox.len(), 6);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Copy(Vec<u8>),
        Share(Vec<u8>),
        Lend(usize),
        Discard,
        /// Writes that many sixteenths of what is queued.
        Advance(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..300);
        let step = prop_oneof![
            4 => bytes().prop_map(Step::Copy),
            4 => bytes().prop_map(Step::Share),
            2 => (1..5_usize).prop_map(Step::Lend),
            1 => Just(Step::Discard),
            4 => (0..=16_usize).prop_map(Step::Advance),
        ];
        prop::collection::vec(step, 0..100)
    }

    proptest! {
        /// Against one long string: the same bytes in the same order, and what is lent does not
        /// move while more is queued or the rest is discarded.
        #[test]
        fn agrees_with_a_string(steps in steps()) {
            let limits = Limits::default();
            let (mut outbox, mut model) = (Outbox::default(), Vec::new());
            let mut lent = Vec::new();
            for step in steps {
                let place = |slice: &[u8]| (slice.as_ptr(), slice.len());
                match step {
                    Step::Copy(bytes) => {
                        outbox.copy(&bytes);
                        model.extend(bytes);
                    }
                    Step::Share(bytes) => {
                        prop_assert_eq!(outbox.share(message(&bytes), &limits, Time::ZERO), Ok(()));
                        model.extend(bytes);
                    }
                    Step::Lend(most) => lent = outbox.lend(most).map(place).collect(),
                    Step::Discard => {
                        outbox.discard();
                        model.truncate(outbox.len());
                    }
                    Step::Advance(sixteenths) => {
                        lent.clear();
                        let written = model.len() * sixteenths / 16;
                        outbox.advance(written);
                        model.drain(..written);
                    }
                }
                prop_assert_eq!(content(&outbox), &model[..]);
                prop_assert_eq!(outbox.len(), model.len());
                let mut places = outbox.slices().map(place);
                for (start, len) in &lent {
                    let (now, longer) = places.next().expect("it was lent");
                    prop_assert!(*start == now && *len <= longer, "moved");
                }
            }
        }

        /// Against a clock that starts when the queue comes to be over the soft limit and stops
        /// as soon as it is not: who has read is given the whole grace time again. So too where it
        /// is all written from batches.
        #[test]
        fn the_grace_time_begins_when_the_soft_limit_is_passed(
            batches in any::<bool>(),
            steps in prop::collection::vec((0..4_u8, 0..16_usize), 0..60),
        ) {
            let grace = Duration::from_millis(20);
            let limits = Limits { sendq: 4000, sendq_grace: grace, ..Limits::default() };
            let (mut outbox, mut now, mut since) = (Outbox::default(), Time::ZERO, None);
            let (mut batch, mut len) = (Outbox::default(), 0);
            for (step, size) in steps {
                match step {
                    0 => now = now + Duration::from_millis(size as u64),
                    1 if batches && batch.is_empty() => batch = outbox.take(),
                    1 if batches => {
                        let written = batch.len() * size / 15;
                        batch.advance(written);
                        outbox.note_left(batch.len());
                        len -= written;
                    }
                    1 => {
                        let written = len * size / 15;
                        outbox.advance(written);
                        len -= written;
                    }
                    _ => {
                        let more = size * 100;
                        let late = since.is_some_and(|since| now >= since + grace);
                        let full = late || len + more > limits.sendq;
                        let shared = outbox.share(message(&vec![b'x'; more]), &limits, now);
                        prop_assert_eq!(shared.is_err(), full);
                        len += if full { 0 } else { more };
                    }
                }
                let over = len > limits.high_water();
                since = over.then(|| since.unwrap_or(now));
                let deadline = since.map_or(Time::NEVER, |since| since + grace);
                prop_assert_eq!(outbox.deadline(&limits), deadline);
            }
        }
    }
}
