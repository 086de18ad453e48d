//! Every flag of a number, a size or a duration: at both bounds, and beyond them.
//!
//! What the flags are, the commands say themselves (`--help`), and their bounds too: where they
//! refuse a value. So a flag that is added is tried as well.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::process::Command;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");
/// What the values of flags are called that have bounds.
const KINDS: &[&str] =
    &["N", "PID", "BYTES", "LINES", "LIST", "DURATION", "PER_SECOND", "PERCENT", "OBJECTIVE"];
/// Each command that has such flags, with words for which it does nothing, whatever the flags: no
/// model, claim or server is called so, and no agent is without a server to hear.
const COMMANDS: &[(&str, &[&str])] = &[
    ("run", &["--model", "nonsense"]),
    ("compare", &["--models", "nonsense"]),
    ("calibrate", &["--model", "nonsense"]),
    ("claims", &["nonsense"]),
    ("soak", &["--models", "nonsense"]),
    ("find-max", &["--models", "nonsense"]),
    ("verify", &["--model", "nonsense"]),
    ("agent", &[]),
];

/// A flag that has bounds.
struct Flag {
    name: String,
    kind: String,
}

/// What it says on standard error, with exit code 2.
fn said(args: &[&str]) -> String {
    let output = Command::new(LOADGEN).args(args).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    stderr
}

fn flags(command: &str) -> Vec<Flag> {
    let help = Command::new(LOADGEN).args([command, "--help"]).output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let flags = help.lines().filter_map(|line| {
        let (name, kind) = line.trim().strip_prefix("--")?.split_once(" <")?;
        let kind = kind.split('>').next()?.to_owned();
        KINDS.contains(&&*kind).then(|| Flag { name: format!("--{name}"), kind })
    });
    flags.collect()
}

/// The bounds of a flag, as it says where it refuses a value: `from LEAST to MOST`.
fn bounds(command: &str, flag: &Flag) -> [String; 2] {
    let Flag { name, .. } = flag;
    let text = said(&[command, &format!("{name}=nonsense")]);
    let words: Vec<&str> = text.split([' ', ',', '\n']).collect();
    let found = words.windows(4).find(|words| words[0] == "from" && words[2] == "to");
    let found = found.unwrap_or_else(|| panic!("no bounds of {command} {name} in {text}"));
    [found[1].to_owned(), found[3].to_owned()]
}

/// A value as the flag takes it.
fn given(flag: &Flag, value: &str) -> String {
    let before = if flag.kind == "OBJECTIVE" { "p99<" } else { "" };
    format!("{}={before}{value}", flag.name)
}

#[test]
fn every_command_with_such_flags_is_tried() {
    let help = Command::new(LOADGEN).arg("--help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let commands = commands.lines().filter_map(|line| line.split_whitespace().next());
    for command in commands.filter(|command| *command != "help") {
        let tried = COMMANDS.iter().any(|(tried, _)| *tried == command);
        assert_eq!(tried, !flags(command).is_empty(), "{command}");
    }
    assert!(flags("run").len() > 20, "the flags are not found");
}

/// What is beyond the bounds is refused, and the flag and its bounds are named.
#[test]
fn no_flag_takes_what_is_beyond_its_bounds() {
    for (command, _) in COMMANDS {
        for flag in flags(command) {
            let [least, most] = bounds(command, &flag);
            let beyond: &[&str] = match &*flag.kind {
                "DURATION" | "OBJECTIVE" => {
                    &["366d", "600y", "18446744073709551615s", "18446744073709551616s", "-1s"]
                }
                "PERCENT" => &["-1%", "1001%", "1e300%", "NaN%", "10"],
                "PER_SECOND" => &["0", "-1", "1e300", "inf", "NaN"],
                // Any number of 64 bits is a seed.
                _ if flag.name == "--seed" => &["-1", "1.5", "18446744073709551616"],
                _ => &["-1", "1.5", "4294967296", "18446744073709551615", "18446744073709551616"],
            };
            for value in beyond {
                let text = said(&[command, &given(&flag, value)]);
                let range = format!("from {least} to {most}");
                assert!(text.contains(&flag.name), "{command} {} {value}: {text}", flag.name);
                assert!(text.contains(&range), "{command} {} {value}: {text}", flag.name);
            }
        }
    }
}

/// Both bounds are taken. That the command then refuses to do anything has another reason.
#[test]
fn every_flag_takes_its_bounds() {
    for (command, idle) in COMMANDS {
        for flag in flags(command) {
            for value in bounds(command, &flag) {
                let text = said(&[&[command, &*given(&flag, &value)], *idle].concat());
                assert!(!text.contains("invalid value"), "{command} {} {value}: {text}", flag.name);
            }
        }
    }
}
