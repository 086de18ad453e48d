//! What the ledger makes of deliveries, right ones and wrong ones.

use std::time::Duration;

use super::super::Phase;
use super::*;

/// Bytes of a text.
const TEXT: usize = 40;

/// The first channel is `#c12345`.
const SHAPE: Shape = Shape { base: 5 * 12_345, channels: 2, members: 5, speakers: 2, depth: 3 };

/// The members that are speakers, by number of the speaker.
const SPEAKERS: [usize; 4] = [0, 1, 5, 6];

/// A ledger and the phase that it counts for.
struct Scene {
    ledger: Ledger,
    window: Window,
}

fn nick(index: usize) -> String {
    format!("u{:05x}", SHAPE.base as usize + index)
}

fn channel(index: usize) -> String {
    format!("#c{}", 12_345 + index / 5)
}

/// What comes before a text of the speaker.
fn prefix(speaker: usize) -> String {
    let index = SPEAKERS[speaker];
    format!(":{}!u@h PRIVMSG {} :", nick(index), channel(index))
}

impl Scene {
    fn new() -> Self {
        let second = Duration::from_secs(1);
        let load = Phase::Load { duration: second, record: true };
        let window = Window::new(load, second, &HISTOGRAMS);
        Self { ledger: Ledger::new(SHAPE, Payload::new(7, TEXT)), window }
    }

    fn text(&self, speaker: usize, seq: u32) -> Vec<u8> {
        let mut text = vec![0; TEXT];
        self.ledger.payload.write(SHAPE.base + SPEAKERS[speaker] as u32, seq, &mut text);
        text
    }

    /// One line of the speaker as a member receives it.
    fn line(&self, speaker: usize, seq: u32) -> Vec<u8> {
        [prefix(speaker).as_bytes(), &self.text(speaker, seq), b"\r\n"].concat()
    }

    /// The speaker says so many messages, timed from `since`.
    fn say(&mut self, speaker: u32, messages: usize, since: u64) {
        for _ in 0..messages {
            self.ledger.say(speaker, since, &mut Vec::new(), &mut self.window);
        }
    }

    /// A text comes to member `index`, and is checked as the driver does it.
    fn come(&mut self, index: usize, from: &str, to: &str, text: &[u8], now: u64) {
        let prefix = format!(":{from}!u@h PRIVMSG {to} :");
        let line = [prefix.as_bytes(), text, b"\r\n"].concat();
        if let Some(length) = self.ledger.expected(index, &line, now, &mut self.window) {
            assert_eq!(length, line.len());
            return;
        }
        let source = format!("{from}!u@h");
        let delivery = Delivery {
            source: source.as_bytes(),
            target: to.as_bytes(),
            prefix: prefix.as_bytes(),
            text,
        };
        self.ledger.examine(index, &delivery, now, &mut self.window);
    }

    /// Member `index` hears a message of a speaker as it was said.
    fn hear(&mut self, index: usize, speaker: usize, seq: u32, now: u64) {
        let (from, text) = (SPEAKERS[speaker], self.text(speaker, seq));
        self.come(index, &nick(from), &channel(from), &text, now);
    }

    fn faults(&self) -> Vec<(Fault, u64)> {
        self.window.faults.counts().collect()
    }
}

#[test]
fn a_window_is_filled_with_messages_to_the_speakers_channel() {
    let mut scene = Scene::new();
    assert_eq!(scene.ledger.speakers(), 0..4);
    for (speaker, index) in (0..).zip(SPEAKERS) {
        let said = |seq| {
            let text = scene.text(speaker as usize, seq);
            [format!("PRIVMSG {} :", channel(index)).as_bytes(), &text, b"\r\n"].concat()
        };
        let expected: Vec<u8> = (0..SHAPE.depth).flat_map(said).collect();
        let mut out = Vec::new();
        scene.ledger.speak(speaker, &mut out, &mut scene.window);
        assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert_eq!(scene.ledger.in_flight(speaker), SHAPE.depth);
        assert!((out.len()..2 * out.len()).contains(&scene.ledger.window_bytes()));
    }
    assert_eq!((scene.ledger.outstanding, scene.window.sent), (12, 12));
}

