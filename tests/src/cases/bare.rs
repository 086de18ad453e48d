//! The model bare: what every `examples/bare.rs` does. It echoes bytes and knows no lines, no flags
//! and no limits; so each case here starts it with an address alone.

use std::fs::File;
use std::io;
use std::process::Stdio;
use std::slice;
use std::time::Duration;

use rustix::process::Signal;

use crate::bare;
use crate::cases::{Case, cases};
use crate::client::{Client, pump, pump_for};
use crate::server::Server;
use crate::surroundings::Surroundings;
use crate::watchdog::{Ctx, own_addr};

/// For every model.
pub(super) const ALONE: &[Case] = cases![Echo:
    lines_of_every_size_come_back,
    bytes_come_back_however_they_are_split,
    pieces_of_all_sizes_come_back,
    a_slow_reader_gets_8_mib,
    a_client_that_never_reads_costs_no_processor_time,
    half_close_delivers_everything,
    resets_end_only_those_who_reset,
    a_stop_and_resets_before_accept_end_nothing,
    sigterm_ends_all_its_processes,
    it_says_where_it_listens_and_nothing_else,
    a_standard_output_that_takes_nothing_does_not_hurt,
    a_taken_port_is_an_error,
];

/// For a model that serves two clients at once.
pub(super) const TOGETHER: &[Case] = cases![Echo:
    several_get_each_their_own,
    a_client_that_never_reads_holds_up_no_other,
    a_reset_harms_no_neighbour,
    out_of_descriptors_it_serves_those_inside_and_then_the_rest needs 32,
];

/// For the one model that has what the case is about.
pub(super) const SIGIO: &[Case] = cases![Echo only "serve-sigio":
    a_full_queue_of_signals_forgets_no_client,
];
pub(super) const SELECT: &[Case] = cases![Echo only "serve-select":
    descriptors_beyond_1024_are_refused_and_end_nothing,
];

/// The most that its memory may grow while one client is slow.
const GROWTH_KIB: u64 = 2 * 1024;

/// Lines of 1 byte to 1 MiB come back whole, one after another on one connection.
fn lines_of_every_size_come_back(ctx: &Ctx) {
    let server = ctx.bare();
    let mut client = server.client();
    let mut rng = ctx.rng();
    for exponent in 0..=20 {
        let size = 1 << exponent;
        for size in [size - 1, size, size + 1] {
            let line = line(&mut rng, size.clamp(1, 1 << 20));
            client.exchange(&line, &line);
        }
    }
}

/// A text may be cut anywhere. The echo of the first part shows that it was read by itself.
fn bytes_come_back_however_they_are_split(ctx: &Ctx) {
    let server = ctx.bare();
    let mut client = server.client();
    let text = b"first\r\nsecond\n\0\xff\n\nno line at the end";
    for offset in 0..=text.len() {
        let (head, tail) = text.split_at(offset);
        client.exchange(head, head);
        client.exchange(tail, tail);
    }
}

/// Random pieces, each written by itself, come back as they went, while more of them follow.
fn pieces_of_all_sizes_come_back(ctx: &Ctx) {
    let server = ctx.bare();
    let mut client = server.client();
    let mut rng = ctx.rng();
    let text = line(&mut rng, 4 << 20);
    let mut rest = text.as_slice();
    while !rest.is_empty() {
        let most = 1 << rng.u32(0..18);
        let (piece, after) = rest.split_at(rng.usize(1..=most.min(rest.len())));
        client.queue(piece);
        client.until("a piece to be taken", |client| client.unsent() == 0);
        rest = after;
    }
    client.expect(&text);
}

/// A client that reads a little now and then gets all of 8 MiB, in order, and costs little memory.
fn a_slow_reader_gets_8_mib(ctx: &Ctx) {
    let server = ctx.bare();
    let mut client = server.client_with_buffers(32 * 1024);
    client.round_trip("before");
    let before = server.usage().peak_kib;
    let text = line(&mut ctx.rng(), 8 << 20);
    client.queue(&text);
    while client.unsent() > 0 {
        client.reading = false;
        pump_for("it to fall behind", slice::from_mut(&mut client), Duration::from_millis(1));
        client.reading = true;
        pump_for("a little to read", slice::from_mut(&mut client), Duration::from_millis(10));
    }
    client.expect(&text);
    let grown = server.usage().peak_kib.saturating_sub(before);
    assert!(grown < GROWTH_KIB, "a slow reader made the server grow by {grown} KiB");
}

/// A client that sends and never reads has bytes kept for it and more bytes to be read. The server
/// waits for room to write, and for nothing that is there already: it sleeps.
fn a_client_that_never_reads_costs_no_processor_time(ctx: &Ctx) {
    let server = ctx.bare();
    let mut client = server.client_with_buffers(64 * 1024);
    client.round_trip("before");
    let text = line(&mut ctx.rng(), 32 << 20);
    client.reading = false;
    client.queue(&text);
    let (mut unsent, mut rounds) = (client.unsent(), 0);
    while rounds < 20 {
        pump_for("the server to pause", slice::from_mut(&mut client), Duration::from_millis(10));
        rounds = if client.unsent() < unsent { 0 } else { rounds + 1 };
        unsent = client.unsent();
        assert!(unsent > 0, "all was taken without one byte being read");
    }
    ctx.watch.until("all threads of the server to sleep", || server.is_asleep());
    client.reading = true;
    client.expect(&text);
}

