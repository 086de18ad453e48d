//! Exhaustion: what the kernel has no more of, and what happens then.

use std::collections::HashSet;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::param::clock_ticks_per_second;

use crate::cases::{Case, cases};
use crate::client::{Client, pump, pump_for};
use crate::member::{Member, gather};
use crate::server::Server;
use crate::surroundings::{IO_URING_ENTER, IO_URING_REGISTER, IO_URING_SETUP, Surroundings};
use crate::watchdog::Ctx;

pub(super) const ECHO: &[Case] = cases![Echo:
    out_of_descriptors_it_serves_those_inside_and_then_the_rest needs 32,
    descriptors_beyond_1024_are_served needs 1100,
    an_overflowing_backlog_drains_afterwards needs 20,
    a_hundred_waits_run_together,
    reused_descriptors_cross_nothing needs 50,
    deadlines_hold_under_load,
    a_queue_of_8_forgets_nobody needs 100,
    two_hundred_at_once_all_get_their_echo needs 200,
    without_io_uring_it_serves_or_exits_3,
    with_little_locked_memory_it_serves_or_exits_3,
    without_more_processes_those_inside_are_served_and_then_the_rest needs 5,
    without_any_process_it_does_not_start,
];

pub(super) const CHAT: &[Case] = cases![Chat:
    two_workers_share_one_chat needs 16,
    two_workers_without_a_signal_queue_share_one_chat needs 16,
    two_hundred_at_once_all_hear_each_other needs 200,
    without_more_processes_the_chat_goes_on needs 2,
];

pub(super) const URING_ECHO: &[Case] = cases![Echo only "serve-uring":
    a_completion_queue_of_8_serves_two_hundred,
];

/// For this project's servers.
pub(super) const OWN_ECHO: &[Case] = cases![Echo:
    a_line_that_comes_as_a_wait_ends_is_answered needs 200,
];

pub(super) const CALLOOP: &[Case] = cases![Echo only "serve-calloop":
    after_a_shortage_at_one_of_two_addresses_it_sleeps needs 32,
];

pub(super) const URING_CHAT: &[Case] = cases![Chat only "serve-uring":
    a_completion_queue_of_8_carries_the_chat_of_two_hundred,
];

/// 37: With 64 descriptors and 200 clients: those inside are served, nothing spins, and when they
/// leave, the others get in.
fn out_of_descriptors_it_serves_those_inside_and_then_the_rest(ctx: &Ctx) {
    let server = ctx.echo_after("ulimit -n 64", &[]);
    let mut clients = server.clients(200);
    for client in &mut clients {
        client.queue(b"hello\n");
    }
    let is_inside = |client: &Client| *client.incoming == *b"hello\n";
    pump("those inside to be served", &mut clients, |clients| {
        clients.iter().filter(|client| is_inside(client)).count() >= 32
    });
    does_not_spin(&server);
    while !clients.is_empty() {
        pump("the next to be served", &mut clients, |clients| clients.iter().any(is_inside));
        // Serving those inside goes on, and then they make room.
        for mut client in clients.extract_if(.., |client| is_inside(client)) {
            client.incoming.discard();
            client.round_trip("bye");
        }
    }
    server.serves();
}

