//! How calls of the hub and its mail look on their way between processes.
//!
//! A packet is the id of a connection and any number of frames that concern it; a frame is its
//! kind, the length of what it carries, and that. Packets are sent over sockets that keep their
//! boundaries, so a reader never finds half of one, whatever becomes of the writer.

use protocol::{ConnId, Hears, Hub, Line, Mail, Parcel, Time};

/// To the hub: a connection has come, from this address.
pub(crate) const OPEN: u8 = 0;
/// To the hub: a line that only speaks.
pub(crate) const LINE: u8 = 1;
/// To the hub: a line whose answer may be long. The process says no other until the hub has sent
/// the answer, and behind it [`RESUME`].
pub(crate) const ASK: u8 = 2;
/// To the hub: a line that was too long.
pub(crate) const TOO_LONG: u8 = 3;
/// To the hub: no more lines come.
pub(crate) const END: u8 = 4;
/// To the hub: ask for a sign of life.
pub(crate) const PING: u8 = 5;
/// To the hub: end the member, for this reason.
pub(crate) const CUT: u8 = 6;
/// To the hub: the connection is gone, for this reason.
pub(crate) const LEAVE: u8 = 7;
/// To the hub: the server stops.
pub(crate) const STOP: u8 = 8;
/// To the hub, before lines: of all text that the hub has sent to the member, so many bytes have
/// been written to its socket, modulo 2^32. The rest waits to be read, or is still on its way.
pub(crate) const WRITTEN: u8 = 9;
const TEXT: u8 = 10;
const WELCOME: u8 = 11;
const CLOSE: u8 = 12;
const OVERRUN: u8 = 13;
const RESUME: u8 = 14;

/// No more is added to a packet that is longer than this.
const ENOUGH: usize = 16 << 10;
/// The most text in one frame.
const MOST_TEXT: usize = 32 << 10;
/// No packet is longer than this.
pub(crate) const PACKET: usize = 64 << 10;

/// Packets that concern one connection, in order.
pub(crate) struct Packets {
    id: ConnId,
    /// What each begins with, if it is known: [`WRITTEN`].
    written: Option<u32>,
    packets: Vec<Vec<u8>>,
}

impl Packets {
    pub(crate) fn new(id: ConnId) -> Packets {
        Packets { id, written: None, packets: Vec::new() }
    }

    /// Packets of lines, from a member to whose socket so much has been written.
    pub(crate) fn of_lines(id: ConnId, written: u32) -> Packets {
        Packets { written: Some(written), ..Packets::new(id) }
    }

    /// One packet of one frame.
    pub(crate) fn of(id: ConnId, kind: u8, payload: &[u8]) -> Packets {
        let mut packets = Packets::new(id);
        packets.push(kind, payload);
        packets
    }

    pub(crate) fn id(&self) -> ConnId {
        self.id
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.packets.iter().map(Vec::as_slice)
    }

    /// Adds a frame with at most [`MOST_TEXT`] bytes.
    pub(crate) fn push(&mut self, kind: u8, payload: &[u8]) {
        if self.packets.last().is_none_or(|last| last.len() > ENOUGH) {
            self.packets.push(self.id.bits().to_le_bytes().to_vec());
            if let Some(written) = self.written {
                self.add(WRITTEN, &written.to_le_bytes());
            }
        }
        self.add(kind, payload);
    }

    /// Adds a frame to the last packet.
    fn add(&mut self, kind: u8, payload: &[u8]) {
        let header = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
        if let Some(last) = self.packets.last_mut() {
            last.push(kind);
            last.extend_from_slice(&header);
            last.extend_from_slice(payload);
        }
    }

    /// Adds what [`mail`] gives back. A long text becomes several, each of whole lines.
    pub(crate) fn push_parcel(&mut self, parcel: &Parcel) {
        match parcel {
            Parcel::Text(text) => {
                let mut rest = &text[..];
                while rest.len() > MOST_TEXT {
                    let end = rest[..MOST_TEXT].iter().rposition(|&byte| byte == b'\n');
                    let (lines, after) = rest.split_at(end.map_or(MOST_TEXT, |end| end + 1));
                    self.push(TEXT, lines);
                    rest = after;
                }
                self.push(TEXT, rest);
            }
            Parcel::Welcome => self.push(WELCOME, b""),
            Parcel::Overrun => self.push(OVERRUN, b""),
            Parcel::Resume => self.push(RESUME, b""),
            Parcel::Close(last) => self.push(CLOSE, last),
        }
    }
}

