//! Sessions that make no sense: what such a peer gets is its own affair, but the server serves on.

use fastrand::Rng;

use crate::cases::{Case, cases};
use crate::client::Client;
use crate::server::Server;
use crate::watchdog::{self, Ctx};

pub(super) const ECHO: &[Case] = cases![Echo: malformed_sessions_do_not_hurt_the_echo];

pub(super) const CHAT: &[Case] = cases![Chat: malformed_sessions_do_not_hurt_the_chat];

/// Sessions between two that must be served as ever.
const BETWEEN: u64 = 20;

/// 11: Sessions of any bytes, which end in any way; `CONFORMANCE_SESSIONS` says how many. The
/// server echoes as ever between them.
fn malformed_sessions_do_not_hurt_the_echo(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let mut rng = ctx.rng();
    for session in 0..watchdog::sessions() {
        let bytes = any_bytes(&mut rng);
        run(&server, &bytes, &mut rng);
        if session % BETWEEN == 0 {
            server.serves();
        }
    }
    server.serves();
}

/// 11: The same in chat, with lines that are nearly right among them.
fn malformed_sessions_do_not_hurt_the_chat(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let mut rng = ctx.rng();
    for session in 0..watchdog::sessions() {
        let mut bytes = Vec::new();
        if rng.bool() {
            bytes.extend_from_slice(format!("NICK m{session}\r\nUSER m 0 * :m\r\n").as_bytes());
        }
        for _ in 0..rng.usize(1..12) {
            bytes.extend(nearly_a_line(&mut rng));
        }
        run(&server, &bytes, &mut rng);
        if session % BETWEEN == 0 {
            server.member(&format!("s{session}")).sync();
        }
    }
    server.member("last").sync();
}

/// One session: its bytes, as far as the server takes them, and its end.
#[track_caller]
fn run(server: &Server, bytes: &[u8], rng: &mut Rng) {
    let mut client = server.client();
    let gone = |client: &mut Client| client.unsent() == 0 || client.end().is_some();
    let (first, rest) = bytes.split_at(rng.usize(..=bytes.len()));
    client.queue(first);
    client.until("the first part to be taken", gone);
    client.queue(rest);
    client.until("the rest to be taken", gone);
    match rng.u8(..8) {
        0 => {
            client.half_close();
            client.read_to_end();
        }
        1 => drop(client),
        // A reset leaves no port behind that cannot be used for a minute: there may be many.
        _ => client.reset(),
    }
}

/// Bytes with and without line ends, few or many, some of them an HTTP request or a TLS hello.
fn any_bytes(rng: &mut Rng) -> Vec<u8> {
    let begin: &[&[u8]] =
        &[b"", b"", b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\0", b"\xff\xfb"];
    let mut bytes = rng.choice(begin).map(|begin| begin.to_vec()).unwrap_or_default();
    let most = 1 << rng.u32(1..13);
    let size = rng.usize(..most);
    let ends = rng.u8(..=64);
    bytes.extend((0..size).map(|_| if rng.u8(..) < ends { b'\n' } else { rng.u8(..) }));
    bytes
}

/// A command that there is, with parameters that make no sense, and an end that may be missing.
fn nearly_a_line(rng: &mut Rng) -> Vec<u8> {
    const COMMANDS: &[&str] = &[
        "NICK",
        "USER",
        "PASS",
        "CAP",
        "JOIN",
        "PART",
        "PRIVMSG",
        "NOTICE",
        "TAGMSG",
        "MODE",
        "KICK",
        "INVITE",
        "TOPIC",
        "NAMES",
        "LIST",
        "WHO",
        "WHOIS",
        "WHOWAS",
        "AWAY",
        "ISON",
        "USERHOST",
        "SETNAME",
        "PING",
        "PONG",
        "STATS",
        "MOTD",
        "LUSERS",
        "QUIT",
        "@label=1 PING",
        ":x JOIN",
        "",
    ];
    const PARAMS: &[&str] = &[
        "#c",
        "m1",
        "#c,#d,",
        "+ov",
        "+bbbb",
        "-k",
        "+l",
        "*",
        "0",
        ":",
        ":text",
        ",,,",
        "LS",
        "REQ",
        ":batch labeled-response message-tags",
        "%tcuihsnfdlaor,99",
        "99999999999999999999",
        "#",
    ];
    let mut line = rng.choice(COMMANDS).map_or("", |command| command).as_bytes().to_vec();
    for _ in 0..rng.usize(..6) {
        let word: Vec<u8> = if rng.u8(..5) == 0 {
            (0..rng.usize(..40)).map(|_| rng.u8(..)).collect()
        } else {
            rng.choice(PARAMS).map_or("", |param| param).into()
        };
        line.extend([b" ", &word[..]].concat());
    }
    let ends: &[&[u8]] = &[b"\r\n", b"\r\n", b"\n", b"\r", b"\0\n", b""];
    line.extend_from_slice(rng.choice(ends).map_or(b"", |end| end));
    line
}
