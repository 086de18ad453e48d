//! Each command, its answers and its refusals.

use super::*;

const HELLO: &str = "
    ?x< *welcome
    ?x< :s 001 x :Welcome to the net network, x!u@h
    ?x< :s 002 x :Your host is s, running version iomodels-...
    ?x< :s 003 x :This server was started 1970-01-01T00:16:40Z
    ?x< :s 004 x s iomodels-...
    ?x< :s 005 x ...
    ?x< :s 005 x ...
    ?x< :s 005 x ...
    ?x< :s 005 x ...
    ?x< :s 251 x :There are 1 users and 0 invisible on 1 server
    ?x< :s 252 x 0 :operator(s) online
    ?x< :s 253 x 0 :unknown connection(s)
    ?x< :s 254 x 0 :channels formed
    ?x< :s 255 x :I have 1 clients and 0 servers
    ?x< :s 265 x 1 1 :Current local users 1, max 1
    ?x< :s 266 x 1 1 :Current global users 1, max 1
    ?x< :s 422 x :MOTD File is missing";

#[test]
fn registration_takes_nick_and_user_in_any_order() {
    play(&format!("?x> NICK x\n?x> USER u 0 * :Real{HELLO}"));
    play(&format!("?x> USER u 0 * :Real\n?x> NICK x{HELLO}"));
}

#[test]
fn negotiation_holds_registration() {
    play(&format!(
        "?x> CAP LS 302
        ?x< :s CAP * LS :away-notify batch cap-notify echo-message extended-join ...
        ?x> JOIN :
        ?x< :s 451 * :You have not registered
        ?x> NICK x
        ?x> USER u 0 * :Real
        ?x> CAP REQ :sasl multi-prefix
        ?x< :s CAP x NAK :sasl multi-prefix
        ?x> CAP LIST
        ?x< :s CAP x LIST :cap-notify
        ?x> CAP REQ :multi-prefix -cap-notify
        ?x< :s CAP x ACK :multi-prefix -cap-notify
        ?x> CAP LIST
        ?x< :s CAP x LIST :multi-prefix
        ?x> CAP END{HELLO}
        ?x> CAP LS
        ?x< :s CAP x LS :away-notify batch ...
        ?x> CAP END
        ?x> CAP BOGUS
        ?x< :s 410 x BOGUS :Invalid CAP command
        ?x> CAP \u{202e}
        ?x< :s 410 x * :Invalid CAP command
        ?x> CAP
        ?x< :s 461 x CAP :Not enough parameters"
    ));
}

#[test]
fn nothing_else_before_registration() {
    for command in [
        "JOIN #c",
        "PRIVMSG a :b",
        "WHO a",
        "MODE x",
        "BOGUS",
        "KICK a b",
        "LIST",
        "LUSERS",
        "NOTICE a :b",
    ] {
        play(&format!("?x> {command}\n?x< :s 451 * :You have not registered"));
    }
    play(
        "?x> PING t
        ?x< :s PONG s :t
        ?x> PONG t
        ?x> NICK n
        ?x> LIST
        ?x< :s 451 n :You have not registered
        ?x> QUIT :bye
        ?x< *close ERROR :Closing link: Quit: bye
        ?x> PING t",
    );
}

#[test]
fn a_second_registration_is_refused() {
    play(
        "a> USER b 0 * :B
        a< :s 462 a :You may not reregister
        a> PASS x
        a< :s 462 a :You may not reregister
        ?x> USER u 0 *
        ?x< :s 461 * USER :Not enough parameters
        ?x> PASS
        ?x< :s 461 * PASS :Not enough parameters",
    );
}

#[test]
fn the_password_is_asked_for() {
    let mut settings = settings();
    settings.chat.password = Some("sesame".to_owned());
    for pass in ["PASS sesam", "PASS sesame1", "PASS", "PASS :", "PONG"] {
        let mut world = World::new(settings.clone());
        world.say("?x", pass);
        world.mail();
        world.play(
            "?x> NICK x
            ?x> USER u 0 * :Real
            ?x< :s 464 x :Password incorrect
            ?x< *close ERROR :Closing link: Password incorrect
            ?y> NICK x",
        );
    }
    let mut world = World::new(settings);
    world.play(&format!("?x> PASS wrong\n?x> PASS sesame\n?x> NICK x\n?x> USER u 0 * :R{HELLO}"));
}

