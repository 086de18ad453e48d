//! Which channels a LIST asks for: names, and the conditions that ELIST in 005 offers.

use super::targets;
use crate::Limits;
use crate::chat::channels::Channel;
use crate::chat::masks;

/// A number that a channel is asked for.
#[derive(Clone, Copy)]
enum Measure {
    /// How many members it has: `<n` and `>n`.
    Members,
    /// The seconds since it was created: `C<n` and `C>n`, in minutes.
    Age,
    /// The seconds since its topic was set: `T<n` and `T>n`, in minutes. None without a topic.
    TopicAge,
}

/// One condition, which holds or not.
enum Condition<'a> {
    Below(Measure, u64),
    Above(Measure, u64),
    /// `!` and a mask: the name does not fit it.
    Not(&'a [u8]),
}

/// What a LIST asks for.
pub(super) struct Wanted<'a> {
    /// Names and masks: one of them fits the name, if there are any.
    pub(super) names: Vec<&'a [u8]>,
    /// All of them hold.
    conditions: Vec<Condition<'a>>,
}

impl<'a> Wanted<'a> {
    /// Of a list of so many items at most.
    pub(super) fn new(list: &'a [u8], most: usize) -> Wanted<'a> {
        let mut wanted = Wanted { names: Vec::new(), conditions: Vec::new() };
        for item in targets(list).take(most) {
            match Condition::new(item) {
                Some(condition) => wanted.conditions.push(condition),
                None => wanted.names.push(item),
            }
        }
        wanted
    }

    /// Whether it names channels as they are called, and nothing else: then there is nothing to
    /// look for.
    pub(super) fn is_plain(&self) -> bool {
        let masked = |name: &&[u8]| name.iter().any(|byte| matches!(byte, b'*' | b'?'));
        !self.names.is_empty() && self.conditions.is_empty() && !self.names.iter().any(masked)
    }

    /// Whether a channel is one of those. `unix` is the time, in seconds since 1970.
    pub(super) fn fits(&self, channel: &Channel, unix: u64) -> bool {
        let named = |mask: &&[u8]| fits_name(mask, &channel.name);
        let holds = |condition: &Condition<'_>| condition.holds(channel, unix);
        (self.names.is_empty() || self.names.iter().any(named)) && self.conditions.iter().all(holds)
    }
}

impl<'a> Condition<'a> {
    /// None where it is a name or a mask.
    fn new(item: &'a [u8]) -> Option<Condition<'a>> {
        let (measure, unit, rest) = match item {
            [b'!', mask @ ..] => return Some(Condition::Not(mask)),
            [b'C' | b'c', rest @ ..] => (Measure::Age, 60, rest),
            [b'T' | b't', rest @ ..] => (Measure::TopicAge, 60, rest),
            rest => (Measure::Members, 1, rest),
        };
        let (sign, number) = rest.split_first()?;
        let number = core::str::from_utf8(number).ok()?.parse::<u32>().ok()?;
        let number = u64::from(number) * unit;
        match sign {
            b'<' => Some(Condition::Below(measure, number)),
            b'>' => Some(Condition::Above(measure, number)),
            _ => None,
        }
    }

    fn holds(&self, channel: &Channel, unix: u64) -> bool {
        match *self {
            Condition::Below(measure, number) => {
                measure.of(channel, unix).is_some_and(|it| it < number)
            }
            Condition::Above(measure, number) => {
                measure.of(channel, unix).is_some_and(|it| it > number)
            }
            Condition::Not(mask) => !fits_name(mask, &channel.name),
        }
    }
}

impl Measure {
    fn of(self, channel: &Channel, unix: u64) -> Option<u64> {
        match self {
            Measure::Members => u64::try_from(channel.members.len()).ok(),
            Measure::Age => Some(unix.saturating_sub(channel.created)),
            Measure::TopicAge => channel.topic.as_ref().map(|topic| unix.saturating_sub(topic.at)),
        }
    }
}

/// Whether a mask fits a name. It is held against all channels, so a mask that is longer than any
/// name fits none.
fn fits_name(mask: &[u8], name: &[u8]) -> bool {
    mask.len() <= Limits::CHANNEL && masks::fits(mask, name)
}
