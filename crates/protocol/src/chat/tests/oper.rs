//! Operators of the server: OPER, KILL, WALLOPS, REHASH.

use core::cell::Cell;

use super::*;
use crate::{Changing, ChatTexts, Verdict};

/// Knows `root` with the password `right`; never comes to a question of `slow`, and has no room for
/// one of `full`.
#[derive(Debug, Default)]
struct Known;

#[derive(Debug)]
struct Found(Option<bool>);

std::thread_local! {
    static RELOADS: Cell<u32> = const { Cell::new(0) };
}

impl Verdict for Found {
    fn get(&self) -> Option<bool> {
        self.0
    }
}

impl Changing for Known {
    fn texts(&self) -> Arc<ChatTexts> {
        Arc::default()
    }

    fn refused(&self, _: &[u8]) {}

    fn has_operators(&self) -> bool {
        true
    }

    fn verify(&self, name: &[u8], password: &[u8], _: &[u8]) -> Option<Arc<dyn Verdict>> {
        let found = (name != b"slow").then_some(name == b"root" && password == b"right");
        (name != b"full").then(|| Arc::new(Found(found)) as Arc<dyn Verdict>)
    }

    fn reload(&self) {
        RELOADS.set(RELOADS.get() + 1);
    }
}

/// Those of [`settings`], with the operator `root`, whose password is `right`.
pub(super) fn settings_with_operators() -> Settings {
    let mut settings = settings();
    settings.chat.changing = Some(Arc::new(Known));
    settings
}

/// `op` is an operator of the server; a and b share #c with it.
fn led() -> World {
    let mut world = World::new(settings_with_operators());
    for name in ["op", "a", "b"] {
        world.say(name, "JOIN #c");
    }
    world.say("op", "OPER root right");
    world.say("op", "");
    world.mail();
    world
}

#[test]
fn the_answer_comes_with_the_next_line_and_once() {
    led().play(
        "a> OPER root right
        a> MODE a
        a< :s 381 a :You are now an IRC operator
        a< :a!a@h MODE a :+o
        a< :s 221 a +o
        a> WHOIS a
        a< :s 311 a a a h * :Real a
        a< :s 319 a a :#c
        a< :s 312 a a s :one protocol, every I/O model
        a< :s 313 a a :is an IRC operator
        a< :s 378 a a :is connecting from *@h h
        a< :s 379 a a :is using modes +o
        a< :s 317 a a 0 1007 :seconds idle, signon time
        a< :s 318 a a :End of WHOIS list
        a> USERHOST a
        a< :s 302 a :a*=+a@h
        a> MODE a -o
        a< :a!a@h MODE a :-o
        a> REHASH
        a< :s 481 a :Permission Denied- You're not an IRC operator",
    );
}

#[test]
fn an_attempt_that_comes_to_nothing_says_so() {
    led().play(
        "a> OPER root wrong
        a> PING t
        a< :s 464 a :Password incorrect
        a< :s PONG s :t
        a> OPER slow x
        a> PING t
        a< :s 263 a OPER :Please wait a while and try again.
        a< :s PONG s :t
        a> OPER full x
        a< :s 263 a OPER :Please wait a while and try again.
        a> OPER root
        a< :s 461 a OPER :Not enough parameters
        ?x> OPER root right
        ?x< :s 451 * :You have not registered
        a> MODE a
        a< :s 221 a +",
    );
    play("a> OPER root right\na< :s 491 a :No operators are known here");
}

#[test]
fn wrong_attempts_have_a_bound() {
    led().play(
        "a> OPER root wrong
        a> PING t
        a< :s 464 a :Password incorrect
        a< :s PONG s :t
        a> OPER other right
        a> PING t
        a< :s 464 a :Password incorrect
        a< :s PONG s :t
        a> OPER root wrong
        a> PRIVMSG #c :not heard
        a< :s 464 a :Password incorrect
        a< *close ERROR :Closing link: Too many wrong passwords
        op< :a!a@h QUIT :Too many wrong passwords
        b< :a!a@h QUIT :Too many wrong passwords",
    );
}