#[test]
fn nicknames_are_checked() {
    let mut world = World::new(settings());
    world.play(
        "a> NICK
        a< :s 431 a :No nickname given
        a> NICK :
        a< :s 431 a :No nickname given
        a> NICK b c
        a< :a!a@h NICK b
        a> NICK :b c
        a< :s 432 b * :Erroneous nickname
        ?x> NICK *
        ?x< :s 432 * * :Erroneous nickname",
    );
    let long = "n".repeat(31);
    for bad in ["*", "1a", "#c", "a!b", "a@b", "a\u{7}b", "a\u{202e}b", "é", "a,b", ":a", &long] {
        world.say("a", format!("NICK :{bad}"));
        world.expect(&[("a", "...")]);
        world.say("a", format!("ISON :b {bad}"));
        world.expect(&[("a", ":s 303 b :b")]);
    }
}

#[test]
fn a_nickname_has_one_holder() {
    play(
        "a> NICK ?bad
        a< :s 432 a ?bad :Erroneous nickname
        ?x> NICK A
        ?x< :s 433 * A :Nickname is already in use
        ?x> NICK held
        b> NICK HELD
        b< :s 433 b HELD :Nickname is already in use
        b> NICK a
        b< :s 433 b a :Nickname is already in use
        b> NICK b
        b> NICK B
        b< :b!b@h NICK B
        b> ISON b
        b< :s 303 B :B
        a> QUIT
        a< *close ERROR :Closing link: Client quit
        b> NICK a
        b< :B!b@h NICK a
        ?x> NICK b
        ?x> NICK other
        a> NICK nobody",
    );
}

#[test]
fn a_member_that_goes_frees_its_name_at_once() {
    type Gone = fn(&mut World, ConnId);
    let ways: [(Gone, &[(&str, &str)]); 5] = [
        (
            |world, id| world.hub.cut(id, "Ping timeout"),
            &[
                ("a", "*close ERROR :Closing link: Ping timeout"),
                ("b", ":a!a@h QUIT :Ping timeout"),
            ],
        ),
        (|world, id| world.hub.leave(id, "Reset"), &[("b", ":a!a@h QUIT :Reset")]),
        (
            |world, id| _ = world.hub.line(id, Line::End, world.now),
            &[("a", "*close"), ("b", ":a!a@h QUIT :Connection closed")],
        ),
        (
            |world, id| _ = world.hub.line(id, Line::Refused("No"), world.now),
            &[("a", "*close ERROR :Closing link: No"), ("b", ":a!a@h QUIT :No")],
        ),
        (
            |world, id| _ = world.hub.line(id, Line::Whole(b"QUIT :x"), world.now),
            &[("a", "*close ERROR :Closing link: Quit: x"), ("b", ":a!a@h QUIT :Quit: x")],
        ),
    ];
    for (gone, expected) in ways {
        let mut world = World::new(settings());
        for line in ["JOIN #c", "JOIN #d"] {
            world.say("a", line);
            world.say("b", line);
        }
        world.mail();
        let id = world.ids["a"];
        gone(&mut world, id);
        world.expect(expected);
        world.hub.cut(id, "again");
        world.hub.leave(id, "again");
        world.play(
            "a> PRIVMSG b :ghost
            b> PRIVMSG #c :alone
            b> NICK a
            b< :b!b@h NICK a",
        );
    }
}