/// After the client has said that it sends no more, everything comes, and then the orderly end.
fn half_close_delivers_everything(ctx: &Ctx) {
    let server = ctx.bare();
    for size in [0, 1, 1000, 1 << 20, 8 << 20] {
        let mut client = server.client();
        let text = line(&mut ctx.rng(), size);
        client.queue(&text);
        client.until("all to be taken", |client| client.unsent() == 0);
        client.half_close();
        client.expect(&text);
        client.expect_end();
    }
}

/// A reset, with output pending or with none, ends that connection and leaves nothing behind of it:
/// the next client is served.
fn resets_end_only_those_who_reset(ctx: &Ctx) {
    let server = ctx.bare();
    server.serves();
    let before = server.usage().descriptors;
    for _ in 0..5 {
        server.client().reset();
        let mut client = server.client();
        client.round_trip("hello");
        client.reset();
        reset_with_output_pending(server.client_with_buffers(4 * 1024));
        server.serves();
    }
    let closed = || server.usage().descriptors <= before;
    ctx.watch.until("the connections that were reset to be closed", closed);
}

/// Connections that were reset before they were accepted, and a stop and continue (Ctrl-Z, `fg`),
/// which interrupts some system calls, do not end it.
fn a_stop_and_resets_before_accept_end_nothing(ctx: &Ctx) {
    let server = ctx.bare();
    for _ in 0..5 {
        let mut client = server.client();
        client.round_trip("before");
        server.freeze();
        for stranger in server.clients(10) {
            stranger.reset();
        }
        server.thaw();
        client.round_trip("after");
        drop(client);
        server.serves();
    }
}

/// It has no stop of its own. SIGTERM ends it as it ends any program, with every process of it.
fn sigterm_ends_all_its_processes(ctx: &Ctx) {
    let mut server = ctx.bare();
    server.serves();
    server.signal(Signal::TERM);
    server.wait();
    ctx.watch.until("all of its processes to end", || server.usage().processes == 0);
}

/// The first line on standard output is the only one, whatever clients do.
fn it_says_where_it_listens_and_nothing_else(ctx: &Ctx) {
    let server = ctx.bare();
    let mut client = server.client();
    client.round_trip("hello");
    client.half_close();
    client.expect_end();
    server.client().reset();
    server.serves();
    let (stdout, stderr) = server.end();
    assert_eq!(stdout, "", "standard output after the first line");
    assert_eq!(stderr, [""; 0], "standard error");
}

/// Where it listens is of use also where nothing can be written to standard output: to a file on a
/// disk that is full, or to a pipe that is not read any more.
fn a_standard_output_that_takes_nothing_does_not_hurt(ctx: &Ctx) {
    bare::build(ctx.program());
    let full = File::create("/dev/full").expect("open /dev/full");
    let (unread, closed) = io::pipe().expect("a pipe");
    drop(unread);
    for stdout in [Stdio::from(full), Stdio::from(closed)] {
        let addr = own_addr();
        let process = ctx.spawn(Surroundings::Usual, &[&addr], stdout);
        let mut server = Server::unheard(process, &addr);
        assert!(!server.has_ended(), "it ended, and said {:?}", server.last_words());
        server.serves();
        server.signal(Signal::TERM);
        server.wait();
    }
}

/// It does not start where it cannot: exit code 1, the reason on standard error, and no first line.
fn a_taken_port_is_an_error(ctx: &Ctx) {
    let server = ctx.bare();
    let addr = server.addr().to_string();
    let outcome = ctx.spawn(Surroundings::Usual, &[&addr], Stdio::piped()).outcome();
    assert_eq!(outcome.code, Some(1), "exit code; it says {:?}", outcome.stderr);
    assert_eq!(outcome.stdout, "", "standard output");
    assert_eq!(outcome.stderr.len(), 1, "one line of standard error: {:?}", outcome.stderr);
    server.serves();
}

/// Twenty at once, each with bytes of its own in pieces of its own: each gets its own, in order.
fn several_get_each_their_own(ctx: &Ctx) {
    several(ctx, &ctx.bare());
}

/// The same, where the kernel queues one signal at most: no client waits for one that was lost.
fn a_full_queue_of_signals_forgets_no_client(ctx: &Ctx) {
    let server = ctx.bare();
    server.limit_queued_signals(1);
    several(ctx, &server);
    server.freeze();
    let mut clients = server.clients(10);
    for client in &mut clients {
        client.queue(b"while it sleeps\n");
    }
    pump("all to be taken", &mut clients, |clients| clients.iter().all(|c| c.unsent() == 0));
    server.thaw();
    for client in &mut clients {
        client.expect(b"while it sleeps\n");
    }
}

