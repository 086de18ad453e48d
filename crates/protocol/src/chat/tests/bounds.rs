//! Queues and workers: nothing grows without end, no member is forgotten, no worker wakes in vain.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::Limits;

/// A world whose members may have `sendq` bytes mailed and not taken.
fn tight(sendq: usize) -> World {
    let mut settings = settings();
    settings.limits.sendq = sendq;
    World::new(settings)
}

/// Takes the mail of worker 0 without looking at it.
fn drop_mail(world: &mut World) {
    world.hub.take(0, &mut Vec::new());
}

#[test]
fn what_runs_over_is_told_to_the_owner_and_the_rest_get_everything() {
    let mut world = tight(2_000);
    // The slow one is of worker 1, whose mail is not taken.
    let slow = conn(1, 1, 0);
    world.hub = Hub::new(Arc::clone(&world.hub.settings), 2);
    world.hub.open(slow, "h", world.now);
    for line in ["NICK slow", "USER u 0 * :R", "JOIN #c,#d"] {
        world.hub.line(slow, Line::Whole(line.as_bytes()), world.now);
        world.hub.take(1, &mut Vec::new());
    }
    for name in ["a", "b"] {
        world.say(name, "JOIN #c,#d");
    }
    world.mail();
    world.hub.take(1, &mut Vec::new());
    let text = "x".repeat(400);
    for n in 0..6 {
        world.say("a", format!("PRIVMSG #c :{n}{text}"));
        world.expect(&[("b", &format!(":a!a@h PRIVMSG #c :{n}{text}"))]);
    }
    let mut mail = Vec::new();
    world.hub.take(1, &mut mail);
    // Four fit; of the fifth and the sixth it is told once.
    let [texts @ .., Mail { parcel: Parcel::Overrun, .. }] = &mail[..] else { panic!("{mail:?}") };
    assert_eq!(texts.len(), 4);
    world.hub.cut(slow, "SendQ exceeded");
    let quit = ":slow!u@h QUIT :SendQ exceeded";
    world.expect(&[("a", quit), ("b", quit)]);
    world.say("a", "NICK slow");
    world.expect(&[("a", ":a!a@h NICK slow"), ("b", ":a!a@h NICK slow")]);
}

#[test]
fn while_mail_piles_up_there_is_no_room_for_lines() {
    let settings = Arc::clone(&tight(4_000).hub.settings);
    let mut hub = Hub::new(settings, 2);
    let (speaker, listener) = (conn(0, 1, 0), conn(1, 1, 0));
    let now = Time::ZERO;
    for (id, nick) in [(speaker, "NICK a"), (listener, "NICK b")] {
        hub.open(id, "h", now);
        for line in [nick, "USER u 0 * :R", "JOIN #c"] {
            hub.line(id, Line::Whole(line.as_bytes()), now);
            hub.take(0, &mut Vec::new());
            hub.take(1, &mut Vec::new());
        }
    }
    let say = |hub: &mut Hub| {
        let line = format!("PRIVMSG #c :{}", "x".repeat(460));
        hub.line(speaker, Line::Whole(line.as_bytes()), now)
    };
    assert!(say(&mut hub) && say(&mut hub) && !say(&mut hub), "room for a thousand bytes");
    assert!(!hub.has_room(listener));
    let told = |hub: &mut Hub, worker: usize| {
        let mut mail = Vec::new();
        hub.take(worker, &mut mail);
        mail.retain(|mail| matches!(mail.parcel, Parcel::Resume));
        mail.into_iter().map(|mail| mail.to).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut hub, 0), [], "it is worker 1 that has to come");
    assert_eq!(told(&mut hub, 1), [listener]);
    assert_eq!(hub.wakes(1).collect::<Vec<_>>(), [0]);
    assert_eq!(told(&mut hub, 0), [speaker]);
    assert!(say(&mut hub));

    // A member that has waited is heard once, although it is as full again: none waits for ever.
    while say(&mut hub) {}
    assert!(hub.has_room(listener), "it has waited, and it is its turn");
    assert!(!hub.has_room(listener), "once");
    assert_eq!(told(&mut hub, 1), [listener]);
    assert_eq!(told(&mut hub, 0), [speaker]);
    assert!(say(&mut hub));

    // Worker 1 has taken the mail, but the listener's owner has not come to it.
    assert_eq!(told(&mut hub, 1), []);
    hub.press(listener);
    assert!(!hub.has_room(speaker));
    assert_eq!((told(&mut hub, 0), told(&mut hub, 1)), (vec![], vec![]));
    hub.relieve(listener);
    assert_eq!(told(&mut hub, 0), [speaker]);
    hub.press(listener);
    hub.cut(listener, "x");
    hub.leave(listener, "x");
    assert!(hub.has_room(speaker), "no speaker waits for a member that has gone");
}

