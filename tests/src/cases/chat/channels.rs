//! Channels: who is in, who hears of it, and what is left when all have gone.

use crate::cases::{Case, cases};
use crate::member::{Member, Message, gather};
use crate::watchdog::Ctx;

pub(super) const CASES: &[Case] = cases![Chat:
    join_answers_with_join_names_and_the_end_of_names needs 2,
    join_tells_the_topic_if_there_is_one needs 2,
    join_takes_a_list,
    joining_twice_is_no_news needs 2,
    join_zero_leaves_every_channel needs 2,
    bad_channel_names_get_403,
    a_channel_name_that_is_no_channel_name_harms_no_member,
    irssis_empty_join_is_survived,
    part_reaches_every_member_and_the_one_who_leaves needs 2,
    part_takes_a_list_and_a_reason needs 2,
    part_from_elsewhere_is_told needs 2,
    quit_reaches_those_who_share_a_channel_once needs 2,
    a_vanished_connection_is_a_quit needs 2,
    topic_is_set_shown_and_cleared needs 2,
    topic_is_for_members needs 2,
    an_empty_channel_is_gone_with_its_topic needs 2,
    names_lists_the_members needs 2,
    names_of_a_large_channel_come_in_several_lines needs 2,
    joining_and_leaving_without_a_name_gets_461,
];

fn commands(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.command.as_str()).collect()
}

/// The nicknames in the 353 replies, sorted, without the signs of ranks.
fn names(messages: &[Message]) -> Vec<String> {
    let replies = messages.iter().filter(|message| message.command == "353");
    let mut names: Vec<String> = replies
        .flat_map(|m| m.text().split_whitespace())
        .map(|name| name.trim_start_matches(['@', '+']).to_owned())
        .collect();
    names.sort();
    names
}

/// JOIN is answered with itself, 353 with everybody there, and 366.
fn join_answers_with_join_names_and_the_end_of_names(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    let answer = ann.join("#c");
    assert_eq!(commands(&answer), ["JOIN", "353", "366"]);
    assert_eq!(names(&answer), ["ann"]);
    assert_eq!((answer[1].param(0), answer[1].param(2)), ("ann", "#c"), "{:?}", answer[1]);
    assert_eq!((answer[2].param(0), answer[2].param(1)), ("ann", "#c"), "{:?}", answer[2]);
    let answer = bob.join("#c");
    assert_eq!(names(&answer), ["ann", "bob"]);
    let heard = ann.sync();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0].brief(), "bob JOIN #c");
    assert!(heard[0].source.starts_with("bob!") && heard[0].source.contains('@'), "{heard:?}");
}

/// A newcomer learns the topic and who set it: 332 and 333 before the names.
fn join_tells_the_topic_if_there_is_one(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    ann.join("#c");
    ann.say("TOPIC #c :what it is about");
    ann.expect("ann TOPIC #c what it is about");
    let answer = bob.join("#c");
    assert_eq!(commands(&answer), ["JOIN", "332", "333", "353", "366"]);
    assert_eq!(answer[1].params, ["bob", "#c", "what it is about"]);
    assert!(answer[2].param(2).starts_with("ann"), "who set it: {:?}", answer[2]);
    assert!(answer[2].param(3).parse::<u64>().is_ok(), "when: {:?}", answer[2]);
}

/// A list is as many joins.
fn join_takes_a_list(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    ann.say("JOIN #a,#b,#c");
    for channel in ["#a", "#b", "#c"] {
        let answer = ann.through("366");
        assert_eq!(answer[0].brief(), format!("ann JOIN {channel}"));
    }
    ann.hears_nothing();
}

/// A second JOIN changes nothing, and no member hears of it.
fn joining_twice_is_no_news(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    bob.say("JOIN #c");
    assert!(bob.sync().iter().all(|m| m.command != "JOIN"), "no second JOIN");
    ann.hears_nothing();
    ann.say("NAMES #c");
    assert_eq!(names(&ann.through("366")), ["ann", "bob"]);
}

