//! Operators of channels: who is one, what it may, and who hears of it.

use crate::cases::{Case, cases};
use crate::member::{Member, Message, gather};
use crate::server::Server;
use crate::watchdog::Ctx;

pub(super) const CASES: &[Case] = cases![Chat:
    the_first_to_join_is_the_operator needs 2,
    the_features_tell_modes_and_ranks,
    ranks_are_given_and_taken needs 3,
    a_change_of_mode_reaches_every_member_once needs 3,
    refused_modes_have_their_numerics needs 3,
    a_kick_reaches_every_member_once needs 3,
    a_kick_takes_several_and_a_reason needs 3,
    refused_kicks_have_their_numerics needs 3,
    an_invitation_opens_an_invite_only_channel needs 2,
    refused_invitations_have_their_numerics needs 3,
    a_key_opens_and_only_members_see_it needs 2,
    a_limit_shuts_the_door needs 3,
    a_ban_holds_for_joining_speaking_and_renaming needs 3,
    an_exception_is_stronger_than_a_ban needs 2,
    a_moderated_channel_hears_voices_and_operators needs 3,
    a_sign_before_a_channel_means_those_of_the_rank needs 3,
    outsiders_are_heard_without_n needs 2,
    a_guarded_topic_is_for_operators needs 2,
    a_secret_channel_is_hidden needs 3,
    lists_of_masks_are_bounded,
    masks_and_keys_forge_nothing needs 2,
];

/// ann leads #c, and bob and cid are in it.
#[track_caller]
fn three(server: &Server) -> [Member; 3] {
    let [mut ann, mut bob, mut cid] = ["ann", "bob", "cid"].map(|nick| server.member(nick));
    gather("#c", &mut [&mut ann, &mut bob, &mut cid]);
    for member in [&mut ann, &mut bob, &mut cid] {
        member.sync();
    }
    [ann, bob, cid]
}

/// Has a member say a line that all of `members`, the speaker first, are told in this way.
#[track_caller]
fn told(members: &mut [&mut Member], line: &str, brief: &str) {
    members[0].say(line);
    for member in members {
        assert_eq!(member.briefs(), [brief], "what {} got of {line}", member.nick);
    }
}

fn reply<'a>(answer: &'a [Message], command: &str) -> &'a Message {
    let found = answer.iter().find(|message| message.command == command);
    found.unwrap_or_else(|| panic!("no {command} in {answer:?}"))
}

/// `@` stands before its nickname in 353, and no sign before another's.
fn the_first_to_join_is_the_operator(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    assert_eq!(reply(&ann.join("#c"), "353").text(), "@ann");
    let answer = bob.join("#c");
    let mut names: Vec<_> = reply(&answer, "353").text().split(' ').collect();
    names.sort_unstable();
    assert_eq!(names, ["@ann", "bob"]);
}

/// 005 claims what is there, and 004 names all letters.
fn the_features_tell_modes_and_ranks(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = Member::stranger(server.client());
    ann.introduce("ann");
    let welcome = ann.welcome();
    let features: Vec<&str> = welcome
        .iter()
        .filter(|message| message.command == "005")
        .flat_map(|message| message.params.iter().map(String::as_str))
        .collect();
    for feature in
        ["PREFIX=(ov)@+", "CHANMODES=beI,k,l,imnst", "EXCEPTS=e", "INVEX=I", "MAXLIST=beI:60"]
    {
        assert!(features.contains(&feature), "{feature} in {features:?}");
    }
    assert_eq!(reply(&welcome, "004").param(4), "Ibeiklmnostv");
}

/// +o, -o, +v, -v, several in one line.
fn ranks_are_given_and_taken(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let [mut ann, mut bob, mut cid] = three(&server);
    told(&mut [&mut ann, &mut bob, &mut cid], "MODE #c +o BOB", "ann MODE #c +o bob");
    told(&mut [&mut bob, &mut ann, &mut cid], "MODE #c -o+v ann cid", "bob MODE #c -o+v ann cid");
    ann.ask("MODE #c +o ann", "482");
    cid.say("NAMES #c");
    let answer = cid.through("366");
    let mut names: Vec<_> = reply(&answer, "353").text().split(' ').collect();
    names.sort_unstable();
    assert_eq!(names, ["+cid", "@bob", "ann"]);
}