#[test]
fn join_tells_all_members() {
    play(
        "a> JOIN #C
        a< :a!a@h JOIN #C
        a< :s 353 a = #C :@a
        a< :s 366 a #C :End of NAMES list
        a> JOIN #c
        a> TOPIC #c :Here
        a< :a!a@h TOPIC #C :Here
        b> JOIN #c,#d key
        b< :b!b@h JOIN #C
        b< :s 332 b #C :Here
        b< :s 333 b #C a 1007
        b< :s 353 b = #C :@a b
        b< :s 366 b #c :End of NAMES list
        b< :b!b@h JOIN #d
        b< :s 353 b = #d :@b
        b< :s 366 b #d :End of NAMES list
        a< :b!b@h JOIN #C
        b> JOIN 0
        b< :b!b@h PART #C
        b< :b!b@h PART #d
        a< :b!b@h PART #C
        b> JOIN :
        b> JOIN ,,
        b> JOIN
        b< :s 461 b JOIN :Not enough parameters
        b> JOIN c,#,##\u{7},:
        b< :s 403 b c :No such channel
        b< :s 403 b # :No such channel
        b< :s 403 b * :No such channel
        b< :s 403 b * :No such channel
        b> JOIN :#a b
        b< :s 403 b * :No such channel",
    );
}

#[test]
fn joining_is_capped() {
    let mut settings = settings();
    settings.limits.max_channels = 2;
    let mut world = World::new(settings);
    world.say("a", "JOIN #1,#2");
    world.mail();
    world.play(
        "a> JOIN #3
        a< :s 405 a #3 :You have joined too many channels
        a> JOIN #1
        a> PART #1
        a< :a!a@h PART #1
        a> JOIN #3
        a< :a!a@h JOIN #3
        a< :s 353 a = #3 :@a
        a< :s 366 a #3 :End of NAMES list",
    );
}

fn world_of_two() -> World {
    let mut world = World::new(settings());
    for name in ["a", "b"] {
        world.say(name, "JOIN #c,#d");
    }
    world.say("stranger", "PING t");
    world.mail();
    world
}

#[test]
fn part_tells_all_members() {
    world_of_two().play(
        "a> PART #C,#x,#d :So long
        a< :a!a@h PART #c :So long
        a< :s 403 a #x :No such channel
        a< :a!a@h PART #d :So long
        b< :a!a@h PART #c :So long
        b< :a!a@h PART #d :So long
        a> PART #c
        a< :s 442 a #c :You're not on that channel
        a> PART
        a< :s 461 a PART :Not enough parameters
        b> PART #c
        b< :b!b@h PART #c
        b> PART #c
        b< :s 403 b #c :No such channel",
    );
}

#[test]
fn nick_and_quit_reach_each_sharer_once() {
    world_of_two().play(
        "a> NICK c
        a< :a!a@h NICK c
        b< :a!a@h NICK c
        a> PRIVMSG #d :x
        b< :c!a@h PRIVMSG #d :x
        stranger> NICK q
        stranger< :stranger!stranger@h NICK q
        a> QUIT
        a< *close ERROR :Closing link: Client quit
        b< :c!a@h QUIT :Client quit",
    );
}

#[test]
fn messages_go_to_every_other_member() {
    world_of_two().play(
        "a> PRIVMSG #C :Hello  all
        b< :a!a@h PRIVMSG #c :Hello  all
        a> NOTICE #c one
        b< :a!a@h NOTICE #c :one
        a> PRIVMSG B,#d,stranger,b ::)
        b< :a!a@h PRIVMSG b ::)
        b< :a!a@h PRIVMSG #d ::)
        stranger< :a!a@h PRIVMSG stranger ::)
        a> PRIVMSG a :me
        a< :a!a@h PRIVMSG a :me
        stranger> PRIVMSG #c :let me in
        stranger< :s 404 stranger #c :Cannot send to channel",
    );
}

