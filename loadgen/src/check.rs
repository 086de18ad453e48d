//! What is sent, how an answer is recognised, and what can be wrong with it.
//!
//! Every line is a function of the seed, the connection and the sequence number, so the expected
//! answer is never stored: it is computed again and compared where it lies in the receive buffer.
//!
//! ```text
//! ccccc ssssssss bbbbbbbbb...      c: connection (hex)  s: sequence (hex)
//!                                  b: a slice of a pseudo-random printable table
//! ```

use std::collections::HashSet;
use std::time::Instant;

use serde::Serialize;

/// Length of the part of a text that names connection and sequence, in bytes.
pub const HEADER: usize = 15;
/// The largest connection number that the header can carry.
pub const MAX_CONNECTIONS: u32 = 0xf_ffff;
/// Places in the table at which a body can begin; a power of two.
const OFFSETS: usize = 1 << 16;
/// Faults described in words; the rest are only counted.
const EXAMPLES: usize = 5;

/// Steps a SplitMix64 generator: small, seeded, and good enough for payloads and resampling.
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The texts of one run: equal seed and sizes, equal texts.
pub struct Payload {
    table: Box<[u8]>,
    seed: u64,
    /// The longest text's length.
    longest: usize,
    /// Lengths with the ends of their shares of 2^32, where there are several.
    mix: Box<[(u64, usize)]>,
}

impl Payload {
    /// Texts of `len` bytes, header included, without a line end. `len` is at least [`HEADER`].
    pub fn new(seed: u64, len: usize) -> Self {
        Self::mixed(seed, &[(len, 1)])
    }

    /// Texts of several lengths, each with its weight. The length of a text is a function of the
    /// seed, the connection and the sequence number, like all else about it.
    pub fn mixed(seed: u64, sizes: &[(usize, u32)]) -> Self {
        assert!(sizes.iter().all(|&(len, _)| len >= HEADER), "a text must hold its header");
        let longest = sizes.iter().map(|&(len, _)| len).max().expect("at least one length");
        let all: u64 = sizes.iter().map(|&(_, weight)| u64::from(weight)).sum();
        let mut until = 0;
        let shares = sizes.iter().map(|&(len, weight)| {
            until += u64::from(weight);
            ((until << 32) / all, len)
        });
        let mut state = seed;
        // Printable, and neither a space nor a colon, which mean something in chat.
        let table = (0..OFFSETS + longest)
            .map(|_| {
                loop {
                    let byte = b'!' + (splitmix(&mut state) % 94) as u8;
                    if byte != b':' {
                        break byte;
                    }
                }
            })
            .collect();
        let mix = if sizes.len() > 1 { shares.collect() } else { Box::default() };
        Self { table, seed, longest, mix }
    }