/// Flags, a key and a limit in one line; what is so already is no news.
fn a_change_of_mode_reaches_every_member_once(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let [mut ann, mut bob, mut cid] = three(&server);
    let mut outsider = server.member("dan");
    let all = &mut [&mut ann, &mut bob, &mut cid];
    told(all, "MODE #c +imtkl sesame 9", "ann MODE #c +imtkl sesame 9");
    told(all, "MODE #c -i+n-kl x", "ann MODE #c -ikl *");
    ann.say("MODE #c +mt-i");
    ann.hears_nothing();
    assert_eq!(ann.ask("MODE #c", "324").param(2), "+mnt");
    outsider.hears_nothing();
}

/// 482 for members, 442 for others, 441 and 401 for whom a rank is meant, 472, 696, 403.
fn refused_modes_have_their_numerics(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let [mut ann, mut bob, mut cid] = three(&server);
    let mut dan = server.member("dan");
    assert_eq!(bob.ask("MODE #c +m", "482").param(1), "#c");
    assert_eq!(dan.ask("MODE #c +m", "442").param(1), "#c");
    assert_eq!(ann.ask("MODE #x +m", "403").param(1), "#x");
    assert_eq!(ann.ask("MODE #c +o dan", "441").params[1..3], ["dan", "#c"]);
    assert_eq!(ann.ask("MODE #c +o nobody", "401").param(1), "nobody");
    assert_eq!(ann.ask("MODE #c +X", "472").param(1), "X");
    assert_eq!(ann.ask("MODE #c +l some", "696").params[1..4], ["#c", "l", "some"]);
    ann.ask("MODE #c +k :two words", "696");
    ann.ask("MODE #c +o", "461");
    for member in [&mut ann, &mut bob, &mut cid, &mut dan] {
        member.hears_nothing();
    }
}

/// The one that is kicked among them; it is out.
fn a_kick_reaches_every_member_once(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let [mut ann, mut bob, mut cid] = three(&server);
    let all = &mut [&mut ann, &mut bob, &mut cid];
    told(all, "KICK #c BOB :enough of this", "ann KICK #c bob enough of this");
    bob.ask("PRIVMSG #c :but", "404");
    ann.say("PRIVMSG #c :he is gone");
    bob.hears_nothing();
    cid.expect("ann PRIVMSG #c he is gone");
}

/// A message for each; without a reason, the nickname of the operator.
fn a_kick_takes_several_and_a_reason(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let [mut ann, mut bob, mut cid] = three(&server);
    ann.say("KICK #c bob,cid");
    assert_eq!(ann.briefs(), ["ann KICK #c bob ann", "ann KICK #c cid ann"]);
    assert_eq!(bob.briefs(), ["ann KICK #c bob ann"]);
    assert_eq!(cid.briefs(), ["ann KICK #c bob ann", "ann KICK #c cid ann"]);
    ann.say("KICK #c ann :out");
    assert_eq!(ann.briefs(), ["ann KICK #c ann out"]);
    ann.ask("MODE #c", "403");
}

/// 482, 442, 441, 401, 403, 461.
fn refused_kicks_have_their_numerics(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let [mut ann, mut bob, mut cid] = three(&server);
    let mut dan = server.member("dan");
    assert_eq!(bob.ask("KICK #c ann", "482").param(1), "#c");
    assert_eq!(dan.ask("KICK #c ann", "442").param(1), "#c");
    assert_eq!(ann.ask("KICK #c dan", "441").params[1..3], ["dan", "#c"]);
    assert_eq!(ann.ask("KICK #c nobody", "401").param(1), "nobody");
    assert_eq!(ann.ask("KICK #x bob", "403").param(1), "#x");
    ann.ask("KICK #c", "461");
    for member in [&mut bob, &mut cid] {
        member.hears_nothing();
    }
}

/// 473 before, 341 and INVITE, and then it may; once.
fn an_invitation_opens_an_invite_only_channel(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    ann.join("#c");
    ann.say("MODE #c +i");
    ann.expect("ann MODE #c +i");
    assert_eq!(bob.ask("JOIN #c", "473").param(1), "#c");
    assert_eq!(ann.ask("INVITE bob #c", "341").params, ["ann", "bob", "#c"]);
    bob.expect("ann INVITE bob #c");
    assert_eq!(bob.ask("INVITE", "336").param(1), "#c");
    bob.gets("337");
    bob.join("#c");
    bob.say("PART #c");
    bob.expect("bob PART #c");
    bob.ask("JOIN #c", "473");
}

