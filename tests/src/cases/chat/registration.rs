//! Registration: how a stranger becomes a member, and who never does.

use crate::cases::{Case, cases};
use crate::member::{Member, Message};
use crate::server::Server;
use crate::watchdog::Ctx;

pub(super) const CASES: &[Case] = cases![Chat:
    the_welcome_is_complete_and_in_order,
    user_may_come_before_nick,
    the_server_bears_the_name_it_was_given,
    the_message_of_the_day_is_the_file,
    isupport_names_what_is_there,
    isupport_tells_the_truth_about_lengths,
    isupport_tells_the_truth_about_flags,
    user_names_hold_nothing_that_deceives needs 2,
    the_password_is_asked_for,
    a_password_that_was_not_asked_for_is_ignored,
    commands_before_registration_get_451,
    ping_and_quit_work_before_registration,
    registering_again_gets_462,
    incomplete_registration_commands_are_told,
    registration_has_a_deadline,
    a_browser_is_not_turned_into_a_client,
    a_tls_hello_closes_the_connection,
    registration_may_come_one_byte_at_a_time,
    commands_end_with_lf_or_crlf_in_any_case,
    a_script_piped_into_nc_gets_its_answers needs 2,
];

#[track_caller]
fn stranger(server: &Server) -> Member {
    Member::stranger(server.client())
}

fn commands(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.command.as_str()).collect()
}

/// 001 to 004, 005, the LUSERS replies, and the message of the day or 422, all to the nickname.
fn the_welcome_is_complete_and_in_order(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = stranger(&server);
    ann.introduce("ann");
    let welcome = ann.welcome();
    let mut commands = commands(&welcome);
    commands.dedup();
    assert_eq!(commands[..5], ["001", "002", "003", "004", "005"]);
    assert_eq!(commands[5], "251", "LUSERS follows");
    assert!(commands.contains(&"255"), "LUSERS is complete: {commands:?}");
    assert_eq!(commands.last(), Some(&"422"), "there is no message of the day");
    for message in &welcome {
        assert_eq!(message.param(0), "ann", "whom {message:?} is for");
        assert_eq!(message.source, welcome[0].source, "who {message:?} is from");
    }
    assert!(welcome[0].text().contains("ann"), "{:?}", welcome[0]);
    ann.hears_nothing();
}

/// NICK and USER may come in either order.
fn user_may_come_before_nick(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = stranger(&server);
    ann.say("USER ann 0 * :Ann");
    ann.say("NICK ann");
    ann.nick = "ann".to_owned();
    ann.welcome();
    ann.hears_nothing();
}

/// `--server-name` and `--network` are what members see.
fn the_server_bears_the_name_it_was_given(ctx: &Ctx) {
    let server = ctx.chat(&["--server-name", "irc.example.org", "--network", "ExampleNet"]);
    let mut ann = stranger(&server);
    ann.introduce("ann");
    let welcome = ann.welcome();
    assert!(welcome.iter().all(|message| message.source == "irc.example.org"), "{welcome:?}");
    assert!(welcome[0].text().contains("ExampleNet"), "{:?}", welcome[0]);
    assert_eq!(isupport(&welcome, "NETWORK").as_deref(), Some("ExampleNet"));
}

/// `--motd FILE`: 375, its lines in 372, 376; to MOTD as well.
fn the_message_of_the_day_is_the_file(ctx: &Ctx) {
    let path = std::env::temp_dir().join(format!("conformance-motd-{}", fastrand::u64(..)));
    std::fs::write(&path, "first line\n\nthird: line\n").expect("write a temporary file");
    let server = ctx.chat(&["--motd", path.to_str().expect("a path that is text")]);
    // The server has read it before it listens; a failure below must not leave it behind.
    std::fs::remove_file(&path).expect("remove a temporary file");
    let mut ann = stranger(&server);
    ann.introduce("ann");
    let welcome = ann.welcome();
    check_motd(&welcome[welcome.len() - 5..]);
    ann.say("MOTD");
    check_motd(&ann.through("376"));
}

#[track_caller]
fn check_motd(messages: &[Message]) {
    assert_eq!(commands(messages), ["375", "372", "372", "372", "376"]);
    assert!(messages[1].text().ends_with("first line"), "{messages:?}");
    assert!(messages[3].text().ends_with("third: line"), "{messages:?}");
}

/// The value of an 005 token.
fn isupport(welcome: &[Message], key: &str) -> Option<String> {
    let tokens = welcome.iter().filter(|m| m.command == "005").flat_map(|m| &m.params[1..]);
    tokens.filter_map(|token| token.split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| v.into())
}

#[track_caller]
fn limits_told(server: &Server) -> impl Fn(&str) -> usize {
    let mut ann = stranger(server);
    ann.introduce("isupport");
    let welcome = ann.welcome();
    move |key| {
        let value = isupport(&welcome, key).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no number for {key} in 005"))
    }
}