#[test]
fn a_message_is_timed_to_the_first_the_median_and_the_last_that_hear_it() {
    let mut scene = Scene::new();
    scene.say(2, 1, 100);
    for (index, now) in [(9, 110), (6, 130), (8, 170), (7, 250)] {
        scene.hear(index, 2, 0, now);
    }
    let result = scene.window.finish();
    let noted = result.histograms.iter().map(|(name, noted)| (*name, noted.len(), noted.max()));
    let expected = [("last", 1, 150), ("first", 1, 10), ("median", 1, 30), ("lateness", 0, 0)];
    assert_eq!(noted.collect::<Vec<_>>(), expected);
    assert_eq!((result.total, scene.ledger.outstanding), (4, 0));
}

#[test]
fn a_speaker_goes_on_for_each_message_that_all_others_have_heard() {
    for (speaker, from) in SPEAKERS.into_iter().enumerate() {
        let mut scene = Scene::new();
        let others = (from / 5 * 5..from / 5 * 5 + 5).filter(|&index| index != from);
        for first in [0, 3, 6, 9] {
            scene.say(speaker as u32, 3, 0);
            for (heard, index) in others.clone().enumerate() {
                assert_eq!(scene.ledger.take_open(), None, "{heard} have heard {first}");
                scene.hear(index, speaker, first, 0);
            }
            assert_eq!(scene.ledger.take_open(), Some((speaker as u32, 1)));
            assert_eq!((scene.ledger.in_flight(speaker as u32), scene.ledger.outstanding), (2, 2));
            for index in others.clone() {
                scene.hear(index, speaker, first + 1, 0);
                scene.hear(index, speaker, first + 2, 0);
            }
            assert_eq!(scene.ledger.take_open(), Some((speaker as u32, 2)));
            assert_eq!(scene.ledger.outstanding, 0);
        }
        assert_eq!((scene.window.total, scene.faults()), (48, vec![]));
    }
}

#[test]
fn only_the_line_that_is_due_is_taken_without_a_closer_look() {
    for (speaker, from) in SPEAKERS.into_iter().enumerate() {
        let (mut scene, index) = (Scene::new(), from / 5 * 5 + 2);
        scene.say(speaker as u32, 3, 0);
        let taken = |scene: &mut Scene, index: usize, line: &[u8]| {
            scene.ledger.expected(index, line, 0, &mut scene.window)
        };
        let [first, second, third, unsaid] = [0, 1, 2, 3].map(|seq| scene.line(speaker, seq));
        assert_eq!(taken(&mut scene, index, &first), None, "its prefix is not known yet");
        scene.hear(index, speaker, 0, 0);
        for len in 0..second.len() {
            assert_eq!(taken(&mut scene, index, &second[..len]), None, "{len} bytes of it");
        }
        for at in 0..second.len() {
            let mut altered = second.clone();
            altered[at] ^= 1;
            assert_eq!(taken(&mut scene, index, &altered), None, "altered at {at}");
        }
        assert_eq!(taken(&mut scene, index, &first), None, "it has been heard");
        assert_eq!(taken(&mut scene, from, &first), None, "it is its own");
        let both = [&second[..], &third].concat();
        assert_eq!(taken(&mut scene, index, &both), Some(second.len()));
        assert_eq!(taken(&mut scene, index, &third), Some(third.len()), "nothing follows it");
        assert_eq!(taken(&mut scene, index, &unsaid), None, "it has not been said");
        assert_eq!((scene.window.total, scene.faults()), (3, vec![]));
    }
}

#[test]
fn what_comes_to_the_wrong_member_is_crossed_or_to_its_speaker() {
    let text = Scene::new().text(3, 0);
    for (index, from, to, fault) in [
        (7, "x", channel(7), Fault::Crossed),
        (7, &nick(7), channel(7), Fault::Crossed),
        (8, &nick(7), channel(7), Fault::Crossed),
        (7, &nick(1), channel(7), Fault::Crossed),
        (2, &nick(6), channel(7), Fault::Crossed),
        (7, &nick(6), channel(2), Fault::Crossed),
        (6, &nick(6), channel(7), Fault::ToSpeaker),
    ] {
        let mut scene = Scene::new();
        scene.say(3, 1, 0);
        scene.come(index, from, &to, &text, 0);
        assert_eq!(scene.faults(), [(fault, 1)], "{from} in {to}, to {index}");
        assert_eq!(scene.window.total, 0);
    }
}