#[test]
fn a_hub_may_move_between_threads() {
    fn sendable<T: Send>() {}
    sendable::<Hub>();
}

#[test]
fn what_was_taken_does_not_count() {
    let mut world = tight(1_000);
    world.say("a", "PING t");
    world.say("b", "PING t");
    drop_mail(&mut world);
    for _ in 0..50 {
        world.say("a", format!("PRIVMSG b :{}", "x".repeat(400)));
        assert_eq!(world.mail()["b"].len(), 1);
    }
}

#[test]
fn one_line_can_run_over_many_and_its_sender() {
    let mut world = tight(1_200);
    for name in ["a", "b", "c", "d"] {
        world.say(name, "JOIN #c");
        drop_mail(&mut world);
    }
    // Everybody but b has little room left when b speaks.
    for name in ["a", "c", "d"] {
        world.say(name, format!("PING :{}", "x".repeat(480)));
        world.say(name, format!("PING :{}", "x".repeat(480)));
    }
    world.say("b", format!("PRIVMSG #c :{}", "x".repeat(400)));
    let mail = world.mail();
    for name in ["a", "c", "d"] {
        assert_eq!((mail[name].len(), &mail[name][2][..]), (3, "*overrun"));
    }
    assert!(mail.get("b").is_none_or(Vec::is_empty), "{mail:?}");

    // And one that asks for more than it may have runs over by itself.
    for _ in 0..3 {
        world.say("b", format!("PING :{}", "x".repeat(480)));
    }
    assert_eq!(world.mail()["b"].last().unwrap(), "*overrun");
}

#[test]
fn a_big_answer_cuts_no_member() {
    let mut world = tight(8_000);
    for n in 0..200 {
        let name = format!("member{n}");
        world.say(&name, format!("JOIN #c,#channel{n}"));
        drop_mail(&mut world);
    }
    for question in ["LIST", "WHO #c", "NAMES #c", "NAMES #c,#c,#c,#c", "JOIN #channel1,#channel2"]
    {
        world.say("member0", question);
        world.say("member0", question);
        let mail = world.mail();
        let told: usize = mail["member0"].iter().map(|line| line.len() + 2).sum();
        assert!(told < 6_000, "{question} got {told}");
        if question.starts_with("LIST") || question.starts_with("WHO") {
            let end = mail["member0"].last().unwrap();
            assert!(end.ends_with("cut short to fit your send queue"), "{end}");
        }
    }
    world.say("member0", "LIST #channel7");
    assert!(world.mail()["member0"].last().unwrap().ends_with(":End of LIST"));
}

/// The questions whose answers grow with the server, the numeric that ends each, and how many of
/// them one question brings.
const QUESTIONS: [(&str, &str, usize); 8] = [
    ("MOTD", "376", 1),
    ("LIST", "323", 1),
    ("LIST #c,#channel1,#channel2,#channel3", "323", 1),
    ("NAMES #c", "366", 1),
    ("NAMES #c,#C,#c,#c,#c,#c,#c,#nowhere", "366", 1),
    ("WHO #c", "315", 1),
    ("WHOIS member0", "318", 1),
    ("PART #channel1,#channel2\r\nJOIN #channel1,#channel2", "366", 2),
];

