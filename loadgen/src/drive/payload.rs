//! What is sent: the text of each line, and how it is recognised when it comes back.
//!
//! Every line is a function of the seed, the connection and the sequence number, so the expected
//! answer is never stored: it is computed again and compared where it lies in the receive buffer.
//!
//! ```text
//! ccccc ssssssss bbbbbbbbb...      c: connection (hex)  s: sequence (hex)
//!                                  b: a slice of a pseudo-random printable table
//! ```

use crate::base::random::splitmix;
use crate::workload::limits::HEADER;

/// Places in the table at which a body can begin; a power of two.
const OFFSETS: usize = 1 << 16;

/// The texts of one run: equal seed and sizes, equal texts.
pub(super) struct Payload {
    table: Box<[u8]>,
    seed: u64,
    /// The longest text's length.
    longest: usize,
    /// Lengths with the ends of their shares of 2^32, where there are several.
    mix: Box<[(u64, usize)]>,
}

impl Payload {
    /// Texts of `len` bytes, header included, without a line end. `len` is at least [`HEADER`].
    pub(super) fn new(seed: u64, len: usize) -> Self {
        Self::mixed(seed, &[(len, 1)])
    }

    /// Texts of several lengths, each with its weight. The length of a text is a function of the
    /// seed, the connection and the sequence number, like all else about it.
    pub(super) fn mixed(seed: u64, sizes: &[(usize, u32)]) -> Self {
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
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// A number that looks random, for each text its own.
    fn hash(&self, conn: u32, seq: u32) -> u64 {
        let key = self.seed ^ (u64::from(conn) << 32 | u64::from(seq));
        key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// The length of the text of `(conn, seq)` in bytes.
    #[inline]
    pub(super) fn text_len(&self, conn: u32, seq: u32) -> usize {
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
    pub(super) fn write(&self, conn: u32, seq: u32, out: &mut [u8]) -> usize {
        let len = self.text_len(conn, seq);
        out[..HEADER].copy_from_slice(&header(conn, seq));
        out[HEADER..len].copy_from_slice(self.body(conn, seq, len));
        len
    }

    /// Whether `text` is exactly the text of `(conn, seq)`.
    #[inline]
    pub(super) fn is(&self, conn: u32, seq: u32, text: &[u8]) -> bool {
        text.len() == self.text_len(conn, seq)
            && text[..HEADER] == header(conn, seq)
            && text[HEADER..] == *self.body(conn, seq, text.len())
    }

    /// Whether `part` is what the line of `(conn, seq)`, its line feed included, has from byte
    /// `from` on. `part` does not reach over the end of the line.
    pub(super) fn continues(&self, conn: u32, seq: u32, from: usize, part: &[u8]) -> bool {
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
    pub(super) fn is_prefix(&self, conn: u32, seq: u32, text: &[u8]) -> bool {
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
pub(super) fn parse_hex(digits: &[u8]) -> Option<u32> {
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
pub(super) fn parse_header(text: &[u8]) -> Option<(u32, u32)> {
    let header = text.get(..HEADER)?;
    if header[5] != b' ' || header[14] != b' ' {
        return None;
    }
    Some((parse_hex(&header[..5])?, parse_hex(&header[6..14])?))
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
    fn a_part_of_a_line_is_recognised_wherever_it_begins_and_ends() {
        let payload = Payload::new(7, 24);
        let mut line = vec![b'\n'; 25];
        payload.write(3, 900, &mut line);
        for (from, to) in (0..25).flat_map(|from| (from..=25).map(move |to| (from, to))) {
            let part = &line[from..to];
            assert!(payload.continues(3, 900, from, part), "{from} to {to}");
            for at in 0..part.len() {
                let mut bad = part.to_vec();
                bad[at] ^= 1;
                assert!(!payload.continues(3, 900, from, &bad), "{from} to {to}, altered at {at}");
            }
        }
    }

    #[test]
    fn a_header_is_numbers_and_spaces_in_their_places() {
        assert_eq!(parse_header(b"0002a 0000000b xyz"), Some((42, 11)));
        for bad in
            ["0002a-0000000b xyz", "0002a 0000000b-xyz", "0002A 0000000b x", "0002a 0000000b"]
        {
            assert_eq!(parse_header(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_body_is_printable_and_has_no_colon() {
        let payload = Payload::new(7, 64);
        let good = |byte: &u8| byte.is_ascii_graphic() && *byte != b':';
        assert!(payload.table.iter().all(good));
        let kinds: std::collections::BTreeSet<_> = payload.table.iter().collect();
        assert_eq!(kinds.len(), 93, "every one that may be there");
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
}
