//! Abuse: limits that hold, and newcomers that are served while a client leans on them.

use std::net::Ipv4Addr;
use std::slice;
use std::time::{Duration, Instant};

use crate::cases::{Case, cases};
use crate::client::{Client, pump, pump_for};
use crate::member::gather;
use crate::server::Server;
use crate::surroundings;
use crate::watchdog::Ctx;

pub(super) const ECHO: &[Case] = cases![Echo:
    one_over_max_connections_is_told_and_the_place_is_free_again needs 2,
    a_client_that_sees_the_end_finds_the_place_free,
    too_many_from_one_address_are_told needs 2,
];

/// For this project's servers: whether a peer tells networks apart is its own affair.
pub(super) const OWN_ECHO: &[Case] = cases![Echo:
    addresses_of_one_ipv6_network_count_as_one needs 2,
];

pub(super) const CHAT: &[Case] = cases![Chat:
    a_flooding_member_is_slowed_and_then_cut needs 2,
    a_small_flood_is_slowed_and_loses_nothing needs 2,
    a_flooding_member_that_resets_is_gone_at_once needs 2,
    a_burst_is_not_a_flood,
    five_hundred_slow_newcomers_are_cut_at_the_deadline,
    a_silent_member_is_pinged_and_then_cut,
    a_member_that_answers_pings_stays,
    one_over_max_connections_is_told_in_chat needs 2,
    a_line_without_end_is_cut_in_chat,
    cr_and_nul_cannot_forge_a_line needs 2,
    joining_without_end_is_capped,
];

/// 33: One more than `--max-connections` is told and closed; the place is free when one leaves.
fn one_over_max_connections_is_told_and_the_place_is_free_again(ctx: &Ctx) {
    let server = ctx.echo(&["--max-connections", "3"]);
    let mut inside = server.clients(3);
    inside.iter_mut().for_each(|client| client.round_trip("inside"));
    is_refused(&mut server.client(), "ERR ");
    inside.iter_mut().for_each(|client| client.round_trip("still inside"));
    leave(inside.pop().expect("three are inside"));
    is_served_in_the_end(&server);
}

/// 33: Who has seen its connection end may come back at once: the place is free.
fn a_client_that_sees_the_end_finds_the_place_free(ctx: &Ctx) {
    let server = ctx.echo(&["--max-connections", "1", "--workers", "2"]);
    for _ in 0..3000 {
        let mut client = server.client();
        client.send("mine\n");
        client.half_close();
        client.expect("mine\n");
        client.expect_end();
    }
}

/// 33: The same in chat, in its own words, and also for a client that has spoken before it is
/// accepted: its words are no reason for a reset, which could take the refusal away.
fn one_over_max_connections_is_told_in_chat(ctx: &Ctx) {
    let server = ctx.chat(&["--max-connections", "2"]);
    let (mut ann, _bob) = (server.member("ann"), server.member("bob"));
    is_refused(&mut server.client(), "ERROR :");
    server.freeze();
    let mut talker = server.client();
    talker.send("NICK talker\r\nUSER u 0 * :u\r\n");
    server.thaw();
    is_refused(&mut talker, "ERROR :");
    ann.hears_nothing();
}

/// 32: The limit per address counts that address alone.
fn too_many_from_one_address_are_told(ctx: &Ctx) {
    let server = ctx.echo(&["--max-connections-per-ip", "2"]);
    let mut inside = server.clients(2);
    inside.iter_mut().for_each(|client| client.round_trip("inside"));
    is_refused(&mut server.client(), "ERR ");
    server.client_from(Ipv4Addr::new(127, 0, 0, 2)).round_trip("from elsewhere");
    leave(inside.pop().expect("two are inside"));
    is_served_in_the_end(&server);
}

/// 32: All addresses of an IPv6 network (/64) count as one: a single host is given so many.
fn addresses_of_one_ipv6_network_count_as_one(ctx: &Ctx) {
    surroundings::enter_network().expect("a network of its own");
    let server = ctx.echo(&["--listen", "[::1]:0", "--max-connections-per-ip", "2"]);
    let [one, other, elsewhere] = surroundings::NEIGHBOURS;
    let mut inside = vec![server.client_from(one), server.client_from(other)];
    inside.iter_mut().for_each(|client| client.round_trip("inside"));
    is_refused(&mut server.client_from(one), "ERR ");
    is_refused(&mut server.client_from(other), "ERR ");
    server.client_from(elsewhere).round_trip("from elsewhere");
    leave(inside.pop().expect("two are inside"));
    has_a_place_in_the_end(&server, || server.client_from(one));
}

