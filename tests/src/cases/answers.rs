//! Answers that grow with the server: they cut no member that asks and reads.

use std::path::PathBuf;
use std::slice;
use std::time::Duration;

use crate::cases::{Case, cases};
use crate::client::{pump, pump_for};
use crate::member::{Member, Message};
use crate::server::Server;
use crate::watchdog::Ctx;

pub(super) const CHAT: &[Case] = cases![Chat:
    two_questions_in_one_segment_are_both_answered,
    eighteen_long_answers_cut_no_reader_at_full_speed,
    eighteen_long_answers_cut_no_reader_that_is_steady,
    eighteen_long_answers_cut_no_reader_that_is_slow_but_steady,
    eighteen_questions_cut_no_reader_at_full_speed needs 3,
    eighteen_questions_cut_no_reader_that_is_steady needs 3,
    eighteen_questions_cut_no_reader_that_is_slow_but_steady needs 3,
    eighteen_lists_of_ones_own_are_whole_at_full_speed needs 2,
    eighteen_lists_of_ones_own_are_whole_when_read_steadily needs 2,
    eighteen_lists_of_ones_own_are_whole_when_read_slowly_but_steadily needs 2,
];

/// As many questions as a newcomer may ask at once after NICK and USER.
const BURST: usize = 18;

/// How a member reads what it has asked for.
#[derive(Clone, Copy)]
enum Pace {
    /// Whatever comes, at once, into the usual buffers of the kernel.
    FullSpeed,
    /// Into small buffers, with a pause of this length between two reads.
    Pauses(Duration),
}

const STEADY: Pace = Pace::Pauses(Duration::from_millis(1));
const SLOW_BUT_STEADY: Pace = Pace::Pauses(Duration::from_millis(10));

/// A question, and how its answer is known.
struct Question {
    line: &'static str,
    /// The numeric that tells a part of the answer, the one that ends it, and how many parts the
    /// whole has. Where the parts are words of a line, the words are counted.
    part: &'static str,
    end: &'static str,
    whole: usize,
}

/// A message of the day, in a file that is gone with it.
struct Motd {
    path: PathBuf,
    lines: usize,
}

impl Motd {
    fn new(lines: usize) -> Self {
        let path = std::env::temp_dir().join(format!("conformance-motd-{}", fastrand::u64(..)));
        let text: String = (0..lines).map(|n| format!("{n:>78}\n")).collect();
        std::fs::write(&path, text).expect("write a message of the day");
        Motd { path, lines }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("a path that is text")
    }

    fn question(&self) -> Question {
        Question { line: "MOTD", part: "372", end: "376", whole: self.lines }
    }
}

impl Drop for Motd {
    fn drop(&mut self) {
        // A file that stays behind in the folder for such files does no harm.
        drop(std::fs::remove_file(&self.path));
    }
}

/// 23: `MOTD` twice in one segment, of a message that would fill most of the send queue: both
/// answers come, each whole or with an end that says that it is not.
fn two_questions_in_one_segment_are_both_answered(ctx: &Ctx) {
    let motd = Motd::new(9_000);
    let server = ctx.chat(&["--motd", motd.path(), "--sendq", "1MiB"]);
    let mut asker = server.member("asker");
    ask(&mut asker, &motd.question(), 2, Pace::FullSpeed, 1 << 20);
    asker.hears_nothing();
}

/// 23: As many long answers as can be asked for at once, read as fast as they come.
fn eighteen_long_answers_cut_no_reader_at_full_speed(ctx: &Ctx) {
    ask_for_long_answers(ctx, Pace::FullSpeed);
}

/// 23: The same, read steadily.
fn eighteen_long_answers_cut_no_reader_that_is_steady(ctx: &Ctx) {
    ask_for_long_answers(ctx, STEADY);
}

/// 23: The same, read slowly but steadily.
fn eighteen_long_answers_cut_no_reader_that_is_slow_but_steady(ctx: &Ctx) {
    ask_for_long_answers(ctx, SLOW_BUT_STEADY);
}

