//! Operators of the server: who becomes one, and what only they may.

use std::time::{Duration, Instant};

use crate::cases::process::refuse;
use crate::cases::service::Scratch;
use crate::cases::{Case, cases, may_have_workers};
use crate::member::{Member, gather};
use crate::server::{Outcome, Server};
use crate::surroundings::Surroundings;
use crate::watchdog::Ctx;

pub(super) const CASES: &[Case] = cases![Chat:
    the_right_password_makes_an_operator_and_no_other_does,
    wrong_attempts_are_counted_and_end_the_connection needs 2,
    no_member_waits_while_a_password_is_looked_at needs 2,
    what_an_operator_may_no_other_member_may needs 2,
    a_member_that_is_killed_is_told_and_its_channels_once needs 3,
    wallops_reach_those_who_want_them needs 3,
    a_rehash_reads_the_files_anew needs 2,
    no_parameter_of_an_operator_forges_a_line needs 2,
    without_a_file_there_are_no_operators,
    a_wrong_file_of_operators_is_one_clear_line,
    the_hash_that_is_printed_is_one_for_the_file,
];

/// `root` with the password `sesame`, at the least cost that there is.
const OPERATORS: &str = "# Who may.\n\nroot $argon2id$v=19$m=8,t=1,p=1$gQ9okcp/2ku+45rerZ770Q\
                         $gYqiK3dCPvMZ62iQuqNzfip88fC8AUE0Y3x+Ooua8o8\n";

/// What tells an answer that comes after a second from one that comes at once. It is less than the
/// second: a loop counts from the instant at which its turn has begun, and the line may have come
/// after that.
const NOT_AT_ONCE: Duration = Duration::from_millis(500);

/// A server with the operator `root`, for each number of workers that the model can have.
fn each_server(ctx: &Ctx, check: impl Fn(&Server)) {
    let file = Scratch::new(OPERATORS);
    let counts: &[&str] = if may_have_workers(ctx) { &["1", "2"] } else { &["1"] };
    for workers in counts {
        check(&ctx.busy_chat(&["--oper-file", file.path(), "--workers", workers]));
    }
}

/// What OPER is answered: 381 or 464. A machine that is too busy says 263, and is asked again.
fn oper(member: &mut Member, name: &str, password: &str) -> String {
    loop {
        member.say(format!("OPER {name} {password}"));
        let answer = member.next().command;
        if answer != "263" {
            return answer;
        }
    }
}

/// Makes a member operator of the server.
fn raise(member: &mut Member) {
    assert_eq!(oper(member, "root", "sesame"), "381");
    member.expect(&format!("{0} MODE {0} +o", member.nick));
}

/// 381 and +o, which LUSERS, WHOIS and USERHOST tell; else 464. No answer is quicker than another.
fn the_right_password_makes_an_operator_and_no_other_does(ctx: &Ctx) {
    each_server(ctx, |server| {
        let mut ann = server.member("ann");
        for (name, password) in [("root", "Sesame"), ("Root", "sesame")] {
            let asked = Instant::now();
            assert_eq!(oper(&mut ann, name, password), "464", "{name} {password}");
            assert!(asked.elapsed() >= NOT_AT_ONCE, "it is answered at once");
        }
        let asked = Instant::now();
        raise(&mut ann);
        assert!(asked.elapsed() >= NOT_AT_ONCE, "it is answered at once");
        assert_eq!(ann.ask("MODE ann", "221").param(1), "+o");
        assert_eq!(ann.ask("USERHOST ann", "302").text(), "ann*=+ann@127.0.0.1");
        ann.say("WHOIS ann");
        let told: Vec<_> = ann.through("318").into_iter().map(|it| it.command).collect();
        for numeric in ["313", "378", "379"] {
            assert!(told.iter().any(|it| it == numeric), "no {numeric} in {told:?}");
        }
        ann.say("LUSERS");
        let told = ann.through("266");
        assert!(told.iter().any(|it| it.command == "252" && it.param(1) == "1"), "{told:?}");
        ann.say("MODE ann -o");
        ann.expect("ann MODE ann -o");
        ann.ask("REHASH", "481");
    });
}

