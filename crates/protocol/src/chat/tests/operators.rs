//! Operators of channels and what they may: MODE, KICK, INVITE, bans, keys, limits.

use super::*;

/// a leads #c, b and c are in it, d is not.
fn led() -> World {
    let mut world = World::new(settings());
    for name in ["a", "b", "c"] {
        world.say(name, "JOIN #c");
    }
    world.say("d", "PING t");
    world.mail();
    world
}

/// A line that all three members of #c get.
fn all(line: &str) -> String {
    ["a", "b", "c"].map(|name| format!("{name}< {line}\n")).concat()
}

/// Has `a` say a line that all three are told of.
fn change(world: &mut World, modes: &str, told: &str) {
    world.play(&format!("a> MODE #c {modes}\n{}", all(&format!(":a!a@h MODE #c {told}"))));
}

#[test]
fn ranks_are_given_and_taken() {
    let mut world = led();
    change(&mut world, "+v B", "+v b");
    world.play(
        "d> NAMES #c
        d< :s 353 d = #c :@a +b c
        d< :s 366 d #c :End of NAMES list",
    );
    change(&mut world, "+o b", "+o b");
    world.play(
        "d> WHOIS b
        d< :s 311 d b b h * :Real b
        d< :s 319 d b :@#c
        d< :s 312 d b s :one protocol, every I/O model
        d< :s 317 d b 0 1007 :seconds idle, signon time
        d< :s 318 d b :End of WHOIS list",
    );
    change(&mut world, "-o+v-vo c a b b", "+v-vo a b b");
    world.play("b> MODE #c -o b\nb< :s 482 b #c :You're not channel operator");
    let told = all(":a!a@h MODE #c -o a");
    world
        .play(&format!("a> MODE #c -o+o a b\na< :s 482 a #c :You're not channel operator\n{told}"));
    world.play("a> MODE #c +o b\na< :s 482 a #c :You're not channel operator");
}

#[test]
fn only_operators_change_modes() {
    led().play(
        "b> MODE #c +m
        b< :s 482 b #c :You're not channel operator
        b> MODE #C +ov-mk+l b b x 7
        b< :s 482 b #C :You're not channel operator
        b> MODE #c +b x!*@*
        b< :s 482 b #c :You're not channel operator
        b> MODE #c e
        b< :s 482 b #c :You're not channel operator
        d> MODE #c +o d
        d< :s 442 d #c :You're not on that channel
        d> MODE #x +o d
        d< :s 403 d #x :No such channel
        a> MODE #c +o d
        a< :s 441 a d #c :They aren't on that channel
        a> MODE #c +o nobody
        a< :s 401 a nobody :No such nick
        a> MODE #c +o
        a< :s 461 a MODE :Not enough parameters
        a> MODE #c +é-o+X
        a< :s 472 a é :is unknown mode char to me
        a< :s 461 a MODE :Not enough parameters
        a< :s 472 a X :is unknown mode char to me
        a> MODE #c +abcdefghABCDEFGH
        a< :s 472 a a :is unknown mode char to me
        a< :s 368 a #c :End of channel ban list
        a< :s 472 a c :is unknown mode char to me
        a< :s 472 a d :is unknown mode char to me
        a< :s 349 a #c :End of channel exception list
        a< :s 472 a f :is unknown mode char to me
        a< :s 472 a g :is unknown mode char to me
        a< :s 472 a h :is unknown mode char to me",
    );
}