/// 005 names what clients need to know, and does not claim what is not offered.
fn isupport_names_what_is_there(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = stranger(&server);
    ann.introduce("ann");
    let welcome = ann.welcome();
    assert_eq!(isupport(&welcome, "CHANTYPES").as_deref(), Some("#"));
    for key in ["NICKLEN", "CHANNELLEN", "CASEMAPPING", "NETWORK", "TARGMAX"] {
        assert!(isupport(&welcome, key).is_some(), "005 does not tell {key}");
    }
    let ranks = isupport(&welcome, "PREFIX");
    assert_eq!(ranks.as_deref(), Some("(ov)@+"), "the ranks that 005 claims");
    for message in welcome.iter().filter(|message| message.command == "005") {
        assert!(message.params.len() <= 15, "more than 13 tokens in one 005: {message:?}");
    }
}

/// NICKLEN and CHANNELLEN are what is enforced, to the character.
fn isupport_tells_the_truth_about_lengths(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let limit = limits_told(&server);
    assert_eq!((limit("NICKLEN"), limit("CHANNELLEN")), (30, 64));
    let mut ann = server.member("ann");
    let fits = "n".repeat(limit("NICKLEN"));
    ann.say(format!("NICK {fits}"));
    ann.expect(&format!("ann NICK {fits}"));
    ann.ask(&format!("NICK {fits}x"), "432");
    ann.nick = fits;
    let fits = format!("#{}", "c".repeat(limit("CHANNELLEN") - 1));
    ann.join(&fits);
    ann.ask(&format!("JOIN {fits}x"), "403");
}

/// What flags change, 005 tells: targets per message, and channels per member where it is told.
fn isupport_tells_the_truth_about_flags(ctx: &Ctx) {
    let server = ctx.chat(&["--max-targets", "3", "--max-channels", "7"]);
    let mut ann = stranger(&server);
    ann.introduce("ann");
    let welcome = ann.welcome();
    let targets = isupport(&welcome, "TARGMAX").unwrap_or_default();
    for command in ["PRIVMSG:3", "NOTICE:3"] {
        assert!(targets.split(',').any(|target| target == command), "TARGMAX={targets}");
    }
    for key in ["CHANLIMIT", "MAXCHANNELS"] {
        let told = isupport(&welcome, key).unwrap_or_else(|| "7".to_owned());
        assert_eq!(told.trim_start_matches("#:"), "7", "{key}");
    }
}

