//! What a channel's modes say, and what rank a member has in it.

/// What a member may do in a channel beyond the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rank {
    /// Changes modes, kicks and invites.
    pub(super) operator: bool,
    /// Speaks where only some may.
    pub(super) voice: bool,
}

impl Rank {
    /// Of the first to join.
    pub(super) const OPERATOR: Rank = Rank { operator: true, voice: false };

    /// The signs before its nickname: the highest one, or all that it has.
    pub(super) fn signs(self, all: bool) -> &'static [u8] {
        match (self.operator, self.voice) {
            (true, true) if all => b"@+",
            (true, _) => b"@",
            (false, true) => b"+",
            (false, false) => b"",
        }
    }

    /// Whether it speaks where others are not heard.
    pub(super) fn is_heard(self) -> bool {
        self.operator || self.voice
    }
}

/// A mode of a channel that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    InviteOnly,
    Moderated,
    MembersOnly,
    Secret,
    GuardedTopic,
}

/// All flags with their letters, in the order in which 324 tells them.
pub(super) const FLAGS: [(u8, Flag); 5] = [
    (b'i', Flag::InviteOnly),
    (b'm', Flag::Moderated),
    (b'n', Flag::MembersOnly),
    (b's', Flag::Secret),
    (b't', Flag::GuardedTopic),
];

/// Longest key of a channel, in bytes (RFC 2812, 2.3.1; KEYLEN in 005).
pub(super) const KEY: usize = 23;

/// The modes of a channel, its lists not among them.
#[derive(Debug)]
pub(super) struct Modes {
    flags: u8,
    pub(super) key: Option<Box<[u8]>>,
    pub(super) limit: Option<u32>,
}

impl Modes {
    /// Of a new channel: only its members speak in it.
    pub(super) fn new() -> Modes {
        let mut modes = Modes { flags: 0, key: None, limit: None };
        modes.set(Flag::MembersOnly, true);
        modes
    }

    pub(super) fn has(&self, flag: Flag) -> bool {
        self.flags & flag.bit() != 0
    }

    /// Switches a flag. Returns whether it was otherwise before.
    pub(super) fn set(&mut self, flag: Flag, on: bool) -> bool {
        let before = self.flags;
        self.flags = if on { before | flag.bit() } else { before & !flag.bit() };
        before != self.flags
    }

    /// As 324 tells them. What the key is, only members are told.
    pub(super) fn show(&self, to_member: bool) -> Vec<u8> {
        let mut shown = vec![b'+'];
        shown.extend(FLAGS.iter().filter(|(_, flag)| self.has(*flag)).map(|(letter, _)| letter));
        let mut params = Vec::new();
        if let Some(key) = &self.key {
            shown.push(b'k');
            if to_member {
                params.push(b' ');
                params.extend_from_slice(key);
            }
        }
        if let Some(limit) = self.limit {
            shown.push(b'l');
            params.extend_from_slice(format!(" {limit}").as_bytes());
        }
        shown.extend(params);
        shown
    }
}

impl Flag {
    fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The flag with this letter.
    pub(super) fn new(letter: u8) -> Option<Flag> {
        FLAGS.iter().find(|(other, _)| *other == letter).map(|(_, flag)| *flag)
    }
}

/// Whether `key` can be a channel's: it is one parameter, and one item of a list, wherever it
/// stands.
pub(super) fn is_key(key: &[u8]) -> bool {
    let harmless = |byte: &u8| byte.is_ascii_graphic() && *byte != b',';
    (1..=KEY).contains(&key.len()) && key[0] != b':' && key.iter().all(harmless)
}

/// A change of modes that has been made, to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) on: bool,
    pub(super) letter: u8,
    /// Empty where the mode takes none.
    pub(super) param: Vec<u8>,
}

/// Puts changes into pieces of at most `room` bytes, as few as it takes: so none is told in part. A
/// piece is letters and then parameters (`+ov-b ann bob x!*@*`).
pub(super) fn in_pieces(changes: &[Change], room: usize) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let (mut letters, mut params, mut sign) = (Vec::new(), Vec::new(), None);
    for change in changes {
        // A sign, the letter, and a space before the parameter.
        let most = 3 + change.param.len();
        if letters.len() + params.len() + most > room && !letters.is_empty() {
            pieces.push([core::mem::take(&mut letters), core::mem::take(&mut params)].concat());
            sign = None;
        }
        if sign != Some(change.on) {
            letters.push(if change.on { b'+' } else { b'-' });
            sign = Some(change.on);
        }
        letters.push(change.letter);
        if !change.param.is_empty() {
            params.push(b' ');
            params.extend_from_slice(&change.param);
        }
    }
    if !letters.is_empty() {
        pieces.push([letters, params].concat());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(on: bool, letter: u8, param: &str) -> Change {
        Change { on, letter, param: param.into() }
    }

    #[test]
    fn changes_are_told_whole() {
        let changes =
            [change(true, b'o', "ann"), change(true, b'm', ""), change(false, b'v', "bob")];
        assert_eq!(in_pieces(&changes, 100), [b"+om-v ann bob"]);
        assert_eq!(in_pieces(&changes, 12), [&b"+om ann"[..], b"-v bob"]);
        assert_eq!(in_pieces(&changes, 1), [&b"+o ann"[..], b"+m", b"-v bob"]);
        assert!(in_pieces(&[], 100).is_empty());
    }

    #[test]
    fn a_piece_may_be_as_long_as_there_is_room() {
        let changes = [change(true, b'o', "ann"), change(false, b'v', "bob")];
        assert_eq!(in_pieces(&changes, 12), [b"+o-v ann bob"]);
        assert_eq!(in_pieces(&changes, 11), [b"+o ann", b"-v bob"]);
    }

    #[test]
    fn only_members_see_the_key() {
        let mut modes = Modes::new();
        assert_eq!(modes.show(true), b"+n");
        assert!(modes.set(Flag::Secret, true) && !modes.set(Flag::Secret, true));
        modes.key = Some(b"sesame"[..].into());
        modes.limit = Some(7);
        assert_eq!(modes.show(true), b"+nskl sesame 7");
        assert_eq!(modes.show(false), b"+nskl 7");
    }

    #[test]
    fn keys() {
        for good in ["a", "a:b", &"k".repeat(23)] {
            assert!(is_key(good.as_bytes()), "{good:?}");
        }
        for bad in ["", ":a", "a b", "a,b", "a\x01", "é", &"k".repeat(24)] {
            assert!(!is_key(bad.as_bytes()), "{bad:?}");
        }
    }
}