#[test]
fn modes_are_told() {
    let mut world = led();
    world.play(
        "a> MODE #c
        a< :s 324 a #c +n
        a< :s 329 a #c 1007",
    );
    change(&mut world, "+nkl-n+t sesame 12", "+kl-n+t sesame 12");
    world.play(
        "a> MODE #c
        a< :s 324 a #c +tkl sesame 12
        a< :s 329 a #c 1007
        d> MODE #C
        d< :s 324 d #c +tkl 12
        d< :s 329 d #c 1007
        a> MODE #c +tkl sesame 12
        a> MODE #c +-",
    );
    change(&mut world, "-kl wrong", "-kl *");
    world.play(
        "a> MODE #c +l 0
        a< :s 696 a #c l 0 :Invalid mode parameter
        a> MODE #c +l :-1 x
        a< :s 696 a #c l * :Invalid mode parameter
        a> MODE #c +k :two words
        a< :s 696 a #c k * :Invalid mode parameter
        a> MODE #c +b :x y
        a< :s 696 a #c b * :Invalid mode parameter
        a> MODE #c +k
        a< :s 461 a MODE :Not enough parameters
        a> MODE #c -k-l",
    );
}

#[test]
fn what_does_not_fit_into_one_line_is_told_in_two() {
    let mut world = led();
    let masks: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"]
        .iter()
        .map(|letter| format!("{}!*@{}", letter.repeat(30), letter.repeat(36)))
        .collect();
    world.say("a", format!("MODE #c +bbbbbbb {}", masks.join(" ")));
    let mail = world.mail();
    for name in ["a", "b", "c"] {
        let first = format!(":a!a@h MODE #c +bbbbbb {}", masks[..6].join(" "));
        assert_eq!(mail[name], [first], "six in a line, as 005 says");
    }
    let mut world = led();
    change(&mut world, "+mist", "+mist");
    let many = "-i+i".repeat(125);
    world.say("a", format!("MODE #c {many}"));
    let told = &world.mail()["b"];
    assert_eq!(told.len(), 2, "a line that is told has a source, and so less room");
    let told: String =
        told.iter().map(|line| line.strip_prefix(":a!a@h MODE #c ").unwrap()).collect();
    assert_eq!(told, many);
}

#[test]
fn a_moderated_channel_hears_some() {
    let mut world = led();
    change(&mut world, "+mv b", "+mv b");
    world.play(
        "c> PRIVMSG #c :x
        c< :s 404 c #c :Cannot send to channel
        c> NOTICE #c :x
        b> PRIVMSG #c :x
        a< :b!b@h PRIVMSG #c :x
        c< :b!b@h PRIVMSG #c :x
        d> PRIVMSG #c :x
        d< :s 404 d #c :Cannot send to channel",
    );
    change(&mut world, "-mn", "-mn");
    world.play(&format!("d> PRIVMSG #c :x\n{}", all(":d!d@h PRIVMSG #c :x")));
}

#[test]
fn a_guarded_topic_is_the_operators() {
    let mut world = led();
    change(&mut world, "+t", "+t");
    world.play(
        "b> TOPIC #C :mine
        b< :s 482 b #C :You're not channel operator
        b> TOPIC #c
        b< :s 331 b #c :No topic is set",
    );
    world.play(&format!("a> TOPIC #c :ours\n{}", all(":a!a@h TOPIC #c :ours")));
}

#[test]
fn a_kick_is_told_to_all_and_takes_out() {
    let mut world = led();
    world.play(&format!("a> KICK #C B :enough\n{}", all(":a!a@h KICK #c b :enough")));
    world.play(
        "b> PRIVMSG #c :x
        b< :s 404 b #c :Cannot send to channel
        a> KICK #C B
        a< :s 441 a B #C :They aren't on that channel
        a> KICK #c nobody
        a< :s 401 a nobody :No such nick
        a> KICK #x b
        a< :s 403 a #x :No such channel
        c> KICK #c a
        c< :s 482 c #c :You're not channel operator
        d> KICK #c a
        d< :s 442 d #c :You're not on that channel
        a> KICK #c
        a< :s 461 a KICK :Not enough parameters
        a> KICK #c,#d a
        a< :s 461 a KICK :Not enough parameters
        a> KICK #c c,a
        a< :a!a@h KICK #c c :a
        a< :a!a@h KICK #c a :a
        c< :a!a@h KICK #c c :a
        a> MODE #c
        a< :s 403 a #c :No such channel
        a> JOIN #1,#2
        a< :a!a@h JOIN #1
        a< :s 353 a = #1 :@a
        a< :s 366 a #1 :End of NAMES list
        a< :a!a@h JOIN #2
        a< :s 353 a = #2 :@a
        a< :s 366 a #2 :End of NAMES list
        a> KICK #1,#2 a,a :out
        a< :a!a@h KICK #1 a :out
        a< :a!a@h KICK #2 a :out",
    );
}

