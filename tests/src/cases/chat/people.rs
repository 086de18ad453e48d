//! What members say of themselves, and what others learn of them.

use crate::cases::{Case, cases};
use crate::member::{Message, gather};
use crate::watchdog::Ctx;

pub(super) const CASES: &[Case] = cases![Chat:
    away_is_told_to_those_who_write needs 2,
    away_shows_in_whois_who_and_userhost needs 2,
    modes_of_oneself_are_set_and_told,
    no_member_makes_itself_an_operator,
    a_robot_says_that_it_is_one needs 2,
    invisible_members_are_hidden_from_strangers needs 3,
    who_takes_masks needs 2,
    whox_tells_the_fields_that_are_asked_for needs 2,
    whowas_tells_who_had_a_nickname needs 2,
    whowas_forgets_the_oldest needs 2,
    lusers_tells_invisible_members_and_the_most needs 2,
    the_server_tells_of_itself,
];

fn commands(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.command.as_str()).collect()
}

/// 306 and 305; 301 for a PRIVMSG and none for a NOTICE.
fn away_is_told_to_those_who_write(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    bob.ask("AWAY :out for lunch", "306");
    assert_eq!(ann.ask("PRIVMSG bob :there?", "301").params, ["ann", "bob", "out for lunch"]);
    bob.expect("ann PRIVMSG bob there?");
    ann.say("NOTICE bob :there?");
    ann.hears_nothing();
    bob.expect("ann NOTICE bob there?");
    bob.ask("AWAY", "305");
    ann.say("PRIVMSG bob :back?");
    ann.hears_nothing();
}

/// 301 in WHOIS, `G` in WHO, `-` in USERHOST.
fn away_shows_in_whois_who_and_userhost(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    bob.ask("AWAY :gone", "306");
    ann.say("WHOIS bob");
    assert!(commands(&ann.through("318")).contains(&"301"));
    ann.say("WHO bob");
    assert_eq!(ann.through("315")[0].param(6), "G");
    assert!(ann.ask("USERHOST bob", "302").text().starts_with("bob=-"));
}

/// +i and +w, each told once; 221 tells all; 501 for what is none.
fn modes_of_oneself_are_set_and_told(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    ann.say("MODE ann +iw");
    ann.expect("ann MODE ann +iw");
    ann.say("MODE ann +i");
    ann.hears_nothing();
    assert_eq!(ann.ask("MODE ann", "221").param(1), "+iw");
    ann.say("MODE ann -i");
    ann.expect("ann MODE ann -i");
    ann.ask("MODE ann +X", "501");
}

/// +o is for OPER alone.
fn no_member_makes_itself_an_operator(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    ann.say("MODE ann +o");
    ann.hears_nothing();
    assert_eq!(ann.ask("MODE ann", "221").param(1), "+");
}

/// 335 in WHOIS, `B` in WHO, and a tag on what it says for those who asked for tags.
fn a_robot_says_that_it_is_one(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.ask("CAP REQ :message-tags", "CAP");
    bob.say("MODE bob +B");
    bob.expect("bob MODE bob +B");
    bob.say("PRIVMSG #c :beep");
    let heard = ann.gets("PRIVMSG");
    assert!(heard.tags.split(';').any(|tag| tag == "bot"), "{heard:?}");
    ann.say("WHOIS bob");
    let answer = ann.through("318");
    assert!(answer.iter().any(|message| message.command == "335"), "{answer:?}");
    assert_eq!(ann.ask("WHO bob", "352").param(6), "HB");
}

/// WHO by mask and NAMES from outside; a shared channel is enough to see them.
fn invisible_members_are_hidden_from_strangers(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob, mut cid) =
        (server.member("ann"), server.member("bob"), server.member("cid"));
    gather("#c", &mut [&mut ann, &mut bob]);
    bob.say("MODE bob +i");
    bob.expect("bob MODE bob +i");
    for (member, there) in [(&mut ann, true), (&mut cid, false)] {
        member.say("WHO b*");
        let answer = member.through("315");
        assert_eq!(answer.len() == 2, there, "WHO to {}: {answer:?}", member.nick);
        member.say("NAMES #c");
        let answer = member.through("366");
        assert_eq!(answer[0].text().contains("bob"), there, "NAMES to {}", member.nick);
    }
}