#[test]
fn messages_that_go_nowhere() {
    world_of_two().play(
        "?x> NICK early
        a> PRIVMSG
        a< :s 411 a :No recipient given (PRIVMSG)
        a> PRIVMSG :
        a< :s 411 a :No recipient given (PRIVMSG)
        a> PRIVMSG b
        a< :s 412 a :No text to send
        a> PRIVMSG b :
        a< :s 412 a :No text to send
        a> PRIVMSG nobody,early,#x,:x,@b :x
        a< :s 401 a nobody :No such nick
        a< :s 401 a early :No such nick
        a< :s 403 a #x :No such channel
        a< :s 401 a * :No such nick
        a< :s 401 a @b :No such nick
        a> PRIVMSG 1,2,3,4,5,6,7,b,b,b :x
        a< :s 401 a 1 :No such nick
        a< :s 401 a 2 :No such nick
        a< :s 401 a 3 :No such nick
        a< :s 401 a 4 :No such nick
        a< :s 401 a 5 :No such nick
        a< :s 401 a 6 :No such nick
        a< :s 401 a 7 :No such nick
        b< :a!a@h PRIVMSG b :x
        a< :s 404 a b :Too many targets: this one and those after it got nothing",
    );
    for silent in ["NOTICE", "NOTICE b", "NOTICE nobody,#x :x", "NOTICE 1,2,3,4,5,6,7,8,9 :x"] {
        world_of_two().play(&format!("stranger> {silent}"));
    }
}

#[test]
fn topics() {
    let long = "é".repeat(200);
    world_of_two().play(&format!(
        "a> TOPIC #c
        a< :s 331 a #c :No topic is set
        a> TOPIC #c :{long}
        a< :a!a@h TOPIC #c :{clipped}
        b< :a!a@h TOPIC #c :{clipped}
        b> TOPIC #c
        b< :s 332 b #c :{clipped}
        b< :s 333 b #c a 1007
        b> TOPIC #c :
        a< :b!b@h TOPIC #c :
        b< :b!b@h TOPIC #c :
        b> TOPIC #c
        b< :s 331 b #c :No topic is set
        stranger> TOPIC #c :mine
        stranger< :s 442 stranger #c :You're not on that channel
        stranger> TOPIC #x
        stranger< :s 403 stranger #x :No such channel
        stranger> TOPIC
        stranger< :s 461 stranger TOPIC :Not enough parameters",
        clipped = "é".repeat(150),
    ));
}

#[test]
fn names_and_list() {
    world_of_two().play(
        "b> TOPIC #d :Dee
        a< :b!b@h TOPIC #d :Dee
        b< :b!b@h TOPIC #d :Dee
        stranger> NAMES #c,#x
        stranger< :s 353 stranger = #c :@a b
        stranger< :s 366 stranger #c,#x :End of NAMES list
        stranger> NAMES
        stranger< :s 366 stranger * :End of NAMES list
        stranger> LIST
        stranger< :s 321 stranger Channel :Users  Name
        stranger< :s 322 stranger #c 2 :
        stranger< :s 322 stranger #d 2 :Dee
        stranger< :s 323 stranger :End of LIST
        stranger> LIST #D,#x
        stranger< :s 321 stranger Channel :Users  Name
        stranger< :s 322 stranger #d 2 :Dee
        stranger< :s 323 stranger :End of LIST",
    );
}

#[test]
fn who_and_whois() {
    world_of_two().play(
        "stranger> WHO #c
        stranger< :s 352 stranger #c a h s a H@ :0 Real a
        stranger< :s 352 stranger #c b h s b H :0 Real b
        stranger< :s 315 stranger #c :End of WHO list
        stranger> WHO B
        stranger< :s 352 stranger * b h s b H :0 Real b
        stranger< :s 315 stranger B :End of WHO list
        stranger> WHO #c o
        stranger< :s 315 stranger #c :End of WHO list
        stranger> WHOIS a
        stranger< :s 311 stranger a a h * :Real a
        stranger< :s 319 stranger a :@#c @#d
        stranger< :s 312 stranger a s :one protocol, every I/O model
        stranger< :s 317 stranger a 0 1007 :seconds idle, signon time
        stranger< :s 318 stranger a :End of WHOIS list
        stranger> WHOIS s STRANGER
        stranger< :s 311 stranger stranger stranger h * :Real stranger
        stranger< :s 312 stranger stranger s :one protocol, every I/O model
        stranger< :s 378 stranger stranger :is connecting from *@h h
        stranger< :s 379 stranger stranger :is using modes +
        stranger< :s 317 stranger stranger 0 1007 :seconds idle, signon time
        stranger< :s 318 stranger STRANGER :End of WHOIS list
        stranger> WHOIS nobody
        stranger< :s 401 stranger nobody :No such nick
        stranger< :s 318 stranger nobody :End of WHOIS list
        stranger> WHOIS
        stranger< :s 431 stranger :No nickname given",
    );
}