/// A user name, which others see, holds no control, C1 or bidirectional character, and nothing that
/// could end it too early.
fn user_names_hold_nothing_that_deceives(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut witness = server.member("witness");
    witness.join("#c");
    for user in ["a\x01b", "a\x1b[31m", "a\u{85}b", "a\u{202e}b", "a!b@c", "a\u{2066}"] {
        let mut ann = stranger(&server);
        ann.say("NICK ann");
        ann.say(format!("USER {user} 0 * :Ann"));
        ann.nick = "ann".to_owned();
        // A server may change the name, or refuse it and wait for a better one.
        ann.say("PING done");
        let answer = ann.through("PONG");
        if answer.iter().all(|message| message.command != "001") {
            ann.say("USER good 0 * :Ann");
        }
        ann.say("JOIN #c");
        let join = witness.gets("JOIN");
        let deceives = |c: char| {
            c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert!(!join.source.contains(deceives), "for {user:?} others see {:?}", join.source);
        assert_eq!(join.source.matches(['!', '@']).count(), 2, "for {user:?}: {:?}", join.source);
        ann.say("QUIT");
        assert_eq!(witness.gets("QUIT").from(), "ann");
    }
}

/// `--password`: without it or with another there is no way in (464), with it there is.
fn the_password_is_asked_for(ctx: &Ctx) {
    let server = ctx.chat(&["--password", "sesame"]);
    for pass in ["", "PASS wrong\r\n", "PASS sesam\r\n", "PASS sesames\r\n", "PASS :\r\n"] {
        let mut thief = stranger(&server);
        thief.client.send(format!("{pass}NICK thief\r\nUSER thief 0 * :Thief\r\n"));
        let heard = thief.client.read_to_end();
        let heard = String::from_utf8_lossy(&heard);
        assert!(heard.contains(" 464 "), "after {pass:?}: {heard:?}");
        assert!(!heard.contains(" 001 "), "after {pass:?}: {heard:?}");
    }
    let mut friend = stranger(&server);
    friend.say("PASS sesame");
    friend.introduce("friend");
    friend.welcome();
    friend.ask("PASS sesame", "462");
}

/// Many clients send PASS anyway.
fn a_password_that_was_not_asked_for_is_ignored(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = stranger(&server);
    ann.say("PASS whatever");
    ann.introduce("ann");
    ann.welcome();
}

/// A client that has not registered may not do anything, and is told so.
fn commands_before_registration_get_451(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = stranger(&server);
    for line in [
        "JOIN #c",
        "PRIVMSG bob :hello",
        "PART #c",
        "TOPIC #c",
        "NAMES #c",
        "WHO #c",
        "WHOIS bob",
        "MODE #c",
        "LIST",
        "LUSERS",
        "MOTD",
        "VERSION",
        "ISON bob",
        "USERHOST bob",
    ] {
        ann.ask(line, "451");
    }
    ann.introduce("ann");
    ann.welcome();
    ann.say("LIST");
    assert!(ann.through("323").iter().all(|m| m.command != "322"), "there is no channel");
}

/// PING and QUIT are allowed from the first line on.
fn ping_and_quit_work_before_registration(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = stranger(&server);
    assert_eq!(ann.ask("PING token", "PONG").text(), "token");
    ann.say("QUIT :never mind");
    ann.is_cut();
}

/// USER and PASS after registration: 462. The member stays who it is.
fn registering_again_gets_462(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    ann.ask("USER other 0 * :Other", "462");
    ann.ask("PASS word", "462");
    assert!(ann.ask("WHOIS ann", "311").params.contains(&"Real ann".to_owned()));
}

/// NICK without a nickname: 431. USER or PASS without enough parameters: 461.
fn incomplete_registration_commands_are_told(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = stranger(&server);
    ann.ask("NICK", "431");
    ann.ask("NICK :", "431");
    ann.ask("USER ann", "461");
    ann.ask("USER ann 0 *", "461");
    ann.ask("PASS", "461");
    ann.introduce("ann");
    ann.welcome();
}

/// Registration has a deadline, also for who talks all the time without registering.
fn registration_has_a_deadline(ctx: &Ctx) {
    let server = ctx.busy_chat(&["--registration-timeout", "400ms"]);
    let mut silent = stranger(&server);
    let mut talker = stranger(&server);
    talker.say("NICK talker");
    let mut pings = 0;
    while talker.client.end().is_none() {
        // One at a time: each answer is the reason for the next.
        talker.client.queue(b"PING again\r\n");
        talker.client.until("an answer or the cut", |client| {
            client.incoming.iter().filter(|&&byte| byte == b'\n').count() > pings
                || client.end().is_some()
        });
        pings += 1;
    }
    talker.is_cut();
    silent.is_cut();
    // The nickname that was half taken is free.
    server.prompt_member("talker").hears_nothing();
}

/// 10: A browser that is made to speak to this port must not become a member.
fn a_browser_is_not_turned_into_a_client(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    for method in ["GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT"] {
        let mut browser = server.client();
        browser.queue(
            format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\nNICK web\r\nUSER web 0 * :Web\r\n")
                .as_bytes(),
        );
        let heard = browser.read_to_end();
        let heard = String::from_utf8_lossy(&heard);
        assert!(!heard.contains(" 001 "), "{method} got {heard:?}");
    }
    server.member("web");
}

/// 10: A TLS handshake on the plain port ends at once, though it holds no line end.
fn a_tls_hello_closes_the_connection(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut client = server.client();
    client.queue(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    client.read_to_end();
    server.member("plain");
}

/// 2: What is typed byte by byte counts like what comes at once.
fn registration_may_come_one_byte_at_a_time(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = stranger(&server);
    for byte in crate::member::introduction("ann").bytes() {
        ann.client.send([byte]);
    }
    ann.nick = "ann".to_owned();
    ann.welcome();
}

/// Four lines typed into `nc`: LF, any letter case, empty lines and spaces around.
fn commands_end_with_lf_or_crlf_in_any_case(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = stranger(&server);
    ann.client.send("\n\r\nnick ann\nUser ann 0 * ann\n");
    ann.nick = "ann".to_owned();
    ann.welcome();
    ann.client.send("\n\n  \njOiN   #c  \n");
    ann.expect("ann JOIN #c");
}

/// `printf '...' | nc`: all lines at once, and the end of the stream right behind them.
fn a_script_piped_into_nc_gets_its_answers(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut witness = server.member("witness");
    witness.join("#c");
    let mut client = server.client();
    client.send("NICK ann\nUSER ann 0 * ann\nJOIN #c\nPRIVMSG #c :hello\nPING done\n");
    client.half_close();
    let heard = client.read_to_end();
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.contains(" 001 ") && heard.contains(" 366 "), "{heard:?}");
    assert!(heard.contains(" PONG "), "{heard:?}");
    witness.expect("ann JOIN #c");
    witness.expect("ann PRIVMSG #c hello");
    assert_eq!(witness.gets("QUIT").from(), "ann");
}
