//! What 005 offers beyond the commands: conditions of LIST, messages to those of a rank, robots;
//! and HELP.

use super::*;

/// a is operator of #c and b has voice in it; c is a plain member. a is alone in #one.
fn world() -> World {
    let mut world = World::new(settings());
    for name in ["a", "b", "c"] {
        world.say(name, "JOIN #c");
    }
    world.say("a", "MODE #c +v b");
    world.say("a", "JOIN #one");
    world.say("stranger", "PING t");
    world.mail();
    world
}

/// The channels that LIST tells of.
fn listed(world: &mut World, question: &str) -> String {
    world.say("stranger", format!("LIST {question}"));
    let lines = world.mail().remove("stranger").unwrap();
    assert!(lines.first().unwrap().contains(" 321 ") && lines.last().unwrap().contains(" 323 "));
    let names = lines.iter().filter(|line| line.contains(" 322 "));
    let names = names.map(|line| line.split(' ').nth(3).unwrap());
    names.collect::<Vec<_>>().join(" ")
}

#[test]
fn list_takes_masks_and_conditions() {
    let mut world = world();
    world.now = Time::from_millis(7_000 + 3 * 60_000);
    world.say("b", "JOIN #new");
    world.say("b", "TOPIC #new :fresh");
    world.say("a", "TOPIC #one :older");
    world.now = Time::from_millis(7_000 + 4 * 60_000);
    world.mail();
    for (question, expected) in [
        ("", "#c #one #new"),
        ("#N*", "#new"),
        ("*n?", "#one"),
        ("*e*,#c", "#c #one #new"),
        ("!#o*", "#c #new"),
        ("!*e*", "#c"),
        (">1", "#c"),
        ("<2", "#one #new"),
        (">0,<2,!*w", "#one"),
        ("C>3", "#c #one"),
        ("C<3", "#new"),
        ("c<0", ""),
        ("c>0", "#c #one #new"),
        ("T>0", "#one #new"),
        ("T<1", ""),
        ("t<2", "#one #new"),
        ("T>99999999999", ""),
        ("#c,>1", "#c"),
        ("#one,>1", ""),
        ("#c,#one,#c", "#c #one #c"),
        // No numbers: names of channels that are not there.
        ("<,>,C<,>x,T>-1", ""),
    ] {
        assert_eq!(listed(&mut world, question), expected, "LIST {question}");
    }
    // A mask that is longer than any name could cost much and fits none.
    assert_eq!(listed(&mut world, &"*".repeat(200)), "");
}

#[test]
fn list_keeps_secret_channels_secret() {
    let mut world = world();
    world.say("a", "MODE #one +s");
    world.mail();
    for question in ["", "#one", "#o*", "<2", "C<9"] {
        assert!(!listed(&mut world, question).contains("#one"), "LIST {question}");
    }
    world.play(
        "a> LIST #o*
        a< :s 321 a Channel :Users  Name
        a< :s 322 a #one 1 :
        a< :s 323 a :End of LIST",
    );
}

#[test]
fn a_sign_before_a_channel_means_those_of_the_rank() {
    world().play(
        "c> PRIVMSG @#C :for operators
        a< :c!c@h PRIVMSG @#c :for operators
        c> NOTICE +#c :for the ranks
        a< :c!c@h NOTICE +#c :for the ranks
        b< :c!c@h NOTICE +#c :for the ranks
        a> PRIVMSG @#c :none but me
        b> PRIVMSG +#c,@#c,#c :thrice
        a< :b!b@h PRIVMSG +#c :thrice
        a< :b!b@h PRIVMSG @#c :thrice
        a< :b!b@h PRIVMSG #c :thrice
        c< :b!b@h PRIVMSG #c :thrice
        stranger> PRIVMSG @#c :from outside
        stranger< :s 404 stranger @#c :Cannot send to channel
        stranger> PRIVMSG @#none,@nobody,@ :x
        stranger< :s 403 stranger @#none :No such channel
        stranger< :s 401 stranger @nobody :No such nick
        stranger< :s 401 stranger @ :No such nick
        a> MODE #c +m
        a< :a!a@h MODE #c +m
        b< :a!a@h MODE #c +m
        c< :a!a@h MODE #c +m
        c> PRIVMSG @#c :not heard
        c< :s 404 c @#c :Cannot send to channel",
    );
}

#[test]
fn a_message_to_a_rank_has_its_tags_and_its_echo() {
    let mut world = world();
    for name in ["a", "c"] {
        world.say(name, "CAP REQ :echo-message message-tags");
    }
    world.mail();
    world.play(
        "c> @+x=1 TAGMSG @#c
        a< @msgid=fa00000001;+x=1 :c!c@h TAGMSG @#c
        c< @msgid=fa00000001;+x=1 :c!c@h TAGMSG @#c
        c> @+x=1 TAGMSG +#c
        a< @msgid=fa00000002;+x=1 :c!c@h TAGMSG +#c
        c< @msgid=fa00000002;+x=1 :c!c@h TAGMSG +#c",
    );
}

#[test]
fn a_robot_says_that_it_is_one() {
    let mut world = world();
    world.say("c", "CAP REQ :message-tags");
    world.mail();
    world.play(
        "b> MODE b +B
        b< :b!b@h MODE b :+B
        b> PRIVMSG #c :beep
        a< :b!b@h PRIVMSG #c :beep
        c< @msgid=fa00000001;bot :b!b@h PRIVMSG #c :beep
        stranger> WHO b
        stranger< :s 352 stranger * b h s b HB :0 Real b
        stranger< :s 315 stranger b :End of WHO list
        stranger> WHOIS b
        stranger< :s 311 stranger b b h * :Real b
        stranger< :s 319 stranger b :+#c
        stranger< :s 312 stranger b s :one protocol, every I/O model
        stranger< :s 335 stranger b :is a bot
        stranger< :s 317 stranger b 0 1007 :seconds idle, signon time
        stranger< :s 318 stranger b :End of WHOIS list
        b> CAP REQ :message-tags
        b< :s CAP b ACK ...
        b> @+y;bot=no NOTICE c :boop
        c< @msgid=fa00000002;bot;+y :b!b@h NOTICE c :boop
        b> MODE b -B
        b< :b!b@h MODE b :-B
        b> NOTICE c :human
        c< @msgid=fa00000003 :b!b@h NOTICE c :human",
    );
}

#[test]
fn help_is_of_one_command_or_of_all() {
    let mut world = world();
    world.play(
        "a> help topic
        a< :s 704 a topic :TOPIC #channel [:text]
        a< :s 706 a topic :End of HELP
        a> HELPOP TIME
        a< :s 704 a TIME :TIME
        a< :s 706 a TIME :End of HELP
        a> HELP nonsense
        a< :s 524 a nonsense :No help available on this topic
        a> HELP ::x\u{1}
        a< :s 524 a * :No help available on this topic",
    );
    world.say("a", "HELP");
    let lines = world.mail().remove("a").unwrap();
    assert!(
        lines[0].starts_with(":s 704 a * :") && lines[1].starts_with(":s 705 a * :ADMIN AWAY ")
    );
    assert_eq!(lines.last().unwrap(), ":s 706 a * :End of HELP");
}
