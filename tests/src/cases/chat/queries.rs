//! Queries: what clients ask by themselves, and wait for.

use crate::cases::{Case, cases};
use crate::member::{Message, gather};
use crate::watchdog::Ctx;

pub(super) const CASES: &[Case] = cases![Chat:
    what_irssi_asks_after_joining_is_answered,
    mode_of_oneself_is_answered,
    mode_of_others_is_refused,
    who_lists_a_channel_or_a_member,
    whois_tells_who_it_is,
    whois_of_nobody_gets_401_and_an_end,
    list_tells_channels_sizes_and_topics,
    lusers_counts,
    version_motd_and_names_are_answered,
    ison_and_userhost_answer_for_those_who_are_there,
    queries_without_what_they_need_get_461,
];

fn commands(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.command.as_str()).collect()
}

/// MODE #c (324 and 329), MODE #c b (368 at the end), WHO #c (315 at the end).
fn what_irssi_asks_after_joining_is_answered(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    ann.join("#c");
    let mode = ann.ask("MODE #c", "324");
    assert_eq!((mode.param(0), mode.param(1)), ("ann", "#c"), "{mode:?}");
    let created = ann.gets("329");
    assert!(created.param(2).parse::<u64>().is_ok(), "{created:?}");
    assert_eq!(ann.ask("MODE #c b", "368").param(1), "#c");
    assert_eq!(ann.ask("MODE #c +b", "368").param(1), "#c");
    ann.say("WHO #c");
    assert_eq!(commands(&ann.through("315")), ["352", "315"]);
    assert_eq!(ann.ask("MODE #nowhere", "403").param(1), "#nowhere");
    ann.hears_nothing();
}

/// 221 tells the member's own modes. irssi sets +i at once; that must not end in silence for ever
/// or in an error that stops it.
fn mode_of_oneself_is_answered(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    assert_eq!(ann.ask("MODE ann", "221").param(0), "ann");
    ann.say("MODE ann +i");
    let answer = ann.sync();
    assert!(answer.len() <= 1, "the answer to MODE ann +i: {answer:?}");
}

/// Another's modes are not one's business.
fn mode_of_others_is_refused(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    for line in ["MODE bob", "MODE bob +i"] {
        ann.say(line);
        let answer = ann.sync();
        assert!(answer.len() == 1 && answer[0].is_error(), "the answer to {line}: {answer:?}");
    }
    assert_eq!(ann.ask("MODE nobody", "401").param(1), "nobody");
    bob.hears_nothing();
}

/// 352 for each, 315 in any case.
fn who_lists_a_channel_or_a_member(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.say("WHO #c");
    let answer = ann.through("315");
    let mut nicks: Vec<&str> =
        answer.iter().filter(|m| m.command == "352").map(|m| m.param(5)).collect();
    nicks.sort_unstable();
    assert_eq!(nicks, ["ann", "bob"], "{answer:?}");
    assert_eq!(answer[0].param(1), "#c", "{answer:?}");
    assert!(answer[0].text().contains("Real "), "the real name: {answer:?}");
    assert_eq!(answer.last().map(|end| end.param(1)), Some("#c"));
    ann.say("WHO bob");
    assert_eq!(commands(&ann.through("315")), ["352", "315"]);
    ann.say("WHO nobody");
    assert_eq!(commands(&ann.through("315")), ["315"]);
}

/// 311, 319 with the channels, 312, 317 with the idle time, 318.
fn whois_tells_who_it_is(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.say("WHOIS bob");
    let answer = ann.through("318");
    let reply = |command: &str| {
        let found = answer.iter().find(|message| message.command == command);
        found.unwrap_or_else(|| panic!("no {command} in {answer:?}"))
    };
    assert_eq!(reply("311").param(1), "bob");
    assert_eq!(reply("311").text(), "Real bob");
    assert!(reply("319").text().split_whitespace().any(|channel| channel == "#c"));
    assert_eq!(reply("312").param(1), "bob");
    assert!(reply("317").param(2).parse::<u64>().is_ok(), "the idle time: {answer:?}");
    assert_eq!(reply("318").param(1), "bob");
    bob.hears_nothing();
}

/// 401, and 318 all the same: clients wait for it.
fn whois_of_nobody_gets_401_and_an_end(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    assert_eq!(ann.ask("WHOIS nobody", "401").param(1), "nobody");
    ann.gets("318");
    ann.ask("WHOIS", "431");
    ann.hears_nothing();
}

/// 322 for each channel with its size and topic; 323 in any case.
fn list_tells_channels_sizes_and_topics(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#two", &mut [&mut ann, &mut bob]);
    ann.join("#one");
    ann.say("TOPIC #two :both");
    ann.sync();
    bob.sync();
    bob.say("LIST");
    let answer = bob.through("323");
    let mut listed: Vec<(&str, &str, &str)> = answer
        .iter()
        .filter(|message| message.command == "322")
        .map(|message| (message.param(1), message.param(2), message.text()))
        .collect();
    listed.sort_unstable();
    assert_eq!(listed.len(), 2, "{answer:?}");
    assert_eq!((listed[0].0, listed[0].1), ("#one", "1"));
    assert_eq!(listed[1], ("#two", "2", "both"));
    bob.say("LIST #one");
    let answer = bob.through("323");
    assert_eq!(answer.iter().filter(|m| m.command == "322").count(), 1, "{answer:?}");
}

/// 251 to 255, ending in 255 and telling the number of members.
fn lusers_counts(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.say("LUSERS");
    let answer = ann.through("255");
    assert_eq!(answer[0].command, "251");
    assert!(answer[0].text().contains('2'), "two members: {answer:?}");
    let channels = answer.iter().find(|message| message.command == "254");
    assert_eq!(channels.map(|message| message.param(1)), Some("1"), "{answer:?}");
}

/// VERSION gets 351, MOTD 422 where there is none, NAMES of nothing an end.
fn version_motd_and_names_are_answered(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    ann.ask("VERSION", "351");
    // Some servers repeat 005 after it.
    let rest = ann.sync();
    assert!(rest.iter().all(|message| message.command == "005"), "{rest:?}");
    ann.ask("MOTD", "422");
    ann.ask("NAMES", "366");
    ann.hears_nothing();
}

/// 303 and 302 name only those who are there.
fn ison_and_userhost_answer_for_those_who_are_there(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, _bob) = (server.member("ann"), server.member("bob"));
    assert_eq!(ann.ask("ISON ann nobody bob", "303").text().trim(), "ann bob");
    assert_eq!(ann.ask("ISON nobody", "303").text().trim(), "");
    let answer = ann.ask("USERHOST bob nobody", "302");
    assert!(answer.text().starts_with("bob=") && !answer.text().contains("nobody"), "{answer:?}");
    assert!(answer.text().contains('@'), "{answer:?}");
}

/// 461 where a name is missing.
fn queries_without_what_they_need_get_461(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    for line in ["ISON", "USERHOST", "MODE"] {
        ann.ask(line, "461");
    }
    ann.hears_nothing();
}
