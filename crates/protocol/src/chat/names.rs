//! Which names there may be, and when two are the same.
//!
//! Names are compared under CASEMAPPING=ascii: what differs to the eye by more than the case of
//! an ASCII letter is another name. (`rfc1459` would make `[` and `{` one letter, a memory of
//! Scandinavian keyboards.)

use core::fmt::Write as _;
use core::hint::black_box;

use crate::Limits;

/// Longest user name, in bytes, as 005 tells it (USERLEN).
pub(super) const USER: usize = 16;
/// Longest topic, in bytes, as 005 tells it (TOPICLEN): 332 and TOPIC hold it whole beside the
/// longest names.
pub(super) const TOPIC: usize = 300;
/// Longest text of one that is away, in bytes (AWAYLEN).
pub(super) const AWAY: usize = 200;
/// Longest real name, in bytes.
pub(super) const REAL_NAME: usize = 128;
/// Longest host or server name, in bytes (HOSTLEN).
pub(super) const HOST: usize = 63;

/// A name in the form under which it is compared, without a heap: a look-up costs no allocation.
pub(super) struct Folded {
    bytes: [u8; Limits::CHANNEL],
    len: usize,
}

impl Folded {
    /// The folded form of `name`; none when it is too long to be a name.
    pub(super) fn new(name: &[u8]) -> Option<Folded> {
        let mut bytes = [0; Limits::CHANNEL];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        bytes.make_ascii_lowercase();
        Some(Folded { bytes, len: name.len() })
    }

    /// The bytes to compare.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Whether two names are one.
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// Whether `name` can be a nickname: the grammar of RFC 2812, 2.3.1, only longer. ASCII alone,
/// so that no two nicknames look alike and none hides what it is.
pub(super) fn is_nick(name: &[u8]) -> bool {
    let special =
        |byte: &u8| matches!(byte, b'[' | b']' | b'\\' | b'`' | b'_' | b'^' | b'{'..=b'}');
    let first = name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || special(byte));
    let rest = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || special(byte);
    first && name.iter().all(rest) && name.len() <= Limits::NICK
}

/// Whether `name` can be a channel's: `#` and at least one more character, UTF-8, nothing that
/// ends a parameter or a list of them, nothing invisible or that reverses the writing.
pub(super) fn is_channel(name: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(name) else { return false };
    let bad = |c: char| c == ',' || c.is_whitespace() || c.is_control() || is_disguise(c);
    (2..=Limits::CHANNEL).contains(&name.len()) && text.starts_with('#') && !text.contains(bad)
}