/// A set has 1024 bits. A client whose descriptor has none is closed; the others notice nothing.
fn descriptors_beyond_1024_are_refused_and_end_nothing(ctx: &Ctx) {
    let server = ctx.bare();
    let mut inside = server.clients(1000);
    let mut others = server.clients(100);
    others
        .last_mut()
        .expect("there are a hundred")
        .until("the last to be refused", |client| client.end().is_some());
    for client in &mut inside {
        client.round_trip("inside");
    }
    drop((inside, others));
    server.serves();
}

#[track_caller]
fn several(ctx: &Ctx, server: &Server) {
    let mut rng = ctx.rng();
    let mut clients = server.clients(20);
    let texts: Vec<_> = clients.iter().map(|_| line(&mut rng, 256 * 1024)).collect();
    let mut queued = vec![0; clients.len()];
    pump("each to get its own", &mut clients, |clients| {
        let mut finished = true;
        for ((client, text), queued) in clients.iter_mut().zip(&texts).zip(&mut queued) {
            let got = client.incoming.len();
            assert!(text.starts_with(&client.incoming), "wrong bytes among the first {got}");
            assert_eq!(client.end(), None, "how the stream ended, after {got} bytes");
            if client.unsent() == 0 && *queued < text.len() {
                let most = (1 << rng.u32(0..18)).min(text.len() - *queued);
                let piece = rng.usize(1..=most);
                client.queue(&text[*queued..][..piece]);
                *queued += piece;
            }
            finished &= got == text.len();
        }
        finished
    });
}

/// A client that sends and never reads is not read from: the server's memory is bounded, another
/// client is served, and when the first reads at last, everything is there.
fn a_client_that_never_reads_holds_up_no_other(ctx: &Ctx) {
    let server = ctx.bare();
    let (mut client, mut neighbour) = (server.client_with_buffers(64 * 1024), server.client());
    client.round_trip("before");
    neighbour.round_trip("before");
    let before = server.usage().peak_kib;
    let text = line(&mut ctx.rng(), 32 << 20);
    client.reading = false;
    client.queue(&text);
    // It is paused when the neighbour has been served a hundred times and nothing more was taken.
    let (mut unsent, mut rounds) = (client.unsent(), 0);
    while rounds < 100 {
        pump_for("the server to pause", slice::from_mut(&mut client), Duration::from_millis(2));
        neighbour.round_trip("meanwhile");
        rounds = if client.unsent() < unsent { 0 } else { rounds + 1 };
        unsent = client.unsent();
        assert!(unsent > 0, "all was taken without one byte being read");
    }
    let grown = server.usage().peak_kib.saturating_sub(before);
    assert!(grown < GROWTH_KIB, "a client that never reads made the server grow by {grown} KiB");
    client.reading = true;
    client.expect(&text);
}

/// A reset, with output pending or with none, ends that connection: a neighbour notices nothing.
fn a_reset_harms_no_neighbour(ctx: &Ctx) {
    let server = ctx.bare();
    let mut neighbour = server.client();
    for _ in 0..5 {
        neighbour.round_trip("before");
        let mut client = server.client();
        client.round_trip("hello");
        reset_with_output_pending(server.client_with_buffers(4 * 1024));
        client.reset();
        neighbour.round_trip("after");
    }
}

/// Without descriptors for all, those inside are served; when some are free again, so are others.
fn out_of_descriptors_it_serves_those_inside_and_then_the_rest(ctx: &Ctx) {
    let server = ctx.bare_after("ulimit -n 64");
    let mut inside = server.client();
    inside.round_trip("inside");
    let mut outside = server.clients(100);
    for _ in 0..100 {
        inside.round_trip("still inside");
    }
    // Those who came first have been accepted. With their descriptors all others can be.
    outside.drain(..50);
    for client in &mut outside {
        client.round_trip("inside at last");
    }
    inside.round_trip("until the end");
}

/// Sends more than the server can send back, reads none of it, and resets when for a while no more
/// has been taken.
#[track_caller]
fn reset_with_output_pending(mut client: Client) {
    client.round_trip("hello");
    client.reading = false;
    client.queue(&vec![b'x'; 32 << 20]);
    let mut unsent = usize::MAX;
    while client.unsent() < unsent {
        unsent = client.unsent();
        pump_for("it to be paused", slice::from_mut(&mut client), Duration::from_millis(20));
    }
    assert!(unsent > 0, "all was taken without one byte being read");
    client.reset();
}

/// A line of `size` random bytes, the terminator included.
fn line(rng: &mut fastrand::Rng, size: usize) -> Vec<u8> {
    let mut line: Vec<u8> = (0..size).map(|_| rng.u8(..)).collect();
    for byte in &mut line {
        *byte = if *byte == b'\n' { b'.' } else { *byte };
    }
    if let Some(last) = line.last_mut() {
        *last = b'\n';
    }
    line
}
