//! Capabilities: what each of them changes, for those alone who asked.

use crate::cases::{Case, cases, may_have_workers};
use crate::member::{Member, Message, gather};
use crate::server::Server;
use crate::watchdog::Ctx;

pub(super) const CASES: &[Case] = cases![Chat:
    cap_ls_is_answered_and_holds_registration,
    cap_req_is_granted_whole_or_not_at_all,
    cap_works_after_registration,
    server_time_is_told_to_those_who_asked needs 2,
    names_show_every_rank_and_the_mask needs 2,
    extended_join_tells_the_real_name needs 2,
    away_notify_tells_those_who_share_a_channel needs 3,
    setname_is_told_to_those_who_asked needs 2,
    invite_notify_tells_operators needs 3,
    echo_message_comes_back needs 2,
    client_tags_reach_those_who_understand_them needs 3,
    tags_are_bounded needs 2,
    a_label_comes_back_on_the_answer,
    each_receiver_hears_once_whatever_it_asked_for needs 9,
];

/// A member that has asked for these.
#[track_caller]
fn capable(server: &Server, nick: &str, caps: &str) -> Member {
    let mut member = server.member(nick);
    assert_eq!(member.ask(&format!("CAP REQ :{caps}"), "CAP").param(1), "ACK");
    member
}

/// irssi begins with `CAP LS 302` and waits for the answer; CAP END lets registration go on.
fn cap_ls_is_answered_and_holds_registration(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = Member::stranger(server.client());
    let answer = ann.ask("CAP LS 302", "CAP");
    assert_eq!(answer.params[..2], ["*", "LS"]);
    for cap in ["server-time", "multi-prefix", "echo-message", "message-tags"] {
        assert!(answer.text().split(' ').any(|other| other == cap), "{cap} in {answer:?}");
    }
    ann.introduce("ann");
    ann.say("PING held");
    let held = ann.next();
    assert_eq!(held.command, "PONG", "registration is held until CAP END: {held:?}");
    ann.say("CAP END");
    ann.welcome();
}

/// NAK, and nothing changed, where one is not known; `-` gives one up.
fn cap_req_is_granted_whole_or_not_at_all(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = Member::stranger(server.client());
    let answer = ann.ask("CAP REQ :multi-prefix sasl", "CAP");
    assert_eq!(answer.params[1..], ["NAK", "multi-prefix sasl"]);
    assert_eq!(ann.ask("CAP LIST", "CAP").params[1..], ["LIST", ""]);
    let answer = ann.ask("CAP REQ :multi-prefix setname", "CAP");
    assert_eq!(answer.params[1..], ["ACK", "multi-prefix setname"]);
    assert_eq!(ann.ask("CAP REQ :-setname", "CAP").params[1..], ["ACK", "-setname"]);
    assert_eq!(ann.ask("CAP LIST", "CAP").params[1..], ["LIST", "multi-prefix"]);
    ann.introduce("ann");
    ann.say("CAP END");
    ann.welcome();
}

/// CAP LS after registration is answered to the nickname and holds nothing up.
fn cap_works_after_registration(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    assert_eq!(ann.ask("CAP LS 302", "CAP").params[..2], ["ann", "LS"]);
    ann.ask("CAP BOGUS", "410");
    ann.say("CAP END");
    ann.hears_nothing();
}