/// Zero-width spaces and the characters of Unicode's Bidi_Control property (UAX #9): marks,
/// embeddings, overrides and isolates.
fn is_disguise(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A user name made of what is harmless in `wanted`; it proves nothing.
pub(super) fn user(wanted: &[u8]) -> Box<[u8]> {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    let name: Box<[u8]> = wanted.iter().copied().filter(harmless).take(USER).collect();
    if name.is_empty() { b"unknown"[..].into() } else { name }
}

/// A host or server name that is one parameter wherever it stands: an IPv6 address that begins
/// with a colon gets a zero before it, as everywhere on IRC.
pub(super) fn host(wanted: &str) -> Box<[u8]> {
    let zero = if wanted.starts_with(':') { "0" } else { "" };
    let name: Vec<u8> =
        zero.bytes().chain(wanted.bytes()).filter(u8::is_ascii_graphic).take(HOST).collect();
    if name.is_empty() { b"localhost"[..].into() } else { name.into() }
}

/// `text` down to `max` bytes, not through the middle of a character.
pub(super) fn clip(text: &[u8], max: usize) -> &[u8] {
    let Some(next) = text.get(max) else { return text };
    let is_tail = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
    let mut end = max;
    if is_tail(*next) {
        // A character has three bytes at most after its first. Where that does not come, the
        // text is not UTF-8 and one place to cut is as good as another.
        let back = text[..max].iter().rev().take(3).position(|&byte| !is_tail(byte));
        end -= back.map_or(0, |tails| tails + 1);
    }
    &text[..end]
}

/// A client's parameter as a parameter of a reply to it: itself, byte for byte, because a client
/// may know by nothing else which of its questions was answered. Only what would not be one
/// parameter there, or would do something to a terminal, becomes `*`.
pub(super) fn shown(param: &[u8]) -> &[u8] {
    let bad = |c: char| c == ' ' || c.is_control() || is_disguise(c);
    let harmless = param.utf8_chunks().all(|chunk| !chunk.valid().contains(bad));
    if param.is_empty() || param.starts_with(b":") || !harmless { b"*" } else { param }
}

/// Whether `given` is `secret`, in a time that does not depend on how much of it is right: a
/// password cannot be found letter by letter.
pub(super) fn is_secret(secret: &[u8], given: &[u8]) -> bool {
    let bytes = secret.iter().chain(core::iter::repeat(&0));
    let differing = given.iter().zip(bytes).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
    differing == 0 && secret.len() == given.len()
}

/// The instant `unix` seconds after 1970 began, as `2026-01-31T23:59:59Z`.
pub(super) fn date(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    // Years that begin in March end with the leap day; 146,097 days are 400 of them, and 719,468
    // lie between the first of March of the year 0 and 1970.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    // Writing into a String does not fail.
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
    text
}

/// The instant so many milliseconds after 1970 began, as `server-time` has it.
pub(super) fn date_millis(millis: u64) -> String {
    let mut text = date(millis / 1_000);
    text.pop();
    // Writing into a String does not fail.
    let _ = write!(text, ".{:03}Z", millis % 1_000);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nicknames() {
        for good in ["a", "Alice", "[x]", "a-b", "w00t^", "_", "`", "{|}", "\\"] {
            assert!(is_nick(good.as_bytes()), "{good:?}");
        }
        let too_long = "a".repeat(31);
        for bad in [
            "",
            "*",
            "1a",
            "-a",
            "a b",
            "a,b",
            "a!b",
            "a@b",
            "#a",
            ":a",
            "a.b",
            "a*",
            "a?",
            "a\0",
            "a\rb",
            "a\x07",
            "a\u{7f}",
            "a\u{85}",
            "a\u{202e}b",
            "\u{2066}a",
            "é",
            "а",
            "a~",
            "$a",
            "&a",
            "+a",
            "@a",
            &too_long,
        ] {
            assert!(!is_nick(bad.as_bytes()), "{bad:?}");
        }
        assert!(is_nick(&[b'a'; 30]));
        assert!(!is_nick(b"a\xff"));
    }

    #[test]
    fn channel_names() {
        for good in ["#a", "##", "#été", "#日本", "#a:b", "#a!*?", "#1"] {
            assert!(is_channel(good.as_bytes()), "{good:?}");
        }
        for bad in [
            "",
            "#",
            "a",
            "&a",
            "+a",
            "!a",
            "0",
            "#a b",
            "#a,b",
            "#a\x07",
            "#a\0",
            "#a\r",
            "#\x02",
            "#\u{7f}",
            "#\u{80}",
            "#\u{9f}",
            "#\u{a0}",
            "#\u{202e}a",
            "#\u{2067}a",
            "#\u{200b}",
            "#\u{feff}",
            "#\u{2028}",
        ] {
            assert!(!is_channel(bad.as_bytes()), "{bad:?}");
        }
        let longest = format!("#{}", "é".repeat(31) + "a");
        assert_eq!(longest.len(), 64);
        assert!(is_channel(longest.as_bytes()));
        assert!(!is_channel(format!("{longest}a").as_bytes()));
        assert!(!is_channel(b"#\xff"));
    }

    #[test]
    fn folding_knows_only_ascii() {
        let fold = |name: &str| Folded::new(name.as_bytes()).unwrap().as_bytes().to_vec();
        assert_eq!(fold("#AbC[É"), "#abc[É".as_bytes());
        assert!(Folded::new(&[b'a'; 65]).is_none());
        assert!(same(b"Al", b"aL") && !same(b"[", b"{"));
    }

    #[test]
    fn other_names_are_made_harmless() {
        assert_eq!(&*user(b"al!i@ce\x01\xc2\x85"), b"alice");
        assert_eq!(&*user(b"\x00 *"), b"unknown");
        assert_eq!(user(&[b'a'; 99]).len(), USER);
        assert_eq!(&*host("::1"), b"0::1");
        assert_eq!(&*host("10.0.0.1"), b"10.0.0.1");
        assert_eq!(&*host(" \r\n"), b"localhost");
    }

    #[test]
    fn clipping_keeps_characters_whole() {
        for max in 0..12 {
            let text = "aé日𝄞";
            let clipped = clip(text.as_bytes(), max);
            assert!(clipped.len() <= max);
            let clipped = core::str::from_utf8(clipped).unwrap();
            assert!(text.starts_with(clipped));
            assert!(max - clipped.len().min(max) < 4);
        }
        assert_eq!(clip(&[0x80; 8], 5).len(), 5);
        assert_eq!(clip(b"abc", 3), b"abc");
    }

    #[test]
    fn a_shown_parameter_is_one_parameter() {
        for (param, expected) in [
            ("", "*"),
            (":a", "*"),
            ("a b", "*"),
            ("a\x01", "*"),
            ("a\u{9b}", "*"),
            ("\u{202e}", "*"),
            ("a", "a"),
            ("#é", "#é"),
        ] {
            assert_eq!(shown(param.as_bytes()), expected.as_bytes(), "{param:?}");
        }
        assert_eq!(shown(&[b'x'; 500]), [b'x'; 500]);
        assert_eq!(shown(b"a\xff"), b"a\xff");
        assert_eq!(shown(b"\xff\x1b"), b"*");
    }

    #[test]
    fn only_the_secret_is_the_secret() {
        assert!(is_secret(b"sesame", b"sesame"));
        assert!(is_secret(b"", b""));
        for wrong in [&b"sesam"[..], b"sesames", b"Sesame", b"", b"essame", b"sesame\0"] {
            assert!(!is_secret(b"sesame", wrong));
        }
        assert!(!is_secret(b"", b"a"));
    }

    #[test]
    fn dates() {
        for (unix, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(unix), expected);
        }
        date(u64::MAX);
        assert_eq!(date_millis(951_782_399_007), "2000-02-28T23:59:59.007Z");
    }
}