#[test]
fn a_parameter_comes_back_as_it_was_sent() {
    let mut world = world_of_two();
    world.play(
        "stranger> WHOIS A
        stranger< :s 311 stranger a a h * :Real a
        stranger< :s 319 stranger a :@#c @#d
        stranger< :s 312 stranger a s :one protocol, every I/O model
        stranger< :s 317 stranger a 0 1007 :seconds idle, signon time
        stranger< :s 318 stranger A :End of WHOIS list
        stranger> WHO #C
        stranger< :s 352 stranger #c a h s a H@ :0 Real a
        stranger< :s 352 stranger #c b h s b H :0 Real b
        stranger< :s 315 stranger #C :End of WHO list
        stranger> NAMES #C,#X
        stranger< :s 353 stranger = #c :@a b
        stranger< :s 366 stranger #C,#X :End of NAMES list
        stranger> MODE #C b
        stranger< :s 368 stranger #C :End of channel ban list
        stranger> MODE #C é
        stranger< :s 472 stranger é :is unknown mode char to me
        stranger> PRIVMSG #C :x
        stranger< :s 404 stranger #C :Cannot send to channel
        stranger> TOPIC #C
        stranger< :s 442 stranger #C :You're not on that channel
        stranger> PART #C
        stranger< :s 442 stranger #C :You're not on that channel
        stranger> NICK A
        stranger< :s 433 stranger A :Nickname is already in use",
    );
    let long = "é".repeat(200);
    for (line, numeric) in [
        (format!("WHO {long}"), format!("315 stranger {long} :End of WHO list")),
        (format!("NAMES {long}"), format!("366 stranger {long} :End of NAMES list")),
        (format!("MODE {long}"), format!("401 stranger {long} :No such nick")),
        (format!("MODE #{long}"), format!("403 stranger #{long} :No such channel")),
        (format!("JOIN #{long}"), format!("403 stranger #{long} :No such channel")),
        (format!("PART {long}"), format!("403 stranger {long} :No such channel")),
        (format!("TOPIC {long}"), format!("403 stranger {long} :No such channel")),
        (format!("PRIVMSG {long} :x"), format!("401 stranger {long} :No such nick")),
        (format!("PRIVMSG #{long} :x"), format!("403 stranger #{long} :No such channel")),
        (format!("NICK {long}"), format!("432 stranger {long} :Erroneous nickname")),
        (format!("X{long}"), format!("421 stranger X{long} :Unknown command")),
    ] {
        world.say("stranger", line);
        world.expect(&[("stranger", &format!(":s {numeric}"))]);
    }
    world.say("stranger", format!("WHOIS {long}"));
    world.expect(&[
        ("stranger", &format!(":s 401 stranger {long} :No such nick")),
        ("stranger", &format!(":s 318 stranger {long} :End of WHOIS list")),
    ]);
}

#[test]
fn a_parameter_that_fills_the_line_leaves_no_room_for_words() {
    let mut world = world_of_two();
    let start = ":s 315 stranger ";
    for spare in 0..30 {
        let mask = "m".repeat(510 - start.len() - spare);
        world.say("stranger", format!("WHO {mask}"));
        let words = &":End of WHO list"[..spare.saturating_sub(1).clamp(1, 16)];
        let kept = &mask[..mask.len().min(510 - start.len() - " :".len())];
        world.expect(&[("stranger", &format!("{start}{kept} {words}"))]);
    }
}