/// A world where all answers of [`QUESTIONS`] are long, for member0, who is in
/// all channels.
fn crowd(sendq: usize) -> World {
    let mut settings = settings();
    settings.limits.sendq = sendq;
    settings.limits.max_channels = 500;
    settings.chat.motd = Some(vec!["m".repeat(78); 9_000]);
    let mut world = World::new(settings);
    for n in 0..400 {
        let name = format!("member{n}");
        world.connect(&name);
        for (who, line) in [
            (&name, format!("NICK {name}")),
            (&name, "USER u 0 * :R".to_owned()),
            (&name, format!("JOIN #c,#channel{n}")),
            (&name, format!("TOPIC #channel{n} :{}", "t".repeat(200))),
            (&"member0".to_owned(), format!("JOIN #channel{n}")),
        ] {
            world.hub.line(world.ids[who], Line::Whole(line.as_bytes()), world.now);
            drop_mail(&mut world);
        }
    }
    check(&world.hub);
    world
}

/// Asks everything at once, in this order, as a session does: no line is said while more waits than
/// the high-water mark allows, until it is down to the low one. The reader takes `speed` bytes at a
/// time. Gives all that it read. `told` says whether the hub is told what waits.
fn ask_and_read(world: &mut World, questions: &[usize], speed: usize, told: bool) -> Vec<u8> {
    let limits = world.hub.settings.limits.clone();
    let id = world.ids["member0"];
    let (mut outbox, mut paused, mut read) = (crate::Outbox::default(), false, Vec::new());
    let lines = questions.iter().flat_map(|&n| QUESTIONS[n].0.split("\r\n"));
    let mut lines = lines.peekable();
    while lines.peek().is_some() || !outbox.is_empty() {
        let mark = if paused { limits.low_water() } else { limits.high_water() };
        paused = outbox.len() > mark;
        if !paused {
            if told {
                world.hub.note_queue(id, outbox.len());
            }
            while let Some(line) = lines.next()
                && world.hub.line(id, Line::Whole(line.as_bytes()), world.now)
            {}
        }
        let mut mail = Vec::new();
        world.hub.take(0, &mut mail);
        for Mail { to, parcel } in mail {
            match parcel {
                _ if to != id => {}
                Parcel::Text(message) => {
                    assert_eq!(outbox.share(message, &limits, world.now), Ok(()), "it was cut");
                }
                Parcel::Resume => {}
                other => panic!("the asker got {other:?}"),
            }
        }
        // Half of it, and what has a bound of its own: a line of JOIN or PART, the ends of NAMES.
        let most = if told { limits.sendq / 2 + 4 * Limits::CHAT_LINE } else { limits.sendq };
        assert!(outbox.len() <= most, "{} bytes wait, of {}", outbox.len(), limits.sendq);
        let taken = speed.min(outbox.len());
        read.extend(outbox.slices().flatten().take(taken));
        outbox.advance(taken);
    }
    read
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..Default::default()
    })]

    /// Whatever is asked, however much of it at once and however slowly the answers are read: the
    /// asker is not cut, and each answer comes to its end, which says so where it is not whole.
    #[test]
    fn answers_cut_no_asker_and_have_their_ends(
        questions in vec(0..QUESTIONS.len(), 1..20),
        sendq in 16_000..400_000usize,
        speed in prop_oneof![1_000..3_000usize, 3_000..100_000usize, Just(usize::MAX)],
        told: bool,
    ) {
        let mut world = crowd(sendq);
        let read = ask_and_read(&mut world, &questions, speed, told);
        let mut lines = lines_of(&read).into_iter();
        for (question, end, ends) in questions.iter().map(|&n| QUESTIONS[n]) {
            let (mut count, mut left) = (0, ends);
            while left > 0 {
                let line = lines.next().expect("the end of each answer");
                count += 1;
                let is_end = line.starts_with(&format!(":s {end} member0 "));
                left -= usize::from(is_end);
                let short = line.ends_with(":End of list, cut short to fit your send queue");
                let whole = question != "MOTD" || count == 9_002;
                prop_assert!(!is_end || whole || short, "{question}: {count} lines, {line}");
            }
        }
    }
}

