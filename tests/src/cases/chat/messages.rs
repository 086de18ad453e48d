//! Messages: to whom they go, in which order, and what they may hold.

use crate::cases::{Case, cases};
use crate::client::{Client, pump};
use crate::member::{Member, Message, gather};
use crate::server::Server;
use crate::watchdog::Ctx;

pub(super) const CASES: &[Case] = cases![Chat:
    a_message_reaches_every_other_member_once needs 2,
    messages_keep_their_senders_order needs 2,
    messages_of_many_senders_all_arrive_in_each_senders_order needs 3,
    joins_and_parts_while_messages_fly_come_once_and_in_order needs 3,
    a_thousand_members_hear_all_while_some_come_and_go needs 1000,
    joins_and_parts_come_once_and_in_order_across_two_workers needs 3,
    a_message_to_a_nickname_reaches_it_alone needs 2,
    targets_may_be_a_list needs 2,
    too_many_targets_are_told needs 2,
    messages_without_a_receiver_are_told,
    messages_from_outside_are_not_let_in needs 2,
    a_notice_is_never_answered_with_an_error needs 2,
    text_is_relayed_as_it_came needs 2,
    no_relayed_line_is_longer_than_512_bytes needs 2,
    a_line_over_512_bytes_gets_417_and_the_connection_lives needs 2,
    text_that_is_not_utf_8_is_refused needs 2,
    text_that_is_not_utf_8_passes_without_utf8_only needs 2,
    a_forged_source_is_ignored needs 2,
    unknown_commands_get_421,
    a_ping_is_answered_with_its_token,
];

/// To every other member exactly once, and never to the sender.
fn a_message_reaches_every_other_member_once(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    let (mut cid, mut dan) = (server.member("cid"), server.member("dan"));
    gather("#c", &mut [&mut ann, &mut bob, &mut cid]);
    // A second channel that they share does not make it two messages.
    gather("#d", &mut [&mut ann, &mut bob, &mut dan]);
    for command in ["PRIVMSG", "NOTICE"] {
        ann.say(format!("{command} #c :hello all"));
        ann.hears_nothing();
        let brief = format!("ann {command} #c hello all");
        assert_eq!(bob.briefs(), [&*brief]);
        assert_eq!(cid.briefs(), [&*brief]);
        dan.hears_nothing();
    }
    ann.say("PRIVMSG #c :who am I?");
    let message = bob.next();
    assert!(message.source.starts_with("ann!") && message.source.contains('@'), "{message:?}");
}

/// In the order in which the sender sent them, however many come in one write.
fn messages_keep_their_senders_order(ctx: &Ctx) {
    const COUNT: usize = 2000;
    let server = ctx.busy_chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.client.send((0..COUNT).map(|n| format!("PRIVMSG #c :{n}\r\n")).collect::<String>());
    ann.hears_nothing();
    for n in 0..COUNT {
        bob.expect(&format!("ann PRIVMSG #c {n}"));
    }
    bob.hears_nothing();
}

/// Many at once: each member gets all of every other's, in that one's order.
fn messages_of_many_senders_all_arrive_in_each_senders_order(ctx: &Ctx) {
    const MEMBERS: usize = 10;
    const COUNT: usize = 100;
    let server = ctx.busy_chat(&[]);
    let mut members: Vec<Member> = (0..MEMBERS).map(|n| server.member(&format!("m{n}"))).collect();
    gather("#c", &mut members.iter_mut().collect::<Vec<_>>());
    let speech: String = (0..COUNT).map(|n| format!("PRIVMSG #c :{n}\r\n")).collect();
    for member in &mut members {
        member.client.queue(speech.as_bytes());
    }
    pump("everybody to have spoken", &mut members, |members| {
        members.iter().all(|member| member.client.unsent() == 0)
    });
    // By the time of its PONG, all that a member has said is on its way to the others.
    let mut heard: Vec<Vec<Message>> = members.iter_mut().map(Member::sync).collect();
    for (member, heard) in members.iter_mut().zip(&mut heard) {
        heard.extend(member.sync());
        for sender in (0..MEMBERS).map(|n| format!("m{n}")) {
            let said: Vec<_> =
                heard.iter().filter(|m| m.from() == sender).map(Message::text).collect();
            let expected: Vec<_> = (0..COUNT).map(|n| n.to_string()).collect();
            let nothing = sender == member.nick && said.is_empty();
            assert!(nothing || said == expected, "{} of {sender}'s: {said:?}", member.nick);
        }
    }
}

