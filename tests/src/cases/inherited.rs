//! What a server inherits from the process that starts it: signals, descriptors, limits, variables.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::Instant;

use rustix::process::Signal;

use crate::cases::process::{AT_ONCE, kill};
use crate::cases::{Case, cases, may_have_workers};
use crate::member::{Member, gather};
use crate::server::Server;
use crate::surroundings::Surroundings;
use crate::watchdog::Ctx;

pub(super) const ECHO: &[Case] = cases![Echo:
    signals_that_were_ignored_are_heeded,
    signals_that_were_blocked_are_heeded,
    limits_of_zero_do_not_hurt,
    with_few_descriptors_it_serves_or_says_why_not,
    descriptors_that_were_closed_are_not_taken_for_outputs,
    help_and_version_take_any_output,
    variables_do_not_change_the_number_of_threads,
    lines_leave_what_waits_for_signals_asleep,
];

pub(super) const CHAT: &[Case] = cases![Chat:
    signals_that_were_ignored_are_heeded_in_chat needs 8,
];

pub(super) const PREFORK_ECHO: &[Case] = cases![Echo only "serve-prefork":
    a_killed_process_is_replaced_also_where_its_end_was_ignored,
];

pub(super) const PREFORK_CHAT: &[Case] = cases![Chat only "serve-prefork":
    a_killed_process_is_a_quit_also_where_its_end_was_ignored,
];

/// Becomes the server where the end of a child is ignored, where all signals are that can be, and
/// where all are blocked. (A shell's `trap` leaves SIGCHLD out.)
const IGNORE_CHILDREN: &str = "exec env --ignore-signal=CHLD \"$0\" \"$@\"";
const IGNORE: &str = "exec env --ignore-signal \"$0\" \"$@\"";
const BLOCK: &str = "exec env --block-signal \"$0\" \"$@\"";

/// It serves, counts when asked to, and stops at once with nothing to wait for.
#[track_caller]
fn obeys(mut server: Server) {
    let mut idle = server.client();
    idle.round_trip("here");
    assert!(server.counter("accepts") > 0, "nothing was counted");
    let started = Instant::now();
    server.signal(Signal::TERM);
    idle.expect_end();
    assert_eq!(server.wait().code(), Some(0), "the exit code");
    assert!(started.elapsed() < AT_ONCE, "{:?} for nothing", started.elapsed());
    assert!(server.last_counters()["accepts"].is_u64(), "counters on exit");
}

/// How many workers to try.
fn workers(ctx: &Ctx) -> &'static [&'static str] {
    if may_have_workers(ctx) { &["1", "2"] } else { &["1"] }
}

/// 57: Ignored signals are inherited. A server hears those that are for it all the same, and learns
/// of the end of its own processes.
fn signals_that_were_ignored_are_heeded(ctx: &Ctx) {
    for prelude in [IGNORE_CHILDREN, IGNORE] {
        for workers in workers(ctx) {
            let args = ["--drain-timeout", "10m", "--workers", workers];
            obeys(ctx.echo_after(prelude, &args));
        }
    }
}

/// 57: The same in chat, where workers tell each other, in one model by signals.
fn signals_that_were_ignored_are_heeded_in_chat(ctx: &Ctx) {
    let most = workers(ctx).last().expect("one or two");
    let mut server = ctx.chat_after(IGNORE, &["--drain-timeout", "10m", "--workers", most]);
    let mut members: Vec<Member> = (0..8).map(|n| server.member(&format!("m{n}"))).collect();
    gather("#c", &mut members.iter_mut().collect::<Vec<_>>());
    members[0].say("PRIVMSG #c :hello");
    for member in &mut members[1..] {
        member.expect("m0 PRIVMSG #c hello");
    }
    server.signal(Signal::TERM);
    for member in &mut members {
        member.is_cut();
    }
    drop(members);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
}

/// 57: So are blocked signals.
fn signals_that_were_blocked_are_heeded(ctx: &Ctx) {
    for workers in workers(ctx) {
        let args = ["--drain-timeout", "10m", "--workers", workers];
        obeys(ctx.echo_after(BLOCK, &args));
    }
}

/// 57: No signal finds room in the queue, and the file that standard error is may not grow: a log
/// line is lost, and the server is not ended by SIGXFSZ.
fn limits_of_zero_do_not_hurt(ctx: &Ctx) {
    let to_a_file = "file=$(mktemp); exec 2>\"$file\"; rm \"$file\"";
    for workers in workers(ctx) {
        let args = ["--workers", workers, "--drain-timeout", "10m"];
        let mut server = ctx.echo_in_after(Surroundings::Zero, to_a_file, &args);
        server.signal(Signal::USR1);
        server.serves();
        server.client().reset();
        server.serves();
        server.signal(Signal::TERM);
        assert_eq!(server.wait().code(), Some(0), "the exit code");
    }
}