/// With the limits as they are by default, or smaller where the reader is so slow that it would
/// take minutes.
#[track_caller]
fn ask_for_long_answers(ctx: &Ctx, pace: Pace) {
    let (sendq, lines) = match pace {
        // Beyond what may be queued, and within.
        Pace::FullSpeed => (1 << 20, [9_000, 600]),
        Pace::Pauses(_) => (64 << 10, [600, 90]),
    };
    for lines in lines {
        let motd = Motd::new(lines);
        let server = ctx.chat(&["--motd", motd.path(), "--sendq", &sendq.to_string()]);
        let mut asker = newcomer(&server, pace);
        ask(&mut asker, &motd.question(), BURST, pace, sendq);
        asker.hears_nothing();
    }
}

/// 23: Every question whose answer grows, as often as can be asked at once, read as fast as the
/// answers come.
fn eighteen_questions_cut_no_reader_at_full_speed(ctx: &Ctx) {
    ask_everything(ctx, Pace::FullSpeed);
}

/// 23: The same, read steadily.
fn eighteen_questions_cut_no_reader_that_is_steady(ctx: &Ctx) {
    ask_everything(ctx, STEADY);
}

/// 23: The same, read slowly but steadily.
fn eighteen_questions_cut_no_reader_that_is_slow_but_steady(ctx: &Ctx) {
    ask_everything(ctx, SLOW_BUT_STEADY);
}

#[track_caller]
fn ask_everything(ctx: &Ctx, pace: Pace) {
    const CROWD: usize = 200;
    const OWN: usize = 4;
    const SENDQ: usize = 32 << 10;
    let server = ctx.chat(&["--sendq", "32KiB"]);
    let mut crowd: Vec<Member> = (0..CROWD).map(|n| server.member(&long_name("", n, 30))).collect();
    for (n, member) in crowd.iter_mut().enumerate() {
        let own: Vec<String> = (0..OWN).map(|m| long_name("#", n * OWN + m, 60)).collect();
        member.say(format!("JOIN #crowd,{}", own.join(",")));
    }
    // The server has heard each of them when it has answered each.
    for member in &mut crowd {
        member.sync();
    }
    let mut wide = server.member("wide");
    for first in (0..48).step_by(8) {
        let places: Vec<String> = (first..first + 8).map(|n| long_name("#", n, 60)).collect();
        wide.say(format!("JOIN {}", places.join(",")));
    }
    wide.sync();

    for question in [
        Question { line: "LIST", part: "322", end: "323", whole: CROWD * OWN + 1 },
        Question { line: "NAMES #crowd", part: "353", end: "366", whole: CROWD },
        Question { line: "WHO #crowd", part: "352", end: "315", whole: CROWD },
        Question { line: "WHOIS wide", part: "319", end: "318", whole: 48 },
    ] {
        let mut asker = newcomer(&server, pace);
        ask(&mut asker, &question, BURST, pace, SENDQ);
        asker.say("QUIT");
        asker.is_cut();
    }
}

/// 23: What a member may ask for beside: the bans of its channel, those whom it watches, former
/// names, and what the server says of itself, read as fast as it comes.
fn eighteen_lists_of_ones_own_are_whole_at_full_speed(ctx: &Ctx) {
    ask_for_lists(ctx, Pace::FullSpeed);
}

/// 23: The same, read steadily.
fn eighteen_lists_of_ones_own_are_whole_when_read_steadily(ctx: &Ctx) {
    ask_for_lists(ctx, STEADY);
}

/// 23: The same, read slowly but steadily.
fn eighteen_lists_of_ones_own_are_whole_when_read_slowly_but_steadily(ctx: &Ctx) {
    ask_for_lists(ctx, SLOW_BUT_STEADY);
}