/// 442, 443, 401, 403, 482 where only operators may, 461.
fn refused_invitations_have_their_numerics(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let [mut ann, mut bob, mut cid] = three(&server);
    let mut dan = server.member("dan");
    assert_eq!(dan.ask("INVITE dan #c", "442").param(1), "#c");
    assert_eq!(ann.ask("INVITE bob #c", "443").params[1..3], ["bob", "#c"]);
    assert_eq!(ann.ask("INVITE nobody #c", "401").param(1), "nobody");
    assert_eq!(ann.ask("INVITE dan #x", "403").param(1), "#x");
    ann.ask("INVITE dan", "461");
    told(&mut [&mut ann, &mut bob, &mut cid], "MODE #c +i", "ann MODE #c +i");
    assert_eq!(bob.ask("INVITE dan #c", "482").param(1), "#c");
    dan.hears_nothing();
    cid.hears_nothing();
}

/// 475 without it; 324 tells it to members and to no other.
fn a_key_opens_and_only_members_see_it(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    ann.join("#c");
    ann.say("MODE #c +k sesame");
    ann.expect("ann MODE #c +k sesame");
    bob.ask("JOIN #c", "475");
    bob.ask("JOIN #c sesam", "475");
    let modes = bob.ask("MODE #c", "324");
    assert!(!modes.params.concat().contains("sesame"), "{modes:?}");
    bob.gets("329");
    bob.say("JOIN #a,#c x,sesame");
    bob.through("366");
    assert_eq!(bob.through("366")[0].brief(), "bob JOIN #c");
    assert_eq!(bob.ask("MODE #c", "324").params[2..], ["+nk", "sesame"]);
}

/// 471 beyond it.
fn a_limit_shuts_the_door(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob, mut cid) =
        (server.member("ann"), server.member("bob"), server.member("cid"));
    ann.join("#c");
    ann.say("MODE #c +l 2");
    ann.expect("ann MODE #c +l 2");
    bob.join("#c");
    assert_eq!(cid.ask("JOIN #c", "471").param(1), "#c");
    bob.say("PART #c");
    bob.expect("bob PART #c");
    cid.join("#c");
}

/// 474, 404, 435; a voice is heard all the same.
fn a_ban_holds_for_joining_speaking_and_renaming(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let [mut ann, mut bob, mut cid] = three(&server);
    told(&mut [&mut ann, &mut bob, &mut cid], "MODE #c +b BOB", "ann MODE #c +b BOB!*@*");
    bob.ask("PRIVMSG #c :hello", "404");
    assert_eq!(bob.ask("NICK bab", "435").params[1..3], ["bab", "#c"]);
    told(&mut [&mut ann, &mut bob, &mut cid], "MODE #c +v bob", "ann MODE #c +v bob");
    bob.say("PRIVMSG #c :hello");
    cid.expect("bob PRIVMSG #c hello");
    bob.say("PART #c");
    bob.expect("bob PART #c");
    assert_eq!(bob.ask("JOIN #c", "474").param(1), "#c");
}

/// +e for a ban, +I for +i.
fn an_exception_is_stronger_than_a_ban(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    ann.join("#c");
    ann.say("MODE #c +bi *!*@*");
    ann.expect("ann MODE #c +bi *!*@*");
    bob.ask("JOIN #c", "474");
    ann.say("MODE #c +e bob!*@*");
    ann.expect("ann MODE #c +e bob!*@*");
    bob.ask("JOIN #c", "473");
    ann.say("MODE #c +I b?b!*@*");
    ann.expect("ann MODE #c +I b?b!*@*");
    bob.join("#c");
}