#[test]
fn idle_time_counts_from_the_last_message() {
    let mut world = world_of_two();
    world.now = Time::from_millis(67_900);
    world.play(
        "a> PRIVMSG #c :x
        b< :a!a@h PRIVMSG #c :x",
    );
    world.now = Time::from_millis(69_900);
    world.say("b", "WHOIS a");
    world.say("b", "WHOIS b");
    let mail = world.mail();
    let idle: Vec<_> = mail["b"].iter().filter(|line| line.contains(" 317 ")).collect();
    assert!(idle[0].starts_with(":s 317 b a 2 1007 "), "{idle:?}");
    assert!(idle[1].starts_with(":s 317 b b 62 1007 "), "{idle:?}");
}

#[test]
fn small_questions() {
    let mut settings = settings();
    settings.chat.motd = Some(vec!["One".to_owned(), String::new()]);
    let mut world = World::new(settings);
    world.say("b", "PING t");
    world.mail();
    world.play(
        "?x> NICK early
        a> ISON b nobody early A
        a< :s 303 a :b a
        a> ISON :nobody
        a< :s 303 a :
        a> ISON
        a< :s 461 a ISON :Not enough parameters
        a> USERHOST b nobody a
        a< :s 302 a :b=+b@h a=+a@h
        a> USERHOST
        a< :s 461 a USERHOST :Not enough parameters
        a> MOTD
        a< :s 375 a :- s Message of the day -
        a< :s 372 a :- One
        a< :s 372 a :- 
        a< :s 376 a :End of MOTD command
        a> VERSION
        a< :s 351 a iomodels-...
        a< :s 005 a ...
        a< :s 005 a ...
        a< :s 005 a ...
        a< :s 005 a ...
        a> LUSERS
        a< :s 251 a :There are 2 users and 0 invisible on 1 server
        a< :s 252 a 0 :operator(s) online
        a< :s 253 a 1 :unknown connection(s)
        a< :s 254 a 0 :channels formed
        a< :s 255 a :I have 2 clients and 0 servers
        a< :s 265 a 2 2 :Current local users 2, max 2
        a< :s 266 a 2 2 :Current global users 2, max 2
        a> ping :a b
        a< :s PONG s :a b
        a> PING
        a< :s 409 a :No origin specified
        a> PING :
        a< :s 409 a :No origin specified
        a> SING #c b
        a< :s 421 a SING :Unknown command
        a> nonsense\u{1}
        a< :s 421 a * :Unknown command",
    );
}

#[test]
fn a_line_that_is_no_command_is_ignored() {
    play("a> \na>    \na> :b!b@h\na> PONG");
    let mut world = World::new(settings());
    world.say("a", "");
    world.say("a", "\r");
    world.expect(&[]);
}

#[test]
fn a_source_is_never_believed() {
    world_of_two().play("a> :b!b@h PRIVMSG #c :x\nb< :a!a@h PRIVMSG #c :x");
}

#[test]
fn nothing_forges_a_line() {
    let mut world = world_of_two();
    world.say("a", "PRIVMSG #c :one\rQUIT\0\n:s 001 b :two");
    world.expect(&[("b", ":a!a@h PRIVMSG #c :oneQUIT:s 001 b :two")]);
    world.say("a", "TOPIC #c :a\rb");
    world.expect(&[("a", ":a!a@h TOPIC #c :ab"), ("b", ":a!a@h TOPIC #c :ab")]);
    world.say("a", "NICK x\ry");
    world.expect(&[("a", ":a!a@h NICK xy"), ("b", ":a!a@h NICK xy")]);
    world.say("a", "QUIT :\0a\r");
    world.expect(&[("a", "*close ERROR :Closing link: Quit: a"), ("b", ":xy!a@h QUIT :Quit: a")]);
}

