//! The capabilities of IRCv3 that a client may ask for.

/// One capability. The first three change the form of what is sent to many ([`FORMS`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cap {
    ServerTime,
    MessageTags,
    ExtendedJoin,
    AwayNotify,
    Batch,
    /// `cap-notify`
    Notify,
    EchoMessage,
    InviteNotify,
    LabeledResponse,
    MultiPrefix,
    Setname,
    UserhostInNames,
    /// Hears of those it watches for what it hears of those with whom it shares a channel.
    ExtendedMonitor,
}

/// All of them, as CAP names them.
const NAMES: [(&[u8], Cap); 13] = [
    (b"away-notify", Cap::AwayNotify),
    (b"batch", Cap::Batch),
    (b"cap-notify", Cap::Notify),
    (b"echo-message", Cap::EchoMessage),
    (b"extended-join", Cap::ExtendedJoin),
    (b"extended-monitor", Cap::ExtendedMonitor),
    (b"invite-notify", Cap::InviteNotify),
    (b"labeled-response", Cap::LabeledResponse),
    (b"message-tags", Cap::MessageTags),
    (b"multi-prefix", Cap::MultiPrefix),
    (b"server-time", Cap::ServerTime),
    (b"setname", Cap::Setname),
    (b"userhost-in-names", Cap::UserhostInNames),
];

/// How many forms there are of a message to many, the plain one among them.
pub(super) const FORMS: usize = 8;

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Caps(u16);

impl Caps {
    pub(super) fn has(self, cap: Cap) -> bool {
        self.0 & 1 << cap as u16 != 0
    }

    pub(super) fn set(&mut self, cap: Cap, on: bool) {
        let bit = 1 << cap as u16;
        self.0 = if on { self.0 | bit } else { self.0 & !bit };
    }

    /// Which form of a message is meant for a receiver with these capabilities, where those of
    /// `matters` make a difference to it; 0 is the plain one.
    pub(super) fn form(self, matters: Caps) -> usize {
        usize::from(self.0 & matters.0) % FORMS
    }

    /// The capabilities that a form is for.
    pub(super) fn of_form(form: usize) -> Caps {
        Caps((form % FORMS) as u16)
    }

    /// What `wanted` makes of these: names, those with a `-` to be given up. None when one of them
    /// is not known.
    pub(super) fn after(mut self, wanted: &[u8]) -> Option<Caps> {
        for name in wanted.split(|&byte| byte == b' ').filter(|name| !name.is_empty()) {
            let (name, on) = name.strip_prefix(b"-").map_or((name, true), |name| (name, false));
            let (_, cap) = NAMES.iter().find(|(other, _)| *other == name)?;
            self.set(*cap, on);
        }
        Some(self)
    }

    /// Their names, with a space between.
    pub(super) fn names(self) -> Vec<u8> {
        let own = NAMES.iter().filter(|(_, cap)| self.has(*cap));
        own.map(|(name, _)| *name).collect::<Vec<_>>().join(&b' ')
    }

    /// All that there are.
    pub(super) fn all() -> Caps {
        let mut all = Caps::default();
        NAMES.iter().for_each(|(_, cap)| all.set(*cap, true));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_asked_for_by_name() {
        let caps = Caps::default().after(b"server-time  batch -setname").unwrap();
        assert_eq!(caps.names(), b"batch server-time");
        assert_eq!(caps.after(b"-batch").unwrap().names(), b"server-time");
        assert!(caps.after(b"batch sasl").is_none() && caps.after(b"--batch").is_none());
        assert_eq!(Caps::all().names().split(|&byte| byte == b' ').count(), NAMES.len());
        assert_eq!(Caps::all().form(Caps::all()), FORMS - 1);
        assert_eq!(Caps::of_form(caps.form(Caps::all())).names(), b"server-time");
    }
}