/// What is asked first comes whole, and what is asked behind it, within the same line or not, is
/// not worse off for it.
#[test]
fn an_answer_of_a_quarter_of_the_queue_is_always_whole() {
    let mut world = crowd(200_000);
    let names = QUESTIONS.iter().position(|(question, ..)| *question == "NAMES #c");
    let who = QUESTIONS.iter().position(|(question, ..)| *question == "WHO #c");
    let questions = [names.unwrap(), who.unwrap()].repeat(9);
    for speed in [1_000, 30_000, usize::MAX] {
        let read = lines_of(&ask_and_read(&mut world, &questions, speed, true));
        let ends = read.iter().filter(|line| line.contains(" 366 ") || line.contains(" 315 "));
        assert!(ends.clone().all(|end| end.contains(" list") && !end.contains("short")));
        assert_eq!(ends.count(), 18);
        let told = read.iter().filter(|line| line.contains(" 352 ")).count();
        assert_eq!(told, 9 * 400, "WHO at {speed}");
    }
}

#[test]
fn what_waits_counts_when_room_is_given() {
    let mut world = crowd(64_000);
    let id = world.ids["member0"];
    let mut told = Vec::new();
    for waiting in [0, 8_000, 16_000, 32_000, 64_000, usize::MAX] {
        world.hub.note_queue(id, waiting);
        world.say("member0", "MOTD");
        let lines = world.mail().remove("member0").unwrap();
        assert!(lines[0].starts_with(":s 375 ") && lines.last().unwrap().starts_with(":s 376 "));
        told.push(lines.iter().map(|line| line.len() + 2).sum::<usize>());
    }
    for (told, room) in told.iter().zip([32_000, 24_000, 16_000]) {
        assert!((room - 2_000..=room).contains(told), "{told} bytes for {room}");
    }
    assert!(told[3..].iter().all(|&told| told < 300), "{told:?}");
}

#[test]
fn what_waits_and_what_is_on_its_way_count_together_before_the_next_line() {
    let mut world = crowd(32_000);
    let id = world.ids["member0"];
    // Neither alone is above the mark of 8,000 bytes.
    for (waiting, room) in [(0, true), (5_000, false)] {
        world.hub.note_queue(id, waiting);
        let has_room = world.hub.line(id, Line::Whole(b"NAMES #c"), Time::ZERO);
        let lines = world.mail().remove("member0").unwrap();
        let told = lines.iter().map(|line| line.len() + 2).sum::<usize>();
        assert!((4_000..8_000).contains(&told), "{told} bytes");
        assert_eq!(has_room, room, "with {waiting} bytes in the queue");
    }
}

#[test]
fn an_answer_cut_short_says_nothing_of_the_next() {
    let mut world = crowd(8_000);
    world.say("member0", "WHOIS member0");
    let end = world.mail().remove("member0").unwrap().pop().unwrap();
    assert_eq!(end, ":s 318 member0 member0 :End of list, cut short to fit your send queue");
    world.say("member0", "ISON member0");
    world.say("member0", "WHO member1");
    let end = world.mail().remove("member0").unwrap().pop().unwrap();
    assert_eq!(end, ":s 315 member0 member1 :End of WHO list");
}

#[test]
fn whowas_keeps_room_for_its_ends_and_no_more() {
    let mut world = tight(8_000);
    for n in 0..60 {
        world.say("a", format!("NICK {}", ["x", "y"][n % 2]));
        drop_mail(&mut world);
    }
    let id = world.ids["a"];
    for limit in 1_600..1_700 {
        world.hub.note_queue(id, 4_000 - limit);
        let mut told_of = |list: &str| {
            world.say("a", format!("WHOWAS {list}"));
            let lines = world.mail().remove("a").unwrap();
            lines.iter().map(|line| line.len() + 2).sum::<usize>()
        };
        // More is told while a line fits beside the two that are kept for a nickname.
        let told = told_of("x");
        assert!((limit - 3 * Limits::CHAT_LINE + 1..=limit).contains(&told), "{told} of {limit}");
        let told = told_of("x,1,2,3,4,5,6,7");
        assert!(told <= limit, "{told} of {limit} for eight nicknames");
    }
}

