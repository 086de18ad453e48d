//! Framing: bytes in, whole lines out.

/// What framing finds, and what else the hub must learn in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// One line. Echo gets it with its terminator, chat without.
    Whole(&'a [u8]),
    /// A line over the limit, reported once; its bytes are not kept.
    TooLong,
    /// Chat: the peer has done what ends a connection, for this reason.
    Refused(&'static str),
    /// Chat: the peer has ended its stream and everything before has been handled.
    End,
}

/// Splits a stream into lines that end in LF.
///
/// It keeps what [`Lines::hold`] gave it and the unfinished line at the end, and no heap when
/// there is neither. A line longer than the limit is reported once, as soon as that is known, and
/// skipped to its end without being kept.
#[derive(Default)]
pub struct Lines {
    /// Bytes that have come and are not yet given out; they precede all input to come.
    held: Vec<u8>,
    /// How much of `held` has been given out.
    given: usize,
    /// How much of `held` is known to hold no LF: a line that comes byte by byte is looked
    /// through once.
    searched: usize,
    /// Bytes of the line that is being skipped; `None` when none is.
    skipped: Option<usize>,
}

/// The most bytes of a line, terminator included.
#[derive(Clone, Copy, Debug)]
pub struct LineLimit {
    /// Of one that does not begin with an `@`.
    pub plain: usize,
    /// Of one that does: it has tags before it.
    pub tagged: usize,
}

impl LineLimit {
    fn of(self, first: Option<&u8>) -> usize {
        if first == Some(&b'@') { self.tagged } else { self.plain }
    }

    fn is_passed(self, line: &[u8]) -> bool {
        line.len() > self.of(line.first())
    }
}

impl Lines {
    /// The next whole line, terminator included: from what is held, then from `input`, which
    /// loses what was taken. `None`: all of `input` is taken and no line is complete.
    ///
    /// A line of more than `limit` bytes, terminator included, is [`Line::TooLong`].
    pub fn next<'held, 'input: 'held>(
        &'held mut self,
        input: &mut &'input [u8],
        limit: usize,
    ) -> Option<Line<'held>> {
        self.next_of(input, LineLimit { plain: limit, tagged: limit })
    }

    /// As [`Lines::next`], where some lines may be longer than others.
    pub fn next_of<'held, 'input: 'held>(
        &'held mut self,
        input: &mut &'input [u8],
        limit: LineLimit,
    ) -> Option<Line<'held>> {
        if !self.skip(input) {
            return None;
        }
        if let Some(end) = find_lf(&self.held[self.searched..]) {
            let start = self.given;
            self.given = self.searched + end + 1;
            self.searched = self.given;
            return Some(self.judge(start, limit));
        }
        self.drop_given();
        self.searched = self.held.len();
        let Some(end) = find_lf(input) else {
            return self.keep_tail(input, limit);
        };
        let (line, rest) = input.split_at(end + 1);
        *input = rest;
        if self.held.is_empty() {
            return Some(if limit.is_passed(line) { Line::TooLong } else { Line::Whole(line) });
        }
        self.held.extend_from_slice(line);
        self.given = self.held.len();
        self.searched = self.given;
        Some(self.judge(0, limit))
    }

    /// Keeps `input` for later without looking for lines in it.
    pub fn hold(&mut self, input: &[u8]) {
        self.drop_given();
        self.held.extend_from_slice(input);
    }

    /// Gives all whole lines of `input` at once, terminators included, as one or two pieces, and
    /// keeps the unfinished rest: the path of a server that is not interested in single lines.
    /// False, and nothing done, when a line could be over `limit`, is being skipped, or was held
    /// back: then [`Lines::next`] must look at each.
    pub fn relay(&mut self, input: &[u8], limit: usize, mut give: impl FnMut(&[u8])) -> bool {
        let plain = self.skipped.is_none() && self.given == 0 && self.searched == self.held.len();
        if !plain || self.held.len() + input.len() > limit {
            return false;
        }
        if let Some(last) = find_last_lf(input) {
            let (lines, tail) = input.split_at(last + 1);
            if !self.held.is_empty() {
                give(&self.held);
                self.held = Vec::new();
            }
            give(lines);
            self.held.extend_from_slice(tail);
        } else {
            self.held.extend_from_slice(input);
        }
        self.searched = self.held.len();
        true
    }

    /// Bytes held that have not been given out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len() - self.given
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a line that was reported as too long has not ended yet, and how many of its
    /// bytes have come.
    #[must_use]
    pub fn skipping(&self) -> Option<usize> {
        self.skipped
    }

    /// Takes the rest of a line that is being skipped; false when its end has not come.
    fn skip(&mut self, input: &mut &[u8]) -> bool {
        let Some(skipped) = self.skipped else { return true };
        let held = &self.held[self.given..];
        if let Some(end) = find_lf(held) {
            self.given += end + 1;
            self.searched = self.given;
        } else {
            self.skipped = Some(skipped + held.len() + input.len());
            (self.held, self.given, self.searched) = (Vec::new(), 0, 0);
            let Some(end) = find_lf(input) else {
                *input = &[];
                return false;
            };
            *input = &input[end + 1..];
        }
        self.skipped = None;
        true
    }

    fn judge(&self, start: usize, limit: LineLimit) -> Line<'_> {
        let line = &self.held[start..self.given];
        if limit.is_passed(line) { Line::TooLong } else { Line::Whole(line) }
    }

    fn keep_tail(&mut self, input: &mut &[u8], limit: LineLimit) -> Option<Line<'static>> {
        let tail = core::mem::take(input);
        let first = self.held.first().or(tail.first());
        if self.held.len() + tail.len() > limit.of(first) {
            self.skipped = Some(self.held.len() + tail.len());
            self.held = Vec::new();
            self.searched = 0;
            return Some(Line::TooLong);
        }
        self.held.extend_from_slice(tail);
        self.searched = self.held.len();
        None
    }

    fn drop_given(&mut self) {
        self.searched -= self.given;
        if self.given == self.held.len() {
            self.held = Vec::new();
        } else {
            self.held.drain(..self.given);
        }
        self.given = 0;
    }
}