#[test]
fn no_more_are_kicked_than_targets_are_allowed() {
    let mut world = led();
    world.say("a", "KICK #c 1,2,3,4,5,6,7,8,b,c");
    let mail = world.mail();
    assert_eq!(mail["a"].len(), 8);
    assert!(!mail.contains_key("b"));
}

#[test]
fn an_invitation_opens_what_is_shut() {
    let mut world = led();
    let joined = "d< :d!d@h JOIN #c
        d< :s 353 d = #c :@a b c d
        d< :s 366 d #c :End of NAMES list";
    change(&mut world, "+iklb sesame 1 d!*@*", "+iklb sesame 1 d!*@*");
    world.play(&format!(
        "d> JOIN #c sesame
        d< :s 474 d #c :Cannot join channel (+b)
        b> INVITE d #C
        b< :s 482 b #C :You're not channel operator
        d> INVITE b #c
        d< :s 442 d #c :You're not on that channel
        a> INVITE nobody #c
        a< :s 401 a nobody :No such nick
        a> INVITE d #x
        a< :s 403 a #x :No such channel
        a> INVITE B #C
        a< :s 443 a B #C :is already on channel
        a> INVITE d
        a< :s 461 a INVITE :Not enough parameters
        a> INVITE D #C
        a< :s 341 a d #c
        d< :a!a@h INVITE d #c
        d> INVITE
        d< :s 336 d #c
        d< :s 337 d :End of INVITE list
        d> JOIN #c
        {joined}\n{}",
        all(":d!d@h JOIN #c")
    ));
    world.play(
        "d> INVITE
        d< :s 337 d :End of INVITE list
        d> PART #c
        d< :d!d@h PART #c
        a< :d!d@h PART #c
        b< :d!d@h PART #c
        c< :d!d@h PART #c
        d> JOIN #c
        d< :s 474 d #c :Cannot join channel (+b)",
    );
}

#[test]
fn an_invitation_by_another_member_is_a_word() {
    let mut world = led();
    change(&mut world, "+k sesame", "+k sesame");
    world.play(
        "b> INVITE d #c
        b< :s 341 b d #c
        d< :b!b@h INVITE d #c
        d> JOIN #c
        d< :s 475 d #c :Cannot join channel (+k)",
    );
}

#[test]
fn an_invitation_ends_with_its_channel() {
    let mut world = World::new(settings());
    world.say("a", "JOIN #c");
    world.say("d", "PING t");
    world.say("a", "INVITE d #c");
    world.say("a", "PART #c");
    world.say("a", "JOIN #c");
    world.say("a", "MODE #c +i");
    world.mail();
    world.play(
        "d> JOIN #c
        d< :s 473 d #c :Cannot join channel (+i)
        d> INVITE
        d< :s 337 d :End of INVITE list",
    );
    for n in 0..40 {
        world.say("a", format!("JOIN #{n}"));
        world.say("a", format!("INVITE d #{n}"));
    }
    world.mail();
    world.say("d", "INVITE");
    assert_eq!(world.mail()["d"].len(), 33, "the oldest have given way");
}

