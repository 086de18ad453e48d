//! What has come, against what is due: every byte of every line that an echo gives back.
//!
//! The right answer is never stored. It is computed again ([`Payload`]) and compared where it lies
//! in the receive buffer. Once something is wrong, the connection is read line by line, to say what
//! it was. The deliveries of chat are checked in `ledger`.

use super::faults::{Fault, FaultLog};
use super::line::{Conn, Lines, Notes};
use super::payload::{Payload, parse_header};
use super::window::Window;
use crate::base::text::quoted;

impl<N: Notes> Lines<N> {
    /// Compares what was received with what is due. Returns how many lines are answered.
    #[inline]
    pub(super) fn check(
        &mut self,
        index: usize,
        received: usize,
        now: u64,
        window: &mut Window,
    ) -> u32 {
        let conn = &mut self.conns[index];
        let payload = &self.payload;
        let mut data = &self.inbox[..received];
        let before = conn.next;
        while !data.is_empty() && conn.wrong.is_none() {
            let size = payload.text_len(conn.id, conn.next) + 1;
            let take = data.len().min(size - conn.matched);
            let asked = if conn.next == conn.sent { conn.sent_bytes } else { size };
            let right = conn.matched + take <= asked
                && if take == size {
                    data[size - 1] == b'\n' && payload.is(conn.id, conn.next, &data[..size - 1])
                } else {
                    payload.continues(conn.id, conn.next, conn.matched, &data[..take])
                };
            if !right {
                let mut seen = line(payload, conn.id, conn.next);
                seen.truncate(conn.matched);
                conn.matched = 0;
                conn.wrong = Some(seen);
                break;
            }
            conn.matched += take;
            data = &data[take..];
            if conn.matched == size {
                self.notes.answered(index, conn.next, now, window);
                conn.matched = 0;
                conn.next = conn.next.wrapping_add(1);
            }
        }
        if conn.wrong.is_some() {
            examine(conn, payload, data, &mut window.faults);
        }
        let answers = conn.next.wrapping_sub(before);
        window.total += u64::from(answers);
        answers
    }
}

/// The line `(conn, seq)` with its end.
fn line(payload: &Payload, conn: u32, seq: u32) -> Vec<u8> {
    let mut line = vec![b'\n'; payload.text_len(conn, seq) + 1];
    payload.write(conn, seq, &mut line);
    line
}

/// Reads a connection on which something was wrong line by line, and says what it was.
#[cold]
pub(super) fn examine(conn: &mut Conn, payload: &Payload, data: &[u8], faults: &mut FaultLog) {
    let mut buffer = conn.wrong.take().unwrap_or_default();
    buffer.extend_from_slice(data);
    let mut at = 0;
    while let Some(end) = memchr::memchr(b'\n', &buffer[at..]) {
        name_fault(conn, payload, &buffer[at..at + end], faults);
        at += end + 1;
    }
    buffer.drain(..at);
    let unasked = conn.next == conn.sent && buffer.len() > conn.sent_bytes;
    if unasked || buffer.len() > 2 * payload.longest() + 2 {
        let fault = if unasked { Fault::Early } else { Fault::Altered };
        faults.add(fault, 1, || format!("connection {}: {}", conn.id, quoted(&buffer)));
        buffer.clear();
    }
    conn.wrong = Some(buffer);
}

/// Names the fault of one line, and finds the place from which to go on.
fn name_fault(conn: &mut Conn, payload: &Payload, text: &[u8], faults: &mut FaultLog) {
    let (id, next) = (conn.id, conn.next);
    let waiting = conn.sent.wrapping_sub(next);
    if waiting > 0 && payload.is(id, next, text) {
        conn.next = next.wrapping_add(1);
        return;
    }
    let describe = || format!("connection {id}: line {next} is due, came {}", quoted(text));
    let stream = u64::from(id);
    match parse_header(text) {
        Some((from, seq)) if from == id && payload.is(id, seq, text) => {
            let ahead = seq.wrapping_sub(next);
            if ahead > u32::MAX / 2 {
                faults.behind(stream, seq, describe);
            } else if ahead >= waiting {
                faults.add(Fault::Early, 1, describe);
            } else {
                faults.gap(stream, next, seq, describe);
                conn.next = seq.wrapping_add(1);
            }
            return;
        }
        // An answer begins with its header, so this is none.
        _ if text.starts_with(b"ERR ") => {
            faults.refused(id, text);
            if waiting == 0 {
                return;
            }
        }
        _ if waiting == 0 => return faults.add(Fault::Early, 1, describe),
        Some((from, seq)) if from != id && payload.is(from, seq, text) => {
            faults.add(Fault::Crossed, 1, describe);
        }
        _ if payload.is_prefix(id, next, text) => faults.add(Fault::Truncated, 1, describe),
        _ => faults.add(Fault::Altered, 1, describe),
    }
    // Whatever it was, it came in the place of the line that was due.
    conn.next = next.wrapping_add(1);
}

#[cfg(test)]
mod tests {
    use super::super::offline::OfflineEcho;
    use super::Fault;

    /// Connection 1; texts of 20 bytes, so lines of 21.
    const ID: u32 = 1;
    const LINE: usize = 21;

    /// What is wrong with an answer.
    type Faults = Vec<(Fault, u64)>;

    fn echo() -> OfflineEcho {
        OfflineEcho::new(7, &[(LINE - 1, 1)]).unwrap()
    }