/// 53: Some come, speak and go again and again while others stay and speak: one that stays sees of
/// each of them exactly what it did, in its order.
fn joins_and_parts_while_messages_fly_come_once_and_in_order(ctx: &Ctx) {
    let crowd = Crowd { silent: 0, speakers: 15, movers: 15, steps: 30 };
    come_and_go(&ctx.busy_chat(&[]), &crowd);
}

/// 53: The same in a channel of a thousand, most of whom only listen.
fn a_thousand_members_hear_all_while_some_come_and_go(ctx: &Ctx) {
    let crowd = Crowd { silent: 950, speakers: 20, movers: 30, steps: 4 };
    // No member is slow here, but on a busy machine all of them are.
    come_and_go(&ctx.busy_chat(&["--sendq", "16MiB"]), &crowd);
}

/// 54: The same across workers.
fn joins_and_parts_come_once_and_in_order_across_two_workers(ctx: &Ctx) {
    let crowd = Crowd { silent: 0, speakers: 15, movers: 15, steps: 30 };
    come_and_go(&ctx.busy_chat(&["--workers", "2"]), &crowd);
}

/// Who is in the channel: first those who only listen, then those who speak, each so many times,
/// then those who come, speak and go, each so many times.
struct Crowd {
    silent: usize,
    speakers: usize,
    movers: usize,
    steps: usize,
}

impl Crowd {
    fn staying(&self) -> usize {
        self.silent + self.speakers
    }

    /// What one of them says; what the others hear of it is the same.
    fn script(&self, n: usize) -> Vec<String> {
        let speech = |step| format!("PRIVMSG #c :{step}");
        let visit = |step| ["JOIN #c".to_owned(), speech(step), format!("PART #c :{step}")];
        match n {
            _ if n < self.silent => Vec::new(),
            _ if n < self.staying() => (0..self.steps).map(speech).collect(),
            _ => (0..self.steps).flat_map(visit).collect(),
        }
    }
}

/// A member, and how far it has heard each of the scripts.
struct Listener {
    member: Member,
    stays: bool,
    heard: Vec<usize>,
    total: usize,
    /// What it may have missed since of each, because it has been away itself.
    gaps: Vec<Gap>,
}

#[derive(Clone, Copy, PartialEq)]
enum Gap {
    None,
    /// Any number of steps.
    Steps,
    /// Any number of visits: it has seen one begin, and all visits begin alike.
    Visits,
}

impl AsMut<Client> for Listener {
    fn as_mut(&mut self) -> &mut Client {
        &mut self.member.client
    }
}

impl Listener {
    /// Takes the lines that have come. Of each member this must be the next thing that it did; for
    /// one who has been away, the next or a later one, but without a gap from then on.
    fn listen(&mut self, scripts: &[Vec<String>]) {
        while let Some(end) = self.member.client.incoming.iter().position(|&byte| byte == b'\n') {
            let line = self.member.client.incoming.take(end + 1);
            let line = str::from_utf8(line.trim_ascii_end()).expect("nothing else is said");
            // What the server itself says has no user in its source.
            let Some((from, said)) = line.strip_prefix(":m").and_then(|l| l.split_once('!')) else {
                continue;
            };
            let (from, said): (usize, _) = (
                from.parse().expect("a member's number"),
                said.split_once(' ').map_or("", |(_, said)| said),
            );
            let (nick, script) = (&self.member.nick, &scripts[from]);
            if *nick == format!("m{from}") {
                assert!(!self.stays && !said.starts_with("PRIVMSG"), "{nick} hears itself: {line}");
                self.gaps.fill(Gap::Steps);
                continue;
            }
            let (next, gap) = (self.heard[from], self.gaps[from]);
            let missed = script[next..].iter().position(|step| step == said);
            let missed = missed.filter(|&missed| match gap {
                Gap::None => missed == 0,
                Gap::Steps => true,
                Gap::Visits => script[next + missed - 1] == "JOIN #c",
            });
            let Some(missed) = missed else {
                panic!("{nick} heard {line:?}, but the next is {:?}", script.get(next));
            };
            let begins = gap == Gap::Steps && said == "JOIN #c";
            self.gaps[from] = if begins { Gap::Visits } else { Gap::None };
            self.heard[from] = next + missed + 1;
            self.total += 1;
        }
    }
}