#[test]
fn what_comes_in_the_place_of_a_message_has_its_fault_and_the_next_is_right() {
    let texts = Scene::new();
    let (right, other, later) = (texts.text(3, 0), texts.text(2, 0), texts.text(3, 9));
    let mut altered = right.clone();
    altered[TEXT - 1] ^= 1;
    let longer = [&right[..], b"x"].concat();
    for (text, fault) in [
        (&b""[..], Fault::Truncated),
        (&right[..TEXT - 1], Fault::Truncated),
        (&altered, Fault::Altered),
        (&longer, Fault::Altered),
        (&later[..TEXT - 1], Fault::Altered),
        (&other, Fault::Crossed),
    ] {
        let mut scene = Scene::new();
        scene.say(3, 2, 0);
        scene.come(7, &nick(6), &channel(7), text, 0);
        scene.hear(7, 3, 1, 0);
        assert_eq!(scene.faults(), [(fault, 1)], "{}", text.escape_ascii());
        assert_eq!(scene.window.total, 2);
    }
}

#[test]
fn what_comes_out_of_turn_is_lost_repeated_reordered_or_early() {
    const HALF: u32 = u32::MAX / 2;
    for (seqs, faults) in [
        (&[0, 1, 2][..], &[][..]),
        (&[0, 2], &[(Fault::Lost, 1)]),
        (&[2], &[(Fault::Lost, 2)]),
        (&[0, 0, 1], &[(Fault::Repeated, 1)]),
        (&[1, 0, 2], &[(Fault::Reordered, 1)]),
        (&[2, 0], &[(Fault::Lost, 1), (Fault::Reordered, 1)]),
        (&[3, 0, 1, 2], &[(Fault::Early, 1)]),
        (&[0, 1, 2, 3], &[(Fault::Early, 1)]),
        (&[HALF], &[(Fault::Early, 1)]),
        (&[HALF + 1], &[(Fault::Repeated, 1)]),
    ] {
        let mut scene = Scene::new();
        scene.say(3, 3, 0);
        for &seq in seqs {
            scene.hear(7, 3, seq, 0);
        }
        assert_eq!(scene.faults(), faults, "{seqs:?}");
    }
}

#[test]
fn what_one_member_has_missed_of_a_speaker_is_no_affair_of_others() {
    let mut scene = Scene::new();
    scene.say(0, 2, 0);
    scene.say(1, 2, 0);
    // Member 2 misses the first message of speaker 0; nothing else is missing.
    scene.hear(2, 0, 1, 0);
    for (index, speaker) in [(3, 0), (2, 1)] {
        for seq in [0, 1, 0] {
            scene.hear(index, speaker, seq, 0);
        }
    }
    assert_eq!(scene.faults(), [(Fault::Lost, 1), (Fault::Repeated, 2)]);
}

#[test]
fn what_not_all_have_heard_by_the_end_is_unanswered_unless_it_was_cut() {
    for cut in [false, true] {
        let mut scene = Scene::new();
        for (speaker, messages) in [(0, 2), (1, 1), (3, 1)] {
            scene.say(speaker, messages, 0);
        }
        for (index, speaker) in [(2, 0), (3, 0), (4, 1)] {
            scene.hear(index, speaker, 0, 0);
        }
        scene.window.cut = cut;
        scene.ledger.settle(&mut scene.window);
        if cut {
            assert_eq!((scene.faults(), scene.ledger.outstanding), (vec![], 4));
            continue;
        }
        assert_eq!(scene.faults(), [(Fault::Unanswered, 2 + 4 + 3 + 4)]);
        let told = |message, index, missing| {
            let id = SHAPE.base + index;
            format!("unanswered: message {message} of speaker {id} did not reach {missing} members")
        };
        let expected = [told(0, 0, 2), told(1, 0, 4), told(0, 1, 3), told(0, 6, 4)];
        assert_eq!(scene.window.faults.examples(), expected);
        let left = [0, 1, 2, 3].map(|speaker| scene.ledger.in_flight(speaker));
        assert_eq!((left, scene.ledger.outstanding), ([0; 4], 0));
    }
}
