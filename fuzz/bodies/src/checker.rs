//! The generator's check of an echo: right streams have no fault, in whatever pieces they come, and
//! a stream that differs in one byte has.

use std::cell::RefCell;

use arbitrary::{Result, Unstructured};
use loadgen::drive::OfflineEcho;

const SEED: u64 = 7;
const SIZES: &[(usize, u32)] = &[(15, 3), (16, 2), (40, 1)];
/// Lines of a stream.
const LINES: u32 = 12;

thread_local! {
    // Its table of texts takes longer to make than a check takes.
    static TRIAL: RefCell<Option<OfflineEcho>> = const { RefCell::new(None) };
}

/// The bytes say how much was sent, what comes back, and in which pieces.
pub fn checker(data: &[u8]) {
    TRIAL.with_borrow_mut(|kept| {
        let echo = kept.get_or_insert_with(|| OfflineEcho::new(SEED, SIZES).expect("a poller"));
        // What is missing at the end of the bytes changes nothing.
        let _ = run(echo, &mut Unstructured::new(data));
    });
}

fn run(echo: &mut OfflineEcho, input: &mut Unstructured<'_>) -> Result<()> {
    let id = input.int_in_range(0..=2)?;
    let mut sent: Vec<u8> = (0..LINES).flat_map(|seq| echo.line(id, seq)).collect();
    sent.truncate(input.int_in_range(0..=sent.len())?);
    let asked = sent.iter().filter(|&&byte| byte == b'\n').count();

    let mut came = sent.clone();
    for _ in 0..input.int_in_range(0..=3)? {
        change(echo, input, &mut came)?;
    }
    if input.ratio(1_u8, 16_u8)? {
        came = input.arbitrary::<&[u8]>()?.to_vec();
    }

    echo.begin(id, sent.len()).expect("an open file");
    let mut answered = 0;
    let mut rest = &came[..];
    while !rest.is_empty() {
        let piece = input.int_in_range(1..=64).unwrap_or(rest.len()).min(rest.len());
        let (now, after) = rest.split_at(piece);
        answered += echo.check(now) as usize;
        rest = after;
    }
    let faults = echo.settle();
    assert_eq!(faults.is_empty(), came == sent && sent.ends_with_line(), "{faults:?}");
    if faults.is_empty() {
        assert_eq!(answered, asked, "lines were not counted");
    }
    Ok(())
}

trait EndsWithLine {
    fn ends_with_line(&self) -> bool;
}

impl EndsWithLine for Vec<u8> {
    /// A line that was sent in part is not answered: that is a fault at the end of a phase.
    fn ends_with_line(&self) -> bool {
        self.last().is_none_or(|&last| last == b'\n')
    }
}

/// What servers do wrong: a byte altered, lines or parts lost, repeated, swapped, or of another
/// connection.
fn change(echo: &OfflineEcho, input: &mut Unstructured<'_>, came: &mut Vec<u8>) -> Result<()> {
    let at = input.int_in_range(0..=came.len())?;
    let to = input.int_in_range(at..=came.len())?;
    match input.int_in_range(0..=5_u8)? {
        0 if at < came.len() => came[at] = input.arbitrary()?,
        1 => drop(came.drain(at..to)),
        2 => {
            let part = came[at..to].to_vec();
            came.splice(to..to, part);
        }
        3 => came.rotate_left(at),
        4 => {
            let other = echo.line(input.int_in_range(0..=3)?, input.int_in_range(0..=LINES + 2)?);
            came.splice(at..at, other);
        }
        _ => {
            let bytes: &[u8] = input.arbitrary()?;
            came.splice(at..at, bytes.iter().copied());
        }
    }
    Ok(())
}