/// What a session of chat says here goes to the hub, which is another process. Its answers are not
/// in the member's queue yet when the next line is looked at. So a line that may be answered at
/// length is said alone, and the next waits until its answer is here: then the session sees how
/// much the member has not read.
impl Hears for Packets {
    /// The hub counts by itself what waits, with [`WRITTEN`]: this does not know of the mail that
    /// is on its way here.
    fn note_queue(&mut self, _: ConnId, _: usize) {}

    /// The hub makes room before it takes more from the socket, and until then `send` waits.
    fn has_room(&mut self, _: ConnId) -> bool {
        true
    }

    fn line(&mut self, _: ConnId, line: Line<'_>, _: Time) -> bool {
        match line {
            Line::Whole(line) => {
                let speaks = Hub::only_speaks(line);
                self.push(if speaks { LINE } else { ASK }, line);
                return speaks;
            }
            Line::TooLong => self.push(TOO_LONG, b""),
            Line::Refused(reason) => self.push(CUT, reason.as_bytes()),
            Line::End => self.push(END, b""),
        }
        true
    }
}

/// Whom a packet concerns, and its frames. Of a packet that is none, there are none.
pub(crate) fn open(packet: &[u8]) -> (ConnId, impl Iterator<Item = (u8, &[u8])>) {
    let (id, mut rest) = packet.split_first_chunk().unwrap_or((&[0; 8], &[]));
    let frames = std::iter::from_fn(move || {
        let (&kind, after) = rest.split_first()?;
        let (length, after) = after.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (payload, after) = after.split_at_checked(length)?;
        rest = after;
        Some((kind, payload))
    });
    (ConnId::from_bits(u64::from_le_bytes(*id)), frames)
}

/// The mail in a packet.
pub(crate) fn mail(packet: &[u8]) -> impl Iterator<Item = Mail> {
    let (to, frames) = open(packet);
    frames.filter_map(move |(kind, payload)| {
        let parcel = match kind {
            TEXT => Parcel::Text(payload.into()),
            WELCOME => Parcel::Welcome,
            OVERRUN => Parcel::Overrun,
            RESUME => Parcel::Resume,
            CLOSE => Parcel::Close(payload.into()),
            _ => return None,
        };
        Some(Mail { to, parcel })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ConnId {
        ConnId::from_bits(7 << 24 | 3)
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let mut packets = Packets::new(id());
        packets.push(LINE, b"NICK ann");
        packets.push(END, b"");
        let packed: Vec<_> = packets.iter().collect();
        let (to, frames) = open(packed[0]);
        assert_eq!((to, packed.len()), (id(), 1));
        assert_eq!(frames.collect::<Vec<_>>(), [(LINE, &b"NICK ann"[..]), (END, b"")]);
    }

    #[test]
    fn every_packet_of_lines_says_what_has_been_written() {
        let mut packets = Packets::of_lines(id(), 300);
        packets.line(id(), Line::Whole(&[b'x'; ENOUGH]), Time::ZERO);
        packets.line(id(), Line::End, Time::ZERO);
        let packed: Vec<_> = packets.iter().collect();
        assert_eq!(packed.len(), 2);
        for packet in packed {
            let mut frames = open(packet).1;
            assert_eq!(frames.next(), Some((WRITTEN, &300_u32.to_le_bytes()[..])));
            assert!(frames.next().is_some_and(|(kind, _)| kind != WRITTEN));
        }
    }

    #[test]
    fn a_long_text_is_cut_between_lines_and_no_packet_is_too_long() {
        let text: Vec<u8> = (0..9000).flat_map(|n| format!("line {n}\r\n").into_bytes()).collect();
        let mut packets = Packets::new(id());
        packets.push_parcel(&Parcel::Welcome);
        packets.push_parcel(&Parcel::Text(text.clone().into()));
        let mut whole = Vec::new();
        for packet in packets.iter() {
            assert!(packet.len() <= PACKET, "{}", packet.len());
            for mail in mail(packet) {
                if let Parcel::Text(part) = mail.parcel {
                    assert!(part.ends_with(b"\r\n"));
                    whole.extend_from_slice(&part);
                }
            }
        }
        assert!(whole == text);
    }

    #[test]
    fn what_is_no_packet_holds_nothing() {
        for packet in [&b""[..], b"1234567", b"12345678\x01", b"12345678\x01\xff\xff\xff\xffabc"] {
            assert_eq!(open(packet).1.count(), 0);
        }
    }
}