/// 57: With hardly any descriptors it either serves, as far as that goes, or ends with one line.
fn with_few_descriptors_it_serves_or_says_why_not(ctx: &Ctx) {
    // With fewer than four, a program cannot even load its libraries.
    for count in 4..=12 {
        let mut server = ctx.echo_unheard_after(&format!("ulimit -n {count}"));
        if !server.has_ended() {
            server.signal(Signal::TERM);
        }
        let code = server.wait().code();
        let mut said = server.last_words();
        // The signal may have come before the server found that it cannot serve.
        said.retain(|line| !line.ends_with("told to stop: draining"));
        assert!(matches!(code, Some(0 | 1 | 3)), "{count} descriptors: {code:?}, {said:?}");
        // A runtime may know no other way to say it than a panic, but that is one line as well.
        let failed = |line: &&String| line.contains("panicked") || line.contains("error:");
        let failures = said.iter().filter(failed).count();
        assert_eq!(failures, usize::from(code != Some(0)), "{count} descriptors: {said:?}");
        assert!(failures == 0 || said.len() == 1, "{count} descriptors: one line: {said:?}");
    }
}

/// 57: Where descriptors 0, 1 and 2 are closed at the start, no socket takes their place, or a
/// client would get what the server logs.
fn descriptors_that_were_closed_are_not_taken_for_outputs(ctx: &Ctx) {
    let mut server = ctx.echo_unheard_after("exec 0<&- 1>&- 2>&-");
    let mut client = server.client();
    client.round_trip("here");
    for process in server.processes() {
        for descriptor in 0..=2 {
            let file = format!("/proc/{process}/fd/{descriptor}");
            let file = fs::read_link(file).expect("an open descriptor");
            assert_eq!(file.to_str(), Some("/dev/null"), "descriptor {descriptor}");
        }
    }
    server.signal(Signal::USR1);
    client.round_trip("still here");
    server.client().reset();
    server.signal(Signal::TERM);
    client.expect_end();
    assert_eq!(server.wait().code(), Some(0), "the exit code");
}

/// 57: `--workers` says how many threads serve, and not the variables that runtimes have for it.
fn variables_do_not_change_the_number_of_threads(ctx: &Ctx) {
    let variables = "export ASYNC_GLOBAL_EXECUTOR_THREADS=9 ASYNC_STD_THREAD_COUNT=9 \
                     BLOCKING_MAX_THREADS=9 SMOL_THREADS=9 TOKIO_WORKER_THREADS=9";
    let (with, without) = (ctx.echo_after(variables, &[]), ctx.echo(&[]));
    let mut clients = [with.client(), without.client()];
    for client in &mut clients {
        client.round_trip("here");
    }
    ctx.watch.until("as many threads with the variables as without", || {
        threads(&with) == threads(&without)
    });
}

/// Threads of all its processes.
fn threads(server: &Server) -> usize {
    let tasks = |process| fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count);
    server.processes().into_iter().map(tasks).sum()
}

/// 51: Help is no error where its reader has seen enough and left, and one where the disk is full.
fn help_and_version_take_any_output(ctx: &Ctx) {
    for arg in ["--help", "--version"] {
        let (reader, closed) = std::io::pipe().expect("a pipe");
        drop(reader);
        let full = File::options().write(true).open("/dev/full").expect("open /dev/full");
        for (output, code) in [(Stdio::from(closed), 0), (Stdio::from(full), 1)] {
            let outcome = ctx.spawn(Surroundings::Usual, &[arg], output).outcome();
            assert_eq!(outcome.code, Some(code), "the exit code of {arg}: {outcome:?}");
            assert!(outcome.stderr.is_empty(), "silence: {outcome:?}");
        }
        let outcome = ctx.spawn(Surroundings::Usual, &[arg], Stdio::piped()).outcome();
        assert!(outcome.stdout.ends_with('\n'), "whole lines: {outcome:?}");
    }
}

/// 48: A process that is killed is replaced where SIGCHLD was inherited as ignored.
fn a_killed_process_is_replaced_also_where_its_end_was_ignored(ctx: &Ctx) {
    let server = ctx.echo_after(IGNORE_CHILDREN, &["--processes", "2"]);
    for _ in 0..3 {
        let mut clients = server.clients(2);
        for client in &mut clients {
            client.round_trip("here");
        }
        kill(server.process_of(&clients[0]));
        clients[0].read_to_end();
        clients[1].round_trip("still here");
        server.client().round_trip("in the place of the killed");
    }
}

/// 48: And in chat it is a QUIT.
fn a_killed_process_is_a_quit_also_where_its_end_was_ignored(ctx: &Ctx) {
    let server = ctx.chat_after(IGNORE_CHILDREN, &["--processes", "2"]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    kill(server.process_of(&ann.client));
    assert_eq!(bob.gets("QUIT").from(), "ann");
    server.member("ann");
}

/// A line concerns the thread that serves it. What waits for signals alone, a thread of that name
/// or the first of several processes, is not woken by it, as it is where it polls a signalfd beside
/// signals that tell of sockets.
fn lines_leave_what_waits_for_signals_asleep(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let mut client = server.client();
    client.round_trip("hello");
    server.waits_of_signals();
    ctx.watch.until("what has started to wait", || server.is_asleep());
    let before = server.waits_of_signals();
    for _ in 0..200 {
        client.round_trip("hello");
    }
    let waits = server.waits_of_signals() - before;
    // It may not have begun to wait before, and a machine under load wakes more than it has to.
    assert!(waits < 50, "{waits} waits for signals in the time of 200 lines");
}
