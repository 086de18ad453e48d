//! System calls that fail: each error that a call documents, put in its place at the real program.
//!
//! A table says which errors, and what is promised. Which calls a server makes is seen, not
//! declared: a round without an error goes before, and each call that was seen in it fails in a
//! round of its own, once with each of its errors. What there is of a table that a server never
//! calls is said in one line on standard error.

mod rounds;
mod rows;
mod talk;

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::Signal;

use crate::cases::{Case, cases, may_have_workers};
use crate::server::Outcome;
use crate::traced::obstacle;
use crate::tracer::{Fault, Report};
use crate::watchdog::Ctx;

use rounds::Rounds;
use rows::{ACCEPTS, ENDS, Promise, RECEIVES, Row, SENDS, SETTINGS, STARTS, WAITS, WITHIN};
use talk::Talk;

pub(super) const ECHO: &[Case] = cases![Echo:
    an_accept_that_fails_loses_no_newcomer,
    a_receive_that_fails_ends_one_connection_at_most,
    a_send_that_fails_ends_one_connection_at_most,
    a_wait_that_fails_loses_nothing,
    a_setting_that_fails_ends_one_connection_at_most,
    an_end_that_fails_leaves_nothing_behind,
    a_start_that_fails_is_one_clear_line,
];

pub(super) const CHAT: &[Case] = cases![Chat:
    what_fails_for_one_member_is_felt_by_no_other needs 4,
    a_wait_that_fails_loses_no_message needs 4,
];

/// 67: Descriptors, memory or threads run out, or the network has an error to tell.
fn an_accept_that_fails_loses_no_newcomer(ctx: &Ctx) {
    each_error(ctx, ACCEPTS);
}

/// 67: Whatever it fails with, one connection has that error, and no other notices.
fn a_receive_that_fails_ends_one_connection_at_most(ctx: &Ctx) {
    each_error(ctx, RECEIVES);
}

/// 67: So it is with what is sent.
fn a_send_that_fails_ends_one_connection_at_most(ctx: &Ctx) {
    each_error(ctx, SENDS);
}

/// 67: What a server waits in concerns all of its connections.
fn a_wait_that_fails_loses_nothing(ctx: &Ctx) {
    each_error(ctx, WAITS);
}

/// 67: A connection that cannot be watched, or told what it is to do.
fn a_setting_that_fails_ends_one_connection_at_most(ctx: &Ctx) {
    each_error(ctx, SETTINGS);
}

/// 67: The end of a connection is its end.
fn an_end_that_fails_leaves_nothing_behind(ctx: &Ctx) {
    each_error(ctx, ENDS);
}

/// 67: Each call that a server makes before it listens fails in a start of its own. Either the
/// server serves without what it asked for, or it ends, and one line says what it could not have.
fn a_start_that_fails_is_one_clear_line(ctx: &Ctx) {
    let mut traced = ctx.traced("echo", &[], None);
    let seen = traced.tracer.report().seen;
    let calls = STARTS.iter().flat_map(|(call, errno)| {
        let own = seen.iter().filter_map(move |(key, count)| {
            let kind = key.strip_prefix(call)?.strip_prefix(' ')?.to_owned();
            Some((kind, *count))
        });
        own.flat_map(move |(kind, count)| (0..count).map(move |after| (kind.clone(), after))).map(
            move |(kind, after)| {
                let (call, errno) = ((*call).to_owned(), *errno as i32);
                Fault { call, kind, port: 0, after, errno }
            },
        )
    });
    for fault in calls {
        match ctx.traced_or_ends(fault.clone()) {
            Ok(mut traced) => {
                let mut client = traced.server.client();
                client.queue(b"hello\n");
                client.until(&format!("{fault:?}: a reply"), |client| {
                    *client.incoming == *b"hello\n" || client.end().is_some()
                });
                assert_eq!(*client.incoming, *b"hello\n", "{fault:?}: it listens and serves");
                traced.server.signal(Signal::TERM);
                assert_eq!(traced.server.wait().code(), Some(0), "the exit code with {fault:?}");
            }
            Err(Outcome { code, stdout, stderr }) => {
                assert!(matches!(code, Some(1 | 3)), "{fault:?}: {code:?}, {stderr:?}");
                assert_eq!(stdout, "", "{fault:?}: nothing listens, and nothing says so");
                // A runtime may know no other way to say it than a panic.
                let says = |line: &String| line.contains("error:") || line.contains("panicked");
                let one = stderr.len() == 1 && says(&stderr[0]);
                assert!(one, "{fault:?}: one line that says why: {stderr:?}");
            }
        }
    }
}

/// 67: In chat a member's line is for others, who hear whole lines, each once and in order.
fn what_fails_for_one_member_is_felt_by_no_other(ctx: &Ctx) {
    each_error_in_chat(ctx, &[RECEIVES, SENDS]);
}