/// `JOIN 0` is PART from each channel.
fn join_zero_leaves_every_channel(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#a", &mut [&mut ann, &mut bob]);
    gather("#b", &mut [&mut ann, &mut bob]);
    ann.sync();
    bob.say("JOIN 0");
    for member in [&mut bob, &mut ann] {
        let mut parts: Vec<String> = member
            .sync()
            .iter()
            .map(|m| format!("{} {} {}", m.from(), m.command, m.param(0)))
            .collect();
        parts.sort();
        assert_eq!(parts, ["bob PART #a", "bob PART #b"], "what {} got", member.nick);
    }
}

/// No `#`, control characters, bidirectional overrides: 403.
fn bad_channel_names_get_403(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let mut ann = server.member("ann");
    for name in ["c", "&c", "+c", "!c", "#a\x07b", "#a\x01b", "#a\u{85}b", "#a\u{202e}b"] {
        ann.say(format!("JOIN {name}"));
        let answer = ann.next();
        assert_eq!(answer.command, "403", "the answer to JOIN {name:?}: {answer:?}");
        let shown = answer.params.concat();
        assert!(!shown.contains(|c: char| c.is_control()), "403 repeats it: {answer:?}");
    }
    ann.hears_nothing();
}

/// One bad name in a list does not spoil the others.
fn a_channel_name_that_is_no_channel_name_harms_no_member(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    ann.say("JOIN #a,nonsense,#b");
    assert_eq!(ann.through("366")[0].brief(), "ann JOIN #a");
    ann.gets("403");
    assert_eq!(ann.through("366")[0].brief(), "ann JOIN #b");
}

/// irssi may send `JOIN :` while it connects, before and after it is registered.
fn irssis_empty_join_is_survived(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = Member::stranger(server.client());
    ann.say("CAP LS 302");
    ann.gets("CAP");
    ann.say("JOIN :");
    let refusal = ann.next();
    assert!(refusal.is_error(), "{refusal:?}");
    ann.introduce("ann");
    ann.say("CAP END");
    ann.welcome();
    ann.say("JOIN :");
    let answer = ann.sync();
    assert!(answer.len() <= 1 && answer.iter().all(Message::is_error), "{answer:?}");
    ann.join("#c");
}

/// Everybody in the channel hears of it once, the one who leaves included.
fn part_reaches_every_member_and_the_one_who_leaves(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob, mut cid) =
        (server.member("ann"), server.member("bob"), server.member("cid"));
    gather("#c", &mut [&mut ann, &mut bob]);
    cid.join("#other");
    bob.say("PART #c");
    assert_eq!(bob.briefs(), ["bob PART #c"]);
    assert_eq!(ann.briefs(), ["bob PART #c"]);
    cid.hears_nothing();
    ann.say("PRIVMSG #c :anybody here?");
    ann.hears_nothing();
    bob.hears_nothing();
}

/// A list, and the reason with each.
fn part_takes_a_list_and_a_reason(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#a", &mut [&mut ann, &mut bob]);
    gather("#b", &mut [&mut ann, &mut bob]);
    ann.sync();
    bob.say("PART #a,#b :so long");
    assert_eq!(bob.briefs(), ["bob PART #a so long", "bob PART #b so long"]);
    assert_eq!(ann.briefs(), ["bob PART #a so long", "bob PART #b so long"]);
}

/// 403 where there is no such channel, 442 where one is not in it.
fn part_from_elsewhere_is_told(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    ann.join("#c");
    assert_eq!(bob.ask("PART #nowhere", "403").param(1), "#nowhere");
    assert_eq!(bob.ask("PART #c", "442").param(1), "#c");
    ann.hears_nothing();
}

/// One QUIT with its reason to each, whatever number of channels is shared; ERROR to the one who
/// leaves, and the end of the stream.
fn quit_reaches_those_who_share_a_channel_once(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob, mut cid) =
        (server.member("ann"), server.member("bob"), server.member("cid"));
    gather("#a", &mut [&mut ann, &mut bob]);
    gather("#b", &mut [&mut ann, &mut bob]);
    cid.join("#other");
    ann.sync();
    bob.say("QUIT :gone fishing");
    bob.is_cut();
    let quit = ann.gets("QUIT");
    assert_eq!(quit.from(), "bob");
    assert!(quit.text().contains("gone fishing"), "{quit:?}");
    ann.hears_nothing();
    cid.hears_nothing();
}