/// As a tag, in milliseconds, and not to the others.
fn server_time_is_told_to_those_who_asked(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (capable(&server, "ann", "server-time"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.sync();
    bob.say("PRIVMSG #c :what time is it?");
    let message = ann.gets("PRIVMSG");
    let time = message.tags.strip_prefix("time=").unwrap_or_default();
    assert!(time.len() == 24 && time.ends_with('Z') && time.starts_with("20"), "{message:?}");
    ann.say("PRIVMSG #c :late");
    assert_eq!(bob.gets("PRIVMSG").tags, "");
}

/// multi-prefix and userhost-in-names.
fn names_show_every_rank_and_the_mask(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = capable(&server, "ann", "multi-prefix userhost-in-names");
    let mut bob = server.member("bob");
    ann.join("#c");
    ann.say("MODE #c +v ann");
    ann.expect("ann MODE #c +v ann");
    ann.say("NAMES #c");
    assert_eq!(ann.through("366")[0].text(), "@+ann!ann@127.0.0.1");
    bob.say("NAMES #c");
    assert_eq!(bob.through("366")[0].text(), "@ann");
}

/// `*` for the account that there is not.
fn extended_join_tells_the_real_name(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (capable(&server, "ann", "extended-join"), server.member("bob"));
    bob.join("#c");
    ann.say("JOIN #c");
    assert_eq!(ann.through("366")[0].params, ["#c", "*", "Real ann"]);
    assert_eq!(bob.gets("JOIN").params, ["#c"]);
}

/// AWAY when it changes and when one that is away joins; not to those elsewhere.
fn away_notify_tells_those_who_share_a_channel(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = capable(&server, "ann", "away-notify");
    let (mut bob, mut cid) = (server.member("bob"), capable(&server, "cid", "away-notify"));
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.sync();
    bob.ask("AWAY :out", "306");
    ann.expect("bob AWAY out");
    bob.ask("AWAY :out", "306");
    bob.ask("AWAY", "305");
    ann.expect("bob AWAY");
    cid.hears_nothing();
    cid.ask("AWAY :too", "306");
    cid.join("#c");
    assert_eq!(ann.briefs(), ["cid JOIN #c", "cid AWAY too"]);
    assert_eq!(bob.briefs(), ["cid JOIN #c"]);
}

/// And an empty or endless one is refused.
fn setname_is_told_to_those_who_asked(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (capable(&server, "ann", "setname"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.sync();
    bob.say("SETNAME :Bob the Second");
    bob.hears_nothing();
    ann.expect("bob SETNAME Bob the Second");
    ann.say("WHOIS bob");
    assert_eq!(ann.through("318")[0].text(), "Bob the Second");
    ann.ask(&format!("SETNAME :{}", "n".repeat(200)), "FAIL");
}

/// And no other member.
fn invite_notify_tells_operators(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = capable(&server, "ann", "invite-notify");
    let mut bob = capable(&server, "bob", "invite-notify");
    let mut cid = server.member("cid");
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.sync();
    bob.ask("INVITE cid #c", "341");
    bob.hears_nothing();
    ann.expect("bob INVITE cid #c");
    cid.expect("bob INVITE cid #c");
}

/// PRIVMSG and NOTICE, once for each target.
fn echo_message_comes_back(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (capable(&server, "ann", "echo-message"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.sync();
    ann.say("PRIVMSG #c,bob :hello");
    assert_eq!(ann.briefs(), ["ann PRIVMSG #c hello", "ann PRIVMSG bob hello"]);
    assert_eq!(bob.briefs(), ["ann PRIVMSG #c hello", "ann PRIVMSG bob hello"]);
    bob.say("PRIVMSG #c :hello");
    bob.hears_nothing();
}

/// With PRIVMSG and TAGMSG; tags of the server's cannot be forged.
fn client_tags_reach_those_who_understand_them(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = capable(&server, "ann", "message-tags");
    let mut bob = capable(&server, "bob", "message-tags");
    let mut cid = server.member("cid");
    gather("#c", &mut [&mut ann, &mut bob, &mut cid]);
    for member in [&mut ann, &mut bob, &mut cid] {
        member.sync();
    }
    ann.say("@+typing=active;time=1999;msgid=mine;+x\x07=y PRIVMSG #c :hi");
    let message = bob.gets("PRIVMSG");
    let tags: Vec<&str> = message.tags.split(';').collect();
    assert!(tags[0].starts_with("msgid=") && tags[0] != "msgid=mine", "{message:?}");
    assert_eq!(tags[1..], ["+typing=active"]);
    assert_eq!(cid.gets("PRIVMSG").tags, "");
    ann.say("@+typing=done TAGMSG #c");
    let message = bob.gets("TAGMSG");
    assert!(message.tags.ends_with(";+typing=done"), "{message:?}");
    cid.hears_nothing();
    cid.ask("TAGMSG #c", "421");
}

/// 4096 bytes of tags beside 512 of the rest; 417 for more of either, and the connection lives.
fn tags_are_bounded(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let mut ann = capable(&server, "ann", "message-tags");
    let mut bob = capable(&server, "bob", "message-tags");
    let tags = |len: usize| format!("@+x={} ", "y".repeat(len - "@+x= ".len()));
    ann.say(format!("{}PRIVMSG bob :hi", tags(4096)));
    assert!(bob.gets("PRIVMSG").tags.len() > 4090);
    ann.ask(&format!("{}PRIVMSG bob :hi", tags(4097)), "417");
    // Less than --max-recvq: more than that without an end closes the connection, and where the
    // network cuts the line is its own affair.
    ann.ask(&format!("{}PRIVMSG bob :hi", tags(8000)), "417");
    ann.ask(&format!("{}PRIVMSG bob :{}", tags(10), "x".repeat(500)), "417");
    ann.ask(&format!("PRIVMSG bob :{}", "x".repeat(500)), "417");
    bob.hears_nothing();
}

/// On one line, on a batch of several, on an ACK of none.
fn a_label_comes_back_on_the_answer(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = capable(&server, "ann", "labeled-response batch");
    ann.join("#c");
    assert_eq!(ann.ask("@label=a PING x", "PONG").tags, "label=a");
    assert_eq!(ann.ask("@label=b PRIVMSG #c :x", "ACK").tags, "label=b");
    ann.say("@label=c MODE #c");
    let start = ann.gets("BATCH");
    assert_eq!((start.tags.as_str(), start.text()), ("label=c", "labeled-response"));
    let batch = start.param(0).trim_start_matches('+').to_owned();
    for answer in ["324", "329"] {
        assert_eq!(ann.gets(answer).tags, format!("batch={batch}"));
    }
    assert_eq!(ann.gets("BATCH").param(0), format!("-{batch}"));
    assert_eq!(ann.ask("PING x", "PONG").tags, "");
}

/// Members with each mix of what changes a message hear the same, in the same order.
fn each_receiver_hears_once_whatever_it_asked_for(ctx: &Ctx) {
    let workers = if may_have_workers(ctx) { "2" } else { "1" };
    let server = ctx.busy_chat(&["--workers", workers]);
    let caps = ["server-time", "message-tags", "extended-join"];
    let mut members: Vec<Member> = (0..8)
        .map(|mix| {
            let wanted = caps.iter().enumerate().filter(|(bit, _)| mix >> bit & 1 == 1);
            let wanted: Vec<&str> = wanted.map(|(_, cap)| *cap).collect();
            capable(&server, &format!("m{mix}"), &wanted.join(" "))
        })
        .collect();
    for member in &mut members {
        member.say("JOIN #c");
        member.through("366");
    }
    let mut speaker = server.member("speaker");
    speaker.join("#c");
    for n in 0..20 {
        speaker.say(format!("PRIVMSG #c :{n}"));
        speaker.say(format!("NICK speaker{n}"));
    }
    speaker.say("PART #c");
    let through: Vec<Message> = speaker.through("PART");
    assert_eq!(through.len(), 21);
    for member in &mut members {
        let heard = member.through("PART");
        let own = heard.iter().position(|m| m.from() == "speaker" && m.command == "JOIN");
        let heard = &heard[own.expect("the speaker's JOIN") + 1..];
        assert_eq!(heard.len(), 41, "what {} heard: {heard:?}", member.nick);
        for (n, pair) in heard.chunks(2).take(20).enumerate() {
            assert_eq!(
                (pair[0].text(), pair[1].text()),
                (&*n.to_string(), &*format!("speaker{n}"))
            );
        }
    }
}