#[test]
fn an_endless_message_of_the_day_cuts_no_member() {
    let mut settings = settings();
    settings.limits.sendq = 8_000;
    settings.chat.motd = Some(vec!["m".repeat(600); 100]);
    let mut world = World::new(settings);
    world.play("?x> NICK x");
    world.say("?x", "USER u 0 * :R");
    let mail = world.mail();
    assert!(mail["?x"].last().unwrap().starts_with(":s 376 x :"));
}

#[test]
fn workers_are_named_once_until_they_take() {
    let mut hub = Hub::new(Arc::new(settings()), 200);
    let ids = [conn(0, 1, 0), conn(3, 1, 5), conn(199, 1, 0)];
    let now = Time::ZERO;
    for id in ids {
        hub.open(id, "h", now);
    }
    assert_eq!(hub.wakes(0).count(), 0);
    for id in ids {
        hub.line(id, Line::Whole(b"PING t"), now);
    }
    assert_eq!(hub.wakes(0).collect::<Vec<_>>(), [3, 199]);
    hub.line(ids[1], Line::Whole(b"PING t"), now);
    assert_eq!(hub.wakes(0).count(), 0, "worker 3 has not taken since it was named");
    assert_eq!(hub.wakes(3).collect::<Vec<_>>(), [0], "worker 0 was not named yet");
    let mut mail = Vec::new();
    hub.take(3, &mut mail);
    assert_eq!(mail.len(), 2);
    hub.line(ids[1], Line::Whole(b"PING t"), now);
    hub.take(0, &mut Vec::new());
    assert_eq!(hub.wakes(199).collect::<Vec<_>>(), [3]);
    assert_eq!(hub.wakes(usize::MAX).count(), 0);
}

#[test]
fn the_room_of_a_queue_is_used_again() {
    let mut hub = Hub::new(Arc::new(settings()), 1);
    let id = conn(0, 1, 0);
    hub.open(id, "h", Time::ZERO);
    let mut mail = Vec::with_capacity(100);
    hub.take(0, &mut mail);
    hub.line(id, Line::Whole(b"PING t"), Time::ZERO);
    hub.take(0, &mut mail);
    assert_eq!((mail.len(), mail.capacity()), (1, 100));
    let mut mail = Vec::with_capacity(1 << 20);
    hub.take(0, &mut mail);
    hub.take(0, &mut mail);
    assert!(mail.capacity() < 1 << 20, "room for far more than is ever needed again");
}

#[test]
fn an_unknown_worker_or_connection_is_ignored() {
    let mut hub = Hub::new(Arc::new(settings()), 1);
    let id = conn(9, 1, 0);
    hub.open(id, "h", Time::ZERO);
    hub.line(id, Line::Whole(b"PING t"), Time::ZERO);
    hub.ping(id);
    hub.cut(id, "x");
    hub.leave(id, "x");
    let mut mail = Vec::new();
    hub.take(9, &mut mail);
    hub.take(0, &mut mail);
    assert!(mail.is_empty());
}

#[test]
fn a_slot_with_a_new_tenant_holds_nothing_of_the_old() {
    let mut hub = Hub::new(Arc::new(settings()), 1);
    let (first, second) = (conn(0, 1, 0), conn(0, 2, 0));
    hub.open(first, "h", Time::ZERO);
    hub.line(first, Line::Whole(b"NICK a"), Time::ZERO);
    hub.open(second, "h", Time::ZERO);
    check(&hub);
    hub.line(first, Line::Whole(b"NICK b"), Time::ZERO);
    hub.line(second, Line::Whole(b"NICK a"), Time::ZERO);
    let mut mail = Vec::new();
    hub.take(0, &mut mail);
    assert!(mail.is_empty(), "{mail:?}");
}