/// Block by block: `contains` compares several bytes at a time, `rposition` one. A long line comes
/// in pieces that have no LF, and each of them is looked through to its beginning.
fn find_last_lf(bytes: &[u8]) -> Option<usize> {
    let mut end = bytes.len();
    for block in bytes.rchunks(256) {
        end -= block.len();
        if block.contains(&b'\n') {
            return block.iter().rposition(|&byte| byte == b'\n').map(|at| end + at);
        }
    }
    None
}

fn find_lf(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 8;

    #[derive(Clone, Debug, PartialEq)]
    enum Found {
        Whole(Vec<u8>),
        TooLong,
    }

    fn drain(lines: &mut Lines, mut input: &[u8], found: &mut Vec<Found>) {
        while let Some(line) = lines.next(&mut input, LIMIT) {
            found.push(match line {
                Line::Whole(bytes) => Found::Whole(bytes.to_vec()),
                _ => Found::TooLong,
            });
        }
        assert!(input.is_empty());
    }

    /// What framing must find, told by looking at the whole stream at once.
    fn model(stream: &[u8]) -> Vec<Found> {
        let mut pieces: Vec<_> = stream.split_inclusive(|&byte| byte == b'\n').collect();
        let tail = pieces.pop_if(|last| last.last() != Some(&b'\n'));
        let judge = |piece: &[u8]| match piece.len() {
            0..=LIMIT => Found::Whole(piece.to_vec()),
            _ => Found::TooLong,
        };
        let mut found: Vec<_> = pieces.into_iter().map(judge).collect();
        found.extend(tail.filter(|tail| tail.len() > LIMIT).map(|_| Found::TooLong));
        found
    }

    #[test]
    fn no_heap_without_a_tail() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        drain(&mut lines, b"ab", &mut found);
        assert_eq!(lines.len(), 2);
        drain(&mut lines, b"c\nd\n", &mut found);
        assert_eq!(found, [Found::Whole(b"abc\n".to_vec()), Found::Whole(b"d\n".to_vec())]);
        assert_eq!(lines.held.capacity(), 0);
    }

    #[test]
    fn a_line_with_tags_may_be_longer() {
        let limit = LineLimit { plain: 4, tagged: 8 };
        for cut in 0..=9 {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            let stream = b"abc\n@bcdefg\nabcd\n@bcdefgh\nx\n";
            for piece in [&stream[..cut], &stream[cut..]] {
                let mut input = piece;
                while let Some(line) = lines.next_of(&mut input, limit) {
                    found.push(matches!(line, Line::Whole(_)));
                }
            }
            assert_eq!(found, [true, true, false, false, true], "cut at {cut}");
        }
    }

    #[test]
    fn an_overlong_line_is_told_at_once_and_not_kept() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for _ in 0..1000 {
            drain(&mut lines, &[b'x'; 100], &mut found);
            assert_eq!(lines.held.capacity(), 0);
        }
        assert_eq!(found, [Found::TooLong]);
        assert_eq!(lines.skipping(), Some(100_000));
        drain(&mut lines, b"x\nok\n", &mut found);
        assert_eq!(found, [Found::TooLong, Found::Whole(b"ok\n".to_vec())]);
        assert_eq!(lines.skipping(), None);
    }

    #[test]
    fn what_is_held_and_not_given_is_counted() {
        let mut lines = Lines::default();
        lines.hold(b"a\nb\nc");
        for (left, line) in [(3, "a\n"), (1, "b\n")] {
            assert_eq!(lines.next(&mut &b""[..], LIMIT), Some(Line::Whole(line.as_bytes())));
            assert_eq!(lines.len(), left);
        }
        lines.hold(b"\n");
        assert_eq!(lines.next(&mut &b""[..], LIMIT), Some(Line::Whole(b"c\n")));
        assert!(lines.is_empty());
    }

    #[test]
    fn the_end_of_a_skipped_line_is_found_in_what_is_held() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        drain(&mut lines, &[b'x'; 9], &mut found);
        lines.hold(b"xxx");
        drain(&mut lines, b"xx", &mut found);
        assert_eq!(lines.skipping(), Some(14));
        lines.hold(b"xxx\nok\n");
        drain(&mut lines, b"", &mut found);
        assert_eq!(found, [Found::TooLong, Found::Whole(b"ok\n".to_vec())]);
    }

    #[test]
    fn a_read_of_as_many_bytes_as_a_line_may_have_is_relayed() {
        for (input, relayed) in [(&b"abcdefg\n"[..], true), (b"abcdefgh\n", false)] {
            let mut given: Vec<u8> = Vec::new();
            let mut lines = Lines::default();
            assert_eq!(lines.relay(input, LIMIT, |bytes| given.extend(bytes)), relayed);
            assert_eq!(given.is_empty(), !relayed);
        }
    }

    /// Streams of few letters, so that line ends and lines at the limit are common, and the
    /// places to cut them at.
    fn streams() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
        let bytes = prop_oneof![1 => Just(b'\n'), 6 => any::<u8>()];
        (prop::collection::vec(bytes, 0..200), prop::collection::vec(0..20_usize, 1..40))
    }

    proptest! {
        #[test]
        fn any_split_finds_the_same((stream, cuts) in streams(), held in any::<u64>()) {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            let mut rest = &stream[..];
            for (turn, &cut) in cuts.iter().cycle().enumerate().take(400) {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                rest = after;
                if held >> (turn % 64) & 1 == 1 {
                    lines.hold(piece);
                } else {
                    drain(&mut lines, piece, &mut found);
                }
            }
            drain(&mut lines, rest, &mut found);
            prop_assert_eq!(found, model(&stream));
        }

        #[test]
        fn relaying_gives_the_same_bytes((stream, cuts) in streams()) {
            let mut lines = Lines::default();
            let mut given: Vec<u8> = Vec::new();
            let mut rest = &stream[..];
            for &cut in cuts.iter().cycle().take(400) {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                rest = after;
                prop_assert!(lines.relay(piece, usize::MAX, |bytes| given.extend(bytes)));
            }
            prop_assert!(lines.relay(rest, usize::MAX, |bytes| given.extend(bytes)));
            let whole = stream.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
            prop_assert_eq!(&given, &stream[..whole]);
            prop_assert_eq!(lines.len(), stream.len() - whole);
        }
    }

    #[test]
    fn the_last_lf_is_found_wherever_it_is() {
        for len in [0, 1, 255, 256, 257, 600] {
            let mut bytes = vec![b'x'; len];
            assert_eq!(find_last_lf(&bytes), None, "{len}");
            for at in 0..len {
                bytes[at] = b'\n';
                assert_eq!(find_last_lf(&bytes), Some(at), "{len}");
            }
        }
    }
}