/// However a member goes, the others hear of it.
fn a_vanished_connection_is_a_quit(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    ann.join("#c");
    let goodbyes: [fn(Member); 3] = [drop, |bob| bob.client.half_close(), |bob| bob.client.reset()];
    for goodbye in goodbyes {
        let mut bob = server.member("bob");
        bob.join("#c");
        ann.expect("bob JOIN #c");
        goodbye(bob);
        let quit = ann.gets("QUIT");
        assert_eq!(quit.from(), "bob");
        ann.hears_nothing();
    }
}

/// Set, asked for (332 and 333), cleared, asked for (331).
fn topic_is_set_shown_and_cleared(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    assert_eq!(ann.ask("TOPIC #c", "331").param(1), "#c");
    ann.say("TOPIC #c :spring: it has come");
    ann.expect("ann TOPIC #c spring: it has come");
    assert_eq!(bob.briefs(), ["ann TOPIC #c spring: it has come"]);
    assert_eq!(bob.ask("TOPIC #c", "332").text(), "spring: it has come");
    assert!(bob.gets("333").param(2).starts_with("ann"));
    bob.say("TOPIC #c :");
    assert_eq!(bob.next().brief(), "bob TOPIC #c");
    assert_eq!(ann.briefs(), ["bob TOPIC #c"]);
    ann.ask("TOPIC #c", "331");
    ann.hears_nothing();
}

/// 442 for who is not in the channel, 403 where there is none, 461 without a name.
fn topic_is_for_members(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    ann.join("#c");
    bob.ask("TOPIC #c :mine now", "442");
    bob.ask("TOPIC #nowhere", "403");
    bob.ask("TOPIC", "461");
    ann.ask("TOPIC #c", "331");
}

/// The last one out takes the channel along.
fn an_empty_channel_is_gone_with_its_topic(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    ann.join("#c");
    ann.say("TOPIC #c :old");
    ann.expect("ann TOPIC #c old");
    ann.say("PART #c");
    ann.expect("ann PART #c");
    bob.ask("TOPIC #c", "403");
    assert_eq!(commands(&bob.join("#c")), ["JOIN", "353", "366"]);
}

/// NAMES of a channel, also for those outside; 366 alone where there is none.
fn names_lists_the_members(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob, mut cid) =
        (server.member("ann"), server.member("bob"), server.member("cid"));
    gather("#c", &mut [&mut ann, &mut bob]);
    cid.say("NAMES #c");
    let answer = cid.through("366");
    assert_eq!(names(&answer), ["ann", "bob"]);
    assert_eq!(answer.last().map(|end| end.param(1)), Some("#c"));
    cid.say("NAMES #nowhere");
    assert_eq!(commands(&cid.through("366")), ["366"]);
}

/// A line holds 512 bytes; the names of a hundred members need several, and each is there once.
fn names_of_a_large_channel_come_in_several_lines(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let mut members: Vec<Member> =
        (0..60).map(|n| server.member(&format!("{}{n:02}", "long-nickname-".repeat(2)))).collect();
    for member in &mut members {
        member.join("#c");
    }
    let mut ann = server.member("ann");
    ann.client.send("NAMES #c\r\n");
    let mut replies = Vec::new();
    while replies.last().is_none_or(|last: &Message| last.command != "366") {
        let line = ann.client.line();
        assert!(line.len() <= 510, "{} bytes in a line", line.len() + 2);
        replies.push(Message::parse(&line));
    }
    let expected: Vec<String> = members.iter().map(|member| member.nick.clone()).collect();
    assert_eq!(names(&replies), expected);
    assert!(replies.len() > 3, "{} lines", replies.len());
}

/// 461 without a channel.
fn joining_and_leaving_without_a_name_gets_461(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    ann.ask("JOIN", "461");
    ann.ask("PART", "461");
}
