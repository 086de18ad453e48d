//! The life of a connection: how it begins, how it ends, and what it leaves behind.

use std::net::TcpListener;
use std::process::Stdio;

use crate::cases::{Case, cases};
use crate::client::{Client, pump};
use crate::surroundings::Surroundings;
use crate::watchdog::{Ctx, own_addr};

pub(super) const ECHO: &[Case] = cases![Echo:
    half_close_delivers_every_reply,
    half_close_delivers_8_mib_pending,
    reset_in_mid_line_harms_no_other needs 2,
    reset_with_output_pending_harms_no_other needs 2,
    resets_before_accept_harm_no_other,
    connect_and_close_leaves_nothing_behind,
    a_silent_peer_is_reaped,
    a_peer_that_does_not_take_its_replies_is_reaped,
    urgent_data_is_survived needs 2,
    restart_on_the_same_port_at_once,
    a_taken_port_is_one_clear_line,
    a_second_server_does_not_share_the_port,
    a_second_server_does_not_share_the_port_of_two_workers,
];

/// Many short numbered lines.
fn numbered(count: usize) -> String {
    (0..count).map(|n| format!("line {n}\n")).collect()
}

/// 12: A client that has shut down its sending side gets every reply, then the end of the stream.
fn half_close_delivers_every_reply(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let text = numbered(1000);
    let mut client = server.client();
    client.send(&text);
    client.half_close();
    client.expect(&text);
    client.expect_end();
}

/// 13: The same when 8 MiB of replies wait for a client that has not read a byte of them. The queue
/// is made large enough to hold them (what a smaller one does is a matter of backpressure), and the
/// client's buffers small, so that they wait in the server and not in the kernel.
fn half_close_delivers_8_mib_pending(ctx: &Ctx) {
    let server = ctx.echo(&["--sendq", "64MiB"]);
    let mut client = server.client_with_buffers(64 * 1024);
    let text = format!("{}\n", "x".repeat(1023)).repeat(8 * 1024);
    client.reading = false;
    client.send(&text);
    client.half_close();
    client.reading = true;
    client.expect(&text);
    client.expect_end();
}

/// 14: Resets in the middle of a line, again and again; a neighbour notices nothing.
fn reset_in_mid_line_harms_no_other(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let mut neighbour = server.client();
    for _ in 0..50 {
        let mut client = server.client();
        client.send("whole\nhalf a li");
        client.expect("whole\n");
        client.reset();
        neighbour.round_trip("still here");
    }
    server.serves();
}

/// 15: Resets while replies are pending: the server writes to a socket that is gone. No SIGPIPE,
/// and the same process serves on.
fn reset_with_output_pending_harms_no_other(ctx: &Ctx) {
    let mut server = ctx.echo(&[]);
    let mut neighbour = server.client();
    let text = numbered(50_000);
    for _ in 0..20 {
        let mut client = server.client_with_buffers(4096);
        client.reading = false;
        client.queue(text.as_bytes());
        client.until("some of it to be taken", |client| client.unsent() < text.len());
        neighbour.round_trip("go on");
        client.reset();
        neighbour.round_trip("still here");
    }
    server.serves();
    assert!(!server.has_ended(), "the server ended");
}

/// 16: Connections that are reset before they are accepted. The server is stopped meanwhile, so
/// that all of them wait in the backlog.
fn resets_before_accept_harm_no_other(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    for _ in 0..3 {
        server.freeze();
        for client in server.clients(100) {
            client.reset();
        }
        server.thaw();
        server.serves();
    }
}

/// 17: Thousands of connections later, descriptors and memory are back to where they were.
fn connect_and_close_leaves_nothing_behind(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let come_and_go = |count: usize| {
        for n in 0..count {
            let mut client = server.client();
            client.round_trip("in and out");
            if n % 2 == 0 {
                client.half_close();
                client.expect_end();
            } else {
                client.reset();
            }
        }
    };
    // A server listens before its workers have all that they will open; once one is served they do.
    let mut first = server.client();
    first.round_trip("first");
    let with_one = server.usage().descriptors;
    drop(first);
    // What an allocator and its threads take once is not a leak; measure after that.
    come_and_go(500);
    let warm = server.usage().resident_kib;
    come_and_go(2500);
    ctx.watch.until("the descriptors to be back", || server.usage().descriptors < with_one);
    let grown = server.usage().resident_kib.saturating_sub(warm);
    assert!(grown < 4 * 1024, "2500 connections left {grown} KiB behind");
}