/// 67: What a worker waits in, and what workers or processes tell each other.
fn a_wait_that_fails_loses_no_message(ctx: &Ctx) {
    each_error_in_chat(ctx, &[WAITS, WITHIN]);
}

/// Puts in each error of each call of the table that the server makes.
#[track_caller]
fn each_error(ctx: &Ctx, table: &[Row]) {
    let mut traced = ctx.traced("echo", &[], None);
    let at_start = traced.tracer.report().seen;
    let mut rounds = Rounds::new(ctx, traced);
    // What is done once for all, at the first connection, is not seen in the second round.
    rounds.passes();
    let seen = rounds.passes();
    let done = each_of(table, &seen, |fault, promise| rounds.errs(fault, promise));
    rounds.over();
    // A request to a ring may be made once and answered for each client.
    let once = |key: &String| key.starts_with("ring:") && !seen.contains_key(key);
    let at_start: BTreeMap<_, _> = at_start.into_iter().filter(|(key, _)| once(key)).collect();
    let at_start = each_of(table, &at_start, |fault, _| {
        let mut anew = Rounds::new(ctx, ctx.traced("echo", &[], Some(fault.clone())));
        let struck = anew.has_struck();
        anew.passes();
        anew.over();
        Attempt { made: true, struck }
    });
    tell(ctx, table, &[done, at_start].concat());
}

/// The same in chat, with as many workers as there may be.
#[track_caller]
fn each_error_in_chat(ctx: &Ctx, tables: &[&[Row]]) {
    let workers = if may_have_workers(ctx) { "2" } else { "1" };
    let args = ["--no-flood-control", "--workers", workers];
    let mut talk = Talk::new(ctx.traced("chat", &args, None));
    talk.passes();
    let seen = talk.passes();
    for table in tables {
        let done = each_of(table, &seen, |fault, promise| talk.errs(fault, promise));
        tell(ctx, table, &done);
    }
    talk.over();
}

/// What came of rounds in which a call was to fail.
#[derive(Clone, Copy, Default)]
struct Attempt {
    /// It was made in one of them.
    made: bool,
    /// And it has failed.
    struck: bool,
}

impl Attempt {
    /// Goes through up to three rounds until the call has failed: whether it is made in a round can
    /// depend on who is quicker.
    fn of(mut round: impl FnMut() -> Self) -> Self {
        let mut all = Self::default();
        for _ in 0..3 {
            let Self { made, struck } = round();
            all.made |= made;
            all.struck |= struck;
            if struck {
                break;
            }
        }
        all
    }

    /// What the tracer tells of a round.
    fn told(report: &Report, fault: &Fault) -> Self {
        let made = report.seen.contains_key(&format!("{} {}", fault.call, fault.kind));
        Self { made, struck: report.struck }
    }
}

/// Lets each call of the table fail that was seen, with each of its errors: those that have failed.
#[track_caller]
fn each_of(
    table: &[Row],
    seen: &BTreeMap<String, u64>,
    mut fails: impl FnMut(&Fault, Promise) -> Attempt,
) -> Vec<String> {
    let (mut done, mut made) = (BTreeSet::new(), false);
    for (row, call) in table.iter().flat_map(|row| row.calls.iter().map(move |call| (row, call))) {
        let key = format!("{call} {}", row.kind);
        for errno in row.errors.iter().filter(|_| seen.contains_key(&key)) {
            let (call, kind) = (call.to_string(), row.kind.to_owned());
            let fault = Fault { call, kind, port: 0, after: 0, errno: *errno as i32 };
            let attempt = fails(&fault, row.promise);
            made |= attempt.made;
            if attempt.struck {
                done.insert(key.clone());
            }
        }
    }
    // Calls of the table may have been seen once, when one was quicker than another, and in no
    // round since.
    assert!(!made || !done.is_empty(), "calls were made, and none of them could be made to fail");
    done.into_iter().collect()
}

/// Says which calls of the table have failed, and which the server does not make.
#[track_caller]
fn tell(ctx: &Ctx, table: &[Row], done: &[String]) {
    let all =
        table.iter().flat_map(|row| row.calls.iter().map(|call| format!("{call} {}", row.kind)));
    let others: BTreeSet<String> = all.filter(|key| !done.contains(key)).collect();
    let program = ctx.program().rsplit('/').next().unwrap_or_default();
    eprintln!("conformance: {program}: failed: {done:?}; never called: {others:?}");
}

/// The cases that cannot be told of here, and why.
pub(super) fn missing() -> Vec<(&'static str, String)> {
    let Some(obstacle) = obstacle() else { return Vec::new() };
    ECHO.iter().chain(CHAT).map(|case| (case.name, obstacle.clone())).collect()
}