    /// The length of the longest text in bytes.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// A number that looks random, for each text its own.
    fn hash(&self, conn: u32, seq: u32) -> u64 {
        let key = self.seed ^ (u64::from(conn) << 32 | u64::from(seq));
        key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// The length of the text of `(conn, seq)` in bytes.
    #[inline]
    pub fn text_len(&self, conn: u32, seq: u32) -> usize {
        if self.mix.is_empty() { self.longest } else { self.drawn_len(conn, seq) }
    }

    fn drawn_len(&self, conn: u32, seq: u32) -> usize {
        let drawn = splitmix(&mut self.hash(conn, seq)) >> 32;
        let share = self.mix.iter().find(|&&(until, _)| drawn < until);
        share.map_or(self.longest, |&(_, len)| len)
    }

    #[inline]
    fn body(&self, conn: u32, seq: u32, len: usize) -> &[u8] {
        let offset = (self.hash(conn, seq) >> 48) as usize % OFFSETS;
        &self.table[offset..offset + len - HEADER]
    }

    /// Writes the text of `(conn, seq)` to the beginning of `out` and returns its length.
    #[inline]
    pub fn write(&self, conn: u32, seq: u32, out: &mut [u8]) -> usize {
        let len = self.text_len(conn, seq);
        out[..HEADER].copy_from_slice(&header(conn, seq));
        out[HEADER..len].copy_from_slice(self.body(conn, seq, len));
        len
    }

    /// Whether `text` is exactly the text of `(conn, seq)`.
    #[inline]
    pub fn is(&self, conn: u32, seq: u32, text: &[u8]) -> bool {
        text.len() == self.text_len(conn, seq)
            && text[..HEADER] == header(conn, seq)
            && text[HEADER..] == *self.body(conn, seq, text.len())
    }

    /// Whether `part` is what the line of `(conn, seq)`, its line feed included, has from byte
    /// `from` on. `part` does not reach over the end of the line.
    pub fn continues(&self, conn: u32, seq: u32, from: usize, part: &[u8]) -> bool {
        let header = header(conn, seq);
        let len = self.text_len(conn, seq);
        let end = from + part.len();
        let head = from.min(HEADER)..end.min(HEADER);
        let body = from.clamp(HEADER, len)..end.clamp(HEADER, len);
        let (first, rest) = part.split_at(head.len());
        let (second, tail) = rest.split_at(body.len());
        first == &header[head]
            && second == &self.body(conn, seq, len)[body.start - HEADER..body.end - HEADER]
            && tail.iter().all(|&byte| byte == b'\n')
    }

    /// Whether `text` is a beginning, but not the whole, of the text of `(conn, seq)`.
    pub fn is_prefix(&self, conn: u32, seq: u32, text: &[u8]) -> bool {
        let head = text.len().min(HEADER);
        let len = self.text_len(conn, seq);
        text.len() < len
            && text[..head] == header(conn, seq)[..head]
            && self.body(conn, seq, len).starts_with(&text[head..])
    }
}

/// Eight hexadecimal digits, all at once: spread the nibbles over bytes, then lift them to ASCII.
#[inline]
fn hex8(value: u32) -> [u8; 8] {
    let x = u64::from(value);
    let x = (x & 0xffff_0000) << 16 | x & 0xffff;
    let x = (x << 8) & 0x00ff_0000_00ff_0000 | x & 0x0000_00ff_0000_00ff;
    let x = (x << 4) & 0x0f00_0f00_0f00_0f00 | x & 0x000f_000f_000f_000f;
    let letters = ((x + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (x + 0x3030_3030_3030_3030 + letters * 0x27).to_be_bytes()
}

#[inline]
fn header(conn: u32, seq: u32) -> [u8; HEADER] {
    let mut header = [b' '; HEADER];
    header[..5].copy_from_slice(&hex8(conn)[3..]);
    header[6..14].copy_from_slice(&hex8(seq));
    header
}

/// Reads lower-case hexadecimal digits; `None` for anything else.
#[inline]
pub fn parse_hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, &digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u32::from(nibble))
    })
}

/// The connection and sequence number that a text claims to carry.
pub fn parse_header(text: &[u8]) -> Option<(u32, u32)> {
    let header = text.get(..HEADER)?;
    if header[5] != b' ' || header[14] != b' ' {
        return None;
    }
    Some((parse_hex(&header[..5])?, parse_hex(&header[6..14])?))
}

/// What a server did wrong with one line or one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A later line arrived and this one never did.
    Lost,
    /// The line arrived again.
    Repeated,
    /// The line arrived after a later one.
    Reordered,
    /// Only a beginning of the line arrived.
    Truncated,
    /// The line has the wrong content.
    Altered,
    /// The line belongs to another connection or channel.
    Crossed,
    /// The answer came before the question had been sent.
    Early,
    /// A speaker was sent what it had said itself.
    ToSpeaker,
    /// Nothing came back in time.
    Unanswered,
    /// The server closed or reset the connection.
    Closed,
}

impl Fault {
    /// All kinds, in the order in which they are reported.
    pub const ALL: [Self; 10] = [
        Self::Lost,
        Self::Repeated,
        Self::Reordered,
        Self::Truncated,
        Self::Altered,
        Self::Crossed,
        Self::Early,
        Self::ToSpeaker,
        Self::Unanswered,
        Self::Closed,
    ];

    /// The word used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Repeated => "repeated",
            Self::Reordered => "reordered",
            Self::Truncated => "truncated",
            Self::Altered => "altered",
            Self::Crossed => "crossed",
            Self::Early => "early",
            Self::ToSpeaker => "to-speaker",
            Self::Unanswered => "unanswered",
            Self::Closed => "closed",
        }
    }
}

/// The faults of one driver, counted by kind, the first few in words.
#[derive(Debug, Default)]
pub struct FaultLog {
    counts: [u64; Fault::ALL.len()],
    examples: Vec<String>,
    gaps: HashSet<(u64, u32)>,
    first: Option<Instant>,
}

