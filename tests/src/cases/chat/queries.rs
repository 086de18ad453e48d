//! Queries: what clients ask by themselves, and wait for.

use crate::cases::{Case, cases};
use crate::member::{Member, Message, gather};
use crate::watchdog::Ctx;

pub(super) const CASES: &[Case] = cases![Chat:
    what_irssi_asks_after_joining_is_answered,
    mode_of_oneself_is_answered,
    mode_of_others_is_refused needs 2,
    who_lists_a_channel_or_a_member needs 2,
    whois_tells_who_it_is needs 2,
    whois_of_nobody_gets_401_and_an_end,
    list_tells_channels_sizes_and_topics needs 2,
    list_takes_masks_and_conditions needs 2,
    help_tells_what_a_command_takes,
    lusers_counts needs 2,
    version_motd_and_names_are_answered,
    ison_and_userhost_answer_for_those_who_are_there needs 2,
    queries_without_what_they_need_get_461,
    answers_give_a_parameter_back_as_it_was_sent needs 3,
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
    assert!(reply("319").text().split_whitespace().any(|channel| channel.ends_with("#c")));
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

/// Names and masks of which one must fit, and conditions that must all hold.
fn list_takes_masks_and_conditions(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#two", &mut [&mut ann, &mut bob]);
    ann.join("#one");
    ann.say("TOPIC #one :set");
    ann.sync();
    for (question, expected) in [
        ("#T*", "#two"),
        ("!*t*", "#one"),
        (">1", "#two"),
        ("<2", "#one"),
        ("#one,>1", ""),
        ("C<5", "#one #two"),
        ("C>5", ""),
        ("T<5", "#one"),
    ] {
        ann.say(format!("LIST {question}"));
        let answer = ann.through("323");
        let told = answer.iter().filter(|message| message.command == "322");
        let mut told: Vec<&str> = told.map(|message| message.param(1)).collect();
        told.sort_unstable();
        assert_eq!(told.join(" "), expected, "LIST {question}");
    }
}

/// 704 and 706 for a command, 705 between for all of them, 524 for anything else.
fn help_tells_what_a_command_takes(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    assert!(ann.ask("HELP join", "704").text().starts_with("JOIN #channel"));
    ann.gets("706");
    ann.ask("HELP nonsense", "524");
    ann.say("HELP");
    let answer = ann.through("706");
    let told = |word| answer.iter().any(|message| message.text().contains(word));
    assert!(told("PRIVMSG") && told("WHOIS"), "{answer:?}");
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

/// 251 to 255, 265 and 266, and telling the number of members.
fn lusers_counts(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.say("LUSERS");
    let answer = ann.through("266");
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

/// What an answer says it is the answer to stands there as it was sent, whatever its case and
/// however long: by that alone can a client tell which of its questions has been answered.
fn answers_give_a_parameter_back_as_it_was_sent(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    let _cid = server.member("cid");
    ann.join("#c");
    for (line, numeric, given) in [
        ("WHOIS ANN", "318", "ANN"),
        ("WHOIS X", "401", "X"),
        ("WHOWAS X", "406", "X"),
        ("WHOWAS X", "369", "X"),
        ("WHO ANN", "315", "ANN"),
        ("WHO #C", "315", "#C"),
        ("NAMES #C", "366", "#C"),
        ("NAMES #C,#X", "366", "#C,#X"),
        ("MODE #C b", "368", "#C"),
        ("MODE #C +m", "442", "#C"),
        ("MODE ANNA", "401", "ANNA"),
        ("PRIVMSG #C :x", "404", "#C"),
        ("PRIVMSG @#C :x", "404", "@#C"),
        ("PRIVMSG X :x", "401", "X"),
        ("PART #C", "442", "#C"),
        ("TOPIC #C", "442", "#C"),
        ("KICK #C ANN", "442", "#C"),
        ("INVITE X #C", "401", "X"),
        ("INVITE ANN #C", "442", "#C"),
        ("NICK ANN", "433", "ANN"),
        ("MONITOR + 1X", "432", "1X"),
        ("STATS X", "219", "X"),
        ("LINKS X", "365", "X"),
        ("LINKS X Y", "365", "Y"),
        ("LINKS", "365", "*"),
        ("HELP join", "704", "join"),
        ("HELP join", "706", "join"),
        ("HELP X", "524", "X"),
        ("CAP x", "410", "x"),
        ("xyz", "421", "xyz"),
        ("tagmsg #C", "421", "tagmsg"),
        ("JOIN #C", "366", "#C"),
    ] {
        gives_back(&mut bob, line, numeric, given);
    }
    ann.sync();
    ann.say("MODE #c +eb bob!*@* bob!*@*");
    ann.sync();
    refusals_give_parameters_back(&mut ann, &mut bob);
    long_parameters_come_back(&mut bob);
}

/// What an operator of #c, and another member of it that may not be heard there, are refused.
#[track_caller]
fn refusals_give_parameters_back(ann: &mut Member, bob: &mut Member) {
    for (line, numeric, given) in [
        ("MODE #C e", "349", "#C"),
        ("MODE #C I", "347", "#C"),
        ("MODE #C +o CID", "441", "CID #C"),
        ("MODE #C +o X", "401", "X"),
        ("MODE #C +X", "472", "X"),
        ("MODE #C +l X", "696", "#C l X"),
        ("KICK #C CID", "441", "CID #C"),
        ("KICK #C X", "401", "X"),
        ("INVITE BOB #C", "443", "BOB #C"),
    ] {
        gives_back(ann, line, numeric, given);
    }
    ann.say("MODE #c +it-e bob!*@*");
    ann.sync();
    bob.sync();
    for (line, numeric, given) in [
        ("MODE #C +m", "482", "#C"),
        ("KICK #C ANN", "482", "#C"),
        ("INVITE ANN #C", "443", "ANN #C"),
        ("INVITE CID #C", "482", "#C"),
        ("TOPIC #C :x", "482", "#C"),
        ("PRIVMSG #C :x", "404", "#C"),
        ("NICK BERT", "435", "BERT #c"),
    ] {
        gives_back(bob, line, numeric, given);
    }
    bob.ask("PART #C", "PART");
    gives_back(bob, "JOIN #C", "474", "#C");
}

/// However long they are, as far as they fit in a line.
#[track_caller]
fn long_parameters_come_back(bob: &mut Member) {
    let long = "x".repeat(400);
    for (command, end) in [
        ("WHOIS ", "401"),
        ("WHO ", "315"),
        ("NAMES ", "366"),
        ("LINKS ", "365"),
        ("JOIN ", "403"),
        ("MODE ", "401"),
        ("MODE #", "403"),
        ("TOPIC ", "403"),
        ("PART ", "403"),
        ("NICK ", "432"),
        ("", "421"),
    ] {
        let line = format!("{command}{long}");
        let given = line.split(' ').next_back().unwrap_or_default();
        gives_back(bob, &line, end, given);
        if command == "WHOIS " {
            gives_back(bob, &line, "318", given);
        }
    }
    // What does not fit loses its end, and the line is no longer than any other.
    bob.say(format!("WHO {}", "x".repeat(506)));
    let end = bob.client.line();
    assert!(end.len() <= 510, "{} bytes: {:?}", end.len(), String::from_utf8_lossy(&end));
    bob.hears_nothing();
}

/// The line is answered with this numeric, in which these parameters come after the nickname.
#[track_caller]
fn gives_back(member: &mut Member, line: &str, numeric: &str, given: &str) {
    member.say(line);
    let answer = member.through(numeric);
    let params = answer.last().map_or(&[][..], |last| &last.params);
    let places = given.split(' ').filter(|given| !given.is_empty());
    let there = params.iter().skip(1).take(places.clone().count());
    assert!(there.eq(places), "{line} should give {given:?} back: {answer:?}");
    member.sync();
}