#[test]
fn each_shut_door_has_its_numeric() {
    let mut world = led();
    change(&mut world, "+l 3", "+l 3");
    world.play("d> JOIN #c\nd< :s 471 d #c :Cannot join channel (+l)");
    change(&mut world, "+k sesame", "+k sesame");
    world.play("d> JOIN #c wrong\nd< :s 475 d #c :Cannot join channel (+k)");
    change(&mut world, "+i", "+i");
    world.play("d> JOIN #c sesame\nd< :s 473 d #c :Cannot join channel (+i)");
    change(&mut world, "+bI d!*@* *!d@*", "+bI d!*@* *!d@*");
    world.play("d> JOIN #c sesame\nd< :s 474 d #c :Cannot join channel (+b)");
    change(&mut world, "+e-l *!*@h", "+e-l *!*@h");
    world.play(
        "d> JOIN #c,#d wrong\nd< :s 475 d #c :Cannot join channel (+k)\n\
        d< :d!d@h JOIN #d\nd< :s 353 d = #d :@d\nd< :s 366 d #d :End of NAMES list",
    );
    world.play(&format!(
        "d> JOIN #c sesame\nd< :d!d@h JOIN #c\nd< :s 353 d = #c :@a b c d\n\
        d< :s 366 d #c :End of NAMES list\n{}",
        all(":d!d@h JOIN #c")
    ));
}

#[test]
fn a_ban_holds_for_joining_speaking_and_renaming() {
    let mut world = led();
    change(&mut world, "+b B", "+b B!*@*");
    world.play(
        "b> PRIVMSG #c :x
        b< :s 404 b #c :Cannot send to channel
        b> NICK x
        b< :s 435 b x #c :Cannot change nickname while banned on channel",
    );
    change(&mut world, "+e *!b@*", "+e *!b@*");
    world.play("b> PRIVMSG #c :x\na< :b!b@h PRIVMSG #c :x\nc< :b!b@h PRIVMSG #c :x");
    change(&mut world, "-e+v *!B@* b", "-e+v *!b@* b");
    world.play("b> PRIVMSG #c :x\na< :b!b@h PRIVMSG #c :x\nc< :b!b@h PRIVMSG #c :x");
    world.play(&format!("b> NICK x\n{}", all(":b!b@h NICK x")));
    world.play("d> NICK b\nd< :d!d@h NICK b\nd> JOIN #c\nd< :s 474 b #c :Cannot join channel (+b)");
}

#[test]
fn lists_are_told_and_have_a_bound() {
    let mut world = led();
    change(&mut world, "+beI x y z", "+beI x!*@* y!*@* z!*@*");
    world.play(
        "b> MODE #C b
        b< :s 367 b #c x!*@* a 1007
        b< :s 368 b #C :End of channel ban list
        a> MODE #c +eIbe
        a< :s 348 a #c y!*@* a 1007
        a< :s 349 a #c :End of channel exception list
        a< :s 346 a #c z!*@* a 1007
        a< :s 347 a #c :End of channel invite exception list
        a< :s 367 a #c x!*@* a 1007
        a< :s 368 a #c :End of channel ban list",
    );
    for n in 0..59 {
        world.say("a", format!("MODE #c +b n{n}"));
    }
    world.mail();
    world.play(
        "a> MODE #c +b y
        a< :s 478 a #c b :Channel list is full
        a> MODE #c +b X
        a> MODE #c -b nobody",
    );
    change(&mut world, "-b+b X y", "-b+b x!*@* y!*@*");
}

#[test]
fn a_secret_channel_is_not_told_of() {
    let mut world = led();
    change(&mut world, "+s", "+s");
    world.play(
        "d> LIST
        d< :s 321 d Channel :Users  Name
        d< :s 323 d :End of LIST
        d> LIST #c
        d< :s 321 d Channel :Users  Name
        d< :s 323 d :End of LIST
        d> NAMES #c
        d< :s 366 d #c :End of NAMES list
        d> WHO #c
        d< :s 315 d #c :End of WHO list
        d> WHOIS a
        d< :s 311 d a a h * :Real a
        d< :s 312 d a s :one protocol, every I/O model
        d< :s 317 d a 0 1007 :seconds idle, signon time
        d< :s 318 d a :End of WHOIS list
        b> LIST
        b< :s 321 b Channel :Users  Name
        b< :s 322 b #c 3 :
        b< :s 323 b :End of LIST
        b> NAMES #c
        b< :s 353 b @ #c :@a b c
        b< :s 366 b #c :End of NAMES list
        b> WHOIS a
        b< :s 311 b a a h * :Real a
        b< :s 319 b a :@#c
        b< :s 312 b a s :one protocol, every I/O model
        b< :s 317 b a 0 1007 :seconds idle, signon time
        b< :s 318 b a :End of WHOIS list",
    );
}

