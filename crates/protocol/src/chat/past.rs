//! Who has been here under which nickname: what WHOWAS tells.

use std::collections::VecDeque;

use super::members::Member;
use super::names;

/// Most that are remembered, of all nicknames together: the oldest gives way.
const MOST: usize = 256;

/// One member that had a nickname.
pub(super) struct Former {
    pub(super) nick: Box<[u8]>,
    pub(super) user: Box<[u8]>,
    pub(super) host: Box<[u8]>,
    pub(super) real_name: Box<[u8]>,
    /// Until when: seconds since 1970.
    pub(super) until: u64,
}

/// The oldest first.
#[derive(Default)]
pub(super) struct Past {
    all: VecDeque<Former>,
}

impl Past {
    /// A member goes, or takes another nickname.
    pub(super) fn note(&mut self, member: &Member, until: u64) {
        if self.all.len() >= MOST {
            self.all.pop_front();
        }
        let Member { nick, user, host, real_name, .. } = member;
        self.all.push_back(Former {
            nick: nick.clone(),
            user: user.clone(),
            host: host.clone(),
            real_name: real_name.clone(),
            until,
        });
    }

    /// Those that were called `nick`, the latest first.
    pub(super) fn named(&self, nick: &[u8]) -> impl Iterator<Item = &Former> {
        self.all.iter().rev().filter(move |former| names::same(&former.nick, nick))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConnId, Time};

    #[test]
    fn the_oldest_give_way() {
        let mut past = Past::default();
        let mut member = Member::new(ConnId::from_bits(0), "h", Time::ZERO);
        for n in 0..300 {
            member.nick = format!("n{}", n % 3).into_bytes().into();
            past.note(&member, n);
        }
        let untils: Vec<_> = past.named(b"N1").map(|former| former.until).collect();
        assert_eq!((untils[0], untils.len()), (298, 85));
        assert_eq!(untils[84], 46);
        assert!(past.named(b"n4").next().is_none());
    }
}
