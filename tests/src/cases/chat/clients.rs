//! Clients that people have: three libraries for bots, and irssi beside weechat.
//!
//! They are no part of the project. Where they are missing, the cases are ignored, and the reason
//! says what is missing; `tests/README.md` says how to get it.

use std::path::PathBuf;
use std::process::Command;

use crate::cases::{Case, cases};
use crate::models::{locate, root};
use crate::watchdog::Ctx;

pub(super) const CASES: &[Case] = cases![Chat:
    a_bot_on_the_library_irc_gets_along needs 3,
    a_bot_on_the_library_pydle_gets_along needs 3,
    a_bot_on_the_library_ircstates_gets_along needs 3,
    irssi_and_weechat_get_along needs 2,
];

/// The cases of this file that cannot run on this machine, and why.
pub(super) fn missing() -> Vec<(&'static str, String)> {
    let libraries = installed_libraries();
    let without_library = [
        ("a_bot_on_the_library_irc_gets_along", "irc"),
        ("a_bot_on_the_library_pydle_gets_along", "pydle"),
        ("a_bot_on_the_library_ircstates_gets_along", "ircstates"),
    ]
    .into_iter()
    .filter(|(_, library)| !libraries.iter().any(|installed| installed == library))
    .map(|(case, library)| (case, format!("the Python library {library} is not installed")));

    let programs = ["tmux", "irssi", "weechat"];
    let without_program = programs
        .into_iter()
        .find(|program| locate(&root(), program).is_none())
        .map(|program| ("irssi_and_weechat_get_along", format!("{program} is not installed")));
    without_library.chain(without_program).collect()
}

/// Which of the libraries Python finds. It looks without loading them, which would take long.
fn installed_libraries() -> Vec<String> {
    const LOOK: &str = "import importlib.util as u, sys\n\
                        print(*[name for name in sys.argv[1:] if u.find_spec(name)])";
    let Some(python) = python() else { return Vec::new() };
    let output = Command::new(python).args(["-c", LOOK, "irc", "pydle", "ircstates"]).output();
    let names = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&names).split_whitespace().map(str::to_owned).collect()
}

/// The Python of the environment that `tests/README.md` tells to make, or else the one on PATH: a
/// file, because the process that becomes it opens it first.
fn python() -> Option<PathBuf> {
    let own = Some(root().join("target/clients/bin/python"));
    own.filter(|own| own.is_file()).or_else(|| locate(&root(), "python3"))
}

/// A bot on irc 20: its list of members comes from 353, and it asks 005 which signs stand before
/// nicknames there.
fn a_bot_on_the_library_irc_gets_along(ctx: &Ctx) {
    talk_with_a_bot(ctx, "irc");
}

/// A bot on pydle 1.2: it asks WHOIS of each nickname that is new to it, and waits for 318.
fn a_bot_on_the_library_pydle_gets_along(ctx: &Ctx) {
    talk_with_a_bot(ctx, "pydle");
}

/// A bot on ircstates 0.13: it takes all of 005 apart, and keeps members, topics and real names.
fn a_bot_on_the_library_ircstates_gets_along(ctx: &Ctx) {
    talk_with_a_bot(ctx, "ircstates");
}

/// Has the bot tell what its library knows, as `tests/real-libraries.py` says.
#[track_caller]
fn talk_with_a_bot(ctx: &Ctx, library: &str) {
    let server = ctx.chat(&[]);
    let mut bob = server.member("bob");
    bob.join("#c");
    bob.ask("TOPIC #c :I/O models", "TOPIC");

    let script = root().join("tests/real-libraries.py").display().to_string();
    let port = server.addr().port().to_string();
    let args = [script, library.to_owned(), port];
    let python = python().expect("it has told which libraries it has");
    let bot = ctx.program_beside(&python.display().to_string(), &args);
    bob.expect("bot JOIN #c");
    for (word, answer) in [
        ("members", "members bob bot"),
        ("topic", "topic I/O models"),
        ("whois", "whois Real bob"),
        ("list", "list 1"),
    ] {
        bob.say(format!("PRIVMSG #c :{word}"));
        bob.expect(&format!("bot PRIVMSG #c {answer}"));
    }

    bob.ask("TOPIC #c :other things", "TOPIC");
    bob.ask("NICK bert", "NICK");
    for (word, answer) in [("topic", "topic other things"), ("members", "members bert bot")] {
        bob.say(format!("PRIVMSG #c :{word}"));
        bob.expect(&format!("bot PRIVMSG #c {answer}"));
    }

    // As an operator it does what it could not before, and knows who the operators are.
    let mut cid = server.member("cid");
    cid.join("#c");
    bob.expect("cid JOIN #c");
    bob.ask("MODE #c +o bot", "MODE");
    for (word, answer) in [
        ("operators", "bot PRIVMSG #c operators bert bot"),
        ("moderate", "bot MODE #c +m"),
        ("kick", "bot KICK #c cid out"),
        ("members", "bot PRIVMSG #c members bert bot"),
    ] {
        bob.say(format!("PRIVMSG #c :{word}"));
        bob.expect(answer);
    }
    assert_eq!(
        cid.through("KICK").pop().map(|kick| kick.brief()).as_deref(),
        Some("bot KICK #c cid out")
    );
    bob.ask("MODE #c -mo bot", "MODE");
    bob.say("PRIVMSG #c :operators");
    bob.expect("bot PRIVMSG #c operators bert");

    bob.say("PRIVMSG #c :leave");
    bob.expect("bot QUIT Quit: bye");
    let outcome = bot.outcome();
    assert_eq!(outcome.code, Some(0), "how the bot ended: {outcome:?}");
}

/// Two people, one with irssi and one with weechat, in terminals: `tests/real-clients.sh`.
fn irssi_and_weechat_get_along(ctx: &Ctx) {
    let script = root().join("tests/real-clients.sh").display().to_string();
    let args: Vec<String> =
        [script, ctx.program().to_owned()].into_iter().chain(ctx.args().to_vec()).collect();
    let outcome = ctx.program_beside("/bin/bash", &args).outcome();
    assert_eq!(outcome.code, Some(0), "{}\n{}", outcome.stdout, outcome.stderr.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_is_a_file() {
        assert!(python().is_none_or(|python| python.is_file()), "{:?}", python());
    }
}