/// 37: A shortage at one address of two is over when there are descriptors again: then nothing
/// wakes the loop. (It once tried for ever to watch the other address, which was still watched.)
fn after_a_shortage_at_one_of_two_addresses_it_sleeps(ctx: &Ctx) {
    /// The last clients go while it is watched.
    const MOST: u64 = 8;
    let listens = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    let mut server = ctx.echo_after("ulimit -n 64", &listens);
    let addrs = [server.addr(), server.another_addr()];
    let mut clients = server.at(addrs[0]).clients(100);
    ctx.watch.until("a shortage", || server.shortages() > 0);
    while !clients.is_empty() {
        for client in &mut clients {
            client.queue(b"hello\n");
        }
        pump("the next to be served", &mut clients, |clients| {
            clients.iter().any(|client| !client.incoming.is_empty())
        });
        clients.retain(|client| client.incoming.is_empty());
    }
    for addr in addrs {
        server.at(addr).serves();
    }
    let (before, began) = (server.counter("wakeups"), Instant::now());
    while began.elapsed() < Duration::from_secs(2) {
        let woken = server.counter("wakeups") - before;
        assert!(woken <= MOST, "woken {woken} times with nothing to do");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Watches the server's processor time while nothing happens. It spins if it has used a fifth of a
/// second before a whole second is over; a loaded machine can only make it use less.
#[track_caller]
pub(super) fn does_not_spin(server: &Server) {
    let fifth = clock_ticks_per_second() / 5;
    let (before, started) = (server.usage().ticks, Instant::now());
    while started.elapsed() < Duration::from_secs(1) {
        thread::sleep(Duration::from_millis(20));
        let used = server.usage().ticks - before;
        assert!(used < fifth, "{used} ticks of processor time with nothing to do");
    }
}

/// 38: Descriptors of 1024 and up, which do not fit into an `fd_set`, are served like the others.
fn descriptors_beyond_1024_are_served(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let mut clients = server.clients(1100);
    for _ in 0..2 {
        for client in &mut clients {
            client.queue(b"hello\n");
        }
        pump("eleven hundred to be served", &mut clients, |clients| {
            clients.iter().all(|client| *client.incoming == *b"hello\n")
        });
        for client in &mut clients {
            client.incoming.discard();
        }
    }
}

/// 45: A backlog of 4 overflows while the server stands still; afterwards everybody is served.
/// (Those turned away by the kernel try again by themselves, a second or more later.)
fn an_overflowing_backlog_drains_afterwards(ctx: &Ctx) {
    let server = ctx.echo(&["--backlog", "4"]);
    server.freeze();
    let mut clients: Vec<_> = (0..20).map(|_| Client::dial(&ctx.watch, server.addr())).collect();
    for client in &mut clients {
        client.queue(b"hello\n");
    }
    server.thaw();
    pump("everybody to be served", &mut clients, |clients| {
        clients.iter().all(|client| *client.incoming == *b"hello\n")
    });
}

/// 55: `--wait` holds each reply back, but a hundred clients wait together and not in turn.
fn a_hundred_waits_run_together(ctx: &Ctx) {
    const WAIT: Duration = Duration::from_millis(300);
    /// A loop counts from the instant at which its turn has begun, and a line may come after that.
    const TURN: Duration = Duration::from_millis(100);
    let server = ctx.echo(&["--wait", "300ms"]);
    let mut clients = server.clients(100);
    let started = Instant::now();
    for client in &mut clients {
        client.queue(b"later\n");
    }
    pump("a hundred replies", &mut clients, |clients| {
        let served = clients.iter().any(|client| !client.incoming.is_empty());
        let took = started.elapsed();
        assert!(!served || took >= WAIT - TURN, "a reply after {took:?}");
        clients.iter().all(|client| *client.incoming == *b"later\n")
    });
    let took = started.elapsed();
    assert!(took < WAIT * 50, "a hundred waits of {WAIT:?} took {took:?}");
}

/// 55: A line may come just as a wait ends that was begun for the line before it, and begins a wait
/// of its own: no server may take the one for the other. Two hundred clients send a second line so,
/// each round a little later.
fn a_line_that_comes_as_a_wait_ends_is_answered(ctx: &Ctx) {
    const WAIT: Duration = Duration::from_millis(5);
    const LATER: Duration = Duration::from_micros(50);
    const ROUNDS: u32 = 20;
    let server = ctx.echo(&["--wait", "5ms"]);
    let mut clients = server.clients(200);
    for round in 0..ROUNDS {
        let started = Instant::now();
        let mut firsts = Vec::new();
        for client in &mut clients {
            client.send("first\n");
            firsts.push(started.elapsed());
        }
        for (client, first) in clients.iter_mut().zip(firsts) {
            // This paces the clients, and decides nothing.
            thread::sleep((first + WAIT + LATER * round).saturating_sub(started.elapsed()));
            client.send("second\n");
        }
        pump("both replies to each", &mut clients, |clients| {
            clients.iter().all(|client| *client.incoming == *b"first\nsecond\n")
        });
        clients.iter_mut().for_each(|client| _ = client.incoming.discard());
    }
}

/// 43: While the server stands still, old clients leave with lines unread and new ones come: it
/// finds all of that at once, and reuses descriptors within one batch of events. Each newcomer gets
/// its own lines and nothing else.
fn reused_descriptors_cross_nothing(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let mut old = server.clients(50);
    for round in 0..10 {
        for client in &mut old {
            client.round_trip("settled");
        }
        server.freeze();
        for (n, mut client) in old.into_iter().enumerate() {
            client.send("left behind\n".repeat(n));
            if n % 2 == 0 {
                client.reset();
            }
        }
        old = server.clients(50);
        for (n, client) in old.iter_mut().enumerate() {
            client.send(format!("newcomer {n} of round {round}\n"));
        }
        server.thaw();
        for (n, client) in old.iter_mut().enumerate() {
            client.expect(format!("newcomer {n} of round {round}\n"));
        }
    }
}

/// 56: A deadline is met while others keep the server busy without a pause. It is longer than a
/// host keeps the processors of a machine from it: for so long the busy ones are silent too.
fn deadlines_hold_under_load(ctx: &Ctx) {
    let server = ctx.echo(&["--idle-timeout", "2500ms"]);
    let mut clients = server.clients(5);
    let load = "load\n".repeat(10_000);
    pump("the silent one to be cut", &mut clients, |clients| {
        let (silent, busy) = clients.split_first_mut().expect("there are five");
        for client in busy {
            assert_eq!(client.end(), None, "a busy one was cut");
            client.incoming.discard();
            if client.unsent() == 0 {
                client.queue(load.as_bytes());
            }
        }
        silent.end().is_some()
    });
}

/// 42: More happens at once than a queue of 8 signals, or of 8 completions, holds: lines, ends of
/// streams, newcomers. None is forgotten. Only a model with such a queue notices, and counts it.
fn a_queue_of_8_forgets_nobody(ctx: &Ctx) {
    let completions = is_one_of(ctx, &["serve-uring"]);
    let signals = is_one_of(ctx, &["serve-sigio"]);
    let small: &[&str] = if completions { &["--cq", "8", "--buffers", "8"] } else { &[] };
    let server = ctx.echo(small);
    server.limit_queued_signals(8);
    let mut clients = server.clients(50);
    for round in 0..10 {
        let line = format!("line of round {round}\n");
        server.freeze();
        // Those who were there leave with their last words; as many come with their first.
        let mut newcomers = server.clients(50);
        for client in clients.iter_mut().chain(&mut newcomers) {
            client.send(&line);
        }
        clients.iter().for_each(Client::half_close);
        server.thaw();
        for leaver in &mut clients {
            leaver.expect(&line);
            leaver.expect_end();
        }
        for newcomer in &mut newcomers {
            newcomer.expect(&line);
        }
        clients = newcomers;
    }
    let told = server.counter("overflows") > 0;
    assert_eq!(told, completions || signals, "whether a queue overflowed");
}

/// 39: Two hundred have something to say at once, more than there are buffers to receive it in
/// where the kernel is lent some. No client is forgotten.
fn two_hundred_at_once_all_get_their_echo(ctx: &Ctx) {
    let server = ctx.echo(few_buffers(ctx));
    all_at_once(&server);
    if is_one_of(ctx, &["serve-uring"]) {
        assert!(server.counter("would_blocks") > 0, "the buffers were enough: this shows nothing");
    }
}

/// 39: The same in chat, where each line is for many.
fn two_hundred_at_once_all_hear_each_other(ctx: &Ctx) {
    all_talk_at_once(&ctx.busy_chat(few_buffers(ctx)));
}

/// 40: The same when no more than 8 completions have room.
fn a_completion_queue_of_8_serves_two_hundred(ctx: &Ctx) {
    let server = ctx.echo(&["--cq", "8"]);
    all_at_once(&server);
    assert!(server.counter("overflows") > 0, "the queue was long enough: this shows nothing");
}

/// 40: The same in chat.
fn a_completion_queue_of_8_carries_the_chat_of_two_hundred(ctx: &Ctx) {
    all_talk_at_once(&ctx.busy_chat(&["--cq", "8"]));
}

/// As few buffers as the server can be told to have.
fn few_buffers(ctx: &Ctx) -> &'static [&'static str] {
    if is_one_of(ctx, &["serve-uring"]) { &["--buffers", "8"] } else { &[] }
}

pub(super) fn is_one_of(ctx: &Ctx, programs: &[&str]) -> bool {
    programs.iter().any(|program| ctx.program().ends_with(&format!("/{program}")))
}

/// While the server stands still, two hundred clients say something, from nothing much to more than
/// one read takes. It finds all of that at once.
#[track_caller]
fn all_at_once(server: &Server) {
    let mut clients = server.clients(200);
    for round in 0..5 {
        server.freeze();
        let text = |n: usize| format!("{}\n", n % 10).repeat(1 + n * 100 * (round % 2));
        for (n, client) in clients.iter_mut().enumerate() {
            client.queue(text(n).as_bytes());
        }
        pump("the lines to be on their way", &mut clients, |clients| {
            clients.iter().all(|client| client.unsent() == 0)
        });
        server.thaw();
        pump("everybody to be served", &mut clients, |clients| {
            let is_served = |(n, client): (usize, &Client)| client.incoming.len() >= text(n).len();
            clients.iter().enumerate().all(is_served)
        });
        for (n, client) in clients.iter_mut().enumerate() {
            client.expect(text(n));
        }
    }
}

/// The same with two hundred members of ten channels, each of whom says something.
#[track_caller]
fn all_talk_at_once(server: &Server) {
    const CHANNELS: usize = 10;
    let mut members: Vec<Member> = (0..200).map(|n| server.member(&format!("m{n}"))).collect();
    for (n, member) in members.iter_mut().enumerate() {
        member.join(&format!("#{}", n % CHANNELS));
    }
    for member in &mut members {
        member.sync();
    }
    server.freeze();
    for (n, member) in members.iter_mut().enumerate() {
        member.say(format!("PRIVMSG #{} :from {n}", n % CHANNELS));
    }
    server.thaw();
    for listener in 0..members.len() {
        let mine = (listener % CHANNELS..members.len()).step_by(CHANNELS);
        let mut missing: HashSet<_> = mine.filter(|&n| n != listener).collect();
        while !missing.is_empty() {
            let message = members[listener].gets("PRIVMSG");
            let from = message.from().strip_prefix('m').and_then(|n| n.parse().ok());
            let expected = from.is_some_and(|n| missing.remove(&n));
            assert!(expected, "m{listener} got {message:?} and misses {missing:?}");
        }
        members[listener].hears_nothing();
    }
}

/// 41: io_uring is forbidden as a whole or in part, or was never there. Who needs it says so in one
/// line and exits with 3, and does not turn into another model; other servers do not notice.
fn without_io_uring_it_serves_or_exits_3(ctx: &Ctx) {
    for call in [IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER] {
        for errno in [Errno::PERM, Errno::NOSYS] {
            let errno = errno.raw_os_error().try_into().expect("a small positive number");
            cannot_have_io_uring(ctx, Surroundings::NoIoUring(call, errno), "1", "another server");
        }
    }
}

/// 41: io_uring's rings are in locked memory, of which an ordinary user may have too little: for
/// one ring, or for as many as there are workers.
fn with_little_locked_memory_it_serves_or_exits_3(ctx: &Ctx) {
    for (bytes, workers) in [(0, "1"), (64 << 10, "1"), (8 << 20, "64")] {
        let surroundings = Surroundings::LockedMemory(bytes);
        cannot_have_io_uring(ctx, surroundings, workers, "`ulimit -l`");
    }
}

/// Who needs io_uring says what to do, before anything is announced; all others serve.
#[track_caller]
fn cannot_have_io_uring(ctx: &Ctx, surroundings: Surroundings, workers: &str, advice: &str) {
    let modes: &[&str] = if is_one_of(ctx, &["monoio-echo", "glommio-echo"]) {
        &["echo"]
    } else if is_one_of(ctx, &["serve-uring", "serve-compio"]) {
        &["echo", "chat"]
    } else {
        ctx.echo_in(surroundings, &[]).serves();
        return;
    };
    for mode in modes {
        let args = ["--listen", "127.0.0.1:0", "--mode", mode, "--workers", workers];
        let outcome = ctx.spawn(surroundings, &args, Stdio::piped()).outcome();
        assert_eq!(outcome.code, Some(3), "the exit code in {surroundings:?}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "nothing listens, and nothing says so");
        assert_eq!(outcome.stderr.len(), 1, "one line: {outcome:?}");
        assert!(outcome.stderr[0].contains("io_uring"), "it says what is missing: {outcome:?}");
        assert!(outcome.stderr[0].contains(advice), "and what to do: {outcome:?}");
    }
}

/// 44: There are no more processes or threads to be had: those inside are served, newcomers too or
/// they wait, nothing spins, and when there are some again, everybody is served.
fn without_more_processes_those_inside_are_served_and_then_the_rest(ctx: &Ctx) {
    let server = ctx.echo_in(Surroundings::Limited, &[]);
    let mut inside = server.clients(5);
    for client in &mut inside {
        client.round_trip("inside");
    }
    server.limit_processes(true);
    let mut newcomers = server.clients(100);
    for client in &mut newcomers {
        client.queue(b"hello\n");
    }
    let is_served = |client: &Client| *client.incoming == *b"hello\n";
    while !newcomers.iter().all(is_served) && server.shortages() == 0 {
        pump_for("newcomers to be served or to wait", &mut newcomers, Duration::from_millis(10));
    }
    for client in &mut inside {
        client.round_trip("still inside");
    }
    does_not_spin(&server);
    server.limit_processes(false);
    pump("everybody to be served", &mut newcomers, |clients| clients.iter().all(is_served));
    server.serves();
}

/// 44: The same in chat, where a member may take more than one.
fn without_more_processes_the_chat_goes_on(ctx: &Ctx) {
    let server = ctx.chat_in(Surroundings::Limited, &[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    server.limit_processes(true);
    let mut newcomers: Vec<_> = server.clients(100).into_iter().map(Member::stranger).collect();
    for (n, newcomer) in newcomers.iter_mut().enumerate() {
        newcomer.introduce(&format!("m{n}"));
    }
    let is_welcome = |member: &Member| !member.client.incoming.is_empty();
    while !newcomers.iter().all(is_welcome) && server.shortages() == 0 {
        pump_for("newcomers to be served or to wait", &mut newcomers, Duration::from_millis(10));
    }
    ann.say("PRIVMSG #c :all is well");
    bob.expect("ann PRIVMSG #c all is well");
    server.limit_processes(false);
    for newcomer in &mut newcomers {
        newcomer.welcome();
    }
}

/// 44: None at all, from the beginning: it says so in one line. (There is no server that needs
/// none: beside those who serve, one waits for signals.)
fn without_any_process_it_does_not_start(ctx: &Ctx) {
    let args = ["--listen", "127.0.0.1:0"];
    let outcome = ctx.spawn(Surroundings::NoProcesses, &args, Stdio::piped()).outcome();
    assert_eq!(outcome.code, Some(1), "the exit code: {outcome:?}");
    assert_eq!(outcome.stdout, "", "nothing listens, and nothing says so");
    assert_eq!(outcome.stderr.len(), 1, "one line: {outcome:?}");
    let names = |what| outcome.stderr[0].contains(what);
    assert!(names("thread") || names("process"), "it says what is missing: {outcome:?}");
}

/// 54: With two workers there is still one chat: all members hear each other, across workers.
fn two_workers_share_one_chat(ctx: &Ctx) {
    everybody_hears_everybody(&ctx.busy_chat(&["--workers", "2"]));
}

/// 42: The same when no signal finds room in the queue, not even one between workers.
fn two_workers_without_a_signal_queue_share_one_chat(ctx: &Ctx) {
    let server = ctx.busy_chat(&["--workers", "2"]);
    server.limit_queued_signals(0);
    everybody_hears_everybody(&server);
}

fn everybody_hears_everybody(server: &Server) {
    const MEMBERS: usize = 16;
    let mut members: Vec<Member> = (0..MEMBERS).map(|n| server.member(&format!("m{n}"))).collect();
    for member in &mut members {
        member.join("#c");
    }
    // A member's answer to a PING may overtake what another worker still brings it. So everybody
    // waits for what must come, and only then for what must not.
    for (n, member) in members.iter_mut().enumerate() {
        for later in n + 1..MEMBERS {
            member.expect(&format!("m{later} JOIN #c"));
        }
    }
    for speaker in 0..MEMBERS {
        members[speaker].say(format!("PRIVMSG #c :from {speaker}"));
        for (listener, member) in members.iter_mut().enumerate() {
            if listener != speaker {
                member.expect(&format!("m{speaker} PRIVMSG #c from {speaker}"));
            }
        }
    }
    drop(members.pop());
    for member in &mut members {
        assert_eq!(member.gets("QUIT").from(), format!("m{}", MEMBERS - 1));
        member.hears_nothing();
    }
}