/// Waits for one line that begins so, and the end of the stream.
#[track_caller]
fn is_refused(client: &mut Client, prefix: &str) {
    let line = client.line();
    let text = String::from_utf8_lossy(&line);
    assert!(text.strip_prefix(prefix).is_some_and(|reason| !reason.is_empty()), "told {text:?}");
    client.expect_end();
}

/// Leaves, and waits until the server has let go.
#[track_caller]
fn leave(mut client: Client) {
    client.half_close();
    client.expect_end();
}

/// Connects until there is a place.
#[track_caller]
fn is_served_in_the_end(server: &Server) {
    has_a_place_in_the_end(server, || server.client());
}

/// Connects in this way until there is a place. The end of a stream reaches its client a moment
/// before the server counts the place as free.
#[track_caller]
fn has_a_place_in_the_end(server: &Server, connect: impl Fn() -> Client) {
    server.watch().until("a free place", || {
        let mut client = connect();
        client.queue(b"me?\n");
        client.until("an answer", |client| {
            client.incoming.ends_with(b"\n") || client.end().is_some()
        });
        *client.incoming == *b"me?\n"
    });
}

/// 31: Who floods is slowed, while others are served as ever, and cut when it goes on.
fn a_flooding_member_is_slowed_and_then_cut(ctx: &Ctx) {
    const LINES: usize = 100_000;
    let server = ctx.chat(&[]);
    let (mut flooder, mut witness) = (server.member("flooder"), server.member("witness"));
    gather("#c", &mut [&mut flooder, &mut witness]);
    let flood: String = (0..LINES).map(|n| format!("PRIVMSG #c :{n}\r\n")).collect();
    flooder.client.queue(flood.as_bytes());
    let mut pair = [flooder, witness];
    pump("the flooder to be cut", &mut pair, |pair| pair[0].client.end().is_some());
    let [mut flooder, mut witness] = pair;
    flooder.is_cut();
    let heard = witness.through("QUIT");
    assert_eq!(heard.last().map(|quit| quit.from()), Some("flooder"), "who has quit");
    let slowed = heard.len() - 1;
    assert!((1..LINES / 100).contains(&slowed), "{slowed} of {LINES} lines got through");
    for (n, message) in heard[..slowed].iter().enumerate() {
        assert_eq!(message.brief(), format!("flooder PRIVMSG #c {n}"));
    }
    server.member("newcomer").hears_nothing();
}

/// 31: A little more than a burst is slowed, and nothing of it is lost.
fn a_small_flood_is_slowed_and_loses_nothing(ctx: &Ctx) {
    const LINES: usize = 26;
    let server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    let started = Instant::now();
    ann.client.send((0..LINES).map(|n| format!("PRIVMSG #c :{n}\r\n")).collect::<String>());
    for n in 0..LINES {
        bob.expect(&format!("ann PRIVMSG #c {n}"));
    }
    assert!(started.elapsed() > Duration::from_millis(200), "not slowed: {:?}", started.elapsed());
    ann.hears_nothing();
}

/// 31: A member that is not read, because it floods, is gone as soon as its connection is reset:
/// what it has said beyond its ration does not outlive it. So too if the reset comes with what
/// it says, or after more that nobody reads: lines, or the end of the stream.
fn a_flooding_member_that_resets_is_gone_at_once(ctx: &Ctx) {
    const LINES: usize = 40;
    let server = ctx.chat(&["--flood-interval", "200ms"]);
    let mut witness = server.member("witness");
    for channel in ["#apart", "#together", "#lines", "#end"] {
        let mut flooder = server.member("flooder");
        gather(channel, &mut [&mut witness, &mut flooder]);
        let flood: String = (0..LINES).map(|n| format!("PRIVMSG {channel} :{n}\r\n")).collect();
        let mut heard = 0;
        if channel == "#together" {
            server.freeze();
            flooder.client.send(flood);
            flooder.client.reset();
            server.thaw();
        } else {
            flooder.client.send(flood);
            witness.expect(&format!("flooder PRIVMSG {channel} 0"));
            match channel {
                "#lines" => flooder.client.send(format!("PRIVMSG {channel} :more\r\n")),
                "#end" => flooder.client.half_close(),
                _ => {}
            }
            // Before the server answers this, it looks at all its sockets.
            heard = witness.sync().len();
            flooder.client.reset();
        }
        heard += witness.through("QUIT").len();
        assert!(heard < LINES, "all {heard} lines were heard in {channel} before it was gone");
    }
}

/// 31: A burst is allowed: ten lines at once are answered.
fn a_burst_is_not_a_flood(ctx: &Ctx) {
    let server = ctx.chat(&[]);
    let mut ann = server.member("ann");
    let burst: String = (0..10).map(|n| format!("PING {n}\r\n")).collect();
    ann.client.send(burst);
    for n in 0..10 {
        assert_eq!(ann.gets("PONG").text(), n.to_string());
    }
}

