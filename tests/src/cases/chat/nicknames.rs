//! Nicknames: what is one, whose it is, and when it is free again.

use crate::cases::{Case, cases};
use crate::member::{Member, gather};
use crate::watchdog::Ctx;

pub(super) const CASES: &[Case] = cases![Chat:
    a_nickname_in_use_gets_433_before_and_after_registration needs 2,
    nicknames_are_compared_under_the_casemapping needs 2,
    bad_nicknames_get_432 needs 2,
    good_nicknames_are_taken,
    a_nickname_is_free_the_moment_its_holder_is_gone needs 2,
    a_nickname_is_free_when_its_holder_has_changed_it needs 2,
    changing_the_nickname_reaches_those_who_share_a_channel_once needs 2,
    changing_only_the_letter_case_is_a_change,
    a_message_to_the_old_nickname_gets_401 needs 2,
];

/// 34: One in use: 433, to strangers and to members; another one can be tried at once.
fn a_nickname_in_use_gets_433_before_and_after_registration(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    let mut second = Member::stranger(server.client());
    second.introduce("ann");
    assert_eq!(second.gets("433").param(1), "ann");
    second.say("NICK bob");
    second.nick = "bob".to_owned();
    second.welcome();
    assert_eq!(second.ask("NICK ann", "433").param(1), "ann");
    ann.hears_nothing();
}

/// The casemapping that 005 names is the one that is used.
fn nicknames_are_compared_under_the_casemapping(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = Member::stranger(server.client());
    ann.introduce("ann[x]");
    let welcome = ann.welcome();
    let told = |mapping: &str| {
        welcome.iter().any(|m| m.params.contains(&format!("CASEMAPPING={mapping}")))
    };
    let mut bob = server.member("bob");
    bob.ask("NICK ANN[X]", "433");
    bob.say("NICK ann{x}");
    if told("ascii") {
        bob.expect("bob NICK ann{x}");
    } else if told("rfc1459") {
        bob.gets("433");
    } else {
        panic!("005 names no casemapping that is known: {welcome:?}");
    }
    ann.join("#Chan");
    bob.say("JOIN #cHAN");
    bob.through("366");
    let joined = ann.sync();
    assert_eq!(joined.len(), 1, "both names are one channel: {joined:?}");
}

/// 34: Too long, wrong characters, control characters, C1 characters, bidirectional overrides.
fn bad_nicknames_get_432(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let mut ann = server.member("ann");
    let long = "n".repeat(31);
    for nick in [
        "*",
        "#chan",
        "&chan",
        "1up",
        "-dash",
        &long,
        "a!b",
        "a@b",
        "a.b",
        "a,b",
        "a*b",
        "a?b",
        "a\x01b",
        "a\x7fb",
        "a\x1bb",
        "a\u{85}b",
        "a\u{9b}b",
        "a\u{202e}b",
        "a\u{2066}b",
        "a\u{200f}b",
    ] {
        ann.say(format!("NICK {nick}"));
        let answer = ann.next();
        assert_eq!(answer.command, "432", "the answer to NICK {nick:?}: {answer:?}");
        let shown = answer.params.concat();
        assert!(!shown.contains(|c: char| c.is_control()), "432 repeats it: {answer:?}");
    }
    let mut stranger = Member::stranger(server.client());
    stranger.introduce("a\u{202e}b");
    stranger.gets("432");
    ann.hears_nothing();
}

/// What RFC 2812 allows is allowed.
fn good_nicknames_are_taken(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let mut ann = server.member("ann");
    for nick in ["a", "Z9", "a-b", "[x]", "\\x", "`x^", "{x}", "_x", "|x|"] {
        ann.say(format!("NICK {nick}"));
        ann.expect(&format!("{} NICK {nick}", ann.nick.clone()));
        ann.nick = nick.to_owned();
    }
}

/// A nickname is free the moment its holder is gone: by QUIT, by the end of its stream, by a reset.
fn a_nickname_is_free_the_moment_its_holder_is_gone(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut witness = server.member("witness");
    witness.join("#c");
    let goodbyes: [fn(Member); 4] = [
        |mut ann| {
            ann.say("QUIT");
            ann.is_cut();
        },
        |ann| ann.client.half_close(),
        |ann| ann.client.reset(),
        drop,
    ];
    for goodbye in goodbyes {
        let mut ann = server.member("ann");
        ann.join("#c");
        witness.expect("ann JOIN #c");
        goodbye(ann);
        let quit = witness.gets("QUIT");
        assert_eq!(quit.from(), "ann");
    }
    server.member("ann").hears_nothing();
}

/// The old one is free when the new one is taken.
fn a_nickname_is_free_when_its_holder_has_changed_it(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    ann.say("NICK bob");
    ann.expect("ann NICK bob");
    let mut second = server.member("ann");
    second.ask("NICK bob", "433");
    ann.hears_nothing();
}

/// Those who share a channel hear of it once, however many channels they share; others do not.
fn changing_the_nickname_reaches_those_who_share_a_channel_once(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let mut ann = server.member("ann");
    let (mut bob, mut cid, mut dan) =
        (server.member("bob"), server.member("cid"), server.member("dan"));
    gather("#one", &mut [&mut ann, &mut bob]);
    gather("#two", &mut [&mut ann, &mut bob, &mut cid]);
    gather("#three", &mut [&mut dan]);
    bob.sync();
    ann.say("NICK eve");
    ann.expect("ann NICK eve");
    ann.hears_nothing();
    assert_eq!(bob.briefs(), ["ann NICK eve"]);
    assert_eq!(cid.briefs(), ["ann NICK eve"]);
    dan.hears_nothing();
    // What it says from now on is from the new name.
    ann.say("PRIVMSG #two :it is me");
    assert_eq!(ann.briefs(), [""; 0]);
    assert_eq!(cid.briefs(), ["eve PRIVMSG #two it is me"]);
}

/// One's own nickname in other letters is not in use by another.
fn changing_only_the_letter_case_is_a_change(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    ann.say("NICK ANN");
    ann.expect("ann NICK ANN");
    ann.hears_nothing();
}

/// A member that writes to a name that is not taken any more is told.
fn a_message_to_the_old_nickname_gets_401(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    ann.say("NICK eve");
    ann.expect("ann NICK eve");
    assert_eq!(bob.ask("PRIVMSG ann :hello", "401").param(1), "ann");
    bob.say("PRIVMSG eve :hello");
    bob.hears_nothing();
    ann.expect("bob PRIVMSG eve hello");
}
