//! Masks of members, `nick!user@host` with wildcards, and lists of them.

use super::names;

/// Longest mask, in bytes: the longest nickname, user name and host.
const MASK: usize = crate::Limits::NICK + names::USER + names::HOST + 2;

/// Most masks in one list (MAXLIST in 005).
pub(super) const MOST: usize = 60;

/// One mask of a list.
pub(super) struct Entry {
    pub(super) mask: Box<[u8]>,
    /// The nickname of the member that added it.
    pub(super) by: Box<[u8]>,
    /// Seconds since 1970.
    pub(super) at: u64,
}

/// What became of [`MaskList::add`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    New,
    Known,
    Full,
}

/// Masks that are set on a channel.
#[derive(Default)]
pub(super) struct MaskList {
    entries: Vec<Entry>,
}

impl MaskList {
    pub(super) fn add(&mut self, entry: Entry) -> Added {
        if self.entries.iter().any(|other| names::same(&other.mask, &entry.mask)) {
            return Added::Known;
        }
        if self.entries.len() >= MOST {
            return Added::Full;
        }
        self.entries.push(entry);
        Added::New
    }

    /// Takes a mask out, and gives it as it was added.
    pub(super) fn remove(&mut self, mask: &[u8]) -> Option<Box<[u8]>> {
        let place = self.entries.iter().position(|other| names::same(&other.mask, mask))?;
        Some(self.entries.remove(place).mask)
    }

    /// Whether any of them fits `name`.
    pub(super) fn fits(&self, name: &[u8]) -> bool {
        self.entries.iter().any(|entry| fits(&entry.mask, name))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }
}

/// The mask that `wanted` stands for: a nickname alone is `nick!*@*`, `user@host` is `*!user@host`.
/// None when it could fit no member, or could not stand in a line as one parameter.
pub(super) fn complete(wanted: &[u8]) -> Option<Vec<u8>> {
    let harmless = |byte: &u8| byte.is_ascii_graphic() && *byte != b',';
    if wanted.is_empty() || wanted[0] == b':' || !wanted.iter().all(harmless) {
        return None;
    }
    let (nick, rest) = match wanted.iter().position(|&byte| byte == b'!') {
        Some(place) => (&wanted[..place], Some(&wanted[place + 1..])),
        None if wanted.contains(&b'@') => (&b""[..], Some(wanted)),
        None => (wanted, None),
    };
    let rest = rest.unwrap_or_default();
    let (user, host) = match rest.iter().rposition(|&byte| byte == b'@') {
        Some(place) => (&rest[..place], &rest[place + 1..]),
        None => (rest, &b""[..]),
    };
    let mut mask =
        [any_if_empty(nick), b"!", any_if_empty(user), b"@", any_if_empty(host)].concat();
    mask.dedup_by(|one, other| *one == b'*' && *other == b'*');
    (mask.len() <= MASK).then_some(mask)
}

fn any_if_empty(part: &[u8]) -> &[u8] {
    if part.is_empty() { b"*" } else { part }
}

/// Whether `mask` fits `name`: `*` stands for any bytes, `?` for one, a letter for itself in either
/// case. No more steps than the product of the lengths, both of which are short.
pub(super) fn fits(mask: &[u8], name: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    // Where the last star stands, and the first byte that it does not stand for.
    let mut star = None;
    while place < name.len() {
        match mask.get(at) {
            Some(b'*') => {
                at += 1;
                star = Some((at, place));
            }
            Some(&byte) if byte == b'?' || byte.eq_ignore_ascii_case(&name[place]) => {
                at += 1;
                place += 1;
            }
            _ => {
                let Some((after, from)) = star else { return false };
                star = Some((after, from + 1));
                (at, place) = (after, from + 1);
            }
        }
    }
    mask[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn masks_are_completed() {
        for (wanted, mask) in [
            ("ann", "ann!*@*"),
            ("ann!u", "ann!u@*"),
            ("u@h", "*!u@h"),
            ("@h", "*!*@h"),
            ("***", "*!*@*"),
            ("a!b@c@d", "a!b@c@d"),
            ("!@", "*!*@*"),
        ] {
            assert_eq!(complete(wanted.as_bytes()).unwrap(), mask.as_bytes(), "{wanted}");
        }
        for bad in ["", ":a", "a b", "a,b", "a\x01b", "é", "\u{202e}", &"a".repeat(200)] {
            assert!(complete(bad.as_bytes()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_mask_may_name_the_longest_member() {
        let [nick, user] = [crate::Limits::NICK, names::USER].map(|len| "x".repeat(len));
        let mask = |host: usize| format!("{nick}!{user}@{}", "h".repeat(host));
        let longest = mask(names::HOST);
        assert_eq!(complete(longest.as_bytes()).as_deref(), Some(longest.as_bytes()));
        assert_eq!(complete(mask(names::HOST + 1).as_bytes()), None);
    }

    #[test]
    fn a_list_has_a_bound_and_no_mask_twice() {
        let entry = |mask: &str| Entry { mask: mask.as_bytes().into(), by: Box::default(), at: 0 };
        let mut list = MaskList::default();
        for n in 0..MOST {
            assert_eq!(list.add(entry(&format!("a{n}!*@*"))), Added::New);
        }
        assert_eq!(list.add(entry("A7!*@*")), Added::Known);
        assert_eq!(list.add(entry("b!*@*")), Added::Full);
        assert!(list.fits(b"A59!u@h") && !list.fits(b"b!u@h"));
        assert_eq!(list.remove(b"A59!*@*").as_deref(), Some(&b"a59!*@*"[..]));
        assert_eq!(list.remove(b"a59!*@*"), None);
        assert_eq!(list.iter().count(), MOST - 1);
    }

    /// As plainly as can be.
    fn fits_plainly(mask: &[u8], name: &[u8]) -> bool {
        match (mask, name) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                fits_plainly(rest, name) || !name.is_empty() && fits_plainly(mask, &name[1..])
            }
            ([b'?', rest @ ..], [_, others @ ..]) => fits_plainly(rest, others),
            ([a, rest @ ..], [b, others @ ..]) if a.eq_ignore_ascii_case(b) => {
                fits_plainly(rest, others)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_mask_fits_what_it_should(mask in "[ab*?]{0,8}", name in "[abAB]{0,10}") {
            let (mask, name) = (mask.as_bytes(), name.as_bytes());
            prop_assert_eq!(fits(mask, name), fits_plainly(mask, name));
        }
    }
}
