//! The packets that the processes of `serve-prefork` send to each other.

// The framing is part of a program, and needs nothing else of it.
#[allow(dead_code, unreachable_pub)]
#[path = "../../../crates/serve-prefork/src/frame.rs"]
mod frame;

use arbitrary::{Arbitrary, Unstructured};
use protocol::{ConnId, Hears, Line, Mail, Parcel, Time};

use self::frame::Packets;

#[derive(Arbitrary, Debug)]
enum Push<'a> {
    Whole(&'a [u8]),
    TooLong,
    Refused,
    End,
    Text(&'a [u8]),
    /// A line of so many bytes, so many times.
    Lines(u8, u16),
    Welcome,
    Overrun,
    Close(&'a [u8]),
}

/// The bytes are read as a packet, and then as a list of things to pack.
pub fn frames(data: &[u8]) {
    take_apart(data);
    let mut input = Unstructured::new(data);
    let Ok(bits) = input.arbitrary() else { return };
    let Ok(written) = input.arbitrary::<Option<u32>>() else { return };
    let pushes =
        core::iter::from_fn(|| if input.is_empty() { None } else { input.arbitrary().ok() });
    pack(ConnId::from_bits(bits), written, pushes);
}

/// Whatever comes, a frame lies within its packet, and none is invented.
fn take_apart(packet: &[u8]) {
    let (_, frames) = frame::open(packet);
    let mut used = 8;
    for (_, payload) in frames {
        assert_eq!(payload, &packet[used + 5..used + 5 + payload.len()]);
        used += 5 + payload.len();
    }
    assert!(used == 8 || used <= packet.len());
    assert!(frame::mail(packet).count() <= frame::open(packet).1.count());
}

/// What is packed comes out again, in order, in packets that are not too long.
fn pack<'a>(id: ConnId, written: Option<u32>, pushes: impl Iterator<Item = Push<'a>>) {
    let mut packets = match written {
        Some(written) => Packets::of_lines(id, written),
        None => Packets::new(id),
    };
    let (mut lines, mut mail) = (Vec::new(), Vec::new());
    for push in pushes {
        match push {
            Push::Whole(line) => {
                // A session gives no longer line.
                let line = &line[..line.len().min(8 << 10)];
                let room = packets.line(id, Line::Whole(line), Time::ZERO);
                lines.push((if room { frame::LINE } else { frame::ASK }, line.to_vec()));
            }
            Push::TooLong => {
                packets.line(id, Line::TooLong, Time::ZERO);
                lines.push((frame::TOO_LONG, Vec::new()));
            }
            Push::Refused => {
                packets.line(id, Line::Refused("a reason"), Time::ZERO);
                lines.push((frame::CUT, b"a reason".to_vec()));
            }
            Push::End => {
                packets.line(id, Line::End, Time::ZERO);
                lines.push((frame::END, Vec::new()));
            }
            Push::Text(text) => add(Parcel::Text(text.into()), &mut packets, &mut mail),
            Push::Lines(len, count) => {
                let mut line = vec![b'x'; len.into()];
                line.push(b'\n');
                let text = line.repeat(usize::from(count) % 1000);
                add(Parcel::Text(text.into()), &mut packets, &mut mail);
            }
            Push::Welcome => add(Parcel::Welcome, &mut packets, &mut mail),
            Push::Overrun => add(Parcel::Overrun, &mut packets, &mut mail),
            Push::Close(last) => {
                let last = &last[..last.len().min(8 << 10)];
                add(Parcel::Close(last.into()), &mut packets, &mut mail);
            }
        }
    }
    check(&packets, id, written, &lines, &mail);
}

fn add(parcel: Parcel, packets: &mut Packets, mail: &mut Vec<Parcel>) {
    packets.push_parcel(&parcel);
    mail.push(parcel);
}

fn check(
    packets: &Packets,
    id: ConnId,
    written: Option<u32>,
    lines: &[(u8, Vec<u8>)],
    mail: &[Parcel],
) {
    let (mut found_lines, mut found_mail) = (Vec::new(), Vec::new());
    for packet in packets.iter() {
        assert!(packet.len() <= frame::PACKET, "a packet of {} bytes", packet.len());
        let (to, frames) = frame::open(packet);
        assert_eq!(to, id);
        let mut frames = frames.peekable();
        if let Some(written) = written {
            let first = frames.next();
            assert_eq!(first, Some((frame::WRITTEN, &written.to_le_bytes()[..])));
        }
        let kinds = [frame::LINE, frame::ASK, frame::TOO_LONG, frame::CUT, frame::END];
        found_lines.extend(
            frames.filter(|(kind, _)| kinds.contains(kind)).map(|(kind, it)| (kind, it.to_vec())),
        );
        found_mail.extend(frame::mail(packet).map(|Mail { parcel, .. }| parcel));
    }
    assert_eq!(found_lines, lines);
    assert_eq!(words(&found_mail), words(mail));
}

/// Mail with its texts joined, because a long one comes as several.
fn words(mail: &[Parcel]) -> Vec<(u8, Vec<u8>)> {
    let mut words: Vec<(u8, Vec<u8>)> = Vec::new();
    for parcel in mail {
        let (kind, bytes) = match parcel {
            Parcel::Text(text) => (b't', &text[..]),
            Parcel::Close(last) => (b'c', &last[..]),
            Parcel::Welcome => (b'w', &b""[..]),
            Parcel::Overrun => (b'o', &b""[..]),
            Parcel::Resume => (b'r', &b""[..]),
        };
        match words.last_mut() {
            Some((b't', last)) if kind == b't' => last.extend_from_slice(bytes),
            _ => words.push((kind, bytes.to_vec())),
        }
    }
    words
}
