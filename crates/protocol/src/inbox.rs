//! Mail on its way from a worker to the task that owns the member.

use crate::{Limits, Parcel};

/// What a worker has taken from the hub for a member that a task of its own serves, until that
/// task comes to it. Bounded like a send queue.
#[derive(Default)]
pub struct Inbox {
    parcels: Vec<Parcel>,
    /// Bytes of text.
    bytes: usize,
    full: bool,
}

impl Inbox {
    /// Adds a parcel. Returns whether speakers should now wait for the owner:
    /// [`crate::Hub::press`].
    #[must_use]
    pub fn push(&mut self, parcel: Parcel, limits: &Limits) -> bool {
        match &parcel {
            Parcel::Text(_) if self.full => {}
            Parcel::Text(message) if self.bytes + message.len() > limits.sendq => {
                self.full = true;
                self.parcels.push(Parcel::Overrun);
            }
            Parcel::Text(message) => {
                self.bytes += message.len();
                self.parcels.push(parcel);
            }
            _ => self.parcels.push(parcel),
        }
        self.is_pressed(limits)
    }

    /// Whether speakers wait until it is taken; then say so: [`crate::Hub::relieve`].
    #[must_use]
    pub fn is_pressed(&self, limits: &Limits) -> bool {
        self.bytes > limits.high_water()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }
}

impl IntoIterator for Inbox {
    type Item = Parcel;
    type IntoIter = std::vec::IntoIter<Parcel>;

    fn into_iter(self) -> Self::IntoIter {
        self.parcels.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    #[test]
    fn it_presses_early_and_runs_over_once() {
        let limits = Limits { sendq: 40, ..Limits::default() };
        let text = || Parcel::Text(Message::from(&b"123456789\n"[..]));
        let mut inbox = Inbox::default();
        assert!(inbox.is_empty());
        let pressed: Vec<_> = (0..6).map(|_| inbox.push(text(), &limits)).collect();
        assert_eq!(pressed, [false, true, true, true, true, true]);
        assert!(inbox.push(Parcel::Close(Message::default()), &limits));
        let parcels: Vec<_> = inbox.into_iter().collect();
        let [texts @ .., Parcel::Overrun, Parcel::Close(_)] = &parcels[..] else {
            panic!("{parcels:?}");
        };
        assert_eq!(texts.len(), 4);
    }
}
