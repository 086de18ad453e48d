//! Every number, size and duration that can be asked for: at both bounds, and beyond them.
//!
//! What the flags are, a server says itself (`--help`), and their bounds too: in the line with
//! which it refuses a value beyond them. So a flag that is added is tried as well.

use std::process::Stdio;

use rustix::process::Signal;

use crate::cases::process::refuse;
use crate::cases::{Case, cases, may_have_workers};
use crate::client::{Client, pump};
use crate::server::Server;
use crate::surroundings::Surroundings;
use crate::watchdog::Ctx;

pub(super) const ECHO: &[Case] = cases![Echo:
    no_flag_takes_what_is_beyond_its_bounds,
    echo_survives_every_flag_at_its_extremes,
];

pub(super) const CHAT: &[Case] = cases![Chat:
    chat_survives_every_flag_at_its_extremes,
];

/// What the values of flags are called that have bounds.
const KINDS: &[&str] = &["<N>", "<BYTES>", "<DURATION>"];

/// A flag, with the least and the most that it takes.
#[derive(Debug)]
struct Flag {
    name: String,
    kind: String,
    least: String,
    most: String,
}

/// All flags that have bounds.
#[track_caller]
fn flags(ctx: &Ctx) -> Vec<Flag> {
    let help = ctx.spawn(Surroundings::Usual, &["--help"], Stdio::piped()).outcome().stdout;
    let mut flags = Vec::new();
    for line in help.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, kind, ..] = words[..] else { continue };
        if name.starts_with("--") && KINDS.contains(&kind) {
            let [least, most] = bounds(ctx, name);
            flags.push(Flag { name: name.to_owned(), kind: kind.to_owned(), least, most });
        }
    }
    assert!(flags.len() > 15, "the flags are not found in {help:?}");
    flags
}

/// What the server says are the bounds of a flag: `from LEAST to MOST`.
#[track_caller]
fn bounds(ctx: &Ctx, name: &str) -> [String; 2] {
    let line = refuse(ctx, Surroundings::Usual, &[name, "nonsense"]);
    let words: Vec<&str> = line.split([' ', ';']).collect();
    let found = words.windows(4).find(|words| words[0] == "from" && words[2] == "to");
    let found = found.unwrap_or_else(|| panic!("no bounds of {name} in {line:?}"));
    [found[1].to_owned(), found[3].to_owned()]
}

/// 59: What is beyond the bounds is refused, and the flag and its bounds are named.
fn no_flag_takes_what_is_beyond_its_bounds(ctx: &Ctx) {
    for Flag { name, kind, least, most } in flags(ctx) {
        let beyond: &[&str] = match kind.as_str() {
            "<N>" => &["0", "-1", "1000001000", "18446744073709551615", "18446744073709551616"],
            "<BYTES>" => &["0", "1GiB1", "1073741825", "16EiB", "18446744073709551615"],
            _ => &["366d", "600y", "18446744073709551615s", "18446744073709551616s", "-1s"],
        };
        for value in beyond {
            let line = refuse(ctx, Surroundings::Usual, &[&format!("{name}={value}")]);
            assert!(line.contains(&name), "{name} {value}: {line:?}");
            let range = format!("from {least} to {most}");
            assert!(line.contains(&range), "{name} {value}: {line:?}");
        }
    }
}

/// 59: Echo at both ends of each flag, and with all of them at one end.
fn echo_survives_every_flag_at_its_extremes(ctx: &Ctx) {
    survives_extremes(ctx, "echo", |server| {
        let mut client = server.client();
        client.queue(b"hello\n");
        client
    });
}

/// 59: Chat at both ends of each flag, and with all of them at one end.
fn chat_survives_every_flag_at_its_extremes(ctx: &Ctx) {
    survives_extremes(ctx, "chat", |server| {
        let mut client = server.client();
        client.queue(b"NICK ann\r\nUSER ann 0 * :Ann\r\nPING hello\r\nJOIN #c\r\nPART #c\r\n");
        client
    });
}

/// Starts the server at each extreme, has one exchange and stops it. Where the extreme is one of
/// patience, the exchange may be cut off or not answered; but a server that fails is never right.
fn survives_extremes(ctx: &Ctx, mode: &str, talk: impl Fn(&Server) -> Client) {
    let mut flags = flags(ctx);
    if !may_have_workers(ctx) {
        flags.retain(|flag| flag.name != "--workers");
    }
    let mut lines = Vec::new();
    for flag in &flags {
        lines.extend([vec![(flag, &flag.least)], vec![(flag, &flag.most)]]);
    }
    lines.push(flags.iter().map(|flag| (flag, &flag.least)).collect());
    // As many workers, each with as much as it can have, are more than a machine has room for.
    let most = flags.iter().filter(|flag| flag.name != "--workers");
    lines.push(most.map(|flag| (flag, &flag.most)).collect());
    for line in lines {
        let has = |name: &str| line.iter().any(|(flag, _)| flag.name == name);
        let mut args: Vec<String> = vec!["--mode".to_owned(), mode.to_owned()];
        args.extend(line.iter().map(|(flag, value)| format!("{}={value}", flag.name)));
        // Processes for that many workers are more than a machine may have.
        if has("--workers") && !has("--processes") && flags.iter().any(|f| f.name == "--processes")
        {
            args.push("--processes=8".to_owned());
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        ctx.watch.awaiting(&format!("the server with {args:?}"));
        let mut server = ctx.start(&args);
        let mut client = talk(&server);
        if has("--wait") && line.iter().any(|(flag, value)| **value == flag.most) {
            // The answer is an hour away. That the server has heard it says itself.
            client.until("the lines to be sent", |client| client.unsent() == 0);
            ctx.watch.until("a line to be counted", || server.counter("bytes_in") > 0);
        } else {
            pump(&format!("an answer or the end with {args:?}"), &mut [&mut client], |clients| {
                !clients[0].incoming.is_empty() || clients[0].end().is_some()
            });
        }
        drop(client);
        server.signal(Signal::TERM);
        // What is still to be said may take its time, of which the second signal grants no more.
        if has("--wait") || has("--drain-timeout") {
            ctx.watch.until("the server to end", || {
                let ended = server.has_ended();
                if !ended {
                    server.signal(Signal::TERM);
                }
                ended
            });
        }
        assert_eq!(server.wait().code(), Some(0), "the exit code with {args:?}");
        let said = server.last_words();
        let failed =
            |line: &&String| ["panicked", "died", "error:"].iter().any(|w| line.contains(w));
        assert_eq!(said.iter().find(failed), None, "with {args:?}");
    }
}
