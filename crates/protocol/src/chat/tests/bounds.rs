//! Queues and workers: nothing grows without end, nobody is forgotten, nobody wakes in vain.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

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
    // The slow one is of worker 1, whose mail nobody takes.
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
    assert!(!hub.line(listener, Line::Room, now));
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

    // Whoever has waited is heard once, although it is as full again: nobody is kept out for ever.
    while say(&mut hub) {}
    assert!(hub.line(listener, Line::Room, now), "it has waited, and it is its turn");
    assert!(!hub.line(listener, Line::Room, now), "once");
    assert_eq!(told(&mut hub, 1), [listener]);
    assert_eq!(told(&mut hub, 0), [speaker]);
    assert!(say(&mut hub));

    // Worker 1 has taken the mail, but the listener's owner has not come to it.
    assert_eq!(told(&mut hub, 1), []);
    hub.press(listener);
    assert!(!hub.line(speaker, Line::Room, now));
    assert_eq!((told(&mut hub, 0), told(&mut hub, 1)), (vec![], vec![]));
    hub.relieve(listener);
    assert_eq!(told(&mut hub, 0), [speaker]);
    hub.press(listener);
    hub.cut(listener, "x");
    hub.leave(listener, "x");
    assert!(hub.line(speaker, Line::Room, now), "nobody waits for one who has gone");
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
fn a_big_answer_cuts_nobody() {
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

#[test]
fn an_endless_message_of_the_day_cuts_nobody() {
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
    assert_eq!(hub.wakes(3).collect::<Vec<_>>(), [0], "nobody was told of worker 0");
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
fn a_slot_with_a_new_tenant_is_nobodys_ghost() {
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

/// Nobody has more than its bound, nothing comes after the last parcel, no line is malformed.
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