/// Nicknames, user names and hosts; none is an answer as well.
fn who_takes_masks(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, _bob) = (server.member("ann"), server.member("bob"));
    for (mask, count) in [("*", 2), ("B?b", 1), ("*n*", 1), ("127.*", 2), ("x*", 0), ("0", 2)] {
        ann.say(format!("WHO {mask}"));
        let answer = ann.through("315");
        assert_eq!(answer.len() - 1, count, "WHO {mask}: {answer:?}");
    }
}

/// In the order of WHOX, whatever the order of the question.
fn whox_tells_the_fields_that_are_asked_for(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    ann.say("WHO #c %nuhftc,42");
    let answer = ann.through("315");
    assert_eq!(commands(&answer), ["354", "354", "315"]);
    assert_eq!(answer[1].params, ["ann", "42", "#c", "bob", "127.0.0.1", "bob", "H"]);
}

/// 314 and 312, the latest first, no more than asked for; 406; 369 in any case.
fn whowas_tells_who_had_a_nickname(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    for user in ["first", "second"] {
        let mut bob = crate::member::Member::stranger(server.client());
        bob.client.send(format!("NICK bob\r\nUSER {user} 0 * :r\r\n"));
        bob.welcome();
        bob.say("QUIT");
        bob.is_cut();
    }
    ann.say("WHOWAS BOB");
    let answer = ann.through("369");
    assert_eq!(commands(&answer), ["314", "312", "314", "312", "369"]);
    assert_eq!((answer[0].param(2), answer[2].param(2)), ("second", "first"));
    ann.say("WHOWAS bob 1");
    assert_eq!(commands(&ann.through("369")), ["314", "312", "369"]);
    assert_eq!(ann.ask("WHOWAS nobody", "406").param(1), "nobody");
    ann.gets("369");
    ann.ask("WHOWAS", "431");
}

/// However often names are changed, what is remembered has a bound.
fn whowas_forgets_the_oldest(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    for n in 0..300 {
        bob.say(format!("NICK n{}", n % 2));
    }
    bob.sync();
    ann.say("WHOWAS n0,n1,bob");
    let told = [ann.through("369"), ann.through("369"), ann.through("369")].concat();
    assert_eq!(told.iter().filter(|message| message.command == "314").count(), 256);
    assert!(told.iter().any(|message| message.brief().contains("406 ann bob")), "bob is forgotten");
}

/// 251 tells them apart, 265 and 266 tell the most at once.
fn lusers_tells_invisible_members_and_the_most(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    bob.say("MODE bob +i");
    bob.expect("bob MODE bob +i");
    ann.say("LUSERS");
    let answer = ann.through("266");
    assert_eq!(answer[0].text(), "There are 1 users and 1 invisible on 1 server");
    assert_eq!(answer.last().map(|last| last.params[1..3].join(" ")), Some("2 2".to_owned()));
    bob.say("QUIT");
    bob.is_cut();
    ann.say("LUSERS");
    let answer = ann.through("266");
    assert_eq!(answer.last().map(|last| last.params[1..3].join(" ")), Some("1 2".to_owned()));
}

/// TIME, INFO, ADMIN, STATS u, LINKS.
fn the_server_tells_of_itself(ctx: &Ctx) {
    let server = ctx.chat(&["--admin", "root@example.org"]);
    let mut ann = server.member("ann");
    ann.ask("TIME", "391");
    ann.say("INFO");
    assert_eq!(commands(&ann.through("374")), ["371", "371", "374"]);
    ann.say("ADMIN");
    assert_eq!(ann.through("259").last().map(Message::text), Some("root@example.org"));
    ann.say("STATS u");
    assert_eq!(commands(&ann.through("219")), ["242", "219"]);
    ann.say("LINKS");
    assert_eq!(commands(&ann.through("365")), ["364", "365"]);
}
