//! Exhaustion: what the kernel has no more of, and what happens then.

use std::thread;
use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;

use crate::cases::{Case, cases};
use crate::client::{Client, pump};
use crate::member::Member;
use crate::server::Server;
use crate::watchdog::Ctx;

pub(super) const ECHO: &[Case] = cases![Echo:
    out_of_descriptors_it_serves_those_inside_and_then_the_rest,
    descriptors_beyond_1024_are_served,
    an_overflowing_backlog_drains_afterwards,
    a_hundred_waits_run_together,
    reused_descriptors_cross_nothing,
    deadlines_hold_under_load,
    a_queue_of_8_forgets_nobody,
];

pub(super) const CHAT: &[Case] = cases![Chat:
    two_workers_share_one_chat,
    two_workers_without_a_signal_queue_share_one_chat,
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

/// Watches the server's processor time while nothing happens. It spins if it has used a fifth of a
/// second before a whole second is over; a loaded machine can only make it use less.
#[track_caller]
fn does_not_spin(server: &Server) {
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
    let server = ctx.echo(&["--wait", "300ms"]);
    let mut clients = server.clients(100);
    let started = Instant::now();
    for client in &mut clients {
        client.queue(b"later\n");
    }
    pump("a hundred replies", &mut clients, |clients| {
        let served = clients.iter().any(|client| !client.incoming.is_empty());
        assert!(!served || started.elapsed() >= WAIT, "a reply after {:?}", started.elapsed());
        clients.iter().all(|client| *client.incoming == *b"later\n")
    });
    let took = started.elapsed();
    assert!(took < WAIT * 50, "a hundred waits of {WAIT:?} took {took:?}");
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

/// 56: A deadline is met while others keep the server busy without a pause.
fn deadlines_hold_under_load(ctx: &Ctx) {
    let server = ctx.echo(&["--idle-timeout", "500ms"]);
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
/// streams, newcomers. Nobody is forgotten. Only a model with such a queue notices, and counts it.
fn a_queue_of_8_forgets_nobody(ctx: &Ctx) {
    let completions = ctx.program().ends_with("/serve-uring");
    let signals = ctx.program().ends_with("/serve-sigio");
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

/// 54: With two workers there is still one chat: everybody hears everybody, whoever serves whom.
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