#[test]
fn the_answer_has_the_label_of_its_question() {
    led().play(
        "a> CAP REQ :labeled-response batch message-tags
        a< :s CAP a ACK ...
        a> @label=7 OPER root wrong
        a> @label=8 PING t
        a< @label=7 :s 464 a :Password incorrect
        a< @label=8 :s PONG s :t",
    );
}

#[test]
fn a_member_that_is_killed_is_told_and_its_channels_too() {
    led().play(
        "op> KILL A ::out
        a< :op!op@h KILL a ::out
        a< *close ERROR :Closing link: Killed (op (:out))
        op< :a!a@h QUIT :Killed (op (:out))
        b< :a!a@h QUIT :Killed (op (:out))
        op> KILL nobody :x
        op< :s 401 op nobody :No such nick
        op> KILL
        op< :s 461 op KILL :Not enough parameters
        b> KILL op :x
        b< :s 481 b :Permission Denied- You're not an IRC operator
        op> KILL op
        op< :op!op@h KILL op :op
        op< *close ERROR :Closing link: Killed (op (op))
        b< :op!op@h QUIT :Killed (op (op))",
    );
}

#[test]
fn wallops_reach_those_who_want_them() {
    led().play(
        "a> MODE a +w
        a< :a!a@h MODE a :+w
        op> WALLOPS ::hi all
        a< :op!op@h WALLOPS ::hi all
        op> MODE op +w
        op< :op!op@h MODE op :+w
        op> WALLOPS two words
        a< :op!op@h WALLOPS :two
        op< :op!op@h WALLOPS :two
        op> WALLOPS :
        op< :s 461 op WALLOPS :Not enough parameters
        a> WALLOPS :me too
        a< :s 481 a :Permission Denied- You're not an IRC operator
        a> LUSERS
        a< :s 251 a ...
        a< :s 252 a 1 :operator(s) online
        a< :s 253 a ...
        a< :s 254 a ...
        a< :s 255 a ...
        a< :s 265 a ...
        a< :s 266 a ...",
    );
}

#[test]
fn only_operators_have_the_files_read_anew() {
    let mut world = led();
    world.play("a> REHASH\na< :s 481 a :Permission Denied- You're not an IRC operator");
    assert_eq!(RELOADS.get(), 0);
    world.play("op> REHASH\nop< :s 382 op s :Rehashing");
    assert_eq!(RELOADS.get(), 1);
}

/// Every parameter of every command here, with what some client takes for an end or a start of
/// something. `lines_of` looks into each line that a member is sent; here its source is looked at.
#[test]
fn no_parameter_forges_a_line() {
    let long = "x".repeat(600);
    let texts =
        ["a\r\nQUIT", "a\nb", "a\0b", ":a", " a", "a b", "", "@a=b c", ":s 381 b :x", &long];
    for text in texts {
        for command in ["OPER", "OPER root", "KILL", "KILL a", "WALLOPS", "REHASH"] {
            for colon in ["", ":"] {
                let mut world = led();
                world.say("b", "MODE b +w");
                world.mail();
                world.say("op", format!("{command} {colon}{text}"));
                world.say("op", "");
                for (name, lines) in world.mail() {
                    for line in lines {
                        let line = line.strip_prefix("*close ").unwrap_or(&line);
                        let starts = ["ERROR :Closing link: ", ":s ", ":op!op@h ", ":a!a@h QUIT "];
                        let meant = starts.iter().any(|start| line.starts_with(start));
                        assert!(meant, "{name} got {line:?} of {command} {text:?}");
                    }
                }
            }
        }
    }
}

/// Has texts and nothing else.
#[derive(Debug)]
struct Texts;

impl Changing for Texts {
    fn texts(&self) -> Arc<ChatTexts> {
        Arc::default()
    }

    fn refused(&self, _: &[u8]) {}
}

#[test]
fn where_none_is_known_there_is_no_operator() {
    assert!(!Texts.has_operators());
    assert!(Texts.verify(b"root", b"right", b"h").is_none());
}