#[test]
fn a_user_name_is_made_harmless() {
    let mut world = World::new(settings());
    world.play("?x> NICK x");
    world.say("?x", "USER \u{202e}r@o!o:t\u{1} 0 * :Real\u{3}04");
    let mail = world.mail();
    assert_eq!(mail["?x"][1], ":s 001 x :Welcome to the net network, x!root@h");
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let mut world = world_of_two();
    let refused = |command: &str| {
        format!(":s FAIL {command} INVALID_UTF8 :Message rejected: this server takes UTF-8 only")
    };
    for (line, reply) in [
        (&b"privmsg #c :\xff"[..], refused("PRIVMSG")),
        (b"TOPIC #c :\xc3", refused("TOPIC")),
        (b"\xff", refused("*")),
        (b"NONSENSE \xff", refused("*")),
    ] {
        world.say("a", line);
        world.expect(&[("a", &reply)]);
    }
    world.say("a", b"NOTICE #c :\xff");
    world.expect(&[]);
}

#[test]
fn any_bytes_are_relayed_when_allowed() {
    let mut settings = settings();
    settings.chat.utf8_only = false;
    let mut world = World::new(settings);
    world.say("a", "JOIN #c");
    world.say("b", "JOIN #c");
    world.mail();
    world.say("a", b"PRIVMSG #c :\xff\xfe");
    let mut mail = Vec::new();
    world.hub.take(0, &mut mail);
    let Parcel::Text(text) = &mail[0].parcel else { panic!("no text") };
    assert_eq!(&text[..], b":a!a@h PRIVMSG #c :\xff\xfe\r\n");
    for (line, expected) in [
        (&b"JOIN #\xff"[..], &b":s 403 a #\xff :No such channel\r\n"[..]),
        (b"NICK \xff", b":s 432 a \xff :Erroneous nickname\r\n"),
        (b"WHO \xff\x1b", b":s 315 a * :End of WHO list\r\n"),
    ] {
        world.say("a", line);
        mail.clear();
        world.hub.take(0, &mut mail);
        let Parcel::Text(text) = &mail[0].parcel else { panic!("no text") };
        assert_eq!(text[..], *expected);
    }
}

#[test]
fn a_line_over_the_limit_is_told() {
    let mut world = World::new(settings());
    world.say("a", "PING t");
    world.mail();
    world.hub.line(world.ids["a"], Line::TooLong, world.now);
    world.expect(&[("a", ":s 417 a :Input line was too long")]);
}

#[test]
fn the_features_are_the_truth() {
    let mut settings = settings();
    settings.chat.network = "My Net".to_owned();
    settings.limits.max_channels = 3;
    settings.limits.max_targets = 4;
    let told = crate::chat::commands::features(&settings);
    let told = told.iter().map(|line| core::str::from_utf8(line).unwrap()).collect::<Vec<_>>();
    let told = told.join(" ");
    for token in [
        "CHANLIMIT=#:3",
        "MAXTARGETS=4",
        "NETWORK=My\\x20Net",
        "NICKLEN=30",
        "CHANNELLEN=64",
        "TOPICLEN=300",
        "UTF8ONLY",
        "PREFIX=(ov)@+",
        "CHANMODES=beI,k,l,imnst",
        "MAXLIST=beI:60",
        "MODES=6",
    ] {
        assert!(told.split(' ').any(|other| other == token), "{token} in {told}");
    }
    settings.chat.utf8_only = false;
    assert!(!format!("{:?}", crate::chat::commands::features(&settings)).contains("UTF8ONLY"));
}

#[test]
fn a_silent_member_is_asked() {
    let mut world = World::new(settings());
    world.say("a", "PONG");
    world.hub.ping(world.ids["a"]);
    world.expect(&[("a", "PING :s")]);
}

#[test]
fn the_server_stops() {
    let mut world = world_of_two();
    world.connect("?x");
    world.hub.shut_down();
    let goodbye = "*close ERROR :Closing link: Server shutting down";
    world.expect(&[("?x", goodbye), ("a", goodbye), ("b", goodbye), ("stranger", goodbye)]);
    world.connect("?late");
    world.expect(&[("?late", goodbye)]);
    world.play("a> PING t\n?late> PING t");
}