/// What may come out of any peer.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let commands = select(vec![
        "JOIN", "PART", "PRIVMSG", "NOTICE", "NICK", "USER", "CAP", "PASS", "TOPIC", "MODE", "WHO",
        "WHOIS", "LIST", "NAMES", "ISON", "USERHOST", "PING", "MOTD", "VERSION", "LUSERS", "KICK",
    ]);
    let params = select(vec![
        "#a",
        "#b",
        "a",
        "b",
        "c,#a,#b",
        "0",
        "LS",
        "END",
        "REQ",
        "+b",
        "b",
        "*",
        ":",
        ":some text",
        ":\u{202e}\r\0",
        "\u{9b}",
        "#a,#b,#c,#d",
        "u 0 * :R",
        "::",
        "\x01",
        "#é",
    ]);
    prop_oneof![
        8 => (commands, vec(params, 0..4))
            .prop_map(|(command, params)| format!("{command} {}", params.join(" ")).into_bytes()),
        1 => (select(vec!["PRIVMSG #a :", "TOPIC #a :", "PING ", "ISON :", ""]), 0..500usize)
            .prop_map(|(start, len)| format!("{start}{}", "é".repeat(len / 2)).into_bytes()),
        1 => vec(any::<u8>(), 0..510),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_line_breaks_the_bounds(
        script in vec((0..6usize, line(), 0..20u8), 1..200),
        sendq in 300..6_000usize,
        utf8_only: bool,
    ) {
        let mut settings = settings();
        settings.limits.sendq = sendq;
        settings.chat.utf8_only = utf8_only;
        let mut hub = Hub::new(Arc::new(settings), 2);
        let mut ids: Vec<_> = (0..6).map(|n| conn(n as u64 % 2, 1, n)).collect();
        let mut closed = BTreeSet::new();
        for (n, &id) in ids.iter().enumerate() {
            hub.open(id, "h", Time::ZERO);
            hub.line(id, Line::Whole(format!("NICK n{n}").as_bytes()), Time::ZERO);
            hub.line(id, Line::Whole(b"USER u 0 * :R"), Time::ZERO);
            hub.line(id, Line::Whole(b"JOIN #a"), Time::ZERO);
        }
        for (who, line, chance) in script {
            hub.line(ids[who], Line::Whole(&line), Time::ZERO);
            check(&hub);
            match chance {
                0 => _ = hub.line(ids[who], Line::TooLong, Time::ZERO),
                1 => hub.ping(ids[who]),
                2 => hub.cut(ids[who], "cut"),
                3 => hub.leave(ids[who], "left"),
                4 => {
                    hub.leave(ids[who], "left");
                    ids[who] = ConnId::from_bits(ids[who].bits() + (1 << 24));
                    hub.open(ids[who], "h", Time::ZERO);
                }
                5..10 => take_and_check(&mut hub, usize::from(chance) % 2, sendq, &mut closed),
                _ => {}
            }
            check(&hub);
        }
    }
}

/// No member has more than its bound, nothing comes after the last parcel, no line is malformed.
fn take_and_check(hub: &mut Hub, worker: usize, sendq: usize, closed: &mut BTreeSet<ConnId>) {
    let mut mail = Vec::new();
    hub.take(worker, &mut mail);
    let mut bytes: BTreeMap<ConnId, usize> = BTreeMap::new();
    for Mail { to, parcel } in mail {
        assert_eq!(to.worker(), worker);
        let gone = closed.contains(&to) && !matches!(parcel, Parcel::Resume);
        assert!(!gone, "mail to one who has gone: {parcel:?}");
        match parcel {
            Parcel::Text(message) => {
                lines_of(&message);
                *bytes.entry(to).or_default() += message.len();
                assert!(bytes[&to] <= sendq);
            }
            Parcel::Welcome | Parcel::Resume | Parcel::Overrun => {}
            Parcel::Close(last) => {
                lines_of(&last);
                closed.insert(to);
            }
        }
    }
}

#[test]
fn what_only_speaks_is_told_from_what_asks() {
    assert!(Hub::only_speaks(b"PRIVMSG a :x"));
    assert!(!Hub::only_speaks(b"LIST"));
}