#[track_caller]
fn come_and_go(server: &Server, crowd: &Crowd) {
    let all = crowd.staying() + crowd.movers;
    let mut members: Vec<Member> = (0..all).map(|n| server.member(&format!("m{n}"))).collect();
    gather("#c", &mut members[..crowd.staying()].iter_mut().collect::<Vec<_>>());
    let scripts: Vec<_> = (0..all).map(|n| crowd.script(n)).collect();
    let mut listeners: Vec<_> = members
        .into_iter()
        .enumerate()
        .map(|(n, member)| {
            let stays = n < crowd.staying();
            let gap = if stays { Gap::None } else { Gap::Steps };
            Listener { member, stays, heard: vec![0; all], total: 0, gaps: vec![gap; all] }
        })
        .collect();
    for (listener, script) in listeners.iter_mut().zip(&scripts) {
        let text: String = script.iter().map(|line| format!("{line}\r\n")).collect();
        listener.member.client.queue(text.as_bytes());
    }
    let total: usize = scripts.iter().map(Vec::len).sum();
    pump("those who stay to hear everything", &mut listeners, |listeners| {
        listeners.iter_mut().for_each(|listener| listener.listen(&scripts));
        let stay = listeners[..crowd.staying()].iter().zip(&scripts);
        stay.into_iter().all(|(listener, script)| listener.total + script.len() == total)
    });
    for listener in &mut listeners[..crowd.staying()] {
        listener.member.hears_nothing();
    }
}

/// Only to that one.
fn a_message_to_a_nickname_reaches_it_alone(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob, mut cid) =
        (server.member("ann"), server.member("bob"), server.member("cid"));
    gather("#c", &mut [&mut ann, &mut bob, &mut cid]);
    ann.sync();
    ann.say("PRIVMSG bob :between us");
    ann.say("NOTICE bob :and again");
    ann.hears_nothing();
    assert_eq!(bob.briefs(), ["ann PRIVMSG bob between us", "ann NOTICE bob and again"]);
    cid.hears_nothing();
}

/// Channels and nicknames in one list; what is wrong with one does not spoil the others.
fn targets_may_be_a_list(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob, mut cid) =
        (server.member("ann"), server.member("bob"), server.member("cid"));
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.say("PRIVMSG cid,nobody,#c :to all of you");
    let errors = ann.sync();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!((errors[0].command.as_str(), errors[0].param(1)), ("401", "nobody"));
    assert_eq!(bob.briefs(), ["ann PRIVMSG #c to all of you"]);
    assert_eq!(cid.briefs(), ["ann PRIVMSG cid to all of you"]);
}

/// `--max-targets` bounds the list; who goes beyond it is told.
fn too_many_targets_are_told(ctx: &Ctx) {
    let server = ctx.chat(&["--max-targets", "2"]);
    let (mut ann, mut bob, mut cid, mut dan) =
        (server.member("ann"), server.member("bob"), server.member("cid"), server.member("dan"));
    ann.say("PRIVMSG bob,cid,dan :spam");
    let answer = ann.sync();
    assert!(answer.iter().any(Message::is_error), "{answer:?}");
    let reached = [&mut bob, &mut cid, &mut dan].map(|member| member.sync().len());
    assert!(reached.iter().sum::<usize>() <= 2, "{reached:?} messages arrived");
    ann.say("PRIVMSG bob,cid :not spam");
    ann.hears_nothing();
    assert_eq!(bob.briefs(), ["ann PRIVMSG bob not spam"]);
    assert_eq!(cid.briefs(), ["ann PRIVMSG cid not spam"]);
}

/// 401 no such nickname, 403 no such channel, 411 no recipient, 412 no text.
fn messages_without_a_receiver_are_told(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    assert_eq!(ann.ask("PRIVMSG nobody :hello", "401").param(1), "nobody");
    ann.say("PRIVMSG #nowhere :hello");
    let answer = ann.next();
    let fitting = ["401", "403", "404"].contains(&answer.command.as_str());
    assert!(fitting && answer.param(1) == "#nowhere", "{answer:?}");
    ann.ask("PRIVMSG", "411");
    ann.ask("PRIVMSG ann", "412");
    ann.ask("PRIVMSG ann :", "412");
    ann.hears_nothing();
}

/// 404: a channel is for those who are in it.
fn messages_from_outside_are_not_let_in(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    ann.join("#c");
    assert_eq!(bob.ask("PRIVMSG #c :let me in", "404").param(1), "#c");
    ann.hears_nothing();
}

/// A NOTICE that goes nowhere is not answered: two programs must not talk for ever.
fn a_notice_is_never_answered_with_an_error(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    ann.join("#c");
    for line in ["NOTICE nobody :x", "NOTICE #nowhere :x", "NOTICE #c :x", "NOTICE", "NOTICE ann"] {
        bob.say(line);
        bob.hears_nothing();
    }
    ann.hears_nothing();
}