/// 18: A peer that vanished says nothing more, not even goodbye: it is closed within the idle time.
fn a_silent_peer_is_reaped(ctx: &Ctx) {
    let server = ctx.echo(&["--idle-timeout", "300ms"]);
    let mut silent = server.clients(20);
    pump("the silent to be cut", &mut silent, |all| all.iter().all(|c| c.end().is_some()));
    server.serves_a_prompt_client();
}

/// 18: So is one that has replies waiting and never takes them, though it is not silent at first.
fn a_peer_that_does_not_take_its_replies_is_reaped(ctx: &Ctx) {
    let server = ctx.echo(&["--idle-timeout", "300ms"]);
    server.serves_a_prompt_client();
    let before = server.usage().descriptors;
    let text = numbered(100_000);
    let mut clients: Vec<Client> = (0..5).map(|_| server.client_with_buffers(4096)).collect();
    for client in &mut clients {
        client.reading = false;
        client.queue(text.as_bytes());
        client.until("some of it to be taken", |client| client.unsent() < text.len());
    }
    ctx.watch.until("the descriptors to be free", || server.usage().descriptors <= before);
    server.serves_a_prompt_client();
}

/// 19: One urgent byte is not part of the stream (it stays out of band), and does not keep the
/// loop awake.
/// A read ends at its mark, though more has come: that is found all at once, so that no later event
/// makes up for a server that takes a short read for the end of what there is.
fn urgent_data_is_survived(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let (mut client, mut neighbour) = (server.client(), server.client());
    client.round_trip("at first");
    server.freeze();
    client.send("ab");
    client.send_urgent(b'!');
    client.send("c\n");
    server.thaw();
    client.expect("abc\n");
    neighbour.round_trip("still here");
    client.round_trip("and here");
}

/// 20: A server may start again on its port while its old connections are in TIME_WAIT.
fn restart_on_the_same_port_at_once(ctx: &Ctx) {
    let mut server = ctx.echo(&["--listen", &own_addr()]);
    let addr = server.addr();
    for _ in 0..3 {
        let mut client = server.client();
        client.round_trip("before");
        // The server closes first, and so it is its side that stays in TIME_WAIT.
        server.signal(rustix::process::Signal::TERM);
        client.expect_end();
        server.wait();
        drop(client);
        server = ctx.echo(&["--listen", &addr.to_string()]);
        assert_eq!(server.addr(), addr, "the address after the restart");
        server.serves();
    }
}

/// 21: The port is taken: exit code 1 and one clear line that names it.
fn a_taken_port_is_one_clear_line(ctx: &Ctx) {
    let holder = TcpListener::bind("127.0.0.1:0").expect("bind a port");
    let addr = holder.local_addr().expect("a bound address").to_string();
    is_refused_the_port(ctx, &["--listen", &addr]);
}

/// 21: Nor does a second one get half of the first one's connections, as SO_REUSEPORT would let it.
fn a_second_server_does_not_share_the_port(ctx: &Ctx) {
    is_not_shared(ctx, "1");
}

/// 21: Nor do several workers, which share it among themselves, let others in.
fn a_second_server_does_not_share_the_port_of_two_workers(ctx: &Ctx) {
    is_not_shared(ctx, "2");
}

#[track_caller]
fn is_not_shared(ctx: &Ctx, workers: &str) {
    let server = ctx.echo(&["--workers", workers]);
    let addr = server.addr().to_string();
    is_refused_the_port(ctx, &["--workers", workers, "--listen", &addr]);
    server.serves();
}

#[track_caller]
fn is_refused_the_port(ctx: &Ctx, args: &[&str]) {
    let addr = args.last().expect("the address comes last");
    let outcome = ctx.spawn(Surroundings::Usual, args, Stdio::piped()).outcome();
    assert_eq!(outcome.code, Some(1), "the exit code: {outcome:?}");
    assert_eq!(outcome.stdout, "", "nothing listens, and nothing says so");
    assert_eq!(outcome.stderr.len(), 1, "one line: {outcome:?}");
    assert!(outcome.stderr[0].contains(addr), "the line names the address: {outcome:?}");
}