/// 29: Five hundred that begin to register and do not end are cut; newcomers are served meanwhile.
fn five_hundred_slow_newcomers_are_cut_at_the_deadline(ctx: &Ctx) {
    let server = ctx.chat(&["--registration-timeout", "500ms"]);
    let mut slow = server.clients(500);
    for (n, client) in slow.iter_mut().enumerate() {
        let opening = format!("NICK slow{n}\r\nUSER slo");
        client.send(&opening[..opening.len() * (n % 5) / 4]);
    }
    let mut member = server.prompt_member("newcomer");
    pump("the slow ones to be cut", &mut slow, |slow| slow.iter().all(|c| c.end().is_some()));
    for client in &slow {
        assert!(
            client.incoming.starts_with(b"ERROR :"),
            "told {:?}",
            client.incoming.escape_ascii()
        );
    }
    member.hears_nothing();
}

/// 30: After a silence comes a PING; after another, the cut, and the nickname is free again.
fn a_silent_member_is_pinged_and_then_cut(ctx: &Ctx) {
    let server = ctx.chat(&["--idle-timeout", "300ms", "--ping-timeout", "300ms"]);
    let mut silent = server.member("silent");
    silent.gets("PING");
    let last = silent.is_cut();
    assert!(!last.text().is_empty(), "a reason");
    server.member("silent");
}

/// 30: Who answers stays, for many pings.
fn a_member_that_answers_pings_stays(ctx: &Ctx) {
    let server = ctx.chat(&["--idle-timeout", "200ms", "--ping-timeout", "5s"]);
    let mut awake = server.member("awake");
    for _ in 0..5 {
        let ping = awake.gets("PING");
        awake.say(format!("PONG :{}", ping.text()));
    }
    let messages = awake.sync();
    assert!(messages.iter().all(|message| message.command == "PING"), "{messages:?}");
}

/// 6: Over `--max-recvq` without a line end: `ERROR :` with the reason, and close.
fn a_line_without_end_is_cut_in_chat(ctx: &Ctx) {
    let server = ctx.chat(&["--max-recvq", "4KiB"]);
    let mut endless = server.member("endless");
    let before = server.usage().resident_kib;
    let mut sent = 0;
    // It may take a while to notice that no one reads: the connection's buffers are large.
    while endless.client.end().is_none() && sent < 64 << 20 {
        endless.client.queue(&[b'x'; 16 * 1024]);
        sent += 16 * 1024;
        let patience = Duration::from_millis(20);
        pump_for("the server to lose patience", slice::from_mut(&mut endless.client), patience);
    }
    endless.is_cut();
    let grown = server.usage().peak_kib.saturating_sub(before);
    assert!(grown < 4 * 1024, "an endless line made the server grow by {grown} KiB");
    server.member("newcomer").hears_nothing();
}

/// 35: A bare CR or a NUL in a text does not reach anybody, and forges nothing.
fn cr_and_nul_cannot_forge_a_line(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    for forged in [
        "PRIVMSG #c :a\r:server NOTICE bob :forged",
        "PRIVMSG #c :a\0b",
        "NOTICE bob :a\r:server 001 bob :forged",
        "TOPIC #c :a\r:server NOTICE bob :forged",
        "PART #c :a\r:server NOTICE bob :forged",
        "JOIN #c",
        "QUIT :a\r:server NOTICE bob :forged\0",
    ] {
        ann.say(forged);
    }
    ann.client.read_to_end();
    loop {
        let line = bob.client.line();
        let text = String::from_utf8_lossy(&line);
        assert!(!text.contains(['\r', '\0']), "bob got {text:?}");
        assert!(text.starts_with(":ann!"), "bob got {text:?}");
        if text.contains(" QUIT ") {
            break;
        }
    }
    bob.hears_nothing();
}

/// 36: A member may be in so many channels, and is told at the next.
fn joining_without_end_is_capped(ctx: &Ctx) {
    let server = ctx.busy_chat(&["--max-channels", "3"]);
    let mut ann = server.member("ann");
    for channel in ["#1", "#2", "#3"] {
        ann.join(channel);
    }
    assert_eq!(ann.ask("JOIN #4", "405").param(1), "#4");
    ann.say("JOIN #5,#6");
    assert_eq!(ann.gets("405").param(1), "#5");
    assert_eq!(ann.gets("405").param(1), "#6");
    ann.say("PART #2");
    ann.expect("ann PART #2");
    ann.join("#4");
}