/// Each is logged with its address and counted; the third is the last.
fn wrong_attempts_are_counted_and_end_the_connection(ctx: &Ctx) {
    let file = Scratch::new(OPERATORS);
    let server = ctx.busy_chat(&["--oper-file", file.path()]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    for _ in 0..3 {
        assert_eq!(oper(&mut ann, "root", "guess"), "464");
    }
    ann.is_cut();
    bob.expect("ann QUIT Too many wrong passwords");
    ctx.watch.until("three to be counted", || server.counter("wrong_passwords") == 3);
    let line = server.says("a wrong password for OPER");
    assert!(line.contains("127.0.0.1") && !line.contains("guess"), "it says {line:?}");
}

/// The member's own lines wait for the answer, in order; those of others do not.
fn no_member_waits_while_a_password_is_looked_at(ctx: &Ctx) {
    each_server(ctx, |server| {
        let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
        let asked = Instant::now();
        ann.say("OPER root sesame\r\nPRIVMSG bob :after");
        let mut heard = Vec::new();
        for _ in 0..20 {
            bob.say("PRIVMSG bob :now");
            heard.extend(bob.briefs());
        }
        // On a machine that is slower than this, the answer may have come meanwhile.
        if asked.elapsed() < NOT_AT_ONCE {
            assert_eq!(heard, ["bob PRIVMSG bob now"; 20]);
        }
        assert!(matches!(ann.next().command.as_str(), "381" | "263"));
        if heard.len() == 20 {
            bob.expect("ann PRIVMSG bob after");
        }
    });
}

/// 481 for each of the commands, and nothing comes of it.
fn what_an_operator_may_no_other_member_may(ctx: &Ctx) {
    each_server(ctx, |server| {
        let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
        bob.say("MODE bob +w");
        bob.expect("bob MODE bob +w");
        for line in ["KILL bob :out", "KILL nobody :out", "WALLOPS :hear", "REHASH"] {
            ann.ask(line, "481");
        }
        bob.hears_nothing();
        let mut cid = Member::stranger(server.client());
        for line in ["KILL bob :out", "WALLOPS :hear", "REHASH", "OPER root sesame"] {
            cid.ask(line, "451");
        }
    });
}

/// KILL and ERROR for the one, one QUIT for those who share channels with it.
fn a_member_that_is_killed_is_told_and_its_channels_once(ctx: &Ctx) {
    each_server(ctx, |server| {
        let (mut ann, mut bob, mut cid) =
            (server.member("ann"), server.member("bob"), server.member("cid"));
        gather("#c", &mut [&mut bob, &mut cid]);
        gather("#d", &mut [&mut bob, &mut cid]);
        raise(&mut ann);
        ann.ask("KILL nobody :out", "401");
        ann.say("KILL Bob :out of here");
        ann.hears_nothing();
        bob.expect("ann KILL bob out of here");
        bob.expect("ERROR Closing link: Killed (ann (out of here))");
        cid.expect("bob QUIT Killed (ann (out of here))");
        cid.hears_nothing();
        // The nickname is free at once.
        server.member("bob");
    });
}

/// Those with +w, whatever worker serves them, and none else.
fn wallops_reach_those_who_want_them(ctx: &Ctx) {
    each_server(ctx, |server| {
        let (mut ann, mut bob, mut cid) =
            (server.member("ann"), server.member("bob"), server.member("cid"));
        raise(&mut ann);
        bob.say("MODE bob +w");
        bob.expect("bob MODE bob +w");
        ann.say("WALLOPS :all of you");
        ann.hears_nothing();
        bob.expect("ann WALLOPS all of you");
        cid.hears_nothing();
        ann.ask("WALLOPS", "461");
    });
}

/// The message of the day and the operators, as SIGHUP does. A wrong file changes nothing.
fn a_rehash_reads_the_files_anew(ctx: &Ctx) {
    let (motd, file) = (Scratch::new("the old day\n"), Scratch::new(OPERATORS));
    let server = ctx.busy_chat(&["--motd", motd.path(), "--oper-file", file.path()]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    raise(&mut ann);
    std::fs::write(motd.path(), "the new day\n").expect("write a file");
    std::fs::write(file.path(), OPERATORS.replace("root", "other")).expect("write a file");
    ann.ask("REHASH", "382");
    server.says("are read anew");
    ann.say("MOTD");
    assert!(ann.through("376").iter().any(|line| line.text().contains("the new day")));
    assert_eq!(oper(&mut bob, "root", "sesame"), "464");
    assert_eq!(oper(&mut bob, "other", "sesame"), "381");
    bob.expect("bob MODE bob +o");
    std::fs::write(file.path(), "nothing good\n").expect("write a file");
    ann.ask("REHASH", "382");
    server.says("stays with what it has");
    assert_eq!(oper(&mut ann, "other", "sesame"), "381");
}

/// What an operator says to others stays in one line, whose source is the operator.
fn no_parameter_of_an_operator_forges_a_line(ctx: &Ctx) {
    each_server(ctx, |server| {
        let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
        bob.say("MODE bob +w");
        bob.expect("bob MODE bob +w");
        raise(&mut ann);
        let long = "x".repeat(450);
        for text in ["a\r:s 001 bob", "a\0b", ":irc 001 bob", " a", "@a=b :c", &long] {
            ann.say(format!("WALLOPS :{text}"));
            let got = bob.next();
            assert_eq!((got.from(), got.command.as_str()), ("ann", "WALLOPS"), "{text:?}");
            ann.say(format!("KILL :{text}"));
            ann.gets("401");
            bob.hears_nothing();
        }
        ann.say("KILL bob ::irc 001 bob\r :x");
        bob.expect("ann KILL bob :irc 001 bob :x");
        bob.expect("ERROR Closing link: Killed (ann (:irc 001 bob :x))");
    });
}

/// 491.
fn without_a_file_there_are_no_operators(ctx: &Ctx) {
    ctx.chat(&[]).member("ann").ask("OPER root sesame", "491");
}

/// A line that is no name and hash, a name that stands there twice, a hash that is too dear.
fn a_wrong_file_of_operators_is_one_clear_line(ctx: &Ctx) {
    let twice = [OPERATORS, OPERATORS].concat();
    let dear = OPERATORS.replace("m=8", "m=4000000");
    for text in ["root\n", "root sesame\n", &twice, &dear] {
        let file = Scratch::new(text);
        let args = ["--mode", "chat", "--oper-file", file.path()];
        let line = refuse(ctx, Surroundings::Usual, &args);
        let clear = line.contains(file.path()) && line.contains("line ");
        assert!(clear && !line.contains("sesame"), "for {text:?} it says {line:?}");
    }
    let args = ["--mode", "chat", "--oper-file", "/nonexistent/operators"];
    let line = refuse(ctx, Surroundings::Usual, &args);
    assert!(line.contains("--oper-file"), "it says {line:?}");
}

/// `--hash-password` reads standard input; a password that is none is refused.
fn the_hash_that_is_printed_is_one_for_the_file(ctx: &Ctx) {
    let hash = |password: &str| {
        let file = Scratch::new(password);
        ctx.outcome_after(&format!("exec <{}", file.path()), &["--hash-password"])
    };
    let Outcome { code, stdout, .. } = hash("open:sesame\n");
    assert_eq!(code, Some(0), "it prints {stdout:?}");
    let file = Scratch::new(&format!("root {stdout}"));
    let server = ctx.busy_chat(&["--oper-file", file.path()]);
    assert_eq!(oper(&mut server.member("ann"), "root", "open:sesame"), "381");
    assert_eq!(oper(&mut server.member("bob"), "root", "sesame"), "464");
    assert_eq!(hash("\n").code, Some(2));
}