#[test]
fn no_parameter_forges_a_line() {
    for bad in ["\r:x", "a\0b\rQUIT", "\u{202e}", "\u{7}", ":a b", "\u{9b}1m", "a b"] {
        for line in [
            format!("MODE #c +b :{bad}"),
            format!("MODE #c +k :{bad}"),
            format!("MODE #c +l :{bad}"),
            format!("MODE #c +o :{bad}"),
            format!("MODE #c :+{bad}"),
            format!("KICK #c :{bad}"),
            format!("KICK #c b :{bad}"),
            format!("INVITE d :{bad}"),
            format!("INVITE :{bad} #c"),
        ] {
            let mut world = led();
            world.say("a", &line);
            // World::mail looks at each line: one CRLF, and nothing that some take for another.
            for (name, lines) in world.mail() {
                for text in lines {
                    let numeric = text.starts_with(":s ");
                    let harmless = !text.contains(|c: char| c.is_control() || c == '\u{202e}');
                    let by_a = text.starts_with(":a!a@h ") || numeric && name == "a";
                    assert!(by_a && (harmless || !numeric), "{line:?} gave {name} {text:?}");
                }
            }
        }
    }
}

#[test]
fn a_line_changes_six_ranks_at_most() {
    let mut world = World::new(settings());
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for name in names {
        world.say(name, "JOIN #c");
    }
    world.mail();
    world.say("a", "MODE #c +vvvvvvv b c d e f g h");
    let mail = world.mail();
    for name in names {
        assert_eq!(mail[name].last().unwrap(), ":a!a@h MODE #c +vvvvvv b c d e f g");
    }
}

#[test]
fn a_line_changes_six_limits_keys_or_bans_at_most() {
    let mut world = led();
    change(&mut world, "+lllllll 1 2 3 4 5 6 7", "+llllll 1 2 3 4 5 6");
    change(&mut world, "+kkkkkkk a b c d e f g", "+kkkkkk a b c d e f");
    let [given, told] = ["", "!*@*"]
        .map(|rest| ["p", "q", "r", "s", "t", "u"].map(|nick| format!("{nick}{rest}")).join(" "));
    change(&mut world, &format!("+bbbbbbb {given} v"), &format!("+bbbbbb {told}"));
}

#[test]
fn modes_without_a_parameter_are_changed_after_six_with_one() {
    let mut world = led();
    change(&mut world, "+llllll-l+m 1 2 3 4 5 6 7", "+llllll-l+m 1 2 3 4 5 6");
}

#[test]
fn an_operator_that_takes_a_rank_from_another_goes_on() {
    play(
        "a> JOIN #c
        a< :a!a@h JOIN #c
        a< :s 353 ...
        a< :s 366 ...
        b> JOIN #c
        b< :b!b@h JOIN #c
        b< :s 353 ...
        b< :s 366 ...
        a< :b!b@h JOIN #c
        a> MODE #c +ov b a
        a< :a!a@h MODE #c +ov b a
        b< :a!a@h MODE #c +ov b a
        a> MODE #c -o+v b b
        a< :a!a@h MODE #c -o+v b b
        b< :a!a@h MODE #c -o+v b b
        a> MODE #c -v+m a
        a< :a!a@h MODE #c -v+m a
        b< :a!a@h MODE #c -v+m a",
    );
}