/// Colours, actions, spaces, colons, any language.
fn text_is_relayed_as_it_came(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    for text in [
        "\x01ACTION waves\x01",
        "\x02bold\x02 \x0304red\x03 \x1funder\x0f",
        "  two spaces  between  and two after  ",
        ": :) ::",
        "grüße, 你好, привет, 🎉",
        "tab\there",
        "%s %n {} \\r\\n",
    ] {
        ann.say(format!("PRIVMSG #c :{text}"));
        ann.hears_nothing();
        assert_eq!(bob.next().text(), text);
    }
    // One word needs no colon.
    ann.say("PRIVMSG #c word");
    ann.hears_nothing();
    assert_eq!(bob.next().text(), "word");
}

/// The source that is put before it does not make a line longer than 512 bytes: its end is cut, and
/// not in the middle of a character.
fn no_relayed_line_is_longer_than_512_bytes(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    for filler in ["x", "ü", "你", "🎉"] {
        let text = filler.repeat((510 - "PRIVMSG #c :".len()) / filler.len());
        ann.say(format!("PRIVMSG #c :{text}"));
        ann.hears_nothing();
        let line = bob.client.line();
        assert!(line.len() <= 510, "{} bytes", line.len() + 2);
        let heard = String::from_utf8(line).expect("whole characters");
        let heard = heard.split_once(" :").map_or("", |(_, text)| text);
        assert!(text.starts_with(heard) && heard.len() > 400, "{heard:?}");
    }
    ann.hears_nothing();
    bob.hears_nothing();
}

/// 512 bytes with their end pass; one more gets 417, reaches no member, and what follows is served.
fn a_line_over_512_bytes_gets_417_and_the_connection_lives(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    let command = "PRIVMSG #c :";
    for end in ["\r\n", "\n"] {
        let fits = format!("{command}{}{end}", "x".repeat(512 - command.len() - end.len()));
        ann.client.send(&fits);
        ann.hears_nothing();
        assert_eq!(bob.sync().len(), 1, "a line of 512 bytes");
        ann.client.send(fits.replacen('x', "xx", 1));
        ann.gets("417");
        ann.hears_nothing();
        bob.hears_nothing();
    }
}

/// Bytes that are not UTF-8 are refused with a reply, and reach no member.
fn text_that_is_not_utf_8_is_refused(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    for bytes in [&b"\xff"[..], b"\xc3", b"caf\xe9", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"] {
        ann.say([b"PRIVMSG #c :", bytes].concat());
        let answer = ann.sync();
        assert_eq!(answer.len(), 1, "the reply to {}: {answer:?}", bytes.escape_ascii());
        bob.hears_nothing();
    }
}

/// `--utf8-only false` relays them as they came.
fn text_that_is_not_utf_8_passes_without_utf8_only(ctx: &Ctx) {
    let server = ctx.busy_chat(&["--utf8-only", "false"]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.say(b"PRIVMSG #c :caf\xe9 \xff");
    ann.hears_nothing();
    let line = bob.client.line();
    assert!(line.ends_with(b" :caf\xe9 \xff"), "{}", line.escape_ascii());
}

/// No member speaks in another's name, whatever stands before the command.
fn a_forged_source_is_ignored(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.say(":bob!b@host PRIVMSG #c :from bob?");
    ann.sync();
    for message in bob.sync() {
        assert_eq!(message.brief(), "ann PRIVMSG #c from bob?");
    }
}

/// 421 names the command, however long or odd it is.
fn unknown_commands_get_421(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let mut ann = server.member("ann");
    assert_eq!(ann.ask("SING a song", "421").param(1), "SING");
    ann.ask("123", "421");
    ann.ask(&"X".repeat(500), "421");
    ann.hears_nothing();
}

/// The token comes back as it was; without one: 409.
fn a_ping_is_answered_with_its_token(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let mut ann = server.member("ann");
    for token in ["x", ":two words", ":", "LAG1234567"] {
        ann.say(format!("PING {token}"));
        let answer = ann.next();
        if token == ":" && answer.command == "409" {
            continue;
        }
        assert_eq!(answer.command, "PONG", "{answer:?}");
        assert_eq!(answer.text(), token.trim_start_matches(':'));
    }
    let answer = ann.ask("PING", "409");
    assert_eq!(answer.param(0), "ann");
}