    /// How many lines are answered, and what is wrong, when `sent` bytes were sent and `came` comes
    /// back in pieces of so many bytes.
    fn seen(echo: &mut OfflineEcho, sent: usize, came: &[u8], piece: usize) -> (u32, Faults) {
        echo.begin(ID, sent).unwrap();
        let answered = came.chunks(piece).map(|piece| echo.check(piece)).sum();
        (answered, echo.settle().counts().collect())
    }

    /// These lines of the connection, one after the other.
    fn lines(echo: &OfflineEcho, seqs: &[u32]) -> Vec<u8> {
        seqs.iter().flat_map(|&seq| echo.line(ID, seq)).collect()
    }

    /// Asserts what is wrong, whatever the pieces.
    fn assert_seen(echo: &mut OfflineEcho, sent: usize, came: &[u8], expected: &[(Fault, u64)]) {
        for piece in [1, 2, LINE - 1, LINE, LINE + 1, 50, 4096] {
            let (_, faults) = seen(echo, sent, came, piece);
            assert_eq!(faults, expected, "in pieces of {piece}: {}", came.escape_ascii());
        }
    }

    #[test]
    fn right_answers_are_counted_in_whatever_pieces_they_come() {
        let mut echo = echo();
        let came = lines(&echo, &[0, 1, 2, 3]);
        for piece in 1..=came.len() {
            assert_eq!(seen(&mut echo, came.len(), &came, piece), (4, vec![]), "{piece}");
            assert_eq!(echo.window.total, 4);
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let mut echo = echo();
        let sent = 4 * LINE;
        for (seqs, fault) in [
            (&[0, 2, 3][..], Fault::Lost),
            (&[0, 0, 1, 2, 3], Fault::Repeated),
            (&[0, 1, 1, 2, 3], Fault::Repeated),
            (&[0, 2, 1, 3], Fault::Reordered),
            (&[0, 9, 1, 2, 3], Fault::Early),
            (&[0, 1 + u32::MAX / 2, 1, 2, 3], Fault::Early),
            (&[0, 2 + u32::MAX / 2, 1, 2, 3], Fault::Repeated),
        ] {
            let came = lines(&echo, seqs);
            assert_seen(&mut echo, sent, &came, &[(fault, 1)]);
        }
        let came = lines(&echo, &[3]);
        assert_seen(&mut echo, sent, &came, &[(Fault::Lost, 3)]);
        let came = lines(&echo, &[0, 1, 2, 3, 4]);
        assert_eq!(seen(&mut echo, sent, &came, LINE), (4, vec![(Fault::Early, 1)]));
        let whole = lines(&echo, &[1]);
        let crossed = echo.line(ID + 1, 1);
        let mut altered = whole.clone();
        altered[LINE - 2] ^= 1;
        let mut of_none = crossed.clone();
        of_none[LINE - 2] ^= 1;
        let mut unended = whole.clone();
        unended[LINE - 1] = b'x';
        unended.push(b'\n');
        for (second, fault) in [
            (&b"\n"[..], Fault::Truncated),
            (&[&whole[..LINE - 2], b"\n"].concat(), Fault::Truncated),
            (&altered, Fault::Altered),
            (&of_none, Fault::Altered),
            (&unended, Fault::Altered),
            (b"ERROR\n", Fault::Altered),
            (&crossed, Fault::Crossed),
            (b"ERR too long\n", Fault::Refused),
        ] {
            let came = [&lines(&echo, &[0]), second, &lines(&echo, &[2, 3])].concat();
            assert_seen(&mut echo, sent, &came, &[(fault, 1)]);
        }
    }

    #[test]
    fn what_comes_before_it_was_asked_for_is_early() {
        let mut echo = echo();
        // One line and half of another were asked for.
        let (sent, asked) = (LINE + 10, lines(&echo, &[0, 1]));
        assert_seen(&mut echo, sent, &asked[..LINE + 10], &[(Fault::Truncated, 1)]);
        let early = [(Fault::Early, 1), (Fault::Unanswered, 1)];
        assert_seen(&mut echo, sent, &asked[..LINE + 11], &early);
        let came = [&lines(&echo, &[0])[..], b"\n"].concat();
        assert_seen(&mut echo, LINE, &came, &[(Fault::Early, 1)]);
        // A server may say at any time why it does not go on.
        let came = [&lines(&echo, &[0])[..], b"ERR closing\n"].concat();
        assert_eq!(seen(&mut echo, LINE, &came, 4096), (1, vec![(Fault::Refused, 1)]));
    }

    #[test]
    fn what_has_no_end_is_told_before_it_fills_the_memory() {
        let mut echo = echo();
        let first = lines(&echo, &[0]);
        let most = 2 * (LINE - 1) + 2;
        for (len, expected) in [
            (most, &[(Fault::Unanswered, 3)][..]),
            (most + 1, &[(Fault::Altered, 1), (Fault::Unanswered, 3)]),
        ] {
            let came = [&first[..], &vec![b'?'; len]].concat();
            assert_seen(&mut echo, 4 * LINE, &came, expected);
        }
    }

    #[test]
    fn what_never_comes_is_unanswered() {
        let mut echo = echo();
        assert_seen(&mut echo, 4 * LINE, b"", &[(Fault::Unanswered, 4)]);
        let came = lines(&echo, &[0, 1]);
        assert_seen(&mut echo, 4 * LINE, &came, &[(Fault::Unanswered, 2)]);
    }
}