/// 404 for all others.
fn a_moderated_channel_hears_voices_and_operators(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let [mut ann, mut bob, mut cid] = three(&server);
    told(&mut [&mut ann, &mut bob, &mut cid], "MODE #c +mv cid", "ann MODE #c +mv cid");
    assert_eq!(bob.ask("PRIVMSG #c :hello", "404").param(1), "#c");
    bob.say("NOTICE #c :hello");
    bob.hears_nothing();
    cid.say("PRIVMSG #c :I may");
    ann.expect("cid PRIVMSG #c I may");
    bob.expect("cid PRIVMSG #c I may");
}

/// `@#c` is heard by operators alone, `+#c` by those with voice too.
fn a_sign_before_a_channel_means_those_of_the_rank(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let [mut ann, mut bob, mut cid] = three(&server);
    told(&mut [&mut ann, &mut bob, &mut cid], "MODE #c +v bob", "ann MODE #c +v bob");
    cid.say("PRIVMSG @#c :for operators");
    cid.say("NOTICE +#c :for the ranks");
    cid.hears_nothing();
    assert_eq!(ann.briefs(), ["cid PRIVMSG @#c for operators", "cid NOTICE +#c for the ranks"]);
    assert_eq!(bob.briefs(), ["cid NOTICE +#c for the ranks"]);
    server.member("dan").ask("PRIVMSG @#c :from outside", "404");
    ann.hears_nothing();
}

/// A channel is +n from the start.
fn outsiders_are_heard_without_n(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    ann.join("#c");
    bob.ask("PRIVMSG #c :hello", "404");
    ann.say("MODE #c -n");
    ann.expect("ann MODE #c -n");
    bob.say("PRIVMSG #c :hello");
    ann.expect("bob PRIVMSG #c hello");
}

/// 482 for a member that is none; to ask is free.
fn a_guarded_topic_is_for_operators(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    told(&mut [&mut ann, &mut bob], "MODE #c +t", "ann MODE #c +t");
    assert_eq!(bob.ask("TOPIC #c :mine", "482").param(1), "#c");
    bob.ask("TOPIC #c", "331");
    told(&mut [&mut ann, &mut bob], "TOPIC #c :ours", "ann TOPIC #c ours");
}

/// LIST, NAMES, WHO and WHOIS tell of it to its members only.
fn a_secret_channel_is_hidden(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let [mut ann, mut bob, mut cid] = three(&server);
    told(&mut [&mut ann, &mut bob, &mut cid], "MODE #c +s", "ann MODE #c +s");
    let mut dan = server.member("dan");
    for (line, end) in
        [("LIST", "323"), ("NAMES #c", "366"), ("WHO #c", "315"), ("WHOIS ann", "318")]
    {
        let tells = |member: &mut Member| {
            member.say(line);
            let answer = member.through(end);
            let told = answer.iter().rev().skip(1);
            told.flat_map(|m| &m.params).any(|param| param.contains("#c"))
        };
        assert!(tells(&mut bob), "{line} to a member");
        assert!(!tells(&mut dan), "{line} to another");
    }
}

/// 478 beyond what MAXLIST says.
fn lists_of_masks_are_bounded(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let mut ann = server.member("ann");
    ann.join("#c");
    for n in 0..60 {
        ann.say(format!("MODE #c +b n{n}"));
        ann.expect(&format!("ann MODE #c +b n{n}!*@*"));
    }
    assert_eq!(ann.ask("MODE #c +b more", "478").params[1..3], ["#c", "b"]);
    ann.say("MODE #c b");
    let list = ann.through("368");
    assert_eq!(list.len(), 61);
    assert_eq!(list[0].params[..4], ["ann", "#c", "n0!*@*", "ann"]);
}

/// Control characters, spaces and overrides in masks, keys, nicknames and reasons.
fn masks_and_keys_forge_nothing(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    for bad in ["\r:s 001 bob :x", "a\0b", "\u{202e}", "\x07", "::a b", "\u{9b}1m", "a b"] {
        for line in ["MODE #c +b", "MODE #c +k", "MODE #c +o", "INVITE bob", "KICK #c", "MODE #c"] {
            ann.say(format!("{line} :{bad}"));
        }
        // What it may change is told in a line of its own, with ann as its source.
        let heard = bob.sync();
        assert!(heard.iter().all(|m| m.from() == "ann" && m.command == "MODE"), "{heard:?}");
        for message in ann.sync() {
            assert!(!message.params.concat().contains(|c: char| c.is_control()), "{message:?}");
        }
    }
}
