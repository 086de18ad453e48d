//! Framing: where a line begins and ends, whatever pieces it arrives in.

use crate::cases::{Case, cases};
use crate::client::pump;
use crate::watchdog::Ctx;

pub(super) const ECHO: &[Case] = cases![Echo:
    lf_and_crlf_end_a_line,
    one_byte_at_a_time,
    split_at_every_offset needs 2,
    thousands_of_lines_in_one_write,
    a_line_at_the_limit_passes_and_one_over_it_is_answered_once,
    the_default_line_limit_is_64_kib,
    over_long_lines_keep_their_place_among_the_replies needs 2,
    an_endless_line_takes_no_memory,
    empty_lines_come_back,
    any_bytes_come_back,
    telnet_negotiation_comes_back,
    an_unfinished_last_line_is_not_echoed,
    random_bytes_in_random_splits,
];

pub(super) const CHAT: &[Case] = cases![Chat: telnet_negotiation_does_not_hurt_the_chat];

const TOO_LONG: &str = "ERR line too long\r\n";

/// 1: LF and CRLF end a line, and come back as they were. A lone CR is a byte like any other.
fn lf_and_crlf_end_a_line(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let mut client = server.client();
    for line in ["a\n", "b\r\n", "c\rd\n", "\re\r\r\n"] {
        client.exchange(line, line);
    }
}

/// 2: A line may come one byte at a time.
fn one_byte_at_a_time(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let mut client = server.client();
    let text = b"one byte\nat a time\r\n\nand the end\n";
    for byte in text {
        client.send([*byte]);
    }
    client.expect(text);
}

/// 3: Two lines and a bit may be cut anywhere. The neighbour's round trip gives the server the time
/// to read the first part alone.
fn split_at_every_offset(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let (mut client, mut neighbour) = (server.client(), server.client());
    let text = b"first\r\nsecond\n\r\nthird line\r\n";
    for offset in 0..=text.len() {
        let (head, tail) = text.split_at(offset);
        client.send(head);
        neighbour.round_trip("go on");
        client.send(tail);
        client.expect(text);
    }
}

/// 4: Thousands of lines in one write: every reply, in order.
fn thousands_of_lines_in_one_write(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    server.client().exchange(&text, &text);
}

/// 5: The limit counts the terminator. A line over it gets one answer, and the connection lives.
fn a_line_at_the_limit_passes_and_one_over_it_is_answered_once(ctx: &Ctx) {
    let server = ctx.echo(&["--max-line", "1024"]);
    let mut client = server.client();
    for end in ["\n", "\r\n"] {
        let fits = format!("{}{end}", "x".repeat(1024 - end.len()));
        client.exchange(&fits, &fits);
        let over = format!("x{fits}");
        client.exchange(&over, TOO_LONG);
        client.round_trip("still here");
    }
}

/// 5: The limit is 64 KiB unless told otherwise.
fn the_default_line_limit_is_64_kib(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let mut client = server.client();
    let fits = format!("{}\n", "x".repeat(64 * 1024 - 1));
    client.exchange(&fits, &fits);
    client.exchange(format!("x{fits}"), TOO_LONG);
    client.round_trip("still here");
}

/// 5: The answer to an over-long line stands where its echo would have stood, whether the line
/// comes whole or in pieces.
fn over_long_lines_keep_their_place_among_the_replies(ctx: &Ctx) {
    let server = ctx.echo(&["--max-line", "16"]);
    let (mut client, mut neighbour) = (server.client(), server.client());
    let long = "0123456789".repeat(5);
    let text = format!("a\n{long}\nb\n{long}\r\n{long}\nc\n");
    let replies = format!("a\n{TOO_LONG}b\n{TOO_LONG}{TOO_LONG}c\n");
    client.exchange(&text, &replies);
    for piece in text.as_bytes().chunks(7) {
        client.send(piece);
        neighbour.round_trip("go on");
    }
    client.expect(&replies);
}

/// 6: 64 MiB without a line end: memory stays where it was, there is one answer, the server lives.
fn an_endless_line_takes_no_memory(ctx: &Ctx) {
    const CHUNKS: usize = 1024;
    let server = ctx.echo(&[]);
    let mut client = server.client();
    client.round_trip("before");
    let before = server.usage().resident_kib;
    let chunk = [b'x'; 64 * 1024];
    let mut left = CHUNKS;
    pump("64 MiB to be taken", std::slice::from_mut(&mut client), |clients| {
        if clients[0].unsent() == 0 && left > 0 {
            clients[0].queue(&chunk);
            left -= 1;
        }
        left == 0 && clients[0].unsent() == 0
    });
    client.exchange("\nafter\n", format!("{TOO_LONG}after\n"));
    let grown = server.usage().peak_kib.saturating_sub(before);
    assert!(grown < 4 * 1024, "an endless line made the server grow by {grown} KiB");
}

/// 7: Empty lines are lines.
fn empty_lines_come_back(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let text = "\n\r\n\n\n\r\n";
    server.client().exchange(text, text);
}

/// 8: NUL, bytes that are not UTF-8, and every other byte come back.
fn any_bytes_come_back(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let mut text: Vec<u8> = (0..=255).filter(|&byte| byte != b'\n').collect();
    text.extend_from_slice(b"\n\0\0\n\xff\xfe\xc3\x28\n");
    server.client().exchange(&text, &text);
}

/// 9: The bytes of a telnet negotiation are bytes.
fn telnet_negotiation_comes_back(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let text = b"\xff\xfd\x01\xff\xfb\x03\xff\xf4hello\r\n";
    server.client().exchange(text, text);
}

/// 9: In chat they are not UTF-8: refused, and registration goes on.
fn telnet_negotiation_does_not_hurt_the_chat(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut client = server.client();
    client.send(b"\xff\xfd\x01\xff\xfb\x03\r\n");
    let mut member = crate::member::Member::stranger(client);
    member.introduce("telnet");
    member.through("001");
}

/// From the protocol: an unfinished line at the end of the stream is not echoed.
fn an_unfinished_last_line_is_not_echoed(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let mut client = server.client();
    client.send("whole\nunfinished");
    client.half_close();
    client.expect("whole\n");
    client.expect_end();
}

/// 11: Random bytes in random splits come back as they went. The lines are of all lengths up to the
/// limit; `CONFORMANCE_SEED` repeats them.
fn random_bytes_in_random_splits(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let mut rng = ctx.rng();
    let mut client = server.client();
    for _ in 0..20 {
        let line_length = 1 << rng.u32(0..16);
        let text = random_lines(&mut rng, (2000 * line_length).min(200 * 1024), line_length);
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            let split = rng.usize(1..=rest.len().min(line_length * 3));
            client.queue(&rest[..split]);
            // Each piece is written by itself; the replies are read all the while.
            client.until("a piece to be taken", |client| client.unsent() == 0);
            rest = &rest[split..];
        }
        client.expect(&text);
    }
}

/// About `size` random bytes in lines of about `length` bytes, the last one finished.
fn random_lines(rng: &mut fastrand::Rng, size: usize, length: usize) -> Vec<u8> {
    let mut text: Vec<u8> = (0..size).map(|_| rng.u8(..)).collect();
    for byte in &mut text {
        *byte = if *byte == b'\n' { b'.' } else { *byte };
    }
    let mut at = 0;
    while at < size {
        text[at] = b'\n';
        at += rng.usize(1..=length.min(60 * 1024));
    }
    text[size - 1] = b'\n';
    text
}