impl FaultLog {
    /// Counts `n` faults of a kind; `describe` is called only while examples are still collected.
    pub fn add(&mut self, fault: Fault, n: u64, describe: impl FnOnce() -> String) {
        if n == 0 {
            return;
        }
        self.counts[fault as usize] += n;
        self.first.get_or_insert_with(Instant::now);
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{}: {}", fault.name(), describe()));
        }
    }

    /// Sequence numbers `from..to` of a stream were passed over: lost, until one turns up late.
    pub fn gap(&mut self, stream: u64, from: u32, to: u32, describe: impl FnOnce() -> String) {
        self.add(Fault::Lost, u64::from(to - from), describe);
        // A bound on memory: past it a late line is called repeated, and the run is INVALID anyway.
        if self.gaps.len() < 100_000 {
            self.gaps.extend((from..to).map(|seq| (stream, seq)));
        }
    }

    /// A sequence number below the expected one: late if it was missing, else a repetition.
    pub fn behind(&mut self, stream: u64, seq: u32, describe: impl FnOnce() -> String) {
        if self.gaps.remove(&(stream, seq)) {
            self.counts[Fault::Lost as usize] -= 1;
            self.add(Fault::Reordered, 1, describe);
        } else {
            self.add(Fault::Repeated, 1, describe);
        }
    }

    /// When the first fault was seen.
    pub fn first(&self) -> Option<Instant> {
        self.first
    }

    /// Whether nothing was wrong.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The kinds seen, with their counts.
    pub fn counts(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        Fault::ALL.into_iter().map(|f| (f, self.counts[f as usize])).filter(|&(_, n)| n > 0)
    }

    /// The first few faults in words.
    pub fn examples(&self) -> &[String] {
        &self.examples
    }

    /// Adds another driver's faults.
    pub fn merge(&mut self, other: Self) {
        for (sum, n) in self.counts.iter_mut().zip(other.counts) {
            *sum += n;
        }
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
        self.first = self.first.or(other.first);
    }
}

/// The faults that were seen while connections were opened: the run is INVALID before it began.
#[derive(Debug)]
pub struct FaultyOpening(pub FaultLog);

impl std::fmt::Display for FaultyOpening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "while opening connections: {}", self.0.examples().join("; "))
    }
}

impl std::error::Error for FaultyOpening {}

/// Bytes from the network for a message to a person: escaped, and cut to a readable length.
pub fn show(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(60)];
    let dots = if cut.len() < bytes.len() { "..." } else { "" };
    format!("\"{}\"{dots}", cut.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_what_format_says() {
        for value in [0, 1, 9, 10, 15, 16, 0xdead_beef, 0x0123_4567, 0x89ab_cdef, u32::MAX] {
            assert_eq!(hex8(value).as_slice(), format!("{value:08x}").as_bytes());
            assert_eq!(parse_hex(&hex8(value)), Some(value));
        }
        assert_eq!(parse_hex(b"12g4"), None);
    }

    #[test]
    fn a_text_is_recognised_and_no_other() {
        let payload = Payload::new(7, 64);
        let mut text = vec![0; 64];
        payload.write(3, 900, &mut text);
        assert_eq!(parse_header(&text), Some((3, 900)));
        assert!(payload.is(3, 900, &text));
        assert!(!payload.is(3, 901, &text) && !payload.is(4, 900, &text));
        assert!(payload.is_prefix(3, 900, &text[..40]) && payload.is_prefix(3, 900, &text[..4]));
        assert!(!payload.is_prefix(3, 900, &text));
        for at in 0..64 {
            let mut bad = text.clone();
            bad[at] ^= 1;
            assert!(!payload.is(3, 900, &bad), "a changed byte {at} must be seen");
        }
    }

    #[test]
    fn neighbours_have_different_bodies() {
        let payload = Payload::new(1, 64);
        assert_ne!(payload.body(0, 0, 64), payload.body(0, 1, 64));
        assert_ne!(payload.body(0, 0, 64), payload.body(1, 0, 64));
    }

    #[test]
    fn sizes_come_in_their_shares_and_are_functions_of_the_line() {
        let sizes = [(20, 90), (100, 9), (1000, 1)];
        let (payload, again) = (Payload::mixed(5, &sizes), Payload::mixed(5, &sizes));
        let mut text = vec![0; payload.longest()];
        let mut counts = [0; 3];
        for (conn, seq) in (0..100).flat_map(|conn| (0..1000).map(move |seq| (conn, seq))) {
            let len = payload.write(conn, seq, &mut text);
            assert!(again.is(conn, seq, &text[..len]));
            assert!(len == 20 || again.is_prefix(conn, seq, &text[..20]));
            counts[sizes.iter().position(|size| size.0 == len).unwrap()] += 1;
        }
        for (count, (_, weight)) in counts.into_iter().zip(sizes) {
            let expected = f64::from(weight) * 1000.0;
            // Five standard deviations of a count; the seed is fixed.
            assert!((f64::from(count) - expected).abs() < 5.0 * expected.sqrt(), "{counts:?}");
        }
    }

    #[test]
    fn a_late_line_turns_lost_into_reordered() {
        let mut log = FaultLog::default();
        log.gap(1, 4, 6, String::new);
        log.behind(1, 4, String::new);
        log.behind(1, 4, String::new);
        let counts: Vec<_> = log.counts().collect();
        let expected = [(Fault::Lost, 1), (Fault::Repeated, 1), (Fault::Reordered, 1)];
        assert_eq!(counts, expected);
    }
}
