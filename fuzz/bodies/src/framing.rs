//! Framing: any split of a stream gives the lines that the whole stream has.

use protocol::{Line, LineLimit, Lines};

/// How a piece of the stream is handed over.
enum Way {
    Next,
    RelayOrNext,
    HoldFirst,
}

/// The first two bytes are the limits, the next eight say how to cut; the rest is the stream.
pub fn framing(data: &[u8]) {
    let Some((&[plain, tagged], data)) = data.split_first_chunk() else { return };
    let Some((cuts, stream)) = data.split_first_chunk::<8>() else { return };
    let plain = 1 + usize::from(plain % 64);
    let limit = LineLimit { plain, tagged: plain + usize::from(tagged % 64) };
    // `relay` knows one limit, as echo does.
    let echo = limit.tagged == limit.plain;

    let (mut lines, mut found) = (Lines::default(), Vec::new());
    let (mut rest, mut at) = (stream, 0);
    while !rest.is_empty() {
        let cut = cuts[at % cuts.len()].wrapping_add((at / cuts.len()) as u8);
        let (piece, after) = rest.split_at(rest.len().min(1 + usize::from(cut >> 2)));
        let way = match cut & 3 {
            0 | 1 => Way::Next,
            2 if echo => Way::RelayOrNext,
            _ => Way::HoldFirst,
        };
        hand_over(&mut lines, piece, limit, &way, &mut found);
        assert!(lines.len() <= limit.tagged, "more than a line is kept");
        (rest, at) = (after, at + 1);
    }
    assert_eq!(found, expected(stream, limit));
}

/// Hands one piece over, and takes the lines that are whole then.
fn hand_over(
    lines: &mut Lines,
    mut piece: &[u8],
    limit: LineLimit,
    way: &Way,
    found: &mut Vec<Option<Vec<u8>>>,
) {
    match way {
        Way::Next => {}
        Way::RelayOrNext => {
            let relayed = lines.relay(piece, limit.plain, |bytes| {
                let whole = bytes.split_inclusive(|&byte| byte == b'\n');
                for part in whole {
                    match found.last_mut() {
                        // The held beginning of a line comes first, its end with the next piece.
                        Some(Some(last)) if last.last() != Some(&b'\n') => last.extend(part),
                        _ => found.push(Some(part.to_vec())),
                    }
                }
            });
            if relayed {
                return;
            }
        }
        Way::HoldFirst => lines.hold(core::mem::take(&mut piece)),
    }
    while let Some(line) = lines.next_of(&mut piece, limit) {
        match line {
            Line::Whole(bytes) => found.push(Some(bytes.to_vec())),
            Line::TooLong => found.push(None),
            other => panic!("framing found {other:?}"),
        }
    }
    assert!(piece.is_empty(), "a piece was not taken");
}

/// What must be found, told by looking at the whole stream; `None` is a line over the limit.
fn expected(stream: &[u8], limit: LineLimit) -> Vec<Option<Vec<u8>>> {
    let mut expected = Vec::new();
    for line in stream.split_inclusive(|&byte| byte == b'\n') {
        let most = if line[0] == b'@' { limit.tagged } else { limit.plain };
        let whole = line.last() == Some(&b'\n');
        if line.len() > most {
            expected.push(None);
        } else if whole {
            expected.push(Some(line.to_vec()));
        }
    }
    expected
}