#[track_caller]
fn ask_for_lists(ctx: &Ctx, pace: Pace) {
    const BANS: usize = 60;
    const WATCHED: usize = 100;
    const NAMES: usize = 40;
    const SENDQ: usize = 64 << 10;
    // All lines at once: the asker also says whom it watches.
    let server = ctx.busy_chat(&["--sendq", "64KiB"]);
    let mut bob = server.member("bob");
    bob.say("JOIN #c");
    for n in 0..BANS {
        bob.say(format!("MODE #c +b {}", long_name("b", n, 40)));
    }
    for n in 0..2 * NAMES {
        bob.say(format!("NICK {}", if n % 2 == 0 { "was" } else { "bob" }));
    }
    bob.sync();

    for (line, part, end, whole) in [
        ("MODE #c b", "367", "368", BANS),
        ("MONITOR L", "732", "733", WATCHED),
        ("WHOWAS was", "314", "369", NAMES),
        ("HELP", "705", "706", 4),
        ("INFO", "371", "374", 2),
        ("STATS u", "242", "219", 1),
        ("LINKS", "364", "365", 1),
    ] {
        let mut asker = newcomer(&server, pace);
        for first in (0..WATCHED).step_by(10) {
            let watched: Vec<_> = (first..first + 10).map(|n| long_name("w", n, 30)).collect();
            asker.say(format!("MONITOR + {}", watched.join(",")));
        }
        asker.sync();
        ask(&mut asker, &Question { line, part, end, whole }, BURST, pace, SENDQ);
        asker.say("QUIT");
        asker.is_cut();
    }
}

/// A name of this length that begins with `start` and ends with `number`.
fn long_name(start: &str, number: usize, length: usize) -> String {
    let number = number.to_string();
    format!("{start}{}{number}", "x".repeat(length - start.len() - number.len()))
}

#[track_caller]
fn newcomer(server: &Server, pace: Pace) -> Member {
    let client = match pace {
        Pace::FullSpeed => server.client(),
        Pace::Pauses(_) => server.client_with_buffers(4096),
    };
    // The welcome, which may hold a long message of the day, is read as it comes: the pace is that
    // of the answers.
    let mut member = Member::stranger(client);
    member.introduce("asker");
    member.welcome();
    member
}

/// Asks a question as often as `times`, all at once, and checks each answer: it is whole, or says
/// that it is not. The server gives half of the send queue, of `sendq` bytes, to what a member has
/// asked for, and hears no question while more than a quarter waits. So no answer is cut short
/// before it has filled a quarter; its end takes some of that.
#[track_caller]
fn ask(asker: &mut Member, question: &Question, times: usize, pace: Pace, sendq: usize) {
    let Question { line, part, end, whole } = *question;
    asker.client.queue(format!("{line}\r\n").repeat(times).as_bytes());
    read_answers(asker, &format!(" {end} {} ", asker.nick.clone()), times, pace);
    for n in 1..=times {
        let (mut told, mut bytes) = (0, 0);
        loop {
            let received = asker.client.line();
            let message = Message::parse(&received);
            bytes += received.len();
            assert_ne!(message.command, "ERROR", "cut for asking {line}, answer {n}: {message:?}");
            if message.command == end {
                let short = message.text().contains("cut short") && bytes > sendq / 5;
                let what = format!("answer {n} to {line} has {told} of {whole}, {bytes} bytes");
                assert!(told == whole || short, "{what}, and says {message:?}");
                break;
            }
            if message.command == part {
                told += match part {
                    "319" | "353" => message.text().split(' ').count(),
                    "732" => message.text().split(',').count(),
                    _ => 1,
                };
            }
        }
    }
}

/// Reads at this pace until as many ends of answers have come, or the end of the stream.
#[track_caller]
fn read_answers(asker: &mut Member, end: &str, times: usize, pace: Pace) {
    let what = format!("{times} answers that end in{end}");
    let complete = |asker: &Member| {
        let text = String::from_utf8_lossy(&asker.client.incoming);
        text.matches(end).count() >= times || asker.client.end().is_some()
    };
    match pace {
        Pace::FullSpeed => pump(&what, slice::from_mut(asker), |asker| complete(&asker[0])),
        Pace::Pauses(pause) => {
            while !complete(asker) {
                asker.client.reading = true;
                pump_for(&what, slice::from_mut(asker), pause);
                asker.client.reading = false;
                pump_for(&what, slice::from_mut(asker), pause);
            }
            asker.client.reading = true;
        }
    }
}
